//! Erasure coding on one core: every engine of this processor beside the crate `reed-solomon-erasure` and beside copying
//! the same bytes.
//!
//! The slices of a stripe stand in one piece of memory, a line of cache apart. Where every slice is a piece of its own an
//! allocator puts them 16 bytes apart, and a processor takes what it loads for what it has just stored when the lower
//! 12 bits of the addresses overlap: one table shows what that costs.

use anyhow::{Context, Result, ensure};
use reed_solomon_erasure::galois_8::ReedSolomon;
use tallow_erasure::{Code, Codec, Engine};
use tallow_types::{Profile, SlotIndex};

use crate::timing::{gb_per_s, noise, per_run};

const PROFILES: [(u8, u8); 3] = [(4, 12), (10, 20), (20, 42)];
/// Slices of a stripe that is worked on again and again.
const HOT: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// Stripes that are worked on in turn have these slices, and fill more memory than caches hold.
const COLD: usize = 64 << 10;
const COLD_BYTES: usize = 320 << 20;

/// Prints a table for each profile and length of slices.
pub fn run() -> Result<()> {
    println!("erasure coding, one core; GB/s of source data, times the crate, times copying the same bytes");
    for (k, n) in PROFILES {
        let profile = Profile::from_k_of_n(k, n).context("a profile")?;
        for slice in HOT {
            table(profile, (slice, LINE), 1, "hot")?;
        }
        if (k, n) == (10, 20) {
            table(profile, (COLD, 16), 1, "hot, 16 bytes apart")?;
        }
        table(profile, (COLD, LINE), COLD_BYTES / (COLD * usize::from(n)), "cold")?;
    }
    Ok(())
}

/// The size of a line of cache.
const LINE: usize = 64;

/// Data and parity.
struct Stripe {
    slices: Rows,
    /// Buffers for rows that are made again.
    made: Rows,
}

/// Rows in one piece of memory.
struct Rows {
    memory: Vec<u8>,
    /// Of the first row, so that it begins where a line of cache does.
    begin: usize,
    len: usize,
    gap: usize,
}

impl Rows {
    fn new(count: usize, len: usize, gap: usize, seed: u8) -> Self {
        let memory = noise(count * (len + gap) + LINE, seed);
        let begin = memory.as_ptr().align_offset(LINE);
        Self { memory, begin, len, gap }
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.memory[self.begin..].chunks_exact(self.len + self.gap).map(|row| &row[..self.len])
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.memory[self.begin..].chunks_exact_mut(self.len + self.gap).map(|row| &mut row[..self.len])
    }
}

/// Seconds of one run, by what is done.
struct Times {
    encode: f64,
    decode: f64,
    one_row: f64,
}

fn table(profile: Profile, (slice, gap): (usize, usize), count: usize, kind: &str) -> Result<()> {
    let (k, n) = (usize::from(profile.data()), usize::from(profile.slots()));
    let fresh = |seed: usize| Stripe {
        slices: Rows::new(n, slice, gap, seed.to_le_bytes()[0]),
        made: Rows::new(k, slice, gap, 0),
    };
    let mut stripes: Vec<Stripe> = (0..count).map(fresh).collect();
    let copy = rotate(&mut stripes, |stripe| {
        stripe.made.all_mut().zip(stripe.slices.all()).for_each(|(to, from)| to.copy_from_slice(from));
    });
    let rate = |time: f64| gb_per_s(k * slice, std::time::Duration::from_secs_f64(time));
    println!("  {profile}, slices of {} KiB, {kind}; copying {:.1} GB/s", slice >> 10, rate(copy));
    let by_crate = times_of_crate(profile, &mut stripes)?;
    let line = |name: &str, times: &Times| {
        let cell = |time: f64, of_crate: f64| {
            format!("{:>7.2} GB/s {:>6.1}x {:>5.2}x", rate(time), of_crate / time, copy / time)
        };
        println!(
            "    {name:<9} encode {}   decode {}   one row {}",
            cell(times.encode, by_crate.encode),
            cell(times.decode, by_crate.decode),
            cell(times.one_row, by_crate.one_row),
        );
    };
    line("crate", &by_crate);
    for engine in Engine::available() {
        line(engine.name(), &times(&Code::new(profile, engine), &mut stripes)?);
    }
    Ok(())
}

/// Decoding is from the last k slices; one row is the first, from the k behind it.
fn times(code: &Code, stripes: &mut [Stripe]) -> Result<Times> {
    let (k, n) = (usize::from(code.profile().data()), usize::from(code.profile().slots()));
    let encode = rotate(stripes, |stripe| {
        let mut rows = stripe.slices.all_mut();
        let data: Vec<&[u8]> = rows.by_ref().take(k).map(|row| &*row).collect();
        let mut parity: Vec<&mut [u8]> = rows.collect();
        code.encode(&data, &mut parity)
    });
    let slots: Vec<SlotIndex> = code.profile().slot_indices().collect();
    let decode = rotate(stripes, |stripe| {
        let slices = slots.iter().copied().zip(stripe.slices.all());
        let present: Vec<(SlotIndex, &[u8])> = slices.skip(n - k).collect();
        let mut out: Vec<&mut [u8]> = stripe.made.all_mut().collect();
        code.decode(&present, &mut out)
    });
    ensure!(
        stripes.iter().all(|stripe| stripe.made.all().eq(stripe.slices.all().take(k))),
        "decoded other bytes"
    );
    let one_row = rotate(stripes, |stripe| {
        let slices = slots.iter().copied().zip(stripe.slices.all());
        let present: Vec<(SlotIndex, &[u8])> = slices.skip(1).take(k).collect();
        let mut out: Vec<&mut [u8]> = stripe.made.all_mut().skip(k - 1).collect();
        code.recreate(&present, &slots[..1], &mut out)
    });
    let same = |stripe: &Stripe| stripe.made.all().last() == stripe.slices.all().next();
    ensure!(stripes.iter().all(same), "made another row");
    Ok(Times { encode, decode, one_row })
}

/// The same by the crate, in whose memory decoding works; with k slices at hand it makes all others to have one.
fn times_of_crate(profile: Profile, stripes: &mut [Stripe]) -> Result<Times> {
    let (k, n) = (usize::from(profile.data()), usize::from(profile.slots()));
    let judge = ReedSolomon::new(k, n - k).ok().context("a profile of the crate")?;
    let encode = rotate(stripes, |stripe| {
        let mut rows: Vec<&mut [u8]> = stripe.slices.all_mut().collect();
        judge.encode(&mut rows)
    });
    let mut again = |present: std::ops::Range<usize>, data_only: bool| {
        rotate(stripes, |stripe| {
            let slots = stripe.slices.all_mut().enumerate();
            let mut shards: Vec<(&mut [u8], bool)> =
                slots.map(|(slot, slice)| (slice, present.contains(&slot))).collect();
            if data_only { judge.reconstruct_data(&mut shards) } else { judge.reconstruct(&mut shards) }
        })
    };
    Ok(Times { encode, decode: again(n - k..n, true), one_row: again(1..k + 1, false) })
}

/// The median time of work on one stripe after another, in seconds of this thread. Each has its turn at least once.
fn rotate<T>(stripes: &mut [Stripe], mut work: impl FnMut(&mut Stripe) -> T) -> f64 {
    let (mut at, count) = (0, stripes.len());
    stripes.iter_mut().for_each(|stripe| {
        work(stripe);
    });
    per_run(|| {
        at = (at + 1) % count;
        work(&mut stripes[at])
    })
}
