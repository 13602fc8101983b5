//! A small contract of this version, as seeders and a commit hold it, must open in every later one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use serde_json::Value;
use tallow_seal::attempt::StripeAttempt;
use tallow_seal::catalog::{Catalog, CatalogRecord, within};
use tallow_seal::chunk::{ChunkRef, Sealer, open};
use tallow_seal::entry::{Content, FileTime, Kind};
use tallow_seal::head::{HeadRef, Place, Which, open_head, seal_head};
use tallow_seal::keys::{ChunkKeys, ContractKeys};
use tallow_seal::path::BlobPath;
use tallow_seal::phrase::Phrase;
use tallow_seal::record::{RecordRoot, pieces};
use tallow_seal::repair::{RepairIndex, RepairRecord};
use tallow_seal::stripe::{Layout, Stripe};
use tallow_types::codec::{Tagged, decode, encode};
use tallow_types::commit::Rank;
use tallow_types::id::{ContractId, SliceRoot, StripeId};
use tallow_types::profile::Profile;
use tallow_types::unit::{Incarnation, LeafIndex, Lease, Sequence, SlotIndex, TimeMs};

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../vectors/contract");
    std::fs::read(folder.join(name)).unwrap()
}

/// The golden contract: its facts, its keys, and the masked slices of its two stripes.
struct Golden {
    facts: Value,
    keys: ContractKeys,
    contract: ContractId,
    /// The commit that its heads are in.
    place: Place,
    profile: Profile,
    slices: [Vec<Vec<u8>>; 2],
}

impl Golden {
    fn load() -> Self {
        let facts: Value = serde_json::from_slice(&file("contract.json")).unwrap();
        let phrase = Phrase::parse(facts["phrase"].as_str().unwrap()).unwrap();
        let contract = ContractId::from_hex(facts["contract"].as_str().unwrap()).unwrap();
        let profile = Profile::from_k_of_n(4, 12).unwrap();
        let slices = ["stripe-0.bin", "stripe-1.bin"].map(|name| {
            let all = file(name);
            all.chunks(all.len() / 12).map(<[u8]>::to_vec).collect()
        });
        let number = |name: &str| facts["commit"][name].as_u64().unwrap();
        let lease = Lease {
            incarnation: Incarnation::new(u32::try_from(number("incarnation")).unwrap()),
            counter: number("lease"),
        };
        let rank = Rank { lease, sequence: Sequence::new(number("sequence")) };
        let place = Place { contract, rank };
        Self { keys: phrase.seed().contract(0, 0), facts, contract, place, profile, slices }
    }

    fn stripe_id(&self, leaf: usize) -> StripeId {
        StripeId::from_hex(self.facts["stripes"][leaf]["id"].as_str().unwrap()).unwrap()
    }

    fn layout(&self, leaf: usize) -> Layout {
        let len = self.facts["stripes"][leaf]["slice_len_bytes"].as_u64().unwrap();
        Layout::from_slice_len(self.profile, u32::try_from(len).unwrap()).unwrap()
    }

    fn sealed_head(&self, name: &str) -> Vec<u8> {
        hex::decode(self.facts[name].as_str().unwrap()).unwrap()
    }

    /// The stream of a stripe out of its four last slices, parity all.
    fn stream(&self, leaf: usize) -> Vec<u8> {
        let mask = self.keys.mask.stripe(&self.stripe_id(leaf));
        let mut kept: Vec<(SlotIndex, Vec<u8>)> = (8..12)
            .map(|slot| (SlotIndex::new(slot), self.slices[leaf][usize::from(slot)].clone()))
            .collect();
        kept.iter_mut().for_each(|(slot, bytes)| mask.apply(*slot, 0, bytes));
        let given: Vec<(SlotIndex, &[u8])> = kept.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
        let mut data = vec![vec![0; given[0].1.len()]; 4];
        let mut out: Vec<&mut [u8]> = data.iter_mut().map(Vec::as_mut_slice).collect();
        tallow_erasure::codec(self.profile).decode(&given, &mut out).unwrap();
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        self.layout(leaf).gather(&data).unwrap()
    }

    fn chunk(&self, keys: &ChunkKeys, wanted: &ChunkRef) -> Vec<u8> {
        let stream = self.stream(usize::try_from(wanted.leaf.get()).unwrap());
        let begin = wanted.offset as usize;
        open(keys, wanted, &stream[begin..begin + wanted.sealed_len as usize]).unwrap()
    }

    fn record<T: Tagged>(&self, keys: &ChunkKeys, head: &HeadRef) -> (RecordRoot, T) {
        assert_eq!(head.stripe, self.stripe_id(1));
        assert_eq!(head.slice_len, self.layout(1).slice_len());
        let root: RecordRoot = decode(&self.chunk(keys, &head.chunk)).unwrap();
        let pieces: Vec<Vec<u8>> = root.pieces.iter().map(|piece| self.chunk(keys, piece)).collect();
        let record = root.join(&pieces).unwrap();
        (root, record)
    }

    fn content(&self, content: &Content) -> Vec<u8> {
        match content {
            Content::Inline(bytes) => bytes.to_vec(),
            Content::Chunks(chunks) => {
                chunks.iter().flat_map(|chunk| self.chunk(&self.keys.catalog, chunk)).collect()
            }
            Content::Lists { .. } => panic!("the golden contract has no blob as large as that"),
        }
    }
}

fn path(text: &str) -> BlobPath {
    BlobPath::parse(text).unwrap()
}

/// Goal: words and a commit's head are enough to read a contract of this version. Method: open the golden one from
/// parity slices alone, and compare every blob, mode and time.
#[test]
fn golden_contract_opens() {
    let golden = Golden::load();
    let sealed = golden.sealed_head("catalog_head");
    let head = open_head(&golden.keys.catalog, Which::Catalog, &golden.place, &sealed).unwrap().unwrap();
    let (root, record) = golden.record::<CatalogRecord>(&golden.keys.catalog, &head);
    assert!(root.previous.is_none() && record.is_snapshot());
    assert_eq!(encode(&record), file("catalog-record.bin"));
    let mut catalog = Catalog::new();
    record.apply(&mut catalog);

    let names: Vec<&str> = catalog.keys().map(BlobPath::as_str).collect();
    let expected = ["letters", "letters/empty", "letters/hello", "letters/latest", "noise", "text \u{e9}"];
    assert_eq!(names, expected);
    assert_eq!(within(&catalog, &path("letters")).count(), 4);
    let hello = &catalog[&path("letters/hello")];
    assert_eq!((hello.mode.bits(), hello.stored_at), (0o4755, TimeMs::new(1_700_000_001_000)));
    assert_eq!(hello.modified, FileTime::new(1_700_000_000, 5).unwrap());
    assert_eq!(catalog[&path("letters/empty")].modified, FileTime::new(-1, 999_999_999).unwrap());
    assert_eq!(catalog[&path("letters")].kind, Kind::Dir);
    let Kind::Symlink(target) = &catalog[&path("letters/latest")].kind else { panic!("is a link") };
    assert_eq!(target.as_bytes(), b"../letters/hello");

    let content = |name: &str| match &catalog[&path(name)].kind {
        Kind::File(content) => {
            let bytes = golden.content(content);
            assert_eq!(content.size().get(), bytes.len() as u64);
            bytes
        }
        _ => panic!("is a file"),
    };
    assert_eq!(content("letters/empty"), b"");
    assert_eq!(content("letters/hello"), b"hello, tallow");
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    assert_eq!(hash(&content("noise")), golden.facts["noise_hash"].as_str().unwrap());
    assert_eq!(hash(&content("text \u{e9}")), golden.facts["text_hash"].as_str().unwrap());
}

/// Goal: the mask secret alone opens the repair index and re-creates slices byte for byte, and opens nothing else.
/// Method: read the golden index as a keeper would, drop slices, make them again.
#[test]
fn keeper_repairs_the_golden_contract() {
    let golden = Golden::load();
    let keeper = golden.keys.mask.repair_keys();
    let sealed = golden.sealed_head("repair_head");
    let head = open_head(&keeper, Which::Repair, &golden.place, &sealed).unwrap().unwrap();
    let (_, record) = golden.record::<RepairRecord>(&keeper, &head);
    assert_eq!(encode(&record), file("repair-record.bin"));
    let mut index = RepairIndex::new();
    record.apply(&mut index);
    let stripe = &index[&LeafIndex::new(0)];
    assert_eq!((stripe.stripe, stripe.slice_len), (golden.stripe_id(0), 1024));
    let absent: Vec<u8> = (0..12).filter(|slot| !stripe.present.contains(SlotIndex::new(*slot))).collect();
    assert_eq!((absent, stripe.width()), (vec![10], 11));
    let roots: Vec<SliceRoot> =
        golden.slices[0].iter().map(|slice| SliceRoot::new(*blake3::hash(slice).as_bytes())).collect();
    assert_eq!(*stripe.roots, roots);

    let mask = golden.keys.mask.stripe(&stripe.stripe);
    let mut kept: Vec<(SlotIndex, Vec<u8>)> = [2, 11, 5, 7]
        .map(|slot| (SlotIndex::new(slot), golden.slices[0][usize::from(slot)].clone()))
        .to_vec();
    kept.iter_mut().for_each(|(slot, bytes)| mask.apply(*slot, 0, bytes));
    let given: Vec<(SlotIndex, &[u8])> = kept.iter().map(|(slot, bytes)| (*slot, &bytes[..])).collect();
    for slot in golden.profile.slot_indices() {
        let mut made = vec![0; 1024];
        tallow_erasure::codec(golden.profile).recreate(&given, &[slot], &mut [&mut made]).unwrap();
        mask.apply(slot, 0, &mut made);
        assert_eq!(made, golden.slices[0][usize::from(slot.get())]);
    }
    let catalog_head = golden.sealed_head("catalog_head");
    assert!(open_head(&keeper, Which::Catalog, &golden.place, &catalog_head).is_err());
}

/// Goal: this version still writes what it wrote. Method: code and mask the golden streams again, seal
/// the heads and the unpacked chunk again, and compare bytes.
#[test]
fn golden_contract_is_written_alike() {
    let golden = Golden::load();
    let mut streams = Vec::new();
    for leaf in 0..2 {
        let facts = &golden.facts["stripes"][leaf];
        let mut stream = golden.stream(leaf);
        stream.truncate(usize::try_from(facts["stream_len_bytes"].as_u64().unwrap()).unwrap());
        let stripe = Stripe::new(golden.profile, stream.clone()).unwrap();
        assert_eq!(stripe.digest().to_string(), facts["digest"].as_str().unwrap());
        let attempt = StripeAttempt::begin(golden.contract, golden.stripe_id(leaf), &stripe);
        let permit = attempt.permit(&stripe).unwrap();
        let mut slices = vec![0; permit.room()];
        let codec = tallow_erasure::codec(golden.profile);
        permit.code(&golden.keys.mask, &mut slices, |data, parity| codec.encode(data, parity)).unwrap();
        assert_eq!(slices, golden.slices[leaf].concat());
        streams.push(stream);
    }
    let record: CatalogRecord = decode(&file("catalog-record.bin")).unwrap();
    assert_eq!(pieces(&record), vec![file("catalog-record.bin")]);
    for (name, which, keys) in [
        ("catalog_head", Which::Catalog, &golden.keys.catalog),
        ("repair_head", Which::Repair, &golden.keys.repair),
    ] {
        let sealed = golden.sealed_head(name);
        let head = open_head(keys, which, &golden.place, &sealed).unwrap();
        assert_eq!(seal_head(keys, which, &golden.place, head.as_ref()).to_vec(), sealed);
    }
    let CatalogRecord::Snapshot(entries) = record else { panic!("is a snapshot") };
    let Kind::File(Content::Chunks(chunks)) = &entries[4].1.kind else { panic!("noise is one chunk") };
    let sealed = &streams[0][..chunks[0].sealed_len as usize];
    let plain = open(&golden.keys.catalog, &chunks[0], sealed).unwrap();
    let again = Sealer::default().seal(&golden.keys.catalog, &golden.keys.catalog.identify(&plain)).unwrap();
    assert_eq!(again, sealed);
}
