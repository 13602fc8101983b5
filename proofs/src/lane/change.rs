//! A change of a lane before it is made: what the lane would be, at the cost of the nodes that differ.
//!
//! Guarantees: trying a change copies and hashes O(changes x log leaves) nodes and leaves the tree as it is; taking it
//! then writes those nodes and no others.

use tallow_types::commit::{LaneChange, Leaf};
use tallow_types::limits::LANE_LEAVES_MAX;
use tallow_types::{Bytes, LaneRoot, LeafIndex};

use super::{LaneError, Node, SumTree, check_length, empty, height};

/// What a change makes of a lane: the nodes that differ from the tree it was made from.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The top of the tree that it was made from.
    before: Node,
    /// Leaves kept from the front.
    keep: usize,
    leaves: usize,
    /// `nodes[h]`: places and nodes of height `h`, in order. Behind those kept there are no gaps.
    nodes: Vec<Vec<(usize, Node)>>,
    top: Node,
}

impl Changed {
    /// Number of leaves, empty ones counted.
    #[must_use]
    pub const fn len(&self) -> LeafIndex {
        LeafIndex::new(self.leaves as u64)
    }

    /// Whether there are no leaves at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.leaves == 0
    }

    /// Length of all slices.
    #[must_use]
    pub const fn bytes(&self) -> Bytes {
        Bytes::new(self.top.sum)
    }

    /// The root that a commit names.
    #[must_use]
    pub fn root(&self) -> LaneRoot {
        self.top.root(height(self.leaves as u64))
    }

    /// The node at a place, as it is after the change.
    fn node(&self, tree: &SumTree, h: usize, at: usize) -> Node {
        if at << h >= self.leaves {
            return empty(h);
        }
        match self.nodes[h].binary_search_by_key(&at, |(place, _)| *place) {
            Ok(found) => self.nodes[h][found].1,
            Err(_) => tree.levels[h][at],
        }
    }
}

impl SumTree {
    /// What the lane would be with its first `keep` leaves, those of them in `dropped` empty, and `appended` behind them.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub fn change(
        &self,
        keep: LeafIndex,
        dropped: &[LeafIndex],
        appended: &[Option<Leaf>],
    ) -> Result<Changed, LaneError> {
        if keep > self.len() {
            return Err(LaneError::NoLeaf { index: keep, leaves: self.len() });
        }
        if let Some(&index) = dropped.iter().find(|&&index| index >= keep) {
            return Err(LaneError::NoLeaf { index, leaves: keep });
        }
        appended.iter().flatten().try_for_each(check_length)?;
        if keep.get() + appended.len() as u64 > LANE_LEAVES_MAX {
            return Err(LaneError::Full);
        }
        let place = |index: LeafIndex| usize::try_from(index.get()).expect("no more than are in memory");
        let keep = place(keep);
        let mut bottom: Vec<(usize, Node)> = dropped.iter().map(|index| (place(*index), empty(0))).collect();
        bottom.sort_unstable_by_key(|(at, _)| *at);
        bottom.dedup_by_key(|(at, _)| *at);
        // What was joined with leaves that go is joined anew from the last leaf that stays.
        if let Some(last) = keep.checked_sub(1).filter(|_| keep < self.levels[0].len())
            && bottom.last().is_none_or(|(at, _)| *at != last)
        {
            bottom.push((last, self.levels[0][last]));
        }
        bottom.extend((keep..).zip(appended.iter().map(|leaf| Node::of(leaf.as_ref()))));
        let leaves = keep + appended.len();
        let mut changed = Changed { before: self.top(), keep, leaves, nodes: vec![bottom], top: self.top() };
        for h in 1..=height(leaves as u64) {
            let mut above: Vec<(usize, Node)> = Vec::with_capacity(changed.nodes[h - 1].len().div_ceil(2));
            for (below, _) in &changed.nodes[h - 1] {
                let at = below >> 1;
                if above.last().is_none_or(|(last, _)| *last != at) {
                    let left = changed.node(self, h - 1, 2 * at);
                    let right = changed.node(self, h - 1, 2 * at + 1);
                    above.push((at, Node::join(&left, &right).expect(super::NO_OVERFLOW)));
                }
            }
            changed.nodes.push(above);
        }
        changed.top = changed.node(self, height(leaves as u64), 0);
        Ok(changed)
    }

    /// Takes a change that was tried on this very tree.
    ///
    /// # Panics
    /// If the change was tried on another tree, which no caller may do.
    pub fn accept(&mut self, changed: Changed) {
        assert_eq!(self.top(), changed.before, "a change is taken by the tree that it was tried on");
        self.levels.resize_with(changed.nodes.len(), Vec::new);
        for (h, nodes) in changed.nodes.into_iter().enumerate() {
            let level = &mut self.levels[h];
            level.truncate(changed.keep.div_ceil(1 << h));
            for (at, node) in nodes {
                if at < level.len() {
                    level[at] = node;
                } else {
                    level.push(node);
                }
            }
        }
    }

    /// Applies a change whole; on error the lane is as it was.
    ///
    /// # Errors
    /// See [`LaneError`].
    pub fn apply(&mut self, change: &LaneChange) -> Result<(), LaneError> {
        let changed = self.change(change.keep, &change.dropped, &change.appended)?;
        self.accept(changed);
        Ok(())
    }
}
