//! The two traits between the network and everything above it.

use async_trait::async_trait;
use bytes::Bytes;
use tallow_types::PublicKey;
use tallow_types::fault::Fault;
use tallow_types::wire::{Request, Response};

use crate::peer::Peer;

/// An answer with the bytes that travel beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The answer.
    pub response: Response,
    /// Bytes of a slice, blocks or a snapshot piece; empty for all other answers.
    pub payload: Bytes,
}

impl Reply {
    /// An answer without payload.
    #[must_use]
    pub const fn new(response: Response) -> Self {
        Self { response, payload: Bytes::new() }
    }

    /// An answer with payload.
    #[must_use]
    pub const fn with(response: Response, payload: Bytes) -> Self {
        Self { response, payload }
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self::new(response)
    }
}

impl From<Fault> for Reply {
    fn from(fault: Fault) -> Self {
        Self::new(Response::Failed(fault))
    }
}

/// The way to other nodes.
///
/// # Guarantees
/// * **Kind.** `Ok` holds the response of the same name as the request, never `Response::Failed`, and a payload no
///   longer than that request allows. A peer's `Failed` is the `Err`.
/// * **At most once.** One call reaches the service at most once. After `Unreachable` it may or may not have.
/// * **An end.** A peer from which no byte comes for [`Tuning::idle`](crate::Tuning::idle) ends the call with
///   `Unreachable`. A request may take as long as it wants while the peer shows that it lives, up to
///   [`Tuning::patience`](crate::Tuning::patience).
/// * **Cancelling.** The future may be dropped at any time. The peer is told, and other calls don't notice.
#[async_trait]
pub trait Transport: Send + Sync {
    /// The key that services see as the caller of this transport's calls.
    fn key(&self) -> PublicKey;

    /// Asks a peer. Waits while the peer's credit is used up by earlier calls.
    ///
    /// # Errors
    /// The peer's own fault; `Unreachable` if it can't be reached or fell silent; `Garbage` if what came is not an
    /// answer to this request; `Malformed` if the request breaks a limit and was not sent.
    async fn call(&self, peer: &Peer, request: Request, payload: Bytes) -> Result<Reply, Fault>;
}

/// What answers calls.
///
/// # Contract
/// * The payload of a request is within the limit of its kind, and empty where the kind has none.
/// * `serve` of a request that only reads may be dropped at any await, when the caller has gone. One that writes
///   (`Store`, `Countersign`, `Fence`, `Accept`, `Submit`, `Prove`, `Tick`) runs to its end.
/// * A panic is answered as `Internal`, and so is an answer that breaks the limit of its kind.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers one request of the peer that proved to hold `from`.
    async fn serve(&self, from: PublicKey, request: Request, payload: Bytes) -> Reply;
}
