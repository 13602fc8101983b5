//! The same way on the reference engines: the crates `fastcdc` with the longest chunk in memory, `chacha20poly1305`, and
//! `reed-solomon-erasure`; zstd tries every chunk; each step goes over all of a chunk or stripe before the next begins,
//! in fresh memory. So Tallow worked at first, with a digest each for looking a stripe up in the journal, for the new
//! attempt and for its permit. Keys and layout are made here from the documents.

use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result, anyhow, ensure};
use chacha20poly1305::{AeadInOut, Key, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use fastcdc::v2020::{FastCDC, Normalization};
use reed_solomon_erasure::galois_8::ReedSolomon;
use tallow_seal::chunk::{ChunkId, ChunkRef, DEFAULT_LEVEL};
use tallow_seal::stripe::{Layout, Piece, target_slice_len};
use tallow_types::limits::TILE;
use tallow_types::{LeafIndex, SliceRoot, SlotIndex, domain};

use super::{Bench, ID, SEED, Stored};

const HEADER: usize = 30;
const TAG: usize = 16;
const PAD: usize = 4096;

/// The secrets that the path takes.
struct Keys {
    content: [u8; 32],
    ids: [u8; 32],
    nonces: [u8; 32],
    stripe: [u8; 32],
}

impl Keys {
    fn new() -> Self {
        let number = 0_u32.to_le_bytes();
        let content = domain::KEY_CONTENT.hash(&[&SEED, &number, &number]);
        let mask = domain::KEY_MASK.hash(&[&SEED, &number]);
        Self {
            content,
            ids: domain::KEY_CHUNK_ID.hash(&[&SEED]),
            nonces: domain::CHUNK_NONCE.hash(&[&content]),
            stripe: domain::MASK_STRIPE.hash(&[&mask, ID.as_bytes()]),
        }
    }

    fn cipher(&self, id: &[u8; 32]) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(domain::CHUNK_KEY.hash(&[&self.content, id])))
    }

    fn mask(&self, slot: u8, offset: u32, bytes: &mut [u8]) {
        let key = domain::MASK_SLICE.hash(&[&self.stripe, &[slot]]);
        let mut stream = blake3::Hasher::new_keyed(&key).finalize_xof();
        stream.set_position(u64::from(offset));
        let mut pad = [0; PAD];
        for part in bytes.chunks_mut(PAD) {
            stream.fill(&mut pad[..part.len()]);
            part.iter_mut().zip(&pad).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

/// A stripe's masked slices.
pub struct Coded {
    pub slices: Vec<Vec<u8>>,
    pub roots: Vec<SliceRoot>,
}

pub fn put(bench: &Bench) -> Result<(Vec<ChunkRef>, Vec<Coded>)> {
    let keys = Keys::new();
    let (mut chunks, mut stripes) = (Vec::new(), Vec::new());
    let mut compressor = zstd::bulk::Compressor::new(DEFAULT_LEVEL)?;
    let capacity = target_slice_len(bench.profile) as usize * usize::from(bench.profile.data());
    let (mut source, mut window, mut stream) = (bench.source.as_slice(), Vec::new(), Vec::new());
    loop {
        let missing = (4 << 20) - window.len();
        source.by_ref().take(missing as u64).read_to_end(&mut window)?;
        if window.is_empty() {
            break;
        }
        let cutter = FastCDC::with_level(&window, 256 << 10, 1 << 20, 4 << 20, Normalization::Level1);
        let (_, len) = cutter.cut(0, window.len());
        let plain = window[..len].to_vec();
        window.drain(..len);
        let id = *blake3::keyed_hash(&keys.ids, &plain).as_bytes();
        let sealed = seal(&keys, &mut compressor, &id, &plain)?;
        if stream.len() + sealed.len() > capacity {
            stripes.push(code(bench, &keys, &std::mem::take(&mut stream))?);
        }
        chunks.push(ChunkRef {
            id: ChunkId::new(id),
            leaf: LeafIndex::new(stripes.len() as u64),
            offset: u32::try_from(stream.len())?,
            sealed_len: u32::try_from(sealed.len())?,
            plain_len: u32::try_from(plain.len())?,
        });
        stream.extend_from_slice(&sealed);
    }
    stripes.push(code(bench, &keys, &stream)?);
    Ok((chunks, stripes))
}

fn seal(
    keys: &Keys,
    compressor: &mut zstd::bulk::Compressor<'_>,
    id: &[u8; 32],
    plain: &[u8],
) -> Result<Vec<u8>> {
    let mut out = vec![0; HEADER + plain.len() + TAG];
    let worth = plain.len() - plain.len().div_ceil(16);
    let packed = compressor.compress_to_buffer(plain, &mut out[HEADER..HEADER + worth]);
    ensure!(packed.is_err(), "noise does not pack");
    out[HEADER..HEADER + plain.len()].copy_from_slice(plain);
    let (header, rest) = out.split_at_mut(HEADER);
    let (body, tag_out) = rest.split_at_mut(plain.len());
    let nonce: [u8; 24] = blake3::keyed_hash(&keys.nonces, body).as_bytes()[..24].try_into()?;
    header[0] = 1;
    header[2..6].copy_from_slice(&u32::try_from(plain.len())?.to_le_bytes());
    header[6..].copy_from_slice(&nonce);
    let tag = keys.cipher(id).encrypt_inout_detached(&XNonce::from(nonce), &header[..6], body.into());
    tag_out.copy_from_slice(&tag.map_err(|_| anyhow!("too long"))?);
    Ok(out)
}

fn code(bench: &Bench, keys: &Keys, stream: &[u8]) -> Result<Coded> {
    let layout = Layout::for_stream(bench.profile, stream.len())?;
    let (slice_len, capacity) = (layout.slice_len(), layout.capacity());
    let shape = [bench.profile.data(), bench.profile.parity()];
    for _ in 0..3 {
        std::hint::black_box(domain::STRIPE_DIGEST.hash(&[&shape, &slice_len.to_le_bytes(), stream]));
    }
    let mut slices = vec![Vec::with_capacity(slice_len as usize); usize::from(bench.profile.data())];
    let mut rest = stream;
    for piece in layout.locate(0, capacity)? {
        let (part, behind) = rest.split_at(rest.len().min(piece.len as usize));
        let slice = &mut slices[usize::from(piece.slot.get())];
        slice.extend_from_slice(part);
        slice.resize((piece.offset + piece.len) as usize, 0);
        rest = behind;
    }
    slices.resize(usize::from(bench.profile.slots()), vec![0; slice_len as usize]);
    let engine = engine(bench)?;
    let (data, parity) = slices.split_at_mut(usize::from(bench.profile.data()));
    for begin in (0..slice_len as usize).step_by(TILE as usize) {
        let end = (begin + TILE as usize).min(slice_len as usize);
        let data: Vec<&[u8]> = data.iter().map(|slice| &slice[begin..end]).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|slice| &mut slice[begin..end]).collect();
        engine.encode_sep(&data, &mut parity).map_err(told)?;
    }
    let mut roots = Vec::new();
    for (slot, slice) in (0..).zip(&mut slices) {
        keys.mask(slot, 0, slice);
        roots.push(SliceRoot::new(*blake3::hash(slice).as_bytes()));
    }
    Ok(Coded { slices, roots })
}

fn told(error: reed_solomon_erasure::Error) -> anyhow::Error {
    anyhow!("{error}")
}

fn engine(bench: &Bench) -> Result<ReedSolomon> {
    let (data, parity) = (usize::from(bench.profile.data()), usize::from(bench.profile.parity()));
    ReedSolomon::new(data, parity).map_err(told)
}

pub fn get(bench: &Bench, stored: &Stored, slots: Range<u8>) -> Result<()> {
    let keys = Keys::new();
    let engine = engine(bench)?;
    for span in super::spans(&stored.chunks) {
        let stripe = &stored.stripes[usize::try_from(span[0].leaf.get())?];
        let layout = Layout::from_slice_len(bench.profile, stripe.slice_len)?;
        let (first, last) = (span[0], span[span.len() - 1]);
        let len = last.offset + last.sealed_len - first.offset;
        let ranges = layout.spans(first.offset, len)?;
        let begin = ranges.iter().map(|piece| piece.offset).min().context("not empty")?;
        let end = ranges.iter().map(|piece| piece.offset + piece.len).max().context("not empty")?;
        let mut columns = vec![None; usize::from(bench.profile.slots())];
        for slot in slots.clone() {
            let mut column = stripe.slice(slot)[begin as usize..end as usize].to_vec();
            keys.mask(slot, begin, &mut column);
            columns[usize::from(slot)] = Some(column);
        }
        engine.reconstruct_data(&mut columns).map_err(told)?;
        let given: Vec<(Piece, &[u8])> = (0..bench.profile.data())
            .zip(&columns)
            .filter_map(|(slot, column)| {
                let piece = Piece { slot: SlotIndex::new(slot), offset: begin, len: end - begin };
                Some((piece, column.as_deref()?))
            })
            .collect();
        let stream = layout.gather_range(first.offset, len, &given)?;
        for chunk in span {
            let sealed = &stream[(chunk.offset - first.offset) as usize..][..chunk.sealed_len as usize];
            std::hint::black_box(open(&keys, chunk, sealed)?);
        }
    }
    Ok(())
}

fn open(keys: &Keys, chunk: &ChunkRef, sealed: &[u8]) -> Result<Vec<u8>> {
    let (header, rest) = sealed.split_at(HEADER);
    let (body, tag) = rest.split_at(rest.len() - TAG);
    let (mut body, tag) = (body.to_vec(), <[u8; TAG]>::try_from(tag)?);
    let nonce: [u8; 24] = header[6..].try_into()?;
    keys.cipher(chunk.id.as_bytes())
        .decrypt_inout_detached(
            &XNonce::from(nonce),
            &header[..6],
            body.as_mut_slice().into(),
            &Tag::from(tag),
        )
        .map_err(|_| anyhow!("the chunk is damaged"))?;
    ensure!(blake3::keyed_hash(&keys.ids, &body) == *chunk.id.as_bytes(), "the chunk has another id");
    Ok(body)
}
