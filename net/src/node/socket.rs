//! A TCP socket that hands the system several frames in one call.
//!
//! The multiplexer above writes and flushes one frame at a time. Each would be a call of the system and a packet of its
//! own, which cost more than the copy made here. (Reading more at a time than is asked for gains nothing: measured.)
//!
//! Guarantees: bytes leave in their order. A flush may come back once as pending, with the task already woken, so that
//! what is written meanwhile goes out in the same call; one after which nothing was written reaches the system.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{AsyncRead, AsyncWrite};

/// Most bytes kept.
const BUFFER: usize = 64 << 10;

/// A socket with a buffer for what is written.
pub(super) struct Socket<S> {
    inner: S,
    outgoing: Vec<u8>,
    /// How much of `outgoing` the system has.
    sent: usize,
    /// Whether something was written since the last flush.
    is_fresh: bool,
}

impl<S> Socket<S> {
    pub(super) const fn new(inner: S) -> Self {
        Self { inner, outgoing: Vec::new(), sent: 0, is_fresh: false }
    }
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    /// Gives the system all that was written.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.outgoing[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.outgoing.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.outgoing.is_empty() && this.outgoing.len() + buf.len() > BUFFER {
            ready!(this.drain(cx))?;
        }
        if buf.len() >= BUFFER {
            return Pin::new(&mut this.inner).poll_write(cx, buf);
        }
        this.outgoing.extend_from_slice(buf);
        this.is_fresh = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.is_fresh) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.drain(cx))?;
        Pin::new(&mut this.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::AsyncWriteExt;
    use proptest::prelude::*;

    /// A system that takes and gives a few bytes at a time, now and then none yet.
    #[derive(Default)]
    struct Stub {
        steps: Vec<u8>,
        at: usize,
        calls: usize,
        written: Vec<u8>,
    }

    impl Stub {
        /// How many bytes the next call moves; `None` for not yet.
        fn step(&mut self, cx: &Context<'_>) -> Option<usize> {
            self.calls += 1;
            self.at += 1;
            let step = self.steps.get(self.at % self.steps.len().max(1)).copied().unwrap_or(255);
            if step == 0 {
                cx.waker().wake_by_ref();
                return None;
            }
            Some(usize::from(step) * 700)
        }
    }

    impl AsyncWrite for Stub {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let Some(step) = self.step(cx) else { return Poll::Pending };
            let count = step.min(buf.len());
            self.written.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap_or(0)).collect()
    }

    proptest! {
        /// Goal: what is written and flushed is what the system gets, whatever the sizes. Method: pieces of random sizes
        /// over a system that takes random amounts.
        #[test]
        fn bytes_keep_their_order(
            pieces in prop::collection::vec(1usize..90_000, 1..12),
            steps in prop::collection::vec(0u8..=255, 1..8).prop_filter("moves", |s| s.iter().any(|s| *s > 0)),
        ) {
            let all = bytes(pieces.iter().sum());
            let mut socket = Socket::new(Stub { steps, ..Stub::default() });
            futures::executor::block_on(async {
                let mut at = 0;
                for piece in &pieces {
                    socket.write_all(&all[at..at + piece]).await.expect("written");
                    at += piece;
                    if piece % 3 == 0 {
                        socket.flush().await.expect("flushed");
                    }
                }
                socket.flush().await.expect("flushed");
            });
            prop_assert!(socket.inner.written == all, "what was written differs");
        }
    }

    /// Goal: frames written one after the other, each flushed, reach the system together. Method: count its calls.
    #[test]
    fn frames_share_a_call() {
        let mut socket = Socket::new(Stub::default());
        let frame = bytes(16 << 10);
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        for _ in 0..3 {
            assert!(
                matches!(Pin::new(&mut socket).poll_write(&mut cx, &frame), Poll::Ready(Ok(n)) if n == frame.len())
            );
            assert!(Pin::new(&mut socket).poll_flush(&mut cx).is_pending());
        }
        assert_eq!(socket.inner.calls, 0);
        assert!(Pin::new(&mut socket).poll_flush(&mut cx).is_ready());
        assert_eq!((socket.inner.calls, socket.inner.written.len()), (1, 3 * frame.len()));
    }
}
