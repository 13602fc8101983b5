//! What may be asked and answered, in how many bytes: one table for both ends and both transports.

use tallow_types::fault::{Code, Fault};
use tallow_types::limits::{
    BLOCK_MAX, FRAME_HEADER_MAX, FRAME_PAYLOAD_MAX, SLICE_MAX, SNAPSHOT_PIECE_MAX, TX_MAX,
};
use tallow_types::wire::{Request, Response};

use crate::stream::HEADER_FREE;
use crate::transport::Reply;

/// Bytes that a small answer's header may take: a fault with its text, a list of addresses, a lane with its commit.
pub const SMALL_HEADER_MAX: usize = 32 << 10;
/// Largest payload of a `Blocks` answer, so that one block always fits. Bytes.
pub const BLOCKS_PAYLOAD_MAX: usize = BLOCK_MAX;
/// Largest encoded epoch proof. Bytes.
pub const PROOF_MAX: usize = 512 << 10;

/// How one kind of request is treated.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Largest payload of the request. Bytes.
    pub request_payload: usize,
    /// Largest header of the answer. Bytes.
    pub answer_header: usize,
    /// Largest payload of the answer. Bytes.
    pub answer_payload: usize,
    /// How long the request itself asks the peer to wait. Milliseconds.
    pub wait_ms: u64,
    /// Whether it changes something there, so that it runs to its end once begun.
    pub writes: bool,
    accepts: fn(&Response) -> bool,
}

impl Rule {
    const fn small(accepts: fn(&Response) -> bool) -> Self {
        Self {
            request_payload: 0,
            answer_header: SMALL_HEADER_MAX,
            answer_payload: 0,
            wait_ms: 0,
            writes: false,
            accepts,
        }
    }

    const fn list(accepts: fn(&Response) -> bool) -> Self {
        Self { answer_header: FRAME_HEADER_MAX, ..Self::small(accepts) }
    }

    const fn write(request_payload: usize, accepts: fn(&Response) -> bool) -> Self {
        Self { request_payload, writes: true, ..Self::small(accepts) }
    }

    const fn payload(answer_payload: usize, accepts: fn(&Response) -> bool) -> Self {
        Self { answer_payload, ..Self::small(accepts) }
    }

    /// The rule for bytes that are no request: nothing but a fault answers them.
    pub(crate) const fn nothing() -> Self {
        Self::small(|_| false)
    }

    /// The rule for a request.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        match request {
            Request::Hello { .. } => Self::small(|r| matches!(r, Response::Hello { .. })),
            Request::Store { .. } => Self::write(FRAME_PAYLOAD_MAX, |r| matches!(r, Response::Stored)),
            Request::Countersign { .. } => Self::write(0, |r| matches!(r, Response::Countersigned { .. })),
            Request::Fence { .. } => Self::write(0, |r| matches!(r, Response::Fenced { .. })),
            Request::Lane { .. } => Self::small(|r| matches!(r, Response::Lane(_))),
            Request::Commits { .. } => Self::list(|r| matches!(r, Response::Commits { .. })),
            Request::Leaves { .. } => Self::list(|r| matches!(r, Response::Leaves { .. })),
            Request::Read { length, .. } => {
                Self::payload((*length).min(SLICE_MAX) as usize, |r| matches!(r, Response::Read))
            }
            Request::Accept { .. } => Self::write(0, |r| matches!(r, Response::Accepted(_))),
            Request::Status { wait, .. } => {
                Self { wait_ms: wait.get(), ..Self::small(|r| matches!(r, Response::Status(_))) }
            }
            Request::Submit => Self::write(TX_MAX, |r| matches!(r, Response::Applied(_))),
            Request::Prove => Self::write(PROOF_MAX, |r| matches!(r, Response::Proven)),
            Request::Receipt { .. } => Self::small(|r| matches!(r, Response::Receipt(_))),
            Request::Blocks { wait, .. } => Self {
                wait_ms: wait.get(),
                ..Self::payload(BLOCKS_PAYLOAD_MAX, |r| matches!(r, Response::Blocks { .. }))
            },
            Request::State { .. } => Self::list(|r| matches!(r, Response::State { .. })),
            Request::Scan { .. } => Self::list(|r| matches!(r, Response::Scan { .. })),
            Request::Snapshot { .. } => {
                Self::payload(SNAPSHOT_PIECE_MAX, |r| matches!(r, Response::Snapshot { .. }))
            }
            Request::Tick { .. } => Self::write(0, |r| matches!(r, Response::Ticked { .. })),
            Request::Damaged { .. } => Self::list(|r| matches!(r, Response::Damaged { .. })),
            Request::Stage { .. } => Self::write(0, |r| matches!(r, Response::Staged)),
            Request::Commit { .. } => {
                Self::write(FRAME_PAYLOAD_MAX, |r| matches!(r, Response::Countersigned { .. }))
            }
        }
    }

    /// Whether a response is of the kind asked for.
    #[must_use]
    pub fn accepts(&self, response: &Response) -> bool {
        (self.accepts)(response)
    }

    /// Takes an answer for what it is.
    ///
    /// # Errors
    /// The peer's own fault, or `Garbage` if the answer is of another kind, too long, or its parts don't fit.
    pub fn judge(&self, reply: Reply) -> Result<Reply, Fault> {
        if let Response::Failed(fault) = reply.response {
            return Err(fault);
        }
        if !self.accepts(&reply.response) {
            return Err(garbage("the peer answered with another kind of message"));
        }
        if reply.payload.len() > self.answer_payload {
            return Err(garbage(format!(
                "the peer answered with {} bytes, at most {} were asked for",
                reply.payload.len(),
                self.answer_payload
            )));
        }
        if let Response::Blocks { lengths } = &reply.response {
            let sum: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
            if sum != reply.payload.len() as u64 {
                return Err(garbage("the lengths of the blocks do not add up to the bytes that came"));
            }
        }
        Ok(reply)
    }
}

/// Checks the size of a request before it is sent, and again before it is taken.
pub(crate) fn check_request(rule: &Rule, header: &[u8], payload: &[u8]) -> Result<(), Fault> {
    if header.len() > FRAME_HEADER_MAX {
        return Err(malformed(format!("the request is {} bytes, limit {FRAME_HEADER_MAX}", header.len())));
    }
    check_request_parts(rule, header.len(), payload.len())
}

/// Checks the payload of a request against the limit of its kind, and that what asks for payload is short: the server
/// takes memory for a long header before it knows what it asks for.
pub(crate) fn check_request_parts(rule: &Rule, header_len: usize, length: usize) -> Result<(), Fault> {
    if header_len > HEADER_FREE && rule.answer_payload > 0 {
        return Err(malformed(format!(
            "the request asks for payload in {header_len} bytes, limit {HEADER_FREE}"
        )));
    }
    if length > rule.request_payload {
        let limit = rule.request_payload;
        return Err(malformed(format!("the request carries {length} bytes, its kind may carry {limit}")));
    }
    Ok(())
}

/// The service's reply and its encoding; an `Internal` fault in its place if it breaks the limits of its kind, which
/// the caller would take for an attack.
pub(crate) fn within_limits(rule: &Rule, reply: Reply) -> (Reply, Vec<u8>) {
    let header = tallow_types::encode(&reply.response);
    if header.len() <= rule.answer_header && reply.payload.len() <= rule.answer_payload {
        return (reply, header);
    }
    let text =
        format!("the answer has {} + {} bytes, more than its kind may", header.len(), reply.payload.len());
    let response = Response::Failed(Fault::new(Code::Internal, text));
    let header = tallow_types::encode(&response);
    (Reply::new(response), header)
}

/// A call to one's own key.
pub(crate) fn to_oneself() -> Fault {
    Fault::new(Code::Unsupported, "this is the node itself: it does not call itself")
}

/// An answer that is none.
pub(crate) fn garbage(text: impl Into<String>) -> Fault {
    Fault::new(Code::Garbage, text)
}

/// A peer that is not there.
pub(crate) fn unreachable(text: impl Into<String>) -> Fault {
    Fault::new(Code::Unreachable, text)
}

/// A request that is none.
pub(crate) fn malformed(text: impl Into<String>) -> Fault {
    Fault::new(Code::Malformed, text)
}
