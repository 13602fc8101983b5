//! Listing what there is: one by one, from the catalog as it was at one moment.

use std::sync::Arc;

use tallow_seal::entry::{Content, Entry, Kind};
use tallow_seal::path::BlobPath;
use tallow_types::unit::{LeafIndex, TimeMs};

use crate::book::Book;
use crate::db::Db;
use crate::entries::{Child, Children, Sum, modified_ms};
use crate::error::GetError;
use crate::get::lookup;
use crate::report::{Listed, ListedKind};

type All = Box<dyn Iterator<Item = Result<(BlobPath, Entry), GetError>> + Send>;

/// Blobs, folders and links one by one: what is directly in a folder, or all that is at a path and below it.
pub struct Listing {
    book: Arc<Book>,
    rest: Rest,
    /// Open for as long as there is something to list, whatever becomes of the client.
    _db: Arc<Db>,
}

enum Rest {
    All(All),
    Children(Box<Children>),
    /// A path that is no folder.
    Single(Option<Listed>),
}

impl Listing {
    pub(crate) fn new(db: Arc<Db>, book: Arc<Book>, path: &str, recursive: bool) -> Result<Self, GetError> {
        let all = lookup(&book.entries, path)?;
        let own = if path.is_empty() { None } else { book.entries.get(path)? };
        let rest = match own {
            _ if recursive => Rest::All(Box::new(all)),
            Some(entry) if entry.kind != Kind::Dir => Rest::Single(Some(listed(path, &entry))),
            _ => Rest::Children(Box::new(book.entries.children(path)?)),
        };
        Ok(Self { book, rest, _db: db })
    }
}

impl Iterator for Listing {
    type Item = Result<Listed, GetError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.rest {
            Rest::All(all) => Some(all.next()?.map(|(path, entry)| listed(path.as_str(), &entry))),
            Rest::Children(children) => match children.next(&self.book.entries) {
                Ok(child) => child.map(|child| Ok(shown(&child))),
                Err(error) => Some(Err(error.into())),
            },
            Rest::Single(own) => own.take().map(Ok),
        }
    }
}

/// Folders show the size of what is in them.
fn shown(child: &Child) -> Listed {
    match &child.entry {
        Some(entry) => {
            let mut own = listed(&child.path, entry);
            own.size += child.below.bytes;
            own
        }
        None => folder(&child.path, &child.below),
    }
}

/// What an entry is, for people.
pub(crate) fn listed(path: &str, entry: &Entry) -> Listed {
    let kind = match &entry.kind {
        Kind::File(_) => ListedKind::File,
        Kind::Dir => ListedKind::Folder,
        Kind::Symlink(target) => ListedKind::Link(String::from_utf8_lossy(target.as_bytes()).into_owned()),
    };
    Listed {
        path: path.to_owned(),
        kind,
        size: entry.size().get(),
        mtime_ms: modified_ms(entry),
        mode: entry.mode.bits(),
        stored_at: entry.stored_at,
    }
}

/// A folder that has no entry of its own, from what is below it.
pub(crate) fn folder(path: &str, below: &Sum) -> Listed {
    Listed {
        path: path.to_owned(),
        kind: ListedKind::Folder,
        size: below.bytes,
        mtime_ms: below.modified_ms,
        mode: 0o700,
        stored_at: TimeMs::new(below.stored_ms),
    }
}

/// The leaves that a content names itself.
pub(crate) fn content_leaves(content: &Content) -> impl Iterator<Item = LeafIndex> + '_ {
    let refs: &[tallow_seal::chunk::ChunkRef] = match content {
        Content::Inline(_) => &[],
        Content::Chunks(chunks) => chunks,
        Content::Lists { lists, .. } => lists,
    };
    refs.iter().map(|chunk| chunk.leaf)
}
