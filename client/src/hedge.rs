//! When a read asks one seeder more than it needs: a rule without a clock.
//!
//! A read needs k answers and asks k seeders. How long is too long is told by the others: once half of k have answered,
//! twice the time that they took; before that, twice what was expected of those asked. Each spare doubles the wait for
//! the next; when there are half as many as answers are needed, further ones come seldom. So a slow line, on which all are
//! late, carries little in vain, and whoever can answer is asked in the end. One that fails, or has fallen silent for so
//! long that the transport gives it up, is replaced at once and is no spare.

use std::time::Duration;

/// Within this nobody dawdles: a process may wait that long for its turn on a busy machine.
const FLOOR: Duration = Duration::from_millis(10);
/// Between spares beyond half of what is needed.
const SELDOM: Duration = Duration::from_secs(4);
/// Longer than any wait; what is known of a seeder may be absurd.
const LONGEST: Duration = Duration::from_secs(60);

/// One read that waits for `need` answers.
#[derive(Debug)]
pub(crate) struct Hedge {
    need: usize,
    expected: Duration,
    /// When answers came, since the read began; ascending.
    came: Vec<Duration>,
    spares: u32,
}

impl Hedge {
    /// `expected` is what the slowest of those asked should take.
    pub fn new(need: usize, expected: Duration) -> Self {
        Self { need, expected, came: Vec::with_capacity(need), spares: 0 }
    }

    /// Notes an answer, by the time since the read began.
    pub fn answered(&mut self, at: Duration) {
        self.came.push(at);
    }

    /// Notes that a spare was asked.
    pub fn spared(&mut self) {
        self.spares += 1;
    }

    /// When the next spare is due, since the read began.
    pub fn due(&self) -> Duration {
        let half = self.need.div_ceil(2).max(1);
        let usual = self.came.get(half - 1).copied().unwrap_or(self.expected);
        let patience = usual.saturating_mul(2).saturating_add(FLOOR).min(LONGEST);
        let half = u32::try_from(half).unwrap_or(u32::MAX);
        let doubled = patience.saturating_mul(1 << self.spares.min(half).min(10)).min(LONGEST);
        doubled + SELDOM * (self.spares + 1).saturating_sub(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Goal: what is late is told by the others once half have answered, and by what was expected before. Method: four of
    /// eight answers, much sooner and much later than expected.
    #[test]
    fn patience_follows_the_others() {
        for (last, due) in [(6, 22), (2_000, 4_010)] {
            let mut hedge = Hedge::new(8, ms(50));
            for at in 1..4 {
                hedge.answered(ms(at));
                assert_eq!(hedge.due(), ms(110), "three of eight say nothing yet");
            }
            hedge.answered(ms(last));
            assert_eq!(hedge.due(), ms(due));
        }
    }

    /// Goal: a line on which everybody is slow costs few spares, each after twice the wait; in the end everybody is asked,
    /// whatever was expected. Method: no answer comes; ask whenever one is due.
    #[test]
    fn spares_are_few_at_first() {
        let mut hedge = Hedge::new(10, ms(20));
        let due: Vec<Duration> = std::iter::repeat_with(|| {
            let due = hedge.due();
            hedge.spared();
            due
        })
        .take(8)
        .collect();
        assert_eq!(due, [50, 100, 200, 400, 800, 5_600, 9_600, 13_600].map(ms));
        let mut absurd = Hedge::new(10, Duration::MAX);
        (0..10).for_each(|_| absurd.spared());
        assert!(absurd.due() < Duration::from_secs(100));
    }
}
