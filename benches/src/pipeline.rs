//! The whole way of put and get on one core without a network, 10 of 20, noise: beside the same steps on the reference
//! engines, done whole by whole instead of tile by tile. What each stage takes is in `stages`.

mod reference;

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use tallow_seal::attempt::StripeAttempt;
use tallow_seal::chunk::{Chunk, ChunkRef, Sealer, open_in_place};
use tallow_seal::cut::{Cutter, Sizes, Window};
use tallow_seal::keys::{ContractKeys, Seed};
use tallow_seal::stripe::{Layout, Stripe, StripeBuilder, target_slice_len};
use tallow_types::{ContractId, LeafIndex, Profile, SliceRoot, SlotIndex, StripeId};

use crate::timing::{gb_per_s, median, noise};

const SOURCE: usize = 64 << 20;
const ID: StripeId = StripeId::new([1; 16]);
const SEED: [u8; 64] = [7; 64];

/// A stripe as seeders have it.
struct Slices {
    bytes: Vec<u8>,
    roots: Vec<SliceRoot>,
    slice_len: u32,
}

impl Slices {
    fn slice(&self, slot: u8) -> &[u8] {
        let len = self.slice_len as usize;
        &self.bytes[usize::from(slot) * len..][..len]
    }
}

/// What was put.
#[derive(Default)]
struct Stored {
    chunks: Vec<ChunkRef>,
    stripes: Vec<Slices>,
}

/// What all runs share.
struct Bench {
    profile: Profile,
    sizes: Sizes,
    keys: ContractKeys,
    source: Vec<u8>,
}

/// Memory that a client keeps from stripe to stripe.
#[derive(Default)]
struct Kept {
    window: Window,
    chunk: Vec<u8>,
    stream: Vec<u8>,
    blocks: Vec<Vec<u8>>,
}

/// Prints put and get with their ratio to the reference.
pub fn run() -> Result<()> {
    let profile = Profile::from_k_of_n(10, 20).context("a profile")?;
    let keys = Seed::new(SEED.into()).contract(0, 0);
    let bench = Bench { profile, sizes: Sizes::for_profile(profile), keys, source: noise(SOURCE, 1) };
    println!("pipeline, one core, {profile}, noise; GB/s of source data, beside the reference engines");
    bench.whole()
}

fn line(what: &str, ours: f64, peer: f64) {
    println!("  {what:<28} {ours:>8.3} GB/s  {:>7.2}x of {peer:.3} GB/s", ours / peer);
}

impl Bench {
    fn whole(&self) -> Result<()> {
        let mut kept = Kept::default();
        let (stored, (chunks, stripes)) = (self.put(&mut kept)?, reference::put(self)?);
        ensure!(stored.chunks == chunks && stored.stripes.len() == stripes.len(), "two paths, two results");
        for (ours, theirs) in stored.stripes.iter().zip(stripes) {
            let is_same = ours.roots == theirs.roots && ours.bytes == theirs.slices.concat();
            ensure!(is_same, "two paths, two results");
        }
        let mut put = || {
            let stored = self.put(&mut kept).expect("as before");
            kept.blocks = stored.stripes.into_iter().map(|stripe| stripe.bytes).collect();
        };
        let put = gb_per_s(SOURCE, median(&mut put));
        line("put", put, gb_per_s(SOURCE, median(|| reference::put(self).expect("as before"))));
        let n = self.profile.slots();
        for (what, slots) in [("get, all from data", 0..n / 2), ("get, all from parity", n / 2..n)] {
            let mut back = Vec::new();
            self.get(&stored, slots.clone(), |bytes| back.extend_from_slice(bytes))?;
            ensure!(back == self.source, "it came back changed");
            let time = median(|| self.get(&stored, slots.clone(), drop_bytes).expect("as before"));
            let peer = median(|| reference::get(self, &stored, slots.clone()).expect("as before"));
            line(what, gb_per_s(SOURCE, time), gb_per_s(SOURCE, peer));
        }
        Ok(())
    }

    fn builder(&self, memory: Vec<u8>) -> StripeBuilder {
        StripeBuilder::with_memory(self.profile, target_slice_len(self.profile), memory)
    }

    /// What a client does with a blob, one thing after another.
    fn put(&self, kept: &mut Kept) -> Result<Stored> {
        let mut stored = Stored::default();
        let mut sealer = Sealer::default();
        let mut builder = self.builder(std::mem::take(&mut kept.stream));
        let mut cutter =
            Cutter::with_window(self.sizes, self.source.as_slice(), std::mem::take(&mut kept.window));
        while let Some(plain) = cutter.next_chunk()? {
            let chunk = Chunk::copied(plain, std::mem::take(&mut kept.chunk))?.name(&self.keys.catalog);
            let (id, plain_len) = (chunk.id(), chunk.plain_len());
            let sealed = sealer.seal_in_place(&self.keys.catalog, chunk);
            if !builder.fits(sealed.len()) {
                let stripe = builder.close().context("something was packed")?;
                stored.stripes.push(self.code(&stripe, kept.blocks.pop().unwrap_or_default())?);
                builder = self.builder(stripe.into_memory());
            }
            let leaf = LeafIndex::new(stored.stripes.len() as u64);
            let (offset, sealed_len) = (builder.push(&sealed)?, u32::try_from(sealed.len())?);
            stored.chunks.push(ChunkRef { id, leaf, offset, sealed_len, plain_len });
            kept.chunk = sealed;
        }
        kept.window = cutter.into_window();
        let stripe = builder.close().context("something was packed")?;
        stored.stripes.push(self.code(&stripe, kept.blocks.pop().unwrap_or_default())?);
        kept.stream = stripe.into_memory();
        Ok(stored)
    }

    fn code(&self, stripe: &Stripe, mut bytes: Vec<u8>) -> Result<Slices> {
        let attempt = StripeAttempt::begin(ContractId::ZERO, ID, stripe);
        let permit = attempt.permit(stripe)?;
        bytes.resize(permit.room(), 0);
        let codec = tallow_erasure::codec(self.profile);
        let roots = permit.code(&self.keys.mask, &mut bytes, |data, parity| codec.encode(data, parity))?;
        Ok(Slices { bytes, roots, slice_len: stripe.layout().slice_len() })
    }

    /// What a client does with the slices that it got: a few chunks at a time, by the rows that hold them.
    fn get(&self, stored: &Stored, slots: Range<u8>, mut take: impl FnMut(&[u8])) -> Result<()> {
        let codec = tallow_erasure::codec(self.profile);
        let mask = self.keys.mask.stripe(&ID);
        for span in spans(&stored.chunks) {
            let stripe = &stored.stripes[usize::try_from(span[0].leaf.get())?];
            let layout = Layout::from_slice_len(self.profile, stripe.slice_len)?;
            let (first, last) = (span[0], span[span.len() - 1]);
            let columns = layout.columns(first.offset, last.offset + last.sealed_len - first.offset)?;
            let range = columns.offset() as usize..(columns.offset() + columns.len()) as usize;
            let given: Vec<(SlotIndex, &[u8])> = slots
                .clone()
                .map(|slot| (SlotIndex::new(slot), &stripe.slice(slot)[range.clone()]))
                .collect();
            let mut rows = columns
                .restore(&given, &mask, |present, wanted, out| codec.recreate(present, wanted, out))?;
            for chunk in span {
                let sealed =
                    &mut rows[(chunk.offset - columns.begin()) as usize..][..chunk.sealed_len as usize];
                take(&open_in_place(&self.keys.catalog, chunk, sealed)?);
            }
        }
        Ok(())
    }
}

fn drop_bytes(bytes: &[u8]) {
    std::hint::black_box(bytes);
}

/// Neighbouring chunks of one stripe, some 4 MiB together.
fn spans(chunks: &[ChunkRef]) -> Vec<&[ChunkRef]> {
    let mut len = 0;
    chunks
        .chunk_by(|a, b| {
            len += a.sealed_len;
            let goes_on = a.leaf == b.leaf && len + b.sealed_len <= 4 << 20;
            if !goes_on {
                len = 0;
            }
            goes_on
        })
        .collect()
}
