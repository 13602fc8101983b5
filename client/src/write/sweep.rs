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
        // Stripes of checkpoints that puts under way will name are dead only to the eye.
        let used = self.works.packer.used();
        let now = self.works.clock.now();
        let dead = self.book.dead(&listed, &used);
        self.dead.retain(|leaf, _| dead.contains(leaf));
        for leaf in dead {
            self.dead.entry(leaf).or_insert(now);
        }
        let grace = u64::try_from(self.works.tuning.drop_grace.as_millis()).unwrap_or(u64::MAX);
        let ripe = self.dead.iter().filter(|(_, since)| now.since(**since).get() >= grace);
        let most = tallow_types::limits::COMMIT_CHANGES_MAX / 2;
        self.works.packer.retire(ripe.map(|(leaf, _)| *leaf).take(most))
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
