//! The client's own database: a cache of the catalog and the stripe table, and the journal of what is under way.
//!
//! Guarantees: losing it loses nothing that was acknowledged; what it says of stripes and chunks is used only when it
//! fits the commit that the seeders show. One process at a time writes.
//!
//! ```text
//! meta     name              -> bytes     network, account, the commit that the cache stands at, heads
//! entries  path              -> Entry     the catalog at that commit
//! stripes  leaf u64          -> Row       the stripe table at that commit
//! chunks   chunk id          -> Known     where sealed chunks are
//! attempts digest            -> Attempt   stripes that were coded, and who acknowledged which slice
//! txs      purpose           -> Pending   transactions that were sent and not yet answered
//! ```

use std::path::{Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use redb::backends::InMemoryBackend;
use redb::{
    Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};
use tallow_types::id::{AccountId, ChainId};

use crate::error::LocalError;

/// By name.
pub(crate) type Named = TableDefinition<'static, &'static str, &'static [u8]>;
/// By bytes.
pub(crate) type Keyed = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(crate) const META: Named = TableDefinition::new("meta");
pub(crate) const ENTRIES: Named = TableDefinition::new("entries");
pub(crate) const STRIPES: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("stripes");
pub(crate) const CHUNKS: Keyed = TableDefinition::new("chunks");
pub(crate) const ATTEMPTS: Keyed = TableDefinition::new("attempts");
pub(crate) const TXS: Named = TableDefinition::new("txs");

const LAYOUT: &str = "layout";
const VERSION: &[u8] = b"1";
/// redb's own default would be a gibibyte.
const CACHE_BYTES: usize = 8 << 20;
const FILE: &str = "client.redb";

/// The database, on disk or in memory.
pub(crate) struct Db {
    database: Database,
    path: Option<PathBuf>,
}

/// Whether a database that another process uses is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfLocked {
    Fail,
    UseMemory,
}

fn failed(error: impl std::fmt::Display) -> LocalError {
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
        std::fs::create_dir_all(dir).map_err(io)?;
        let path = dir.join(FILE);
        match Database::builder().set_cache_size(CACHE_BYTES).create(&path) {
            Ok(database) => {
                let db = Self { database, path: Some(path) };
                db.check(chain, account)?;
                Ok(db)
            }
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if if_locked == IfLocked::UseMemory => {
                Self::in_memory(chain, account)
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
        let db = Self { database, path: None };
        db.check(chain, account)?;
        Ok(db)
    }

    /// Makes the tables, and refuses a database of another network, account or layout.
    fn check(&self, chain: &ChainId, account: &AccountId) -> Result<(), LocalError> {
        let dir =
            || self.path.as_ref().map_or_else(|| "memory".to_owned(), |path| path.display().to_string());
        self.write(|tx| {
            for table in [META, ENTRIES, TXS] {
                tx.open_table(table).map_err(failed)?;
            }
            for table in [CHUNKS, ATTEMPTS] {
                tx.open_table(table).map_err(failed)?;
            }
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
        let tx = self.database.begin_write().map_err(failed)?;
        let value = body(&tx)?;
        tx.commit().map_err(failed)?;
        Ok(value)
    }

    /// A write transaction that readers here see at once, and a crash may undo until [`Db::sync`] or the next durable one:
    /// for what can be learnt again.
    pub fn write_soft<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, LocalError>,
    ) -> Result<T, LocalError> {
        let mut tx = self.database.begin_write().map_err(failed)?;
        tx.set_durability(Durability::None).map_err(failed)?;
        let value = body(&tx)?;
        tx.commit().map_err(failed)?;
        Ok(value)
    }

    /// Makes all transactions so far durable.
    pub fn sync(&self) -> Result<(), LocalError> {
        self.write(|_| Ok(()))
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

    /// All values of a table of names, in order.
    pub fn all_named<T: BorshDeserialize>(&self, table: Named) -> Result<Vec<(String, T)>, LocalError> {
        let tx = self.database.begin_read().map_err(failed)?;
        let table = tx.open_table(table).map_err(failed)?;
        table
            .iter()
            .map_err(failed)?
            .map(|item| {
                let (name, value) = item.map_err(failed)?;
                Ok((name.value().to_owned(), decoded(value.value())?))
            })
            .collect()
    }

    /// All stripes, in order.
    pub fn all_stripes<T: BorshDeserialize>(&self) -> Result<Vec<T>, LocalError> {
        let tx = self.database.begin_read().map_err(failed)?;
        let table = tx.open_table(STRIPES).map_err(failed)?;
        table.iter().map_err(failed)?.map(|item| decoded(item.map_err(failed)?.1.value())).collect()
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
        self.write(|tx| {
            tx.open_table(table).map_err(failed)?.remove(name).map_err(failed)?;
            Ok(())
        })
    }
}

fn decoded<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, LocalError> {
    T::try_from_slice(bytes).map_err(failed)
}

fn encoded<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to a vector cannot fail")
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

/// Inside a write transaction: many values by name; `None` removes.
pub(crate) fn put_names<'a, T: BorshSerialize + 'a>(
    tx: &WriteTransaction,
    table: Named,
    values: impl IntoIterator<Item = (&'a str, Option<&'a T>)>,
) -> Result<(), LocalError> {
    let mut table = tx.open_table(table).map_err(failed)?;
    for (name, value) in values {
        match value {
            Some(value) => drop(table.insert(name, encoded(value).as_slice()).map_err(failed)?),
            None => drop(table.remove(name).map_err(failed)?),
        }
    }
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

/// Inside a write transaction: stripes by leaf, and none behind `leaves`.
pub(crate) fn put_stripes<'a, T: BorshSerialize + 'a>(
    tx: &WriteTransaction,
    leaves: u64,
    rows: impl IntoIterator<Item = (u64, &'a T)>,
) -> Result<(), LocalError> {
    let mut table = tx.open_table(STRIPES).map_err(failed)?;
    table.retain_in(leaves.., |_, _| false).map_err(failed)?;
    for (leaf, row) in rows {
        table.insert(leaf, encoded(row).as_slice()).map_err(failed)?;
    }
    Ok(())
}

/// Inside a write transaction: empties a table.
pub(crate) fn clear_named(tx: &WriteTransaction, table: Named) -> Result<(), LocalError> {
    tx.delete_table(table).map_err(failed)?;
    tx.open_table(table).map_err(failed)?;
    Ok(())
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
        let beside = open(dir.path(), 1, 1, IfLocked::UseMemory).expect("opens in memory");
        assert_eq!(beside.named::<u32>(META, "x").expect("reads"), None);
        drop(first);
        let wrong = open(dir.path(), 2, 1, IfLocked::Fail);
        assert!(matches!(wrong, Err(LocalError::Foreign { what: "network", .. })));
        let wrong = open(dir.path(), 1, 2, IfLocked::Fail);
        assert!(matches!(wrong, Err(LocalError::Foreign { what: "account", .. })));
        let again = open(dir.path(), 1, 1, IfLocked::Fail).expect("opens");
        assert_eq!(again.named::<u32>(META, "x").expect("reads"), Some(7));
    }
}
