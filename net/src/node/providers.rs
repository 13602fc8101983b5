//! What a node keeps for the table of nodes: who says to hold which contract, in bounded memory, and nothing else.
//!
//! Guarantees: values are never kept. Of others, at most [`RECORDS_MAX`] records are kept in all, [`PEER_RECORDS_MAX`] of
//! one peer and [`KEY_RECORDS_MAX`] for one contract, each with at most [`ADDRESSES_MAX`] addresses; room is made by
//! what has expired and by nothing else, so that nobody can push out what others said.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use tallow_types::limits::ADDRESSES_MAX;

/// Most records of others. With all addresses as long as they may be, 64 MiB; in practice a tenth.
pub(super) const RECORDS_MAX: usize = 32 << 10;
/// Most records of one other peer.
pub(super) const PEER_RECORDS_MAX: usize = 4 << 10;
/// Most records of others for one contract: somewhat more than it has slots.
pub(super) const KEY_RECORDS_MAX: usize = 64;
/// Most contracts that this node says to hold itself.
pub(super) const OWN_MAX: usize = 1 << 20;

/// The records of one node.
pub(super) struct Providers {
    me: PeerId,
    own: HashMap<RecordKey, ProviderRecord>,
    others: HashMap<RecordKey, Vec<ProviderRecord>>,
    /// How many records of each other peer there are, and of all others.
    of_peer: HashMap<PeerId, usize>,
    count: usize,
}

impl Providers {
    pub(super) fn new(me: PeerId) -> Self {
        Self { me, own: HashMap::new(), others: HashMap::new(), of_peer: HashMap::new(), count: 0 }
    }

    fn forget_expired(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for records in self.others.values_mut() {
            let expired = records.extract_if(.., |record| record.is_expired(now));
            gone.extend(expired.map(|record| record.provider));
        }
        self.others.retain(|_, records| !records.is_empty());
        gone.iter().for_each(|provider| self.release(provider));
    }

    fn release(&mut self, provider: &PeerId) {
        self.count -= 1;
        if let Some(count) = self.of_peer.get_mut(provider) {
            *count -= 1;
            if *count == 0 {
                self.of_peer.remove(provider);
            }
        }
    }
}

impl RecordStore for Providers {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Map<
        std::collections::hash_map::Values<'a, RecordKey, ProviderRecord>,
        fn(&'a ProviderRecord) -> Cow<'a, ProviderRecord>,
    >;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        if record.provider == self.me {
            if self.own.len() >= OWN_MAX && !self.own.contains_key(&record.key) {
                return Err(Error::MaxProvidedKeys);
            }
            self.own.insert(record.key.clone(), record);
            return Ok(());
        }
        record.addresses.truncate(ADDRESSES_MAX);
        let known = self.others.get_mut(&record.key);
        let known = known.and_then(|records| records.iter_mut().find(|one| one.provider == record.provider));
        if let Some(known) = known {
            *known = record;
            return Ok(());
        }
        if self.count >= RECORDS_MAX {
            self.forget_expired(Instant::now());
        }
        let of_peer = self.of_peer.get(&record.provider).copied().unwrap_or(0);
        let of_key = self.others.get(&record.key).map_or(0, Vec::len);
        if self.count >= RECORDS_MAX || of_peer >= PEER_RECORDS_MAX || of_key >= KEY_RECORDS_MAX {
            return Err(Error::MaxProvidedKeys);
        }
        *self.of_peer.entry(record.provider).or_default() += 1;
        self.count += 1;
        self.others.entry(record.key.clone()).or_default().push(record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let now = Instant::now();
        let others = self.others.get(key).into_iter().flatten().filter(|record| !record.is_expired(now));
        self.own.get(key).into_iter().chain(others).cloned().collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        self.own.values().map(Cow::Borrowed)
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.me {
            self.own.remove(key);
            return;
        }
        let Some(records) = self.others.get_mut(key) else { return };
        let Some(at) = records.iter().position(|record| record.provider == *provider) else { return };
        records.remove(at);
        if records.is_empty() {
            self.others.remove(key);
        }
        self.release(provider);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::Multiaddr;
    use std::time::Duration;

    fn peer(seed: u16) -> PeerId {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&seed.to_le_bytes());
        libp2p::identity::Keypair::ed25519_from_bytes(bytes).expect("a seed").public().to_peer_id()
    }

    fn key(number: usize) -> RecordKey {
        RecordKey::new(&number.to_le_bytes())
    }

    fn record(number: usize, provider: PeerId) -> ProviderRecord {
        ProviderRecord::new(key(number), provider, Vec::new())
    }

    /// Goal: every limit holds, one above is refused, and what was there stays. Method: fill each.
    #[test]
    fn limits_hold() {
        let mut store = Providers::new(peer(0));
        for number in 0..PEER_RECORDS_MAX {
            store.add_provider(record(number, peer(1))).expect("room");
        }
        store.add_provider(record(0, peer(1))).expect("said again");
        assert!(store.add_provider(record(PEER_RECORDS_MAX, peer(1))).is_err());
        for seed in 2..=u16::try_from(KEY_RECORDS_MAX).expect("small") {
            store.add_provider(record(0, peer(seed))).expect("room");
        }
        assert!(store.add_provider(record(0, peer(999))).is_err());
        assert_eq!(store.providers(&key(0)).len(), KEY_RECORDS_MAX);
        let mut seed = 1000;
        while store.count < RECORDS_MAX {
            seed += 1;
            for number in 0..PEER_RECORDS_MAX.min(RECORDS_MAX - store.count) {
                store.add_provider(record(1 + number, peer(seed))).expect("room");
            }
        }
        assert!(store.add_provider(record(1, peer(seed + 1))).is_err());
        store.add_provider(record(9, peer(0))).expect("one's own are counted apart");
        assert_eq!(store.provided().count(), 1);
        store.remove_provider(&key(1), &peer(1));
        store.add_provider(record(1, peer(seed + 1))).expect("room again");
    }

    /// Goal: values are never kept, addresses are cut, what expired is neither told nor in the way. Method: one of each.
    #[test]
    fn nothing_else_is_kept() {
        let mut store = Providers::new(peer(0));
        assert!(store.put(Record::new(key(1), vec![1])).is_err());
        assert!(store.get(&key(1)).is_none());
        let addresses: Vec<Multiaddr> =
            (0..20).map(|port| format!("/ip4/1.2.3.4/tcp/{port}").parse().expect("an address")).collect();
        store.add_provider(ProviderRecord::new(key(1), peer(1), addresses)).expect("room");
        assert_eq!(store.providers(&key(1))[0].addresses.len(), ADDRESSES_MAX);
        let past = Instant::now().checked_sub(Duration::from_secs(1));
        store.add_provider(ProviderRecord { expires: past, ..record(2, peer(2)) }).expect("room");
        assert!(store.providers(&key(2)).is_empty());
        store.forget_expired(Instant::now());
        assert_eq!((store.count, store.others.len(), store.of_peer.len()), (1, 1, 1));
    }
}
