//! The stages of the data path on one core, each as a share of what copying memory reaches in the same run.

use anyhow::{Context, Result};
use tallow_seal::attempt::StripeAttempt;
use tallow_seal::chunk::{self, ChunkRef, DEFAULT_LEVEL, Sealer};
use tallow_seal::cut::{Cutter, Sizes};
use tallow_seal::keys::{ContractKeys, Seed};
use tallow_seal::stripe::{Stripe, target_slice_len};
use tallow_types::{ContractId, LeafIndex, Profile, SlotIndex, StripeId};

use crate::timing::{gb_per_s, median, noise};

const SOURCE: usize = 64 << 20;

/// Prints a line for each stage of 4 of 12 and 10 of 20.
pub fn run() -> Result<()> {
    let source = noise(SOURCE, 1);
    let copy = gb_per_s(SOURCE, median(|| source.clone()));
    println!("data path, one core, noise; GB/s of source data, share of copying memory ({copy:.2} GB/s)");
    let line = |name: &str, rate: f64| println!("  {name:<28} {rate:>8.3} GB/s  {:>7.3}x", rate / copy);

    let keys = Seed::new([7; 64].into()).contract(0, 0);
    line("cut by content", gb_per_s(SOURCE, median(|| cut(&source, Sizes::STANDARD))));
    let chunks = cut(&source, Sizes::STANDARD);
    line("name chunks", gb_per_s(SOURCE, median(|| name(&keys, &chunks))));
    line("seal (zstd, XChaCha20)", gb_per_s(SOURCE, median(|| seal(&keys, &chunks))));
    let sealed = seal(&keys, &chunks)?;
    line("open", gb_per_s(SOURCE, median(|| open(&keys, &chunks, &sealed))));
    for (k, n) in [(4, 12), (10, 20)] {
        let profile = Profile::from_k_of_n(k, n).context("a profile")?;
        coded(profile, &keys, &line)?;
    }
    Ok(())
}

fn coded(profile: Profile, keys: &ContractKeys, line: &impl Fn(&str, f64)) -> Result<()> {
    let slice = target_slice_len(profile) as usize;
    let bytes = slice * usize::from(profile.data());
    let stripe = Stripe::new(profile, noise(bytes, 2))?;
    let codec = tallow_erasure::codec(profile);
    let data = stripe.data_slices();
    let mut parity = vec![vec![0; slice]; usize::from(profile.parity())];
    let encode = median(|| {
        let rows: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        codec.encode(&rows, &mut out)
    });
    line(&format!("encode {profile}, reference"), gb_per_s(bytes, encode));

    let attempt = StripeAttempt::begin(ContractId::ZERO, StripeId::new([1; 16]), &stripe);
    let permit = attempt.permit(&stripe)?;
    let slices: Vec<Vec<u8>> = data.iter().chain(&parity).cloned().collect();
    permit.mask(&keys.mask, &mut slices.clone())?;
    // A permit masks a stripe's own slices only, so each run takes a fresh copy of them and pays for it.
    let mask = median(|| permit.mask(&keys.mask, &mut slices.clone()));
    line(&format!("copy, mask, hash {profile}"), gb_per_s(bytes, mask));

    let last = usize::from(profile.slots() - profile.data());
    let present: Vec<(SlotIndex, &[u8])> = data
        .iter()
        .chain(&parity)
        .zip(profile.slot_indices())
        .map(|(row, slot)| (slot, row.as_slice()))
        .collect();
    let mut out = vec![vec![0; slice]; usize::from(profile.data())];
    let decode = median(|| {
        let mut rows: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        codec.decode(&present[last..], &mut rows)
    });
    line(&format!("decode {profile}, worst loss"), gb_per_s(bytes, decode));
    Ok(())
}

fn cut(source: &[u8], sizes: Sizes) -> Vec<Vec<u8>> {
    let mut cutter = Cutter::new(sizes, source);
    std::iter::from_fn(|| cutter.next_chunk().ok().flatten()).collect()
}

fn name(keys: &ContractKeys, chunks: &[Vec<u8>]) -> usize {
    chunks.iter().map(|chunk| keys.catalog.identify(chunk).id().as_bytes().len()).sum()
}

fn seal(keys: &ContractKeys, chunks: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut sealer = Sealer::new(DEFAULT_LEVEL);
    let each = |chunk: &Vec<u8>| Ok(sealer.seal(&keys.catalog, &keys.catalog.identify(chunk))?);
    chunks.iter().map(each).collect()
}

fn open(keys: &ContractKeys, chunks: &[Vec<u8>], sealed: &[Vec<u8>]) -> Result<usize> {
    let mut total = 0;
    for (plain, sealed) in chunks.iter().zip(sealed) {
        let wanted = ChunkRef {
            id: keys.catalog.identify(plain).id(),
            leaf: LeafIndex::ZERO,
            offset: 0,
            sealed_len: u32::try_from(sealed.len())?,
            plain_len: u32::try_from(plain.len())?,
        };
        total += chunk::open(&keys.catalog, &wanted, sealed)?.len();
    }
    Ok(total)
}
