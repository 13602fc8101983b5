//! Looking for stripes that nothing refers to any more.

use std::collections::{BTreeMap, BTreeSet};

use tallow_types::unit::LeafIndex;

use super::committer::Committer;

impl Committer {
    /// Stripes that have been dead for longer than the grace; newly dead ones are noted.
    pub async fn droppable(&mut self) -> Vec<LeafIndex> {
        if !self.look_for_dead && self.dead.is_empty() {
            return Vec::new();
        }
        self.look_for_dead = false;
        let Some(listed) = self.listed().await else { return Vec::new() };
        let mut kept = self.works.packer.used();
        // Stripes of checkpoints that puts under way will name are dead only to the eye.
        if self.has_work() {
            kept.extend(
                self.book
                    .rows
                    .iter()
                    .zip(0u64..)
                    .filter(|(row, _)| row.as_ref().is_some_and(|row| !row.is_covered))
                    .map(|(_, leaf)| LeafIndex::new(leaf)),
            );
        }
        let now = self.works.clock.now();
        let dead = self.book.dead(&listed, &kept);
        self.dead.retain(|leaf, _| dead.contains(leaf));
        for leaf in dead {
            self.dead.entry(leaf).or_insert(now);
        }
        let grace = u64::try_from(self.works.tuning.drop_grace.as_millis()).unwrap_or(u64::MAX);
        let ripe = self.dead.iter().filter(|(_, since)| now.since(**since).get() >= grace);
        ripe.map(|(leaf, _)| *leaf).take(tallow_types::limits::COMMIT_CHANGES_MAX / 2).collect()
    }

    /// The leaves that lists of chunks name; `None` if one can't be read now, and so nothing can be judged dead.
    async fn listed(&self) -> Option<BTreeMap<LeafIndex, BTreeSet<LeafIndex>>> {
        use tallow_seal::entry::{ChunkList, Content, Kind};
        let session = self.session.as_ref()?;
        let mut listed: BTreeMap<LeafIndex, BTreeSet<LeafIndex>> = BTreeMap::new();
        for entry in self.book.catalog.values() {
            let Kind::File(Content::Lists { lists, .. }) = &entry.kind else { continue };
            for list in lists.iter() {
                let row = self.book.row(list.leaf)?;
                let found =
                    session.fetcher.chunks(&row.into(), &[*list], crate::fetch::Under::Catalog).await.ok()?;
                let chunks: ChunkList = tallow_types::codec::decode(found.first()?).ok()?;
                listed.entry(list.leaf).or_default().extend(chunks.chunks.iter().map(|chunk| chunk.leaf));
            }
        }
        Some(listed)
    }
}
