//! How a lane changes, whole: what came in one message, or in pages.

use tallow_types::LeafIndex;
use tallow_types::commit::{LaneChange, Leaf};

/// A [`LaneChange`] of any length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Leaves kept from the front.
    pub keep: LeafIndex,
    /// Leaves among those kept that become empty.
    pub dropped: Vec<LeafIndex>,
    /// Leaves added behind them, empty ones as `None`.
    pub appended: Vec<Option<Leaf>>,
}

impl From<LaneChange> for Change {
    fn from(change: LaneChange) -> Self {
        let LaneChange { keep, dropped, appended } = change;
        Self { keep, dropped: dropped.into_vec(), appended: appended.into_vec() }
    }
}

impl Change {
    /// The same with leaves that came before, in pages.
    #[must_use]
    pub fn behind(self, mut pages: Vec<Option<Leaf>>) -> Self {
        pages.extend(self.appended);
        Self { appended: pages, ..self }
    }
}
