//! The stages of the data path on one core, each as a share of what copying memory reaches in the same run.

use anyhow::{Context, Result};
use tallow_seal::attempt::StripeAttempt;
use tallow_seal::chunk::{Chunk, ChunkRef, Sealer, open_in_place};
use tallow_seal::cut::{Cutter, Sizes, Window};
use tallow_seal::keys::{ChunkKeys, ContractKeys, Seed};
use tallow_seal::stripe::{Stripe, StripeBuilder, target_slice_len};
use tallow_types::limits::TILE;
use tallow_types::{ContractId, LeafIndex, Profile, SlotIndex, StripeId};

use crate::timing::{gb_per_s, median, noise};

const SOURCE: usize = 64 << 20;
const ID: StripeId = StripeId::new([1; 16]);

/// Prints a line for each stage of 4 of 12 and 10 of 20.
pub fn run() -> Result<()> {
    let source = noise(SOURCE, 1);
    let copy = gb_per_s(SOURCE, median(|| source.clone()));
    println!(
        "data path, one core, noise; GB/s of source data, share of copying to fresh memory ({copy:.2} GB/s)"
    );
    let line = |name: &str, bytes: usize, time| {
        let rate = gb_per_s(bytes, time);
        println!("  {name:<34} {rate:>8.3} GB/s  {:>7.3}x  {:>6.3} ns/B", rate / copy, 1.0 / rate);
    };
    let keys = Seed::new([7; 64].into()).contract(0, 0);
    let mut window = Window::default();
    line("read, cut by content", SOURCE, median(|| cut(&source, &mut window, |_| ())));
    let mut chunks = Vec::new();
    cut(&source, &mut window, |chunk| chunks.push(chunk.to_vec()));
    line(
        "name chunks",
        SOURCE,
        median(|| chunks.iter().map(|chunk| keys.catalog.identify(chunk).id()).max()),
    );
    let mut memory = Vec::new();
    line("copy, name, seal", SOURCE, median(|| seal(&keys.catalog, &chunks, &mut memory, |_, _| ())));
    let mut sealed = Vec::new();
    seal(&keys.catalog, &chunks, &mut memory, |wanted, bytes| sealed.push((wanted, bytes.to_vec())));
    let mut copied = Vec::new();
    line("copy, open", SOURCE, median(|| open(&keys.catalog, &sealed, &mut copied)));
    for (k, n) in [(4, 12), (10, 20)] {
        coded(Profile::from_k_of_n(k, n).context("a profile")?, &keys, &line)?;
    }
    Ok(())
}

fn coded(
    profile: Profile,
    keys: &ContractKeys,
    line: &impl Fn(&str, usize, std::time::Duration),
) -> Result<()> {
    let (slice, data) = (target_slice_len(profile) as usize, usize::from(profile.data()));
    let bytes = slice * data;
    let content = noise(bytes, 2);
    let mut kept = Vec::new();
    let pack = median(|| {
        let mut builder =
            StripeBuilder::with_memory(profile, target_slice_len(profile), std::mem::take(&mut kept));
        content.chunks(1 << 20).for_each(|chunk| assert!(builder.push(chunk).is_ok()));
        kept = builder.close().map(Stripe::into_memory).unwrap_or_default();
    });
    line(&format!("pack {profile}"), bytes, pack);
    line(&format!("digest {profile}"), bytes, median(|| blake3::hash(&content)));

    let stripe = Stripe::new(profile, content)?;
    let attempt = StripeAttempt::begin(ContractId::ZERO, ID, &stripe);
    let codec = tallow_erasure::codec(profile);
    let mut parity = vec![0; usize::from(profile.parity()) * TILE as usize];
    let encode = median(|| {
        stripe.stream().chunks_exact(data * TILE as usize).try_for_each(|row| {
            let row: Vec<&[u8]> = row.chunks_exact(TILE as usize).collect();
            let mut out: Vec<&mut [u8]> = parity.chunks_exact_mut(TILE as usize).collect();
            codec.encode(&row, &mut out)
        })
    });
    line(&format!("encode {profile}"), bytes, encode);
    let mut slices = vec![0; attempt.permit(&stripe)?.room()];
    let mut code = || {
        let permit = attempt.permit(&stripe)?;
        anyhow::Ok(permit.code(&keys.mask, &mut slices, |data, parity| codec.encode(data, parity))?)
    };
    code()?;
    line(&format!("encode, mask, hash {profile}"), bytes, median(code));

    let layout = stripe.layout();
    let columns = layout.columns(0, layout.capacity())?;
    let mask = keys.mask.stripe(&ID);
    let all: Vec<(SlotIndex, &[u8])> = profile.slot_indices().zip(slices.chunks_exact(slice)).collect();
    for (name, given) in [("data", &all[..data]), ("parity", &all[all.len() - data..])] {
        let restore =
            || columns.restore(given, &mask, |present, wanted, out| codec.recreate(present, wanted, out));
        restore()?;
        line(&format!("unmask, decode {profile}, last {data} {name}"), bytes, median(restore));
    }
    Ok(())
}

fn cut(source: &[u8], window: &mut Window, mut take: impl FnMut(&[u8])) {
    let mut cutter = Cutter::with_window(Sizes::STANDARD, source, std::mem::take(window));
    while let Ok(Some(chunk)) = cutter.next_chunk() {
        take(chunk);
    }
    *window = cutter.into_window();
}

fn seal(keys: &ChunkKeys, chunks: &[Vec<u8>], memory: &mut Vec<u8>, mut take: impl FnMut(ChunkRef, &[u8])) {
    let mut sealer = Sealer::default();
    for chunk in chunks {
        let Ok(chunk) = Chunk::copied(chunk, std::mem::take(memory)) else { continue };
        let chunk = chunk.name(keys);
        let (id, plain_len) = (chunk.id(), chunk.plain_len());
        *memory = sealer.seal_in_place(keys, chunk);
        let sealed_len = u32::try_from(memory.len()).unwrap_or(u32::MAX);
        take(ChunkRef { id, leaf: LeafIndex::ZERO, offset: 0, sealed_len, plain_len }, memory);
    }
}

fn open(keys: &ChunkKeys, sealed: &[(ChunkRef, Vec<u8>)], copied: &mut Vec<u8>) -> usize {
    let each = |(wanted, bytes): &(ChunkRef, Vec<u8>)| {
        copied.clear();
        copied.extend_from_slice(bytes);
        open_in_place(keys, wanted, copied).map_or(0, |plain| plain.len())
    };
    sealed.iter().map(each).sum()
}
