//! One consistent state of a chain, for reading while blocks go on being written.

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};
use tallow_ledger::record::Head;
use tallow_ledger::state::Records;
use tallow_ledger::tree::{self, NodeRead, StateProof, TreeUpdate};
use tallow_ledger::{ReadError, StateRead, Writes, key};
use tallow_types::block::Header;
use tallow_types::wire::{ChainStatus, Receipt};
use tallow_types::{BlockHash, Height, IdempotencyKey, StateRoot, decode};

use super::ChainError;
use super::schema::{self, NODES, STATE, Tip};

/// The type of a table of byte strings, opened for reading.
type ByteTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The state as of one block. What it says stays, however many blocks are written meanwhile; the pages that it holds
/// can't be used again before it goes, so keep it for one piece of work and no longer.
pub struct View {
    tip: Tip,
    state: ByteTable,
    nodes: ByteTable,
}

impl View {
    pub(super) fn new(db: &Database) -> Result<Self, ChainError> {
        let read = db.begin_read()?;
        let tip = schema::tip(&read)?;
        Ok(Self { tip, state: read.open_table(STATE)?, nodes: read.open_table(NODES)? })
    }

    /// The block that this is the state after.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.tip.header
    }

    /// Its height.
    #[must_use]
    pub fn height(&self) -> Height {
        self.tip.header.height
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        self.tip.hash()
    }

    /// Where the ledger stands.
    ///
    /// # Errors
    /// [`ReadError`] if the state can't be read.
    pub fn head(&self) -> Result<Head, ReadError> {
        let bytes = self.get(key::HEAD)?.ok_or_else(|| ReadError::new("there is no head record"))?;
        decode(&bytes).map_err(ReadError::new)
    }

    /// The root after these writes, and what they change in the tree.
    ///
    /// # Errors
    /// [`ReadError`] if the tree can't be read.
    pub fn root_after(&self, writes: &Writes) -> Result<(StateRoot, TreeUpdate), ReadError> {
        tree::update(self, Height::new(self.tip.version + 1), writes)
    }

    /// Proves the presence or absence of a record in the state with the root of [`View::header`].
    ///
    /// # Errors
    /// [`ReadError`] if the tree can't be read.
    pub fn prove(&self, key: &[u8]) -> Result<StateProof, ReadError> {
        tree::prove(self, Height::new(self.tip.version), key)
    }

    pub(super) fn tip(&self) -> &Tip {
        &self.tip
    }

    pub(super) fn records(&self) -> &ByteTable {
        &self.state
    }
}

impl StateRead for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let value = self.state.get(key).map_err(ReadError::new)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Records, ReadError> {
        let mut found = Vec::new();
        for entry in self.state.range(prefix.max(after)..).map_err(ReadError::new)? {
            let (key, value) = entry.map_err(ReadError::new)?;
            if found.len() == limit || !key.value().starts_with(prefix) {
                break;
            }
            if key.value() > after || after < prefix {
                found.push((key.value().to_vec(), value.value().to_vec()));
            }
        }
        Ok(found)
    }
}

impl NodeRead for View {
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        node(&self.nodes, key)
    }
}

/// A tree node from an open table.
pub(super) fn node(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, ReadError> {
    let value = table.get(key).map_err(ReadError::new)?;
    Ok(value.map(|value| value.value().to_vec()))
}

/// What peers are told about a view's block.
pub(super) fn status(view: &View) -> Result<ChainStatus, ChainError> {
    let header = view.header();
    Ok(ChainStatus {
        height: header.height,
        tip: view.hash(),
        time: header.time,
        epoch: view.head()?.epoch.epoch,
        incarnation: header.incarnation,
    })
}

/// What became of a transaction.
pub(super) fn receipt(view: &View, key: &IdempotencyKey) -> Result<Option<Receipt>, ChainError> {
    let found = view.scan(&key::seen_by_anyone(key), &[], 1)?;
    let Some((_, bytes)) = found.first() else { return Ok(None) };
    let seen: tallow_ledger::record::Seen = decode(bytes).map_err(ReadError::new)?;
    Ok(Some(seen.receipt()))
}
