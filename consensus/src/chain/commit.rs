//! Writing: the first state, the next block, and the step back that follows a rebuilt validator. Each is one durable
//! transaction.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{Database, ReadableTable, WriteTransaction};
use tallow_ledger::tree::{self, TreeUpdate};
use tallow_ledger::{ReadError, Writes};
use tallow_types::block::Block;
use tallow_types::params::Genesis;
use tallow_types::wire::ChainStatus;
use tallow_types::{Height, decode, encode, tagged};

use super::schema::{
    BLOCKS, KEY_FORK, KEY_GENESIS, KEY_SCHEMA, KEY_TIP, META, NODES, SCHEMA, STATE, Tip, UNDO,
};
use super::{Chain, ChainError, genesis_tip};

/// Blocks removed in one transaction at most, so that lowering `keep_blocks` costs many small steps, not one long one.
const PRUNED_AT_ONCE: u64 = 16;

/// What a block does to the file: its writes, and what they change in the tree.
#[derive(Clone, Debug)]
pub struct Change {
    /// Changes of the state.
    pub writes: Writes,
    /// Changes of the tree over the state.
    pub tree: TreeUpdate,
}

/// What a block replaced: the records that its writes touched, as they were before.
#[derive(Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Undo {
    before: Writes,
}
tagged!(Undo, b"UN", 1, "undo record", usize::MAX);

/// Writes height 0.
pub(super) fn begin(db: &Database, genesis: &Genesis) -> Result<(), ChainError> {
    let writes = tallow_ledger::genesis(genesis).map_err(ReadError::new)?;
    let (root, tree) = tree::update(&BTreeMap::new(), Height::ZERO, &writes)?;
    let write = db.begin_write()?;
    put_state(&write, &writes)?;
    put_tree(&write, &tree)?;
    write.open_table(BLOCKS)?;
    write.open_table(UNDO)?;
    {
        let mut meta = write.open_table(META)?;
        meta.insert(KEY_SCHEMA, SCHEMA)?;
        meta.insert(KEY_GENESIS, encode(genesis).as_slice())?;
    }
    put_tip(&write, &genesis_tip(genesis, root, 0))?;
    Ok(write.commit()?)
}

impl Chain {
    /// Applies the next block. The caller vouches for the block and for the change being what it does.
    ///
    /// When it returns, the block is durable and readers see it.
    ///
    /// # Errors
    /// [`ChainError::NotNext`] if the block doesn't follow the newest; else the file couldn't be written, and nothing
    /// of the block is in it.
    pub fn commit(&self, block: &Block, change: &Change) -> Result<ChainStatus, ChainError> {
        let write = self.db.begin_write()?;
        let before = self.view()?;
        let (tip, height) = (before.tip(), block.header.height);
        if block.header.parent != tip.hash() || Some(height) != tip.header.height.next() {
            return Err(ChainError::NotNext { parent: block.header.parent, tip: tip.hash() });
        }
        let undo = Undo { before: put_state(&write, &change.writes)? };
        put_tree(&write, &change.tree)?;
        write.open_table(BLOCKS)?.insert(height.get(), encode(block).as_slice())?;
        write.open_table(UNDO)?.insert(height.get(), encode(&undo).as_slice())?;
        let oldest = prune(&write, tip.oldest, height.get(), self.options.keep_blocks)?;
        let next = Tip {
            header: block.header.clone(),
            signature: block.signature,
            version: tip.version + 1,
            oldest,
        };
        put_tip(&write, &next)?;
        drop(before);
        write.commit()?;
        self.publish()
    }

    /// Steps back to an earlier block that is kept, taking back what later ones did.
    ///
    /// # Errors
    /// [`ChainError::TooFarBack`] if that block is gone; else the file couldn't be read or written.
    pub(crate) fn rewind(&self, to: Height) -> Result<ChainStatus, ChainError> {
        let write = self.db.begin_write()?;
        let before = self.view()?;
        let (tip, target) = (before.tip(), self.tip_at(to)?);
        let mut writes = Writes::new();
        {
            let (mut blocks, mut undos) = (write.open_table(BLOCKS)?, write.open_table(UNDO)?);
            for height in (to.get() + 1..=tip.header.height.get()).rev() {
                let missing = ChainError::TooFarBack { height: to };
                let undo = undos.remove(height)?.ok_or(missing)?;
                let undo: Undo =
                    decode(undo.value()).map_err(|_| ChainError::Damaged { what: "undo record" })?;
                writes.extend(undo.before);
                blocks.remove(height)?;
            }
        }
        let (root, tree) = before.root_after(&writes)?;
        if root != target.header.state {
            return Err(ChainError::WrongRoot { height: to });
        }
        put_state(&write, &writes)?;
        put_tree(&write, &tree)?;
        put_tip(&write, &Tip { version: tip.version + 1, oldest: tip.oldest, ..target })?;
        drop(before);
        write.commit()?;
        self.publish()
    }

    /// Remembers that the validator signed two branches: this chain takes no more blocks.
    pub(crate) fn record_fork(&self, block: &Block) -> Result<(), ChainError> {
        let write = self.db.begin_write()?;
        write.open_table(META)?.insert(KEY_FORK, encode(block).as_slice())?;
        Ok(write.commit()?)
    }

    /// The tip as it was after an earlier block.
    pub(super) fn tip_at(&self, height: Height) -> Result<Tip, ChainError> {
        if let Some(block) = self.block(height)? {
            let (header, signature) = (block.header, block.signature);
            return Ok(Tip { header, signature, version: 0, oldest: 0 });
        }
        if height != Height::ZERO {
            return Err(ChainError::TooFarBack { height });
        }
        let writes = tallow_ledger::genesis(&self.genesis).map_err(ReadError::new)?;
        let (root, _) = tree::update(&BTreeMap::new(), Height::ZERO, &writes)?;
        Ok(genesis_tip(&self.genesis, root, 0))
    }
}

/// Applies writes to the records, and answers what stood there before.
pub(super) fn put_state(write: &WriteTransaction, writes: &Writes) -> Result<Writes, ChainError> {
    let mut table = write.open_table(STATE)?;
    let mut before = Writes::new();
    for (key, value) in writes {
        let old = match value {
            Some(value) => table.insert(key.as_slice(), value.as_slice())?,
            None => table.remove(key.as_slice())?,
        };
        before.insert(key.clone(), old.map(|old| old.value().to_vec()));
    }
    Ok(before)
}

/// Applies an update to the tree. What is stale goes at once: proofs are made of the newest state only.
pub(super) fn put_tree(write: &WriteTransaction, update: &TreeUpdate) -> Result<(), ChainError> {
    let mut table = write.open_table(NODES)?;
    for key in &update.stale {
        table.remove(key.as_slice())?;
    }
    for (key, node) in &update.nodes {
        table.insert(key.as_slice(), node.as_slice())?;
    }
    Ok(())
}

pub(super) fn put_tip(write: &WriteTransaction, tip: &Tip) -> Result<(), ChainError> {
    write.open_table(META)?.insert(KEY_TIP, encode(tip).as_slice())?;
    Ok(())
}

/// Removes blocks that are no longer kept, and answers which is the oldest left.
fn prune(write: &WriteTransaction, oldest: u64, newest: u64, keep: u64) -> Result<u64, ChainError> {
    let wanted = (newest + 1).saturating_sub(keep).max(oldest);
    let until = wanted.min(oldest + PRUNED_AT_ONCE);
    let (mut blocks, mut undos) = (write.open_table(BLOCKS)?, write.open_table(UNDO)?);
    for height in oldest..until {
        blocks.remove(height)?;
        undos.remove(height)?;
    }
    debug_assert!(blocks.first()?.is_none_or(|(height, _)| height.value() >= until));
    Ok(until)
}
