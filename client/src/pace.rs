//! How fast a seeder answers, as far as is known: a rule without a clock.
//!
//! What a request takes is a time that every request takes, and a time for each byte that comes back. Both are moving
//! averages. What is known loses weight with its age: the part of an estimate that lies above what is usual halves
//! every few seconds, so that one who was slow or failed is tried again, the later the slower it was.

use std::time::Duration;

/// Answers up to this length tell how long any request takes; longer ones tell what a byte takes. Bytes.
const SMALL: u32 = 32 << 10;
/// After this without word, what is above the usual counts half.
const HALF_LIFE: Duration = Duration::from_secs(5);
/// What a failure counts like: hours at first, a moment when it was minutes ago.
const FAILURE: Duration = Duration::from_secs(3600);
/// What wrong bytes count like. Nothing makes up for them.
const LIE: Duration = Duration::from_secs(u32::MAX as u64);
/// A share and a time above the usual within which nobody is called slow.
const SLOW_FACTOR: u32 = 2;
const SLOW_FLOOR: Duration = Duration::from_millis(5);

/// What is known of one seeder.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// What any request takes.
    each: Option<Duration>,
    /// What a MiB takes beyond that.
    per_mib: Option<Duration>,
    failed: bool,
    lied: bool,
}

impl Pace {
    /// Notes an answer that says nothing of how long reads take.
    pub fn worked(&mut self) {
        self.failed = false;
    }

    /// Notes an answer of so many bytes and how long it took.
    pub fn answered(&mut self, bytes: u32, took: Duration) {
        self.worked();
        if bytes <= SMALL {
            self.each = Some(mix(self.each, took));
        } else {
            let beyond = took.saturating_sub(self.each.unwrap_or_default());
            self.per_mib = Some(mix(self.per_mib, scale(beyond, 1 << 20, bytes)));
        }
    }

    /// Notes that nobody waited longer than that for so many bytes: it would have taken longer still.
    pub fn given_up(&mut self, bytes: u32, after: Duration) {
        if after <= self.expected(bytes).unwrap_or_default() {
            return;
        }
        if bytes <= SMALL {
            self.each = Some(after);
        } else {
            self.per_mib = Some(scale(after, 1 << 20, bytes));
        }
    }

    /// Notes a failure.
    pub fn failed(&mut self) {
        self.failed = true;
    }

    /// Notes wrong bytes.
    pub fn lied(&mut self) {
        self.lied = true;
    }

    /// What a request for so many bytes should take; nothing if nothing is known.
    pub fn expected(&self, bytes: u32) -> Option<Duration> {
        match (self.each, self.per_mib.filter(|_| bytes > SMALL)) {
            (None, None) => None,
            (each, per_mib) => {
                let beyond = per_mib.map_or(Duration::ZERO, |per_mib| scale(per_mib, bytes, 1 << 20));
                Some(each.unwrap_or_default().saturating_add(beyond))
            }
        }
    }

    /// How much there is against asking it, when others usually take `usual` and the last word of it is `age` old: zero
    /// unless it is slow.
    pub fn malus(&self, bytes: u32, usual: Duration, age: Duration) -> Duration {
        if self.lied {
            return LIE;
        }
        let expected = if self.failed { FAILURE } else { self.expected(bytes).unwrap_or(usual) };
        let halvings = u32::try_from(age.as_millis() / HALF_LIFE.as_millis()).unwrap_or(u32::MAX);
        let above = expected.saturating_sub(usual) / 1u32.checked_shl(halvings).unwrap_or(u32::MAX);
        let is_slow = above > usual * (SLOW_FACTOR - 1) + SLOW_FLOOR;
        if is_slow { above } else { Duration::ZERO }
    }
}

/// A moving average: the new value counts a quarter.
fn mix(old: Option<Duration>, new: Duration) -> Duration {
    old.map_or(new, |old| (old * 3 + new) / 4)
}

/// A time for one number of bytes as that for another.
fn scale(time: Duration, to: u32, from: u32) -> Duration {
    let nanos = time.as_nanos() * u128::from(to) / u128::from(from.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const USUAL: Duration = ms(10);
    const NOW: Duration = Duration::ZERO;

    /// Goal: small answers tell the delay, long ones the rate, and both together what to expect. Method: a line of 20 ms
    /// and 10 ms a MiB.
    #[test]
    fn delay_and_rate_are_told_apart() {
        let mut pace = Pace::default();
        assert_eq!(pace.expected(1 << 20), None);
        pace.answered(0, ms(20));
        pace.answered(2 << 20, ms(40));
        assert_eq!(pace.expected(100), Some(ms(20)));
        assert_eq!(pace.expected(4 << 20), Some(ms(60)));
    }

    /// Goal: a little slower is not slow, much slower is, and one of whom nothing is known is not. Method: around the edge.
    #[test]
    fn small_differences_count_nothing() {
        for (took, is_slow) in [(5, false), (24, false), (26, true)] {
            let mut pace = Pace::default();
            pace.answered(0, ms(took));
            assert_eq!(pace.malus(0, USUAL, NOW) > Duration::ZERO, is_slow, "{took} ms");
        }
        assert_eq!(Pace::default().malus(0, USUAL, NOW), Duration::ZERO);
    }

    /// Goal: whoever was slow or failed is tried again, the later the slower it was; a liar is not; an answer after a
    /// failure makes good. Method: age until nothing is held against them.
    #[test]
    fn bad_days_are_forgotten_lies_are_not() {
        let forgiven = |pace: &Pace| {
            (0..1_000).find(|s| pace.malus(0, USUAL, Duration::from_secs(*s)) == Duration::ZERO)
        };
        let (mut slow, mut slower, mut failed, mut liar) = <(Pace, Pace, Pace, Pace)>::default();
        slow.answered(0, ms(50));
        slower.given_up(0, ms(500));
        failed.failed();
        liar.lied();
        liar.answered(0, ms(1));
        assert_eq!((forgiven(&slow), forgiven(&slower)), (Some(10), Some(30)));
        assert!(forgiven(&failed).is_some_and(|after| after > 60));
        assert_eq!(forgiven(&liar), None);
        failed.answered(0, ms(5));
        assert_eq!(forgiven(&failed), Some(0));
    }

    /// Goal: a request that was called back early says nothing, one called back late does. Method: both, on a known pace.
    #[test]
    fn calling_back_counts_when_it_was_late() {
        let mut pace = Pace::default();
        pace.answered(0, ms(30));
        pace.given_up(0, ms(20));
        assert_eq!(pace.expected(0), Some(ms(30)));
        pace.given_up(0, ms(80));
        assert_eq!(pace.expected(0), Some(ms(80)));
    }
}
