//! The catalog: the owner's list of blobs by path.
//!
//! Any sequence of sound records can be applied; whether a path may be put at all is asked of the catalog beforehand, so
//! that one that was acknowledged can always be read back.

use tallow_types::limits::RECORD_MAX;
use tallow_types::tagged;

use crate::entry::{Entry, Kind};
use crate::path::BlobPath;
use crate::record::{Changes, Record, Table};

/// Blobs by path.
pub type Catalog = Table<BlobPath, Entry>;
/// What a put or a removal changes.
pub type CatalogChanges = Changes<BlobPath, Entry>;
/// One record of the catalog's log.
pub type CatalogRecord = Record<BlobPath, Entry>;
tagged!(CatalogRecord, b"CR", 1, "catalog record", RECORD_MAX);

/// Why a path can't be put.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum Conflict {
    /// Something above it is not a folder.
    #[error("'{above}' is not a folder, so nothing can be stored below it")]
    BelowBlob { above: BlobPath },
    /// Something is stored below it.
    #[error("'{below}' is stored below this path, so it can only be a folder")]
    AboveBlob { below: BlobPath },
}

/// Everything at or below a path, in order.
pub fn within<'a>(
    catalog: &'a Catalog,
    folder: &'a BlobPath,
) -> impl Iterator<Item = (&'a BlobPath, &'a Entry)> {
    let itself = catalog.get_key_value(folder);
    itself.into_iter().chain(below(catalog, folder))
}

/// Everything below a path, in order. Other names may sort between a folder and what is in it ("a", "a.b", "a/b"), so
/// the walk begins behind the slash.
fn below<'a>(catalog: &'a Catalog, folder: &'a BlobPath) -> impl Iterator<Item = (&'a BlobPath, &'a Entry)> {
    let first = format!("{}/", folder.as_str());
    let from = (std::ops::Bound::Included(first.as_str()), std::ops::Bound::Unbounded);
    let range = catalog.range::<str, _>(from);
    range.take_while(move |(path, _)| path.is_within(folder))
}

/// What has to be known of a catalog to judge a path, wherever it is kept.
pub trait Lookup {
    /// A conflict, or what goes wrong with looking.
    type Error: From<Conflict>;

    /// Whether there is a folder at a path; `None` if there is nothing.
    ///
    /// # Errors
    /// It can't be looked up.
    fn is_folder(&self, path: &BlobPath) -> Result<Option<bool>, Self::Error>;

    /// The first path below a path.
    ///
    /// # Errors
    /// It can't be looked up.
    fn first_below(&self, path: &BlobPath) -> Result<Option<BlobPath>, Self::Error>;
}

impl Lookup for Catalog {
    type Error = Conflict;

    fn is_folder(&self, path: &BlobPath) -> Result<Option<bool>, Conflict> {
        Ok(self.get(path).map(|entry| entry.kind == Kind::Dir))
    }

    fn first_below(&self, path: &BlobPath) -> Result<Option<BlobPath>, Conflict> {
        Ok(below(self, path).next().map(|(below, _)| below.clone()))
    }
}

/// Whether `path` may hold `kind`, given what else there is. Links above it count as blobs: a get never follows one.
///
/// # Errors
/// [`Conflict`] with what is in the way, or what went wrong with looking.
pub fn check<C: Lookup>(catalog: &C, path: &BlobPath, kind: &Kind) -> Result<(), C::Error> {
    for above in path.parents() {
        match catalog.is_folder(&above)? {
            Some(false) => return Err(Conflict::BelowBlob { above }.into()),
            // What is above a folder was judged when the folder came.
            Some(true) => break,
            None => {}
        }
    }
    if *kind == Kind::Dir {
        return Ok(());
    }
    match catalog.first_below(path)? {
        Some(below) => Err(Conflict::AboveBlob { below }.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
