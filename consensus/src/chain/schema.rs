//! The tables of a ledger file, and the two records that say where it stands.

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition};
use tallow_types::block::Header;
use tallow_types::params::Genesis;
use tallow_types::{BlockHash, Signature, decode, tagged};

use super::ChainError;

/// Single records by name.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Encoded blocks by height.
pub(super) const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
/// What each kept block replaced, by height.
pub(super) const UNDO: TableDefinition<u64, &[u8]> = TableDefinition::new("undo");
/// The current state, by key.
pub(super) const STATE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("state");
/// Nodes of the authenticated tree of the current state.
pub(super) const NODES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("nodes");

/// Name and version of this layout. Another one is refused by name.
pub(super) const SCHEMA: &[u8] = b"tallow ledger 1";
pub(super) const KEY_SCHEMA: &str = "schema";
pub(super) const KEY_GENESIS: &str = "genesis";
pub(super) const KEY_TIP: &str = "tip";
pub(super) const KEY_FORK: &str = "fork";

/// Where the chain stands.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Tip {
    /// The newest block's header.
    pub header: Header,
    /// Its certificate; zeros for genesis, which needs none.
    pub signature: Signature,
    /// The newest version of the tree. Not the height: a step back takes a new version too.
    pub version: u64,
    /// The lowest height whose block is kept; one above the tip if none is.
    pub oldest: u64,
}
tagged!(Tip, b"TP", 1, "chain tip", 4096);

impl Tip {
    pub(super) fn hash(&self) -> BlockHash {
        self.header.hash()
    }
}

/// Opens the file's tables, making them if the file is new, and refuses another layout. Answers what is known already.
pub(super) fn load(db: &Database) -> Result<Option<(Genesis, Tip)>, ChainError> {
    let read = match db.begin_read()?.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(schema) = read.get(KEY_SCHEMA)? else { return Ok(None) };
    if schema.value() != SCHEMA {
        let found = String::from_utf8_lossy(&schema.value()[..schema.value().len().min(64)]).into_owned();
        return Err(ChainError::Schema { found });
    }
    let genesis = read.get(KEY_GENESIS)?.ok_or(ChainError::Damaged { what: "genesis" })?;
    let genesis = decode(genesis.value()).map_err(|_| ChainError::Damaged { what: "genesis" })?;
    let tip = read.get(KEY_TIP)?.ok_or(ChainError::Damaged { what: "tip" })?;
    let tip = decode(tip.value()).map_err(|_| ChainError::Damaged { what: "tip" })?;
    Ok(Some((genesis, tip)))
}

/// The tip as this transaction sees it.
pub(super) fn tip(read: &ReadTransaction) -> Result<Tip, ChainError> {
    let table = read.open_table(META)?;
    let bytes = table.get(KEY_TIP)?.ok_or(ChainError::Damaged { what: "tip" })?;
    decode(bytes.value()).map_err(|_| ChainError::Damaged { what: "tip" })
}
