//! The client's own database: a cache of the catalog and the stripe table, and the journal of what is under way.
//!
//! Guarantees: losing it loses nothing that was acknowledged; what it says of stripes and chunks is used only when it
//! fits the commit that the seeders show. One process at a time writes. A process that finds the folder in use has a
//! cache of its own beside it, in a file without a name, which goes when the process does.
//!
//! ```text
//! meta     name              -> bytes     network, account, the commit that the cache stands at, heads
//! entries  path              -> Entry     the catalog at that commit
//! folders  path              -> Sum       of everything below it; the empty path: of all
//! lists    leaf, offset      -> List      lists of chunks that entries name, and the leaves that they name
//! stripes  leaf u64          -> Row       the stripe table at that commit
//! logs     log u8, leaf u64  -> ()        leaves that hold records which a reader still needs
//! chunks   chunk id          -> Known     where sealed chunks are
//! attempts digest            -> Attempt   stripes that were coded, and who acknowledged which slice
//! txs      purpose           -> Pending   transactions that were sent and not yet answered
//! ```
//! Layout 1 knew no folders, lists and logs: its cache is dropped and made anew, its journal is kept.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    WriteTransaction,
};
use tallow_types::id::{AccountId, ChainId};

use crate::error::LocalError;

/// By name.
pub(crate) type Named = TableDefinition<'static, &'static str, &'static [u8]>;
/// By bytes.
pub(crate) type Keyed = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(crate) const META: Named = TableDefinition::new("meta");
pub(crate) const ENTRIES: Named = TableDefinition::new("entries");
pub(crate) const FOLDERS: Named = TableDefinition::new("folders");
pub(crate) const LISTS: TableDefinition<'static, (u64, u32), &'static [u8]> = TableDefinition::new("lists");
pub(crate) const LOGS: TableDefinition<'static, (u8, u64), ()> = TableDefinition::new("logs");
pub(crate) const STRIPES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("stripes");
pub(crate) const CHUNKS: Keyed = TableDefinition::new("chunks");
pub(crate) const ATTEMPTS: Keyed = TableDefinition::new("attempts");
pub(crate) const TXS: Named = TableDefinition::new("txs");

const LAYOUT: &str = "layout";
const VERSION: &[u8] = b"2";
/// The layout before this one.
const FORMER: &[u8] = b"1";
/// redb's own default would be a gibibyte.
const CACHE_BYTES: usize = 24 << 20;
const FILE: &str = "client.redb";

/// The database, on disk or in memory.
pub(crate) struct Db {
    database: Database,
    path: Option<PathBuf>,
    /// Held by whoever brings the book in it to another commit.
    pub bringing: tokio::sync::Mutex<()>,
}

/// Whether a database that another process uses is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfLocked {
    Fail,
    /// A cache of its own, which goes with it.
    UseOwn,
}

pub(crate) fn failed(error: impl std::fmt::Display) -> LocalError {
    LocalError::Database(error.to_string())
}

impl Db {
    /// Opens the database in `dir`, or a new one in memory.
    pub fn open(
        dir: Option<&Path>,
        chain: &ChainId,
        account: &AccountId,
        if_locked: IfLocked,
    ) -> Result<Self, LocalError> {
        let Some(dir) = dir else { return Self::in_memory(chain, account) };
        let io = |source| LocalError::Io { path: dir.display().to_string(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(io)?;
        let path = dir.join(FILE);
        let builder = || {
            let mut builder = Database::builder();
            builder.set_cache_size(CACHE_BYTES);
            builder
        };
        let opened = FileBackend::new(private(&path).map_err(io)?);
        match opened.and_then(|file| builder().create_with_backend(file)) {
            Ok(database) => {
                let db = Self { database, path: Some(path), bringing: Default::default() };
                db.check(chain, account)?;
                Ok(db)
            }
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if if_locked == IfLocked::UseOwn => {
                let path = dir.join(format!("{FILE}.{}", std::process::id()));
                let file = private(&path).map_err(io)?;
                std::fs::remove_file(&path).map_err(io)?;
                let file = FileBackend::new(file).map_err(failed)?;
                let database = builder().create_with_backend(file).map_err(failed)?;
                let db = Self { database, path: None, bringing: Default::default() };
                db.check(chain, account)?;
                Ok(db)
            }
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                Err(LocalError::Locked(dir.display().to_string()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn in_memory(chain: &ChainId, account: &AccountId) -> Result<Self, LocalError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(InMemoryBackend::new())
            .map_err(failed)?;
        let db = Self { database, path: None, bringing: Default::default() };
        db.check(chain, account)?;
        Ok(db)
    }

    /// Makes the tables, and refuses a database of another network, account or layout.
    fn check(&self, chain: &ChainId, account: &AccountId) -> Result<(), LocalError> {
        let dir =
            || self.path.as_ref().map_or_else(|| "memory".to_owned(), |path| path.display().to_string());
        self.write(|tx| {
            let is_former = {
                let meta = tx.open_table(META).map_err(failed)?;
                meta.get(LAYOUT).map_err(failed)?.is_some_and(|found| found.value() == FORMER)
            };
            if is_former {
                clear_catalog(tx)?;
                tx.delete_table(STRIPES).map_err(failed)?;
                let mut meta = tx.open_table(META).map_err(failed)?;
                for name in [crate::book::STATE, crate::write::committer::DEAD] {
                    meta.remove(name).map_err(failed)?;
                }
                meta.insert(LAYOUT, VERSION).map_err(failed)?;
            }
            for table in [META, ENTRIES, FOLDERS, TXS] {
                tx.open_table(table).map_err(failed)?;
            }
            for table in [CHUNKS, ATTEMPTS] {
                tx.open_table(table).map_err(failed)?;
            }
            tx.open_table(LISTS).map_err(failed)?;
            tx.open_table(LOGS).map_err(failed)?;
            tx.open_table(STRIPES).map_err(failed)?;
            let mut meta = tx.open_table(META).map_err(failed)?;
            let wanted: [(&str, &[u8], &'static str); 3] = [
                (LAYOUT, VERSION, "version of this program"),
                ("network", chain.as_bytes(), "network"),
                ("account", account.as_bytes(), "account"),
            ];
            for (name, value, what) in wanted {
                let found = meta.get(name).map_err(failed)?.map(|found| found.value().to_vec());
                match found {
                    None => drop(meta.insert(name, value).map_err(failed)?),
                    Some(found) if found == value => {}
                    Some(_) => return Err(LocalError::Foreign { dir: dir(), what }),
                }
            }
            Ok(())
        })
    }

    /// One durable write transaction: all of it or nothing.
    pub fn write<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, LocalError>,
    ) -> Result<T, LocalError> {
        self.write_as(Durability::Immediate, body)
    }

    /// A write transaction that readers here see at once, and a crash may undo until [`Db::sync`] or the next durable one:
    /// for what can be learnt again.
    pub fn write_soft<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, LocalError>,
    ) -> Result<T, LocalError> {
        self.write_as(Durability::None, body)
    }

    fn write_as<T>(
        &self,
        durability: Durability,
        body: impl FnOnce(&WriteTransaction) -> Result<T, LocalError>,
    ) -> Result<T, LocalError> {
        let mut tx = self.database.begin_write().map_err(failed)?;
        tx.set_durability(durability).map_err(failed)?;
        let value = body(&tx)?;
        tx.commit().map_err(failed)?;
        Ok(value)
    }

    /// Makes all transactions so far durable.
    pub fn sync(&self) -> Result<(), LocalError> {
        self.write(|_| Ok(()))
    }

    /// Everything as it is now, for as long as the transaction lives.
    pub fn read(&self) -> Result<ReadTransaction, LocalError> {
        self.database.begin_read().map_err(failed)
    }

    /// A value by name, decoded.
    pub fn named<T: BorshDeserialize>(&self, table: Named, name: &str) -> Result<Option<T>, LocalError> {
        let tx = self.database.begin_read().map_err(failed)?;
        let table = tx.open_table(table).map_err(failed)?;
        table.get(name).map_err(failed)?.map(|found| decoded(found.value())).transpose()
    }

    /// A value by key, decoded.
    pub fn keyed<T: BorshDeserialize>(&self, table: Keyed, key: &[u8]) -> Result<Option<T>, LocalError> {
        let tx = self.database.begin_read().map_err(failed)?;
        let table = tx.open_table(table).map_err(failed)?;
        table.get(key).map_err(failed)?.map(|found| decoded(found.value())).transpose()
    }

    /// Writes one value by name.
    pub fn set_named<T: BorshSerialize>(
        &self,
        table: Named,
        name: &str,
        value: &T,
    ) -> Result<(), LocalError> {
        self.write(|tx| put_named(tx, table, name, value))
    }

    /// Removes one value by name.
    pub fn remove_named(&self, table: Named, name: &str) -> Result<(), LocalError> {
        self.write(|tx| drop_named(tx, table, name))
    }
}

pub(crate) fn decoded<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, LocalError> {
    T::try_from_slice(bytes).map_err(failed)
}

pub(crate) fn encoded<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to a vector cannot fail")
}

/// Inside a write transaction: a value by key, decoded.
pub(crate) fn keyed_in<T: BorshDeserialize>(
    tx: &WriteTransaction,
    table: Keyed,
    key: &[u8],
) -> Result<Option<T>, LocalError> {
    let table = tx.open_table(table).map_err(failed)?;
    table.get(key).map_err(failed)?.map(|found| decoded(found.value())).transpose()
}

/// Inside a write transaction: one value by name.
pub(crate) fn put_named<T: BorshSerialize>(
    tx: &WriteTransaction,
    table: Named,
    name: &str,
    value: &T,
) -> Result<(), LocalError> {
    tx.open_table(table).map_err(failed)?.insert(name, encoded(value).as_slice()).map_err(failed)?;
    Ok(())
}

/// Inside a write transaction: many values by key; `None` removes.
pub(crate) fn put_keys<'a, T: BorshSerialize + 'a>(
    tx: &WriteTransaction,
    table: Keyed,
    values: impl IntoIterator<Item = (&'a [u8], Option<&'a T>)>,
) -> Result<(), LocalError> {
    let mut table = tx.open_table(table).map_err(failed)?;
    for (key, value) in values {
        match value {
            Some(value) => drop(table.insert(key, encoded(value).as_slice()).map_err(failed)?),
            None => drop(table.remove(key).map_err(failed)?),
        }
    }
    Ok(())
}

/// Inside a write transaction: removes one value by name.
pub(crate) fn drop_named(tx: &WriteTransaction, table: Named, name: &str) -> Result<(), LocalError> {
    tx.open_table(table).map_err(failed)?.remove(name).map_err(failed)?;
    Ok(())
}

/// Inside a write transaction: stripes by leaf, and none behind `leaves`.
pub(crate) fn put_stripes<'a, T: BorshSerialize + 'a>(
    tx: &WriteTransaction,
    leaves: u64,
    rows: impl IntoIterator<Item = (u64, Option<&'a T>)>,
) -> Result<(), LocalError> {
    let mut table = tx.open_table(STRIPES).map_err(failed)?;
    table.retain_in(leaves.., |_, _| false).map_err(failed)?;
    for (leaf, row) in rows {
        table.insert(leaf, encoded(&row).as_slice()).map_err(failed)?;
    }
    Ok(())
}

/// Inside a write transaction: forgets the catalog.
pub(crate) fn clear_catalog(tx: &WriteTransaction) -> Result<(), LocalError> {
    for table in [ENTRIES, FOLDERS] {
        tx.delete_table(table).map_err(failed)?;
        tx.open_table(table).map_err(failed)?;
    }
    tx.delete_table(LISTS).map_err(failed)?;
    tx.open_table(LISTS).map_err(failed)?;
    Ok(())
}

/// Opens a file that only its owner may read, or makes it.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, chain: u8, account: u8, if_locked: IfLocked) -> Result<Db, LocalError> {
        Db::open(Some(dir), &ChainId::new([chain; 32]), &AccountId::new([account; 32]), if_locked)
    }

    /// Goal: a folder serves one network, one account and one writer. Method: open it wrongly in each way.
    #[test]
    fn foreign_and_locked_folders_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let first = open(dir.path(), 1, 1, IfLocked::Fail).expect("opens");
        first.set_named(META, "x", &7u32).expect("writes");
        assert!(matches!(open(dir.path(), 1, 1, IfLocked::Fail), Err(LocalError::Locked(_))));
        let beside = open(dir.path(), 1, 1, IfLocked::UseOwn).expect("opens in memory");
        assert_eq!(beside.named::<u32>(META, "x").expect("reads"), None);
        drop(first);
        let wrong = open(dir.path(), 2, 1, IfLocked::Fail);
        assert!(matches!(wrong, Err(LocalError::Foreign { what: "network", .. })));
        let wrong = open(dir.path(), 1, 2, IfLocked::Fail);
        assert!(matches!(wrong, Err(LocalError::Foreign { what: "account", .. })));
        let again = open(dir.path(), 1, 1, IfLocked::Fail).expect("opens");
        assert_eq!(again.named::<u32>(META, "x").expect("reads"), Some(7));
    }

    /// Goal: a folder of the layout before this one opens, and what it was in the middle of is not forgotten. Method: make the
    /// tables of then by hand; look for journal and cache.
    #[test]
    fn former_layouts_keep_their_journal() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let former = Database::create(dir.path().join(FILE)).expect("opens");
        let tx = former.begin_write().expect("begins");
        {
            let mut meta = tx.open_table(META).expect("opens");
            let chain = ChainId::new([1; 32]);
            let rows: [(&str, &[u8]); 4] = [
                (LAYOUT, FORMER),
                ("network", chain.as_bytes()),
                ("account", &[1; 32]),
                (crate::book::STATE, &[9; 50]),
            ];
            for (name, value) in rows {
                meta.insert(name, value).expect("writes");
            }
            for table in [ATTEMPTS, CHUNKS] {
                tx.open_table(table)
                    .expect("opens")
                    .insert([5; 32].as_slice(), encoded(&7u32).as_slice())
                    .expect("writes");
            }
            for table in [ENTRIES, TXS] {
                tx.open_table(table).expect("opens").insert("x", encoded(&7u32).as_slice()).expect("writes");
            }
            tx.open_table(STRIPES).expect("opens").insert(0, [1].as_slice()).expect("writes");
        }
        tx.commit().expect("commits");
        drop(former);
        for _ in 0..2 {
            let db = open(dir.path(), 1, 1, IfLocked::Fail).expect("opens");
            for table in [ATTEMPTS, CHUNKS] {
                assert_eq!(db.keyed::<u32>(table, &[5; 32]).expect("reads"), Some(7));
            }
            assert_eq!(db.named::<u32>(TXS, "x").expect("reads"), Some(7));
            assert_eq!(db.named::<u32>(ENTRIES, "x").expect("reads"), None);
            assert!(crate::book::Book::load(&db, None).expect("loads").commit.is_none());
        }
    }
}
