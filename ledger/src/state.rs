//! Reading and writing state: an ordered map from keys to record bytes, wherever it is kept.
//!
//! Guarantees: rules see the writes that came before them, in key order; what a failed step wrote is gone.
//!
//! Does not contain: files. `consensus` keeps the records; a `BTreeMap` will do for tests.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Keys and record bytes in key order.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What a block changes: `None` removes.
pub type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The state could not be read, or holds something that no rule ever wrote. Never the fault of a transaction: whoever
/// executes must stop, not refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger's state cannot be read: {reason}")]
pub struct ReadError {
    /// What went wrong.
    pub reason: String,
}

impl ReadError {
    /// From whatever the store says.
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }
}

/// A source of records.
///
/// # Guarantees
/// * *Stability*: one value answers from one state, however often it is asked.
/// * *Order*: `scan` gives the records whose key begins with `prefix` and lies above `after`, in the order of the
///   bytes of their keys, `limit` at most and fewer only when there are no more.
pub trait StateRead {
    /// The record under a key.
    ///
    /// # Errors
    /// [`ReadError`] if the store fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Records by prefix; an empty `after` starts at the first.
    ///
    /// # Errors
    /// [`ReadError`] if the store fails.
    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Records, ReadError>;
}

impl StateRead for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Records, ReadError> {
        let records = self.range::<[u8], _>((start(prefix, after), Bound::Unbounded));
        let inside = records.take_while(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(inside.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// Where a scan begins.
fn start<'a>(prefix: &'a [u8], after: &'a [u8]) -> Bound<&'a [u8]> {
    if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) }
}

/// Applies writes to a map: what a store does with the outcome of a block.
pub fn apply(state: &mut BTreeMap<Vec<u8>, Vec<u8>>, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => state.insert(key.clone(), value.clone()),
            None => state.remove(key),
        };
    }
}

/// A state with writes on top that are not yet in it.
pub struct Overlay<'a> {
    base: &'a dyn StateRead,
    writes: Writes,
}

impl<'a> Overlay<'a> {
    /// Nothing written yet.
    #[must_use]
    pub fn new(base: &'a dyn StateRead) -> Self {
        Self { base, writes: Writes::new() }
    }

    /// Writes a record.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert(key, Some(value));
    }

    /// Removes a record.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// Takes over the writes of an overlay that stood on this one.
    pub fn absorb(&mut self, writes: Writes) {
        self.writes.extend(writes);
    }

    /// The writes.
    #[must_use]
    pub fn into_writes(self) -> Writes {
        self.writes
    }
}

impl StateRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Records, ReadError> {
        let written = self.writes.range::<[u8], _>((start(prefix, after), Bound::Unbounded));
        let written: Vec<_> = written.take_while(|(key, _)| key.starts_with(prefix)).collect();
        // Each removal can hide one record of the base, so that many more are asked for.
        let hidden = written.iter().filter(|(_, value)| value.is_none()).count();
        let base = self.base.scan(prefix, after, limit.saturating_add(hidden))?;
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = base.into_iter().collect();
        for (key, value) in written {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0..3u8, 1..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Goal: reading through an overlay is reading the state after its writes. Method: apply the same random
        /// writes to a map, compare every read and every page of every scan.
        #[test]
        fn overlay_reads_as_if_applied(
            base in proptest::collection::btree_map(keys(), proptest::collection::vec(any::<u8>(), 0..2), 0..24),
            writes in proptest::collection::btree_map(keys(), proptest::option::of(Just(vec![9u8])), 0..24),
            prefix in proptest::collection::vec(0..3u8, 0..3),
            after in proptest::collection::vec(0..3u8, 0..4),
            limit in 0..8usize,
        ) {
            let mut overlay = Overlay::new(&base);
            overlay.absorb(writes.clone());
            let mut applied = base.clone();
            apply(&mut applied, &writes);
            for key in base.keys().chain(writes.keys()) {
                prop_assert_eq!(overlay.get(key), StateRead::get(&applied, key));
            }
            prop_assert_eq!(overlay.scan(&prefix, &after, limit), applied.scan(&prefix, &after, limit));
        }
    }
}
