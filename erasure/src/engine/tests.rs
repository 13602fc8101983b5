//! Engines alone: products of all bytes, and no byte touched that isn't theirs.
#![allow(clippy::cast_possible_truncation, reason = "test patterns")]

use std::ptr::NonNull;

use reed_solomon_erasure::galois_8;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;

/// Memory between two pages that can't be touched: reading or writing them ends the test with a signal.
struct Fenced {
    begin: NonNull<u8>,
    pages: usize,
}

const PAGE: usize = 4096;

/// What is not to be written.
const CANARY: u8 = 0xc5;

impl Fenced {
    fn new(len: usize) -> Self {
        let pages = len.div_ceil(PAGE);
        // SAFETY: New memory at an address of the kernel's choice; the pages whose rights are taken are its first and its
        // last.
        let begin = unsafe {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            let begin = mmap_anonymous(std::ptr::null_mut(), (pages + 2) * PAGE, rights, MapFlags::PRIVATE)
                .expect("memory");
            mprotect(begin, PAGE, MprotectFlags::empty()).expect("a page of it");
            mprotect(begin.byte_add((pages + 1) * PAGE), PAGE, MprotectFlags::empty()).expect("a page of it");
            begin
        };
        Self { begin: NonNull::new(begin.cast()).expect("memory"), pages }
    }

    /// All that may be touched.
    fn all(&mut self) -> &mut [u8] {
        // SAFETY: These pages are readable and writable, and live and are borrowed as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.begin.as_ptr().add(PAGE), self.pages * PAGE) }
    }

    /// `len` bytes that begin right behind the page before, or end right before the page behind.
    fn part(&mut self, len: usize, at_end: bool) -> &mut [u8] {
        let begin = if at_end { self.pages * PAGE - len } else { 0 };
        &mut self.all()[begin..begin + len]
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: Nothing borrows it any more. That it can't be unmapped would be of no matter.
        let _ = unsafe { munmap(self.begin.as_ptr().cast(), (self.pages + 2) * PAGE) };
    }
}

fn noise(seed: usize, len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(move |at| (((at + 1) * (2 * seed + 77) * 40_503) >> 7) as u8)
}

/// What the product is, one element at a time.
fn expected(rows: &[&[u8]], sources: &[&[u8]]) -> Vec<Vec<u8>> {
    let element = |row: &[u8], at: usize| {
        row.iter().zip(sources).fold(0, |sum, (factor, source)| sum ^ galois_8::mul(*factor, source[at]))
    };
    rows.iter().map(|row| (0..sources[0].len()).map(|at| element(row, at)).collect()).collect()
}

/// Goal: this processor has at least one engine, each has a name of its own, and the best is the first. Method: list them.
#[test]
fn engines_are_named() {
    let names: Vec<&str> = Engine::available().map(Engine::name).collect();
    println!("engines here: {names:?}");
    assert_eq!(names.last(), Some(&"portable"));
    assert_eq!(names[0], Engine::best().name());
    assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
}

/// Goal: every product of two bytes is right in every engine. Method: all factors, as rows, with a source of all bytes.
#[test]
fn every_product() {
    let source: Vec<u8> = (0..=255).collect();
    let factors: Vec<[u8; 1]> = (0..=255).map(|factor| [factor]).collect();
    let rows: Vec<&[u8]> = factors.iter().map(<[u8; 1]>::as_slice).collect();
    let expected = expected(&rows, &[&source]);
    for engine in Engine::available() {
        let mut out = vec![vec![0xee; 256]; 256];
        let mut buffers: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        engine.multiply(&rows, &[&source], &mut buffers);
        assert_eq!(out, expected, "{engine:?}");
    }
}

/// Goal: no engine reads or writes a byte beyond a buffer, at either end, and each writes all of it. Method: all buffers
/// between fences, at their lower and at their upper edge, sources and outputs apart; lengths around every tile and tail;
/// each number of rows that a kernel is made for, and one more.
#[test]
fn fences_hold() {
    const SOURCES: usize = 3;
    const ROWS: usize = 13;
    let lengths =
        (1..=200).chain([255, 256, 257, 511, 512, 513, 575, 1023, 1024, 1025, 1087, 4095, 4096, 4097, 8200]);
    let longest = 8200;
    let mut given: Vec<Fenced> = (0..SOURCES).map(|_| Fenced::new(longest)).collect();
    let mut made: Vec<Fenced> = (0..ROWS).map(|_| Fenced::new(longest)).collect();
    let factors: Vec<Vec<u8>> = (0..ROWS).map(|row| noise(row + 40, SOURCES).collect()).collect();
    let rows: Vec<&[u8]> = factors.iter().map(Vec::as_slice).collect();
    for len in lengths {
        for at_end in [false, true] {
            let sources: Vec<&[u8]> = given
                .iter_mut()
                .enumerate()
                .map(|(s, fenced)| {
                    let part = fenced.part(len, at_end);
                    part.iter_mut().zip(noise(s, len)).for_each(|(to, from)| *to = from);
                    &*part
                })
                .collect();
            let expected = expected(&rows, &sources);
            // All numbers of rows for some lengths, the largest for all.
            let fewest = if len % 64 < 2 || len == 100 { 1 } else { ROWS };
            for engine in Engine::available() {
                for count in fewest..=ROWS {
                    made.iter_mut().for_each(|fenced| fenced.all().fill(CANARY));
                    let mut buffers: Vec<&mut [u8]> =
                        made[..count].iter_mut().map(|fenced| fenced.part(len, at_end)).collect();
                    engine.multiply(&rows[..count], &sources, &mut buffers);
                    for (fenced, expected) in made.iter_mut().zip(&expected[..count]) {
                        assert_eq!(fenced.part(len, at_end), expected, "{engine:?}, {count} rows of {len}");
                        let all = fenced.all();
                        let rest = if at_end { &all[..all.len() - len] } else { &all[len..] };
                        assert!(rest.iter().all(|byte| *byte == CANARY), "{engine:?}, {count} rows of {len}");
                    }
                }
            }
        }
    }
}

/// Goal: pointers of any alignment are welcome. Method: every offset within a register, other for sources and outputs.
#[test]
fn any_alignment() {
    let len = 300;
    let backing: Vec<Vec<u8>> = (0..4).map(|s| noise(s, len + 64).collect()).collect();
    let factors: Vec<Vec<u8>> = (0..4).map(|row| noise(row + 9, 4).collect()).collect();
    let rows: Vec<&[u8]> = factors.iter().map(Vec::as_slice).collect();
    for engine in Engine::available() {
        for offset in 0..64 {
            let sources: Vec<&[u8]> = backing
                .iter()
                .enumerate()
                .map(|(s, bytes)| &bytes[(offset * (s + 1)) % 64..][..len])
                .collect();
            let mut out = vec![vec![0; len + 64]; 4];
            let mut buffers: Vec<&mut [u8]> = out
                .iter_mut()
                .enumerate()
                .map(|(r, bytes)| &mut bytes[(offset + 13 * r) % 64..][..len])
                .collect();
            engine.multiply(&rows, &sources, &mut buffers);
            assert_eq!(buffers, expected(&rows, &sources), "{engine:?}, offset {offset}");
        }
    }
}
