//! The catalog in the local database: read as it was at one moment, and changed.
//!
//! Guarantees: a reader sees one commit's catalog however others write meanwhile, and holds no more of it than it asks for;
//! a folder is listed by leaps over what is below its subfolders; sums over folders, and how often the catalog refers to a
//! stripe, follow from the changes alone.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable as _, WriteTransaction};
use tallow_seal::chunk::ChunkRef;
use tallow_seal::entry::{ChunkList, Content, Entry, Kind};
use tallow_seal::path::BlobPath;
use tallow_types::unit::LeafIndex;

use crate::db::{ENTRIES, FOLDERS, LISTS, decoded, encoded, failed};
use crate::error::LocalError;

/// What is below a folder, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct Sum {
    pub entries: u64,
    pub files: u64,
    /// Plain bytes of the files.
    pub bytes: u64,
    /// Files that are kept whole in the catalog.
    pub inline: u64,
    /// Bytes that paths and entries take in a record.
    pub encoded: u64,
    /// The newest modification that was ever put below it. Milliseconds since 1970.
    pub modified_ms: i64,
    /// When something was put below it last. Milliseconds since 1970.
    pub stored_ms: u64,
}

/// How often the catalog refers to a leaf, or how much more or less often than before.
pub(crate) type Uses = BTreeMap<LeafIndex, i64>;

/// A list of chunks, by the place of the chunk that holds it.
pub(crate) type ListAt = (u64, u32);

/// What lists of chunks name, as far as it is known without reading them: by leaf, how often.
pub(crate) type Listed = BTreeMap<ListAt, BTreeMap<u64, u64>>;

/// A list in the database.
#[derive(Debug, Default, BorshSerialize, BorshDeserialize)]
struct List {
    /// Entries that name it.
    users: u64,
    chunk: Option<ChunkRef>,
    /// The leaves that it names, how often; `None` until it was read.
    leaves: Option<BTreeMap<u64, u64>>,
}

/// The leaves that a list names.
pub(crate) fn leaves_of(list: &ChunkList) -> BTreeMap<u64, u64> {
    let mut leaves = BTreeMap::new();
    for chunk in list.chunks.iter() {
        *leaves.entry(chunk.leaf.get()).or_default() += 1;
    }
    leaves
}

pub(crate) fn list_at(chunk: &ChunkRef) -> ListAt {
    (chunk.leaf.get(), chunk.offset)
}

type Table = ReadOnlyTable<&'static str, &'static [u8]>;

/// The catalog as it was when the transaction began; empty by default.
#[derive(Default)]
pub(crate) struct Entries(Option<(Table, Table)>);

/// Something directly in a folder.
pub(crate) struct Child {
    pub path: String,
    /// `None`: a folder that has no entry of its own.
    pub entry: Option<Entry>,
    pub below: Sum,
}

fn parsed(path: &str) -> Result<BlobPath, LocalError> {
    BlobPath::parse(path).map_err(failed)
}

/// The first key behind everything below a path: a zero follows the slash.
fn behind(path: &str) -> String {
    format!("{path}0")
}

fn inside(folder: &str) -> String {
    if folder.is_empty() { String::new() } else { format!("{folder}/") }
}

impl Entries {
    pub fn open(tx: &ReadTransaction) -> Result<Self, LocalError> {
        let entries = tx.open_table(ENTRIES).map_err(failed)?;
        Ok(Self(Some((entries, tx.open_table(FOLDERS).map_err(failed)?))))
    }

    pub fn get(&self, path: &str) -> Result<Option<Entry>, LocalError> {
        let Some((entries, _)) = &self.0 else { return Ok(None) };
        entries.get(path).map_err(failed)?.map(|found| decoded(found.value())).transpose()
    }

    /// What is below a folder; below the empty path, everything.
    pub fn sum(&self, folder: &str) -> Result<Sum, LocalError> {
        let Some((_, folders)) = &self.0 else { return Ok(Sum::default()) };
        let found = folders.get(folder).map_err(failed)?;
        found.map_or(Ok(Sum::default()), |found| decoded(found.value()))
    }

    /// Everything from a key on, in order.
    pub fn from(
        &self,
        first: &str,
    ) -> Result<impl Iterator<Item = Result<(BlobPath, Entry), LocalError>> + Send + use<>, LocalError> {
        let range = match &self.0 {
            Some((entries, _)) => Some(entries.range(first..).map_err(failed)?),
            None => None,
        };
        Ok(range.into_iter().flatten().map(|item| {
            let (path, entry) = item.map_err(failed)?;
            Ok((parsed(path.value())?, decoded(entry.value())?))
        }))
    }

    /// Everything below a folder, in order; below the empty path, everything.
    pub fn below(
        &self,
        folder: &str,
    ) -> Result<impl Iterator<Item = Result<(BlobPath, Entry), LocalError>> + Send + use<>, LocalError> {
        let prefix = inside(folder);
        let range = self.from(&prefix)?;
        Ok(range.take_while(move |item| match item {
            Ok((path, _)) => path.as_str().starts_with(&prefix),
            Err(_) => true,
        }))
    }

    /// What is at a path and below it, in order.
    pub fn within(
        &self,
        path: &str,
    ) -> Result<impl Iterator<Item = Result<(BlobPath, Entry), LocalError>> + Send + use<>, LocalError> {
        let own = if path.is_empty() { None } else { self.get(path)? };
        let own = own.map(|entry| Ok((parsed(path)?, entry)));
        Ok(own.into_iter().chain(self.below(path)?))
    }

    /// Whether there is something at a path, or below it.
    pub fn is_there(&self, path: &str) -> Result<bool, LocalError> {
        Ok(self.sum(path)?.entries > 0 || self.get(path)?.is_some())
    }

    /// What is directly in a folder, in the order of names.
    pub fn children(&self, folder: &str) -> Result<Children, LocalError> {
        let prefix = inside(folder);
        let Some((entries, folders)) = &self.0 else { return Ok(Children(None)) };
        Ok(Children(Some((Direct::new(entries, &prefix)?, Direct::new(folders, &prefix)?))))
    }
}

/// The keys directly below a prefix, by leaps over all deeper ones.
struct Direct {
    prefix: String,
    range: redb::Range<'static, &'static str, &'static [u8]>,
    ahead: Option<String>,
}

impl Direct {
    fn new(table: &Table, prefix: &str) -> Result<Self, LocalError> {
        let range = table.range(prefix..).map_err(failed)?;
        let mut direct = Self { prefix: prefix.to_owned(), range, ahead: None };
        direct.step(table)?;
        Ok(direct)
    }

    fn step(&mut self, table: &Table) -> Result<(), LocalError> {
        self.ahead = None;
        while let Some(item) = self.range.next() {
            let key = item.map_err(failed)?.0;
            let Some(name) = key.value().strip_prefix(&self.prefix) else { break };
            match name.find('/') {
                // The sum of everything has no name.
                None if name.is_empty() => {}
                None => {
                    self.ahead = Some(key.value().to_owned());
                    break;
                }
                Some(end) => {
                    let child = &key.value()[..self.prefix.len() + end];
                    self.range = table.range(behind(child).as_str()..).map_err(failed)?;
                }
            }
        }
        Ok(())
    }
}

/// See [`Entries::children`].
pub(crate) struct Children(Option<(Direct, Direct)>);

impl Children {
    /// The next one, of the entries that this was made from.
    pub fn next(&mut self, of: &Entries) -> Result<Option<Child>, LocalError> {
        let (Some((entries, folders)), Some(tables)) = (&mut self.0, &of.0) else { return Ok(None) };
        let path = match (&entries.ahead, &folders.ahead) {
            (Some(entry), Some(folder)) => entry.min(folder).clone(),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => return Ok(None),
        };
        let (mut entry, mut below) = (None, Sum::default());
        if entries.ahead.as_ref() == Some(&path) {
            entry = of.get(&path)?;
            entries.step(&tables.0)?;
        }
        if folders.ahead.as_ref() == Some(&path) {
            below = of.sum(&path)?;
            folders.step(&tables.1)?;
        }
        Ok(Some(Child { path, entry, below }))
    }
}

/// A change of sums.
#[derive(Default)]
struct Tally {
    entries: i64,
    files: i64,
    bytes: i64,
    inline: i64,
    encoded: i64,
    modified_ms: i64,
    stored_ms: u64,
}

impl Tally {
    fn count(&mut self, path: &BlobPath, entry: &Entry, encoded: usize, sign: i64) {
        let signed = |value: u64| sign * i64::try_from(value).unwrap_or(i64::MAX);
        self.entries += sign;
        // The length of the path, and the mark of a change that puts.
        self.encoded += signed((4 + path.as_str().len() + 1 + encoded) as u64);
        if let Kind::File(content) = &entry.kind {
            self.files += sign;
            self.bytes = self.bytes.saturating_add(signed(content.size().get()));
            self.inline += if matches!(content, Content::Inline(_)) { sign } else { 0 };
        }
        if sign > 0 {
            self.modified_ms = self.modified_ms.max(modified_ms(entry));
            self.stored_ms = self.stored_ms.max(entry.stored_at.get());
        }
    }

    fn applied(&self, sum: Sum) -> Sum {
        Sum {
            entries: sum.entries.saturating_add_signed(self.entries),
            files: sum.files.saturating_add_signed(self.files),
            bytes: sum.bytes.saturating_add_signed(self.bytes),
            inline: sum.inline.saturating_add_signed(self.inline),
            encoded: sum.encoded.saturating_add_signed(self.encoded),
            modified_ms: sum.modified_ms.max(self.modified_ms),
            stored_ms: sum.stored_ms.max(self.stored_ms),
        }
    }
}

/// When an entry was changed last, in milliseconds since 1970.
pub(crate) fn modified_ms(entry: &Entry) -> i64 {
    let modified = entry.modified;
    modified.seconds().saturating_mul(1000).saturating_add(i64::from(modified.nanos() / 1_000_000))
}

/// Inside a write transaction: puts (`Some`) and removes (`None`) entries, and says what that does to the uses of leaves.
/// What new lists of chunks name is taken from `listed`; lists that are not in it are read later.
pub(crate) fn apply<'a>(
    tx: &WriteTransaction,
    changes: impl IntoIterator<Item = (&'a BlobPath, Option<&'a Entry>)>,
    listed: &Listed,
) -> Result<Uses, LocalError> {
    let mut entries = tx.open_table(ENTRIES).map_err(failed)?;
    let mut lists = tx.open_table(LISTS).map_err(failed)?;
    let (mut uses, mut tallies) = (Uses::new(), BTreeMap::<String, Tally>::new());
    for (path, entry) in changes {
        let bytes = entry.map(encoded);
        let old = match &bytes {
            Some(bytes) => entries.insert(path.as_str(), bytes.as_slice()),
            None => entries.remove(path.as_str()),
        };
        let old = old.map_err(failed)?.map(|old| Ok((decoded::<Entry>(old.value())?, old.value().len())));
        let old = old.transpose()?;
        let old = old.as_ref().map(|(entry, len)| (entry, *len, -1));
        let new = entry.zip(bytes.as_ref()).map(|(entry, bytes)| (entry, bytes.len(), 1));
        for (entry, len, sign) in [old, new].into_iter().flatten() {
            tally(&mut tallies, path, |tally| tally.count(path, entry, len, sign));
            refer(&mut lists, listed, entry, (&mut uses, sign))?;
        }
    }
    let mut folders = tx.open_table(FOLDERS).map_err(failed)?;
    for (folder, tally) in tallies {
        let old = folders.get(folder.as_str()).map_err(failed)?.map(|old| decoded::<Sum>(old.value()));
        let new = tally.applied(old.transpose()?.unwrap_or_default());
        if new.entries == 0 {
            folders.remove(folder.as_str()).map_err(failed)?;
        } else {
            folders.insert(folder.as_str(), encoded(&new).as_slice()).map_err(failed)?;
        }
    }
    uses.retain(|_, count| *count != 0);
    Ok(uses)
}

/// Counts in every folder above a path, and in the whole.
fn tally(tallies: &mut BTreeMap<String, Tally>, path: &BlobPath, mut count: impl FnMut(&mut Tally)) {
    let path = path.as_str();
    let ends = path.match_indices('/').map(|(at, _)| at);
    for end in std::iter::once(0).chain(ends) {
        let folder = &path[..end];
        match tallies.get_mut(folder) {
            Some(tally) => count(tally),
            None => count(tallies.entry(folder.to_owned()).or_default()),
        }
    }
}

/// Counts what an entry refers to.
fn refer(
    lists: &mut redb::Table<'_, (u64, u32), &'static [u8]>,
    listed: &Listed,
    entry: &Entry,
    (uses, sign): (&mut Uses, i64),
) -> Result<(), LocalError> {
    let Kind::File(content) = &entry.kind else { return Ok(()) };
    let (refs, is_listed): (&[ChunkRef], bool) = match content {
        Content::Inline(_) => (&[], false),
        Content::Chunks(chunks) => (chunks, false),
        Content::Lists { lists, .. } => (lists, true),
    };
    for chunk in refs {
        *uses.entry(chunk.leaf).or_default() += sign;
        if !is_listed {
            continue;
        }
        let at = list_at(chunk);
        let known = lists.get(at).map_err(failed)?.map(|known| decoded::<List>(known.value())).transpose()?;
        let mut list = known.unwrap_or_default();
        let was_used = list.users > 0;
        if !was_used {
            list.leaves = listed.get(&at).cloned();
        }
        list.chunk = Some(*chunk);
        list.users = list.users.saturating_add_signed(sign);
        if was_used != (list.users > 0) {
            for (leaf, count) in list.leaves.iter().flatten() {
                let count = i64::try_from(*count).unwrap_or(i64::MAX);
                *uses.entry(LeafIndex::new(*leaf)).or_default() += sign * count;
            }
        }
        if list.users == 0 {
            lists.remove(at).map_err(failed)?;
        } else {
            lists.insert(at, encoded(&list).as_slice()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Lists of chunks that have not been read yet.
pub(crate) fn unread(tx: &ReadTransaction) -> Result<Vec<ChunkRef>, LocalError> {
    let lists = tx.open_table(LISTS).map_err(failed)?;
    let mut found = Vec::new();
    for item in lists.iter().map_err(failed)? {
        let list: List = decoded(item.map_err(failed)?.1.value())?;
        found.extend(list.chunk.filter(|_| list.leaves.is_none()));
    }
    Ok(found)
}

/// Inside a write transaction: says what lists name, and what that does to the uses of leaves.
pub(crate) fn read(tx: &WriteTransaction, listed: Listed) -> Result<Uses, LocalError> {
    let mut lists = tx.open_table(LISTS).map_err(failed)?;
    let mut uses = Uses::new();
    for (at, leaves) in listed {
        let known = lists.get(at).map_err(failed)?.map(|known| decoded::<List>(known.value())).transpose()?;
        let Some(mut list) = known.filter(|list| list.leaves.is_none()) else { continue };
        for (leaf, count) in &leaves {
            *uses.entry(LeafIndex::new(*leaf)).or_default() += i64::try_from(*count).unwrap_or(i64::MAX);
        }
        list.leaves = Some(leaves);
        lists.insert(at, encoded(&list).as_slice()).map_err(failed)?;
    }
    Ok(uses)
}

#[cfg(test)]
mod tests;
