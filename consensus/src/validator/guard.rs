//! What a validator must never forget: the incarnation under which it signs, and the last block that it signed.
//!
//! A block is written here, whole and durably, before anybody sees it. So a validator that dies between signing and
//! committing commits that very block when it comes back, and one whose ledger file was put back from a copy notices.
//!
//! Kept in a file of its own, `guard.redb`, beside the ledger.

use std::path::Path;

use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};
use tallow_types::block::Block;
use tallow_types::{ChainId, Height, Incarnation, decode, encode};

use crate::ChainError;

const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("guard");
const SCHEMA: &[u8] = b"tallow guard 1";
/// The name of the file in a validator's folder.
pub const FILE: &str = "guard.redb";
/// Memory for pages of the file. Bytes.
const CACHE_BYTES: usize = 1 << 20;

/// Why the guard does not let a block be signed, or cannot be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message says they are")]
pub enum GuardError {
    /// Another program, or another version of this one, wrote the file.
    #[error("the guard file has layout {found:?}, this program reads \"tallow guard 1\"")]
    Schema { found: String },
    /// It guards another network's key.
    #[error("the guard is of network {found}, not of {wanted}")]
    OtherNetwork { wanted: ChainId, found: ChainId },
    /// A record is missing or damaged.
    #[error("the guard file is damaged: {what}")]
    Damaged { what: &'static str },
    /// A second block of one height and incarnation. A bug, or somebody put an old file back.
    #[error("refused to sign block {height} of incarnation {incarnation}: block {signed} is signed already")]
    Twice { height: Height, incarnation: Incarnation, signed: Height },
    /// The file failed.
    #[error(transparent)]
    Storage(#[from] ChainError),
}

/// The guard of one validator.
#[derive(Debug)]
pub struct Guard {
    db: Database,
    incarnation: Incarnation,
    signed: Option<Block>,
}

impl Guard {
    /// Begins a guard for a new incarnation, whatever was there before.
    pub(super) fn begin(dir: &Path, chain: ChainId, incarnation: Incarnation) -> Result<Self, GuardError> {
        let db = builder().create(dir.join(FILE)).map_err(ChainError::from)?;
        let guard = Self::begin_in(db, chain, incarnation)?;
        crate::chain::sync_folder(dir)?;
        Ok(guard)
    }

    fn begin_in(db: Database, chain: ChainId, incarnation: Incarnation) -> Result<Self, GuardError> {
        let write = db.begin_write().map_err(ChainError::from)?;
        write.delete_table(TABLE).map_err(ChainError::from)?;
        put(&write, "schema", SCHEMA)?;
        put(&write, "chain", chain.as_bytes())?;
        put(&write, "incarnation", &incarnation.get().to_le_bytes())?;
        write.commit().map_err(ChainError::from)?;
        Ok(Self { db, incarnation, signed: None })
    }

    /// Opens the guard in a folder; `None` if there is none.
    pub(super) fn open(dir: &Path, chain: ChainId) -> Result<Option<Self>, GuardError> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        Self::open_in(builder().open(file).map_err(ChainError::from)?, chain)
    }

    /// Opens or begins a guard on another medium than a file: tests that lose or tear writes.
    ///
    /// # Errors
    /// [`GuardError`].
    pub fn open_on(medium: impl StorageBackend, chain: ChainId) -> Result<Self, GuardError> {
        let db = builder().create_with_backend(medium).map_err(ChainError::from)?;
        let begun = db.begin_read().map_err(ChainError::from)?.open_table(TABLE).is_ok();
        if begun {
            return Self::open_in(db, chain)?.ok_or(GuardError::Damaged { what: "schema" });
        }
        Self::begin_in(db, chain, Incarnation::ZERO)
    }

    fn open_in(db: Database, chain: ChainId) -> Result<Option<Self>, GuardError> {
        let get = |name: &str| -> Result<Option<Vec<u8>>, GuardError> {
            let read = db.begin_read().map_err(ChainError::from)?;
            let table = match read.open_table(TABLE) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(ChainError::from(error).into()),
            };
            let value = table.get(name).map_err(ChainError::from)?;
            Ok(value.map(|value| value.value().to_vec()))
        };
        let Some(schema) = get("schema")? else { return Ok(None) };
        if schema != SCHEMA {
            let found = String::from_utf8_lossy(&schema[..schema.len().min(64)]).into_owned();
            return Err(GuardError::Schema { found });
        }
        let found = get("chain")?.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let found = ChainId::new(found.ok_or(GuardError::Damaged { what: "chain" })?);
        if found != chain {
            return Err(GuardError::OtherNetwork { wanted: chain, found });
        }
        let incarnation = get("incarnation")?.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let incarnation = incarnation.ok_or(GuardError::Damaged { what: "incarnation" })?;
        let signed = get("signed")?.map(|bytes| decode(&bytes)).transpose();
        let signed = signed.map_err(|_| GuardError::Damaged { what: "signed block" })?;
        let incarnation = Incarnation::new(u32::from_le_bytes(incarnation));
        Ok(Some(Self { db, incarnation, signed }))
    }

    /// The incarnation under which this validator signs.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The last block that it signed.
    #[must_use]
    pub fn signed(&self) -> Option<&Block> {
        self.signed.as_ref()
    }

    /// Remembers a block before anybody sees it. When this returns, the block is durable.
    ///
    /// # Errors
    /// [`GuardError::Twice`] if a block of this height or a higher one is signed; else the file failed, and the block
    /// must not be shown to anybody.
    pub fn remember(&mut self, block: &Block) -> Result<(), GuardError> {
        let (height, incarnation) = (block.header.height, block.header.incarnation);
        if let Some(signed) = self.signed.as_ref().filter(|signed| signed.header.height >= height) {
            return Err(GuardError::Twice { height, incarnation, signed: signed.header.height });
        }
        let write = self.db.begin_write().map_err(ChainError::from)?;
        put(&write, "signed", &encode(block))?;
        write.commit().map_err(ChainError::from)?;
        self.signed = Some(block.clone());
        Ok(())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn put(write: &redb::WriteTransaction, name: &str, value: &[u8]) -> Result<(), GuardError> {
    let mut table = write.open_table(TABLE).map_err(ChainError::from)?;
    table.insert(name, value).map_err(ChainError::from)?;
    Ok(())
}
