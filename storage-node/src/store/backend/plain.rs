//! A segment as a file. Bulk is written past the page cache, straight from one block of memory that all segments share:
//! slices are not read again soon, so they would drive out what is, and fresh memory for them costs more than all else
//! that a seeder does for a slice. What lies before the first whole page and behind the last goes through the cache, and so
//! does everything where the file system takes no such writes.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate};

use super::{SegmentFile, allocate};

/// A segment as a file.
#[derive(Debug)]
pub(super) struct PlainFile {
    file: File,
    /// The same file for writes past the page cache, where its file system takes them.
    direct: Option<File>,
    bounce: Arc<Mutex<Bounce>>,
}

/// Writes from this length on are bulk. Bytes.
const BULK_MIN: usize = 64 << 10;
/// What is written past the page cache at once. Bytes.
const BLOCK: usize = 1 << 20;
/// What memory, places and lengths of such writes are multiples of; no disk asks for more. Bytes.
const ALIGN: usize = 4096;

/// Memory that writes past the page cache are made from.
#[derive(Debug, Default)]
pub(super) struct Bounce(Vec<u8>);

impl Bounce {
    fn block(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = vec![0; BLOCK + ALIGN];
        }
        let begin = self.0.as_ptr().align_offset(ALIGN).min(ALIGN);
        &mut self.0[begin..begin + BLOCK]
    }
}

impl PlainFile {
    /// A file that is read, and written a little.
    pub fn new(file: File, bounce: Arc<Mutex<Bounce>>) -> Self {
        Self { file, direct: None, bounce }
    }

    /// The file, open at a path, takes bulk. It has two descriptors from now on: only what is added to needs that.
    pub fn for_bulk(self, path: &Path) -> Self {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        Self { direct, ..self }
    }

    /// Whole aligned blocks past the page cache, what is left at both ends through it. False if the file system refuses
    /// such writes.
    fn write_direct(&self, direct: &File, mut offset: u64, parts: &[&[u8]]) -> io::Result<bool> {
        let mut bounce = self.bounce.lock().unwrap_or_else(PoisonError::into_inner);
        let block = bounce.block();
        let mut source = Parts { parts, at: 0 };
        let mut left: usize = parts.iter().map(|part| part.len()).sum();
        while left > 0 {
            let ahead = usize::try_from(offset.next_multiple_of(ALIGN as u64) - offset).unwrap_or(0);
            let is_whole = ahead == 0 && left >= ALIGN;
            let len = match ahead {
                0 if is_whole => (left - left % ALIGN).min(BLOCK),
                0 => left,
                ahead => ahead.min(left),
            };
            source.fill(&mut block[..len]);
            let written = if is_whole {
                direct.write_all_at(&block[..len], offset)
            } else {
                self.file.write_all_at(&block[..len], offset)
            };
            match written {
                Err(error) if is_whole && error.kind() == io::ErrorKind::InvalidInput => return Ok(false),
                written => written?,
            }
            offset += len as u64;
            left -= len;
        }
        Ok(true)
    }
}

/// Bytes in several places, one after another.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    at: usize,
}

impl Parts<'_> {
    fn fill(&mut self, mut out: &mut [u8]) {
        while let (false, Some((first, rest))) = (out.is_empty(), self.parts.split_first()) {
            let part = &first[self.at..];
            let len = part.len().min(out.len());
            let (now, later) = out.split_at_mut(len);
            now.copy_from_slice(&part[..len]);
            out = later;
            self.at += len;
            if self.at == first.len() {
                (self.parts, self.at) = (rest, 0);
            }
        }
    }
}

impl SegmentFile for PlainFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn allocated(&self) -> io::Result<u64> {
        // The unit of this count, whatever the file system's own.
        Ok(self.file.metadata()?.blocks() * 512)
    }

    fn fill(&self, length: u64) -> io::Result<()> {
        allocate(&self.file, length)
    }

    fn write_all_at(&self, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let is_bulk = parts.iter().map(|part| part.len()).sum::<usize>() >= BULK_MIN;
        if let Some(direct) = self.direct.as_ref().filter(|_| is_bulk)
            && self.write_direct(direct, offset, parts)?
        {
            return Ok(());
        }
        let mut parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(&self.file, left, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn forget_cached(&self, offset: u64, length: u64) {
        // It may decline, and nothing is lost by that.
        let _ = fadvise(&self.file, offset, NonZeroU64::new(length), Advice::DontNeed);
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        Ok(fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: bulk lands where it should and nowhere else, whatever its place, length and parts. Method: write at places
    /// around pages and blocks over a known background, and compare the whole file with a copy in memory.
    #[test]
    fn bulk_lands_where_it_should() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("segment");
        let mut wanted = vec![0xa5; 4 << 20];
        std::fs::write(&path, &wanted).expect("writes");
        let file = File::options().read(true).write(true).open(&path).expect("opens");
        let plain = PlainFile::new(file, Arc::default()).for_bulk(&path);
        let mut noise: Vec<u8> =
            (0..1u32 << 21).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for offset in [0, 128, ALIGN - 1, ALIGN, ALIGN + 1, 5 * ALIGN + 128] {
            for len in [BULK_MIN, BULK_MIN + 1, BULK_MIN + ALIGN - 128, BLOCK, BLOCK + BULK_MIN + 777] {
                for cut in [0, 1, 128, ALIGN, len] {
                    let (first, second) = noise[..len].split_at(cut);
                    plain.write_all_at(offset as u64, &[first, &[], second]).expect("writes");
                    wanted[offset..offset + len].copy_from_slice(&noise[..len]);
                    let found = std::fs::read(&path).expect("reads");
                    assert!(found == wanted, "{len} bytes at {offset}, cut at {cut}");
                    noise.rotate_left(1);
                }
            }
        }
    }
}
