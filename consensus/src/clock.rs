//! Where a validator's time comes from.

use tallow_types::TimeMs;

/// A validator's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The machine's. Block times never go back, whatever the machine says.
    Wall,
    /// Stands still, but for a millisecond a block, and moves when told: tests, and `tick` on a development network.
    Manual,
}

/// The machine's time.
#[must_use]
pub fn wall() -> TimeMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    TimeMs::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
