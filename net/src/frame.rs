//! The bytes on a stream. A stream belongs to the one who opened it, the *caller*; the other end is the *server*.
//!
//! ```text
//! | header_len u32 | payload_len u32 | id u64 | kind u8 | header | payload |      little-endian, 17 bytes of head
//!
//! caller: Open                                     ... Request(id) ... Cancel(id) ...
//! server:      Ready(credit, most requests)        ... Alive ... Answer(id) ...
//! ```
//! The header of `Request` and `Answer` is the tagged encoding of the message, that of `Ready` is [`Ready`]; the other
//! kinds are heads alone. The layout's version is in the name of the protocol, [`PROTOCOL`].
//!
//! Guarantees: a head that breaks a limit is refused before memory is taken for what follows it. Payload goes out from
//! where it lies, in pieces of at most 64 KiB. Every read and write within a frame ends after a time without a byte,
//! and every frame that, after a grace, falls behind the least rate of its [`Pace`]; waiting for one's own [`Limit`]
//! does not count.
//!
//! Does not: know requests from each other (see `exchange`), multiplex (see `stream`).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tallow_types::limits::{FRAME_HEADER_MAX, FRAME_PAYLOAD_MAX};
use tallow_types::tagged;
use tokio::time::{Instant, timeout, timeout_at};

use crate::limit::Limit;

/// Names this layout when a stream is opened.
pub(crate) const PROTOCOL: &str = "/tallow/frames/1";
/// Bytes in front of each frame.
pub(crate) const HEAD_LEN: usize = 17;
/// Payload is handed to the stream in pieces of at most this. Bytes.
const PIECE: usize = 64 << 10;
/// A header of at most this goes past the limit on bytes a second: questions, commits, signs of life. Bytes.
const HEADER_UNLIMITED: usize = 4 << 10;
/// Largest encoding of [`Ready`]. Bytes.
const READY_MAX: usize = 64;
/// How often a frame that makes no progress looks whether the rate that it must keep has changed.
const TICK: Duration = Duration::from_secs(1);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First frame of the caller.
    Open,
    /// First frame of the server.
    Ready,
    /// A request; its id is new on this stream.
    Request,
    /// The one answer to the request of that id.
    Answer,
    /// The server is at work on something.
    Alive,
    /// The caller has no use for the answer any more. It is answered all the same.
    Cancel,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Open, Self::Ready, Self::Request, Self::Answer, Self::Alive, Self::Cancel];

    const fn number(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Ready => 2,
            Self::Request => 3,
            Self::Answer => 4,
            Self::Alive => 5,
            Self::Cancel => 6,
        }
    }

    /// Largest header and payload of this kind. Bytes.
    const fn limits(self) -> (usize, usize) {
        match self {
            Self::Request | Self::Answer => (FRAME_HEADER_MAX, FRAME_PAYLOAD_MAX),
            Self::Ready => (READY_MAX, 0),
            Self::Open | Self::Alive | Self::Cancel => (0, 0),
        }
    }
}

/// The first bytes of a frame, within the limits of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) header_len: usize,
    pub(crate) payload_len: usize,
}

impl Head {
    fn to_bytes(self) -> [u8; HEAD_LEN] {
        let length =
            |length: usize| u32::try_from(length).expect("lengths are limited far below").to_le_bytes();
        let mut bytes = [0; HEAD_LEN];
        bytes[..4].copy_from_slice(&length(self.header_len));
        bytes[4..8].copy_from_slice(&length(self.payload_len));
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16] = self.kind.number();
        bytes
    }

    fn parse(bytes: &[u8; HEAD_LEN]) -> Result<Self, FrameError> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let number = bytes[16];
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.number() == number)
            .ok_or(FrameError::UnknownKind { number })?;
        let (header_len, payload_len) = (word(0) as usize, word(4) as usize);
        let (header_max, payload_max) = kind.limits();
        if header_len > header_max || payload_len > payload_max {
            return Err(FrameError::TooLong { header_len, payload_len });
        }
        let id = u64::from(word(8)) | u64::from(word(12)) << 32;
        Ok(Self { kind, id, header_len, payload_len })
    }
}

/// What the server grants when a stream opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Ready {
    /// Units of requests and their answers outstanding at once; see `exchange::units`.
    pub(crate) credit: u32,
    /// Requests outstanding at once.
    pub(crate) requests: u32,
}
tagged!(Ready, b"RY", 1, "stream grant", READY_MAX);

/// Why a stream is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the stream ended")]
    Ended,
    #[error("the node stops")]
    Stopped,
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    #[error("the peer fell silent")]
    Silent,
    #[error("the peer says that it is at work, but answers nothing")]
    Stuck,
    #[error("the peer is too slow: {bytes} bytes of a frame in {time:?}")]
    Slow { bytes: u64, time: Duration },
    #[error("the peer sent a frame of {header_len} + {payload_len} bytes, which breaks a limit")]
    TooLong { header_len: usize, payload_len: usize },
    #[error("the peer sent a frame of unknown kind {number}")]
    UnknownKind { number: u8 },
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
}

impl FrameError {
    /// Whether the peer sent what nobody may send; otherwise it, or the way to it, is merely gone.
    pub(crate) const fn is_violation(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::UnknownKind { .. } | Self::Protocol(_))
    }
}

/// When bytes last moved on a stream, shared by its two directions.
#[derive(Debug)]
pub(crate) struct Pulse {
    base: Instant,
    any_us: AtomicU64,
    message_us: AtomicU64,
}

impl Pulse {
    pub(crate) fn new() -> Arc<Self> {
        let base = Instant::now();
        Arc::new(Self { base, any_us: AtomicU64::new(0), message_us: AtomicU64::new(0) })
    }

    /// Notes that a byte moved; `message` if it was part of a request or answer.
    pub(crate) fn beat(&self, message: bool) {
        let now = u64::try_from(self.base.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.any_us.store(now, Ordering::Relaxed);
        if message {
            self.message_us.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_byte(&self) -> Instant {
        self.base + Duration::from_micros(self.any_us.load(Ordering::Relaxed))
    }

    pub(crate) fn last_message_byte(&self) -> Instant {
        self.base + Duration::from_micros(self.message_us.load(Ordering::Relaxed))
    }
}

/// What a stream must keep to within a frame.
#[derive(Clone)]
pub(crate) struct Pace {
    idle: Duration,
    grace: Duration,
    rate: Arc<dyn Fn() -> u64 + Send + Sync>,
    limit: Limit,
}

impl Pace {
    /// A byte at least every `idle`, and when `grace` is over, `rate` bytes for each second since. The rate is asked
    /// for again and again, as it may depend on what else the node has to do.
    pub(crate) fn new(
        idle: Duration,
        grace: Duration,
        rate: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self { idle, grace, rate: Arc::new(rate), limit: Limit::default() }
    }

    /// And at most what a limit gives.
    pub(crate) fn within(mut self, limit: &Limit) -> Self {
        self.limit = limit.clone();
        self
    }

    /// How many of `length` bytes to move next, when they may move.
    async fn portion(&self, course: &mut Course, length: usize) -> usize {
        if course.is_free {
            self.limit.note(length);
            return length;
        }
        let portion = length.min(self.limit.piece());
        course.begun += self.limit.wait(portion).await;
        portion
    }

    /// Moves some bytes of a frame. They are taken if they are there, however late it is.
    async fn step(
        &self,
        course: &mut Course,
        work: impl Future<Output = io::Result<usize>>,
    ) -> Result<usize, FrameError> {
        let mut work = std::pin::pin!(work);
        let silent = Instant::now() + self.idle;
        loop {
            let at_rate = Duration::from_millis(course.bytes.saturating_mul(1000) / (self.rate)().max(1));
            let slow = course.begun + self.grace + at_rate;
            let look = Instant::now() + TICK;
            if let Ok(moved) = timeout_at(silent.min(slow).min(look), &mut work).await {
                let count = moved?;
                course.bytes += count as u64;
                return if count == 0 { Err(FrameError::Ended) } else { Ok(count) };
            }
            let now = Instant::now();
            if now >= silent {
                return Err(FrameError::Silent);
            }
            if now >= slow {
                return Err(FrameError::Slow { bytes: course.bytes, time: course.begun.elapsed() });
            }
        }
    }
}

/// How far a frame has come.
struct Course {
    begun: Instant,
    bytes: u64,
    /// Whether it goes past the limit, which counts it all the same.
    is_free: bool,
}

impl Course {
    fn begin(is_free: bool) -> Self {
        Self { begun: Instant::now(), bytes: 0, is_free }
    }
}

/// The incoming direction of a stream.
pub(crate) struct FrameReader<R> {
    inner: R,
    pulse: Arc<Pulse>,
    pace: Pace,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(inner: R, pulse: Arc<Pulse>, pace: Pace) -> Self {
        Self { inner, pulse, pace }
    }

    /// Waits for the next frame as long as it takes; once it has begun, it must go on.
    pub(crate) async fn head(&mut self) -> Result<Head, FrameError> {
        let mut bytes = [0; HEAD_LEN];
        let first = self.inner.read(&mut bytes).await?;
        if first == 0 {
            return Err(FrameError::Ended);
        }
        self.pulse.beat(false);
        self.fill(&mut bytes[first..], &mut Course::begin(true), false).await?;
        Head::parse(&bytes)
    }

    /// Reads the header that a head announced, without waiting for the limit if it is short. The memory is taken at
    /// once, so the length must have been checked.
    pub(crate) async fn header(&mut self, length: usize) -> Result<Bytes, FrameError> {
        self.whole(length, length <= HEADER_UNLIMITED).await
    }

    /// The same for a payload.
    pub(crate) async fn body(&mut self, length: usize) -> Result<Bytes, FrameError> {
        self.whole(length, false).await
    }

    async fn whole(&mut self, length: usize, is_free: bool) -> Result<Bytes, FrameError> {
        let mut bytes = BytesMut::zeroed(length);
        self.fill(&mut bytes, &mut Course::begin(is_free), true).await?;
        Ok(bytes.freeze())
    }

    /// Reads past what a head announced, without keeping it.
    pub(crate) async fn skip(&mut self, length: usize) -> Result<(), FrameError> {
        let mut piece = vec![0; length.min(PIECE)];
        let mut course = Course::begin(false);
        let mut rest = length;
        while rest > 0 {
            let now = rest.min(PIECE);
            self.fill(&mut piece[..now], &mut course, true).await?;
            rest -= now;
        }
        Ok(())
    }

    /// Waits for the end of the stream, whatever comes before it.
    pub(crate) async fn drain(&mut self) {
        let mut piece = [0; 1 << 10];
        while matches!(self.inner.read(&mut piece).await, Ok(1..)) {}
    }

    async fn fill(&mut self, bytes: &mut [u8], course: &mut Course, message: bool) -> Result<(), FrameError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut portion = self.pace.portion(course, rest.len()).await;
            while portion > 0 {
                let count = self.pace.step(course, self.inner.read(&mut rest[..portion])).await?;
                self.pulse.beat(message);
                portion -= count;
                rest = &mut rest[count..];
            }
        }
        Ok(())
    }
}

/// The outgoing direction of a stream.
pub(crate) struct FrameWriter<W> {
    inner: W,
    pulse: Arc<Pulse>,
    pace: Pace,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(inner: W, pulse: Arc<Pulse>, pace: Pace) -> Self {
        Self { inner, pulse, pace }
    }

    /// Writes a frame without payload.
    pub(crate) async fn bare(&mut self, kind: Kind, id: u64, header: &[u8]) -> Result<(), FrameError> {
        self.frame(kind, id, header, &[]).await
    }

    /// Writes a frame. The payload is not copied on this side of the stream.
    pub(crate) async fn frame(
        &mut self,
        kind: Kind,
        id: u64,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), FrameError> {
        let head = Head { kind, id, header_len: header.len(), payload_len: payload.len() };
        let mut front = Vec::with_capacity(HEAD_LEN + header.len());
        front.extend_from_slice(&head.to_bytes());
        front.extend_from_slice(header);
        let message = matches!(kind, Kind::Request | Kind::Answer);
        let mut course = Course::begin(front.len() <= HEADER_UNLIMITED);
        self.put(&front, &mut course, message).await?;
        course.is_free = false;
        self.put(payload, &mut course, message).await?;
        Ok(())
    }

    /// Hands everything written to the network.
    pub(crate) async fn flush(&mut self) -> Result<(), FrameError> {
        timeout(self.pace.idle, self.inner.flush()).await.map_err(|_| FrameError::Silent)??;
        Ok(())
    }

    /// Ends this direction, after everything written.
    pub(crate) async fn close(&mut self) -> Result<(), FrameError> {
        Ok(self.inner.close().await?)
    }

    async fn put(&mut self, bytes: &[u8], course: &mut Course, message: bool) -> Result<(), FrameError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut portion = self.pace.portion(course, rest.len().min(PIECE)).await;
            while portion > 0 {
                let count = self.pace.step(course, self.inner.write(&rest[..portion])).await?;
                self.pulse.beat(message);
                portion -= count;
                rest = &rest[count..];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
