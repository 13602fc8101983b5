//! One ledger on disk: blocks, the current state, and the authenticated tree over it, in one redb file.
//!
//! Guarantees: a block is applied whole and durably, or not at all; readers see one state however long they read; the
//! file holds the current state and a fixed number of the newest blocks, never all of history; a file of another
//! layout, or of another network, is refused by name.
//!
//! Does not check blocks that others made (see [`crate::follower`]) and makes none (see [`crate::validator`]).

mod commit;
mod error;
mod export;
mod import;
mod schema;
mod view;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use redb::{Database, ReadableDatabase, StorageBackend};
use tallow_ledger::StateRead;
use tallow_ledger::state::Records;
use tallow_types::block::{Block, Header, VRF_PROOF_LEN};
use tallow_types::limits::BLOCKS_PAGE_MAX;
use tallow_types::params::{Genesis, validators_hash};
use tallow_types::wire::{ChainStatus, Receipt};
use tallow_types::{
    BlockHash, ChainId, DurationMs, Height, IdempotencyKey, Incarnation, Signature, decode, encode,
};
use tokio::sync::watch;

pub use commit::Change;
pub use error::ChainError;
pub use export::Piece;
pub use view::View;

pub(crate) use import::check_certificate;

use schema::{BLOCKS, KEY_FORK, META, Tip};

/// The name of the file in a ledger's folder.
pub const FILE: &str = "ledger.redb";

/// How a ledger is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Memory for pages of the file. Bytes.
    pub cache_bytes: usize,
    /// Newest blocks kept. Also how far a snapshot may lie back, and how far a chain can step back to follow a rebuilt
    /// validator.
    pub keep_blocks: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 4 << 20, keep_blocks: 256 }
    }
}

/// One ledger.
#[derive(Debug)]
pub struct Chain {
    db: Database,
    dir: PathBuf,
    genesis: Genesis,
    id: ChainId,
    options: Options,
    status: watch::Sender<ChainStatus>,
    exported: Mutex<Option<Arc<export::Export>>>,
}

impl Chain {
    /// Opens the ledger in `dir`, or makes one that begins with `genesis`.
    ///
    /// # Errors
    /// [`ChainError`]; `is_other_network` if the ledger there began otherwise, `is_in_use` if another process has it.
    pub fn open(dir: &Path, genesis: &Genesis, options: Options) -> Result<Arc<Self>, ChainError> {
        std::fs::create_dir_all(dir).map_err(|error| ChainError::folder(dir, &error))?;
        let db = builder(options).create(dir.join(FILE))?;
        let chain = Self::with_database(db, dir, Some(genesis), options)?;
        sync_folder(dir)?;
        Ok(chain)
    }

    /// Opens the ledger that is in `dir`.
    ///
    /// # Errors
    /// [`ChainError`]; `is_absent` if there is none.
    pub fn reopen(dir: &Path, options: Options) -> Result<Arc<Self>, ChainError> {
        let file = dir.join(FILE);
        if !file.exists() {
            return Err(ChainError::Absent { dir: dir.display().to_string() });
        }
        Self::with_database(builder(options).open(file)?, dir, None, options)
    }

    /// Opens or makes a ledger on another medium than a file: tests that lose or tear writes. Snapshots are still
    /// exported to `dir`.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn open_on(
        medium: impl StorageBackend,
        dir: &Path,
        genesis: &Genesis,
        options: Options,
    ) -> Result<Arc<Self>, ChainError> {
        let db = builder(options).create_with_backend(medium)?;
        Self::with_database(db, dir, Some(genesis), options)
    }

    fn with_database(
        db: Database,
        dir: &Path,
        genesis: Option<&Genesis>,
        options: Options,
    ) -> Result<Arc<Self>, ChainError> {
        let known = match (schema::load(&db)?, genesis) {
            (Some(known), _) => known.0,
            (None, Some(genesis)) => {
                commit::begin(&db, genesis)?;
                genesis.clone()
            }
            (None, None) => return Err(ChainError::Absent { dir: dir.display().to_string() }),
        };
        let id = known.chain();
        if let Some(wanted) = genesis.map(Genesis::chain).filter(|wanted| *wanted != id) {
            return Err(ChainError::OtherNetwork { wanted, found: id });
        }
        let options = Options { keep_blocks: options.keep_blocks.max(1), ..options };
        let status = view::status(&View::new(&db)?)?;
        export::clean(dir);
        Ok(Arc::new(Self {
            db,
            dir: dir.to_owned(),
            genesis: known,
            id,
            options,
            status: watch::Sender::new(status),
            exported: Mutex::new(None),
        }))
    }

    /// Where the network began.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The network.
    #[must_use]
    pub fn id(&self) -> ChainId {
        self.id
    }

    /// Where the ledger stands.
    #[must_use]
    pub fn status(&self) -> ChainStatus {
        self.status.borrow().clone()
    }

    /// Follows where the ledger stands.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<ChainStatus> {
        self.status.subscribe()
    }

    /// The current state, as it stays for this reader.
    ///
    /// # Errors
    /// [`ChainError`] if the file can't be read.
    pub fn view(&self) -> Result<View, ChainError> {
        View::new(&self.db)
    }

    /// One record of the current state.
    ///
    /// # Errors
    /// [`ChainError`] if the file can't be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        Ok(self.view()?.get(key)?)
    }

    /// Records of the current state whose keys begin with `prefix`, in key order, from the first above `after`.
    ///
    /// # Errors
    /// [`ChainError`] if the file can't be read.
    pub fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Records, ChainError> {
        Ok(self.view()?.scan(prefix, after, limit)?)
    }

    /// What became of a transaction with this idempotency key; `None` if none was applied within memory.
    ///
    /// # Errors
    /// [`ChainError`] if the file can't be read.
    pub fn receipt(&self, key: &IdempotencyKey) -> Result<Option<Receipt>, ChainError> {
        view::receipt(&self.view()?, key)
    }

    /// A block that is kept.
    ///
    /// # Errors
    /// [`ChainError`] if the file can't be read.
    pub fn block(&self, height: Height) -> Result<Option<Block>, ChainError> {
        let table = self.db.begin_read()?.open_table(BLOCKS)?;
        let Some(bytes) = table.get(height.get())? else { return Ok(None) };
        decode(bytes.value()).map(Some).map_err(|_| ChainError::Damaged { what: "block" })
    }

    /// Encodings of blocks from a height, as many as one answer holds; none if the chain does not reach it. From 0 the
    /// first one is that of the genesis, which is always there; blocks follow it if they are kept from the first.
    ///
    /// # Errors
    /// [`ChainError::Pruned`] if blocks of that height are no longer kept: ask for a snapshot.
    pub fn blocks(&self, from: Height) -> Result<Vec<Vec<u8>>, ChainError> {
        const ANSWER_MAX: usize = tallow_types::limits::FRAME_PAYLOAD_MAX;
        let read = self.db.begin_read()?;
        let tip = schema::tip(&read)?;
        let (mut answer, mut size) = (Vec::new(), 0);
        if from == Height::ZERO {
            answer.push(encode(&self.genesis));
            size = answer[0].len();
        }
        let first = from.get().max(1);
        if first < tip.oldest {
            return match from {
                Height::ZERO => Ok(answer),
                _ => Err(ChainError::Pruned { oldest: Height::new(tip.oldest) }),
            };
        }
        for entry in read.open_table(BLOCKS)?.range(first..)? {
            let bytes = entry?.1.value().to_vec();
            size += bytes.len();
            if answer.len() == BLOCKS_PAGE_MAX || size > ANSWER_MAX {
                break;
            }
            answer.push(bytes);
        }
        Ok(answer)
    }

    /// The proof that this chain must not go on: a valid block of another branch, signed by the validator under the
    /// same incarnation.
    ///
    /// # Errors
    /// [`ChainError`] if the file can't be read.
    pub fn fork(&self) -> Result<Option<Block>, ChainError> {
        let table = self.db.begin_read()?.open_table(META)?;
        let Some(bytes) = table.get(KEY_FORK)? else { return Ok(None) };
        decode(bytes.value()).map(Some).map_err(|_| ChainError::Damaged { what: "fork" })
    }

    /// Waits until the newest block is above a height, or the time is over.
    pub async fn wait_above(&self, height: Height, wait: DurationMs) {
        let mut status = self.subscribe();
        let above = status.wait_for(|status| status.height > height);
        // Time being over is an answer as good as the other.
        let _either = tokio::time::timeout(std::time::Duration::from_millis(wait.get()), above).await;
    }

    /// The lowest height whose block is kept.
    pub(crate) fn oldest(&self) -> Result<Height, ChainError> {
        Ok(Height::new(self.view()?.tip().oldest))
    }

    /// The hash of a block that is kept, or of height 0.
    pub(crate) fn hash_at(&self, height: Height) -> Result<Option<BlockHash>, ChainError> {
        match self.tip_at(height) {
            Ok(tip) => Ok(Some(tip.hash())),
            Err(ChainError::TooFarBack { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file without a name, in the ledger's folder.
    pub(crate) fn scratch(&self) -> Result<File, ChainError> {
        let path = self.dir.join(format!("{}incoming", export::PREFIX));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|error| ChainError::folder(&self.dir, &error))?;
        std::fs::remove_file(&path).map_err(|error| ChainError::io(&error))?;
        Ok(file)
    }

    /// Tells those who wait that the ledger moved.
    fn publish(&self) -> Result<ChainStatus, ChainError> {
        let status = view::status(&self.view()?)?;
        self.status.send_replace(status.clone());
        Ok(status)
    }
}

/// Makes the names of new files in a folder durable: syncing a file does not.
pub(crate) fn sync_folder(dir: &Path) -> Result<(), ChainError> {
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(|error| ChainError::folder(dir, &error))
}

/// A database handle with bounded memory.
fn builder(options: Options) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes);
    builder
}

/// The header of height 0. It is computed, never signed or sent: the chain id binds genesis, genesis binds the rest.
fn genesis_header(genesis: &Genesis, state: tallow_types::StateRoot) -> Header {
    let validators = validators_hash(&genesis.validators);
    Header {
        protocol: genesis.params.protocol,
        chain: genesis.chain(),
        incarnation: Incarnation::ZERO,
        height: Height::ZERO,
        parent: BlockHash::ZERO,
        time: genesis.time,
        proposer: genesis.validators.first().map_or(tallow_types::PublicKey::ZERO, |first| first.key),
        vrf: [0; VRF_PROOF_LEN],
        body: tallow_types::block::Body::default().hash(),
        state,
        validators,
        next_validators: validators,
    }
}

/// The tip of a chain that has no block yet.
fn genesis_tip(genesis: &Genesis, state: tallow_types::StateRoot, version: u64) -> Tip {
    Tip { header: genesis_header(genesis, state), signature: Signature::ZERO, version, oldest: 1 }
}

#[cfg(test)]
mod tests;
