//! What was written but isn't named by the index yet.

use std::collections::{BTreeMap, VecDeque};

use tallow_types::SliceRoot;

use super::{LaneKey, SliceKey};

#[derive(Default)]
struct Group {
    slices: BTreeMap<SliceKey, (SliceRoot, u32)>,
    lanes: BTreeMap<LaneKey, u64>,
}

/// The group that is being laid and those on their way to the index.
#[derive(Default)]
pub(super) struct Ahead {
    current: Group,
    sent: VecDeque<(u64, Group)>,
}

impl Ahead {
    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.sent.iter().map(|(_, group)| group).chain([&self.current])
    }

    /// Root and length of a slice on its way.
    pub(super) fn find(&self, key: &SliceKey) -> Option<(SliceRoot, u32)> {
        self.groups().find_map(|group| group.slices.get(key).copied())
    }

    /// Bytes on their way into a lane.
    pub(super) fn growth_of(&self, lane: LaneKey) -> u64 {
        self.groups().filter_map(|group| group.lanes.get(&lane)).sum()
    }

    /// Bytes on their way.
    pub(super) fn growth(&self) -> u64 {
        self.groups().flat_map(|group| group.lanes.values()).sum()
    }

    /// Whether no group but the present one is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn add(&mut self, key: SliceKey, root: SliceRoot, length: u32) {
        self.current.slices.insert(key, (root, length));
    }

    pub(super) fn grow(&mut self, lane: LaneKey, bytes: u64) {
        *self.current.lanes.entry(lane).or_default() += bytes;
    }

    /// The present group goes on its way.
    pub(super) fn close(&mut self, number: u64) {
        self.sent.push_back((number, std::mem::take(&mut self.current)));
    }

    /// The index has the groups up to this one.
    pub(super) fn forget(&mut self, number: u64) {
        while self.sent.front().is_some_and(|(sent, _)| *sent <= number) {
            self.sent.pop_front();
        }
    }
}
