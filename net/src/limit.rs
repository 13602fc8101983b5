//! How many bytes a second may go one way, over all connections together.
//!
//! A [`Limit`] is given out in pieces of at most 1/64 of a second, to those who ask first, so streams that move bytes at
//! the same time get equal parts. Messages without payload (signs of life, commits, questions) never wait; what they
//! take is taken from the others.
//!
//! Guarantees: in any time `t`, payload of at most `rate * (t + BURST)` and one piece begins its way; time that nobody
//! used beyond [`BURST`] is lost. Not counted is what the layers below add, some 3 %.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a limit may be saved up for.
const BURST: Duration = Duration::from_millis(100);
/// Pieces that a second is given out in.
const PIECES: u64 = 64;
/// Smallest piece. Bytes.
const PIECE_MIN: u64 = 2 << 10;

/// A limit on bytes a second, or none. Clones share it.
#[derive(Clone, Default)]
pub struct Limit(Option<Arc<Shared>>);

struct Shared {
    begun: Instant,
    bucket: Mutex<Bucket>,
    piece: usize,
}

impl Limit {
    /// The least that can be asked for. Bytes a second: below it, a hundred streams are slower than what nodes put up
    /// with ([`Tuning::rate`](crate::Tuning::rate)).
    pub const MIN: u64 = 125_000;

    /// So many bytes a second, at least [`Limit::MIN`].
    #[must_use]
    pub fn of(rate: u64) -> Self {
        let rate = rate.max(Self::MIN);
        let piece = usize::try_from((rate / PIECES).max(PIECE_MIN)).unwrap_or(usize::MAX);
        let bucket = Mutex::new(Bucket::new(rate));
        Self(Some(Arc::new(Shared { begun: Instant::now(), bucket, piece })))
    }

    /// Most bytes to move after one `wait`.
    pub(crate) fn piece(&self) -> usize {
        self.0.as_ref().map_or(usize::MAX, |shared| shared.piece)
    }

    /// Waits until so many bytes may go. Answers how long it took.
    pub(crate) async fn wait(&self, bytes: usize) -> Duration {
        let Some(shared) = &self.0 else { return Duration::ZERO };
        let now = shared.begun.elapsed();
        let at = shared.take(bytes, now);
        if at > now {
            tokio::time::sleep_until(shared.begun + at).await;
        }
        shared.begun.elapsed().saturating_sub(now)
    }

    /// Counts bytes that don't wait.
    pub(crate) fn note(&self, bytes: usize) {
        if let Some(shared) = &self.0 {
            let mut bucket = shared.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.note(bytes as u64, shared.begun.elapsed());
        }
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("Limit(none)"),
            Some(shared) => {
                write!(f, "Limit({} B/s)", shared.bucket.lock().unwrap_or_else(PoisonError::into_inner).rate)
            }
        }
    }
}

impl Shared {
    fn take(&self, bytes: usize, now: Duration) -> Duration {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes as u64, now)
    }
}

/// When bytes may go. It knows no clock: times are those since some start.
struct Bucket {
    rate: u64,
    /// When all that was taken has had its time.
    free: Duration,
}

impl Bucket {
    /// Full at time zero.
    const fn new(rate: u64) -> Self {
        Self { rate, free: Duration::ZERO }
    }

    /// Takes bytes; answers from when on they may go, which is `now` or earlier if at once.
    fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let at = self.free.max(now.saturating_sub(BURST));
        // A second of `rate` bytes; rounded up, so that many small takes are not for nothing.
        let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.rate.max(1)));
        self.free = at.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        at
    }

    /// Takes bytes that don't wait. They hold others up for a moment at most, however many they are.
    fn note(&mut self, bytes: u64, now: Duration) {
        let most = self.free.max(now.saturating_add(BURST));
        self.take(bytes, now);
        self.free = self.free.min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Goal: in no span of time more goes than the rate allows, and somebody who always asks gets all of it. Method:
        /// random asks at random times; every pair of them bounds a span.
        #[test]
        fn no_span_has_more_than_its_share(
            rate in 1_000u64..10_000_000,
            asks in prop::collection::vec((0u64..400, 1u64..70_000), 1..60),
        ) {
            let mut bucket = Bucket::new(rate);
            let (mut now, mut went) = (Duration::ZERO, Vec::new());
            for (pause_ms, bytes) in asks {
                now += Duration::from_millis(pause_ms);
                went.push((bucket.take(bytes, now).max(now), bytes));
            }
            let allowed = |span: Duration| rate as f64 * (span + BURST).as_secs_f64() + 1.0;
            for first in 0..went.len() {
                for last in first..went.len() {
                    // The last one is the piece that begins within the span.
                    let sum: u64 = went[first..last].iter().map(|(_, bytes)| bytes).sum();
                    let span = went[last].0.saturating_sub(went[first].0);
                    prop_assert!(sum as f64 <= allowed(span), "{sum} bytes in {span:?}");
                }
            }
            let all: u64 = went.iter().map(|(_, bytes)| bytes).sum();
            let most = now + Duration::from_secs_f64(all as f64 / rate as f64) + Duration::from_micros(1);
            prop_assert!(bucket.free <= most, "no time is wasted");
        }
    }

    /// Goal: a rest is saved up for a tenth of a second and no longer. Method: a table of takes by hand.
    #[test]
    fn a_rest_is_saved_for_a_moment() {
        let ms = Duration::from_millis;
        let mut bucket = Bucket::new(1_000_000);
        assert_eq!(bucket.take(50_000, ms(0)), ms(0));
        assert_eq!(bucket.take(50_000, ms(0)), ms(50));
        assert_eq!(bucket.take(1_000, ms(10_000)), ms(9_900));
        assert_eq!(bucket.take(99_000, ms(10_000)), ms(9_901));
        assert_eq!(bucket.take(1, ms(10_000)), ms(10_000));
    }

    /// Goal: what doesn't wait holds others up for a moment and no longer. Method: far more than the rate allows.
    #[test]
    fn what_does_not_wait_is_no_debt() {
        let mut bucket = Bucket::new(1_000_000);
        for _ in 0..1000 {
            bucket.note(4_096, Duration::from_secs(5));
        }
        assert_eq!(bucket.take(1, Duration::from_secs(5)), Duration::from_secs(5) + BURST);
    }

    /// Goal: streams share a limit evenly, and what doesn't wait is counted. Method: paused time, two that take the same
    /// pieces, one that never waits.
    #[tokio::test(start_paused = true)]
    async fn streams_share_evenly() {
        let limit = Limit::of(1_000_000);
        let begun = Instant::now();
        let stream = |limit: Limit| async move {
            let mut moved = 0_u64;
            while begun.elapsed() < Duration::from_secs(10) {
                limit.wait(10_000).await;
                moved += 10_000;
            }
            moved
        };
        let talk = async {
            for _ in 0..100 {
                limit.note(50_000);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let (one, two, ()) = tokio::join!(stream(limit.clone()), stream(limit.clone()), talk);
        assert!(one.abs_diff(two) <= 20_000, "{one} and {two}");
        assert!((4_900_000..5_200_000).contains(&(one + two)), "{}", one + two);
    }

    /// Goal: without a limit nobody waits, and the least is a floor. Method: both.
    #[test]
    fn none_and_too_little() {
        assert_eq!(Limit::default().piece(), usize::MAX);
        assert_eq!(format!("{:?}", Limit::of(1)), "Limit(125000 B/s)");
    }
}
