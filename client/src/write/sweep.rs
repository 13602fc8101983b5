//! Looking for stripes that nothing refers to any more.

use std::collections::BTreeMap;

use tallow_seal::entry::ChunkList;
use tallow_types::unit::{LeafIndex, TimeMs};

use super::committer::Committer;
use crate::entries::{self, Listed, leaves_of, list_at};
use crate::fetch::Under;

impl Committer {
    /// Stripes that have been dead for longer than the grace; newly dead ones are noted.
    pub async fn droppable(&mut self) -> Vec<LeafIndex> {
        let now = self.works.clock.now();
        let grace = u64::try_from(self.works.tuning.drop_grace.as_millis()).unwrap_or(u64::MAX);
        let is_ripe = |since: &TimeMs| now.since(*since).get() >= grace;
        if !self.look_for_dead && !self.dead.values().any(is_ripe) {
            return Vec::new();
        }
        if !self.learn_lists().await {
            return Vec::new();
        }
        self.look_for_dead = false;
        // Stripes of checkpoints that puts under way will name are dead only to the eye.
        let dead = self.book.dead(&self.works.packer.used());
        let known = std::mem::take(&mut self.dead);
        let since = |leaf: LeafIndex| (leaf, known.get(&leaf).copied().unwrap_or(now));
        self.dead = dead.into_iter().map(since).collect::<BTreeMap<_, _>>();
        let ripe = self.dead.iter().filter(|(_, since)| is_ripe(since)).map(|(leaf, _)| *leaf);
        let most = tallow_types::limits::COMMIT_CHANGES_MAX / 2;
        self.works.packer.retire(ripe.take(most))
    }

    /// Reads the lists of chunks that are not known yet, as after a restore. False if one can't be read now, and so nothing can
    /// be judged dead.
    async fn learn_lists(&mut self) -> bool {
        let Ok(unread) = self.works.db.read().and_then(|tx| entries::unread(&tx)) else { return false };
        let Some(session) = &self.session else { return false };
        let mut listed = Listed::new();
        for list in unread {
            let Some(row) = self.book.row(list.leaf) else { return false };
            let found = session.fetcher.chunks(&row.into(), &[list], Under::Catalog).await;
            let Some(bytes) = found.ok().and_then(|mut found| found.pop()) else { return false };
            let Ok(chunks) = tallow_types::codec::decode::<ChunkList>(&bytes) else { return false };
            listed.insert(list_at(&list), leaves_of(&chunks));
        }
        self.book.learn_lists(&self.works.db, listed).is_ok()
    }
}
