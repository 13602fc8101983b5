//! Writing a large file past the page cache: straight from one block of memory to the disk. Its bytes would drive out
//! those of other files, and giving them fresh memory costs more than reading them from seeders. What was written is on
//! the disk when the call returns, so nothing is left for the sync at the end.
//!
//! Where the file system takes no such writes, they go through the page cache like all others.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

/// Files from this size on are large. Bytes.
pub(super) const LARGE_MIN: u64 = 8 << 20;
/// What is written at once. Bytes.
const BLOCK: usize = 1 << 20;
/// What memory and places of direct writes are aligned to; no disk asks for more. Bytes.
const ALIGN: usize = 4096;

/// A large file on its way to the disk, written from its beginning to its end.
pub(super) struct Large {
    direct: Option<File>,
    memory: Vec<u8>,
    /// Where the block begins in `memory`.
    begin: usize,
    filled: usize,
    written: u64,
}

impl Large {
    /// Takes the disk for a file at once: what doesn't fit is known before anything is fetched.
    pub fn begin(file: &File, path: &Path, size: u64) -> io::Result<Self> {
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        let memory = vec![0; BLOCK + ALIGN];
        // Some offset always fits, or else the writes are refused and go the other way.
        let begin = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Ok(Self { direct, memory, begin, filled: 0, written: 0 })
    }

    /// Adds to the end.
    pub fn write(&mut self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            let at = self.begin + self.filled;
            self.memory[at..at + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = rest;
            if self.filled == BLOCK {
                self.flush(file)?;
            }
        }
        Ok(())
    }

    /// Writes what is left, which is no whole block, and so through the page cache.
    pub fn end(mut self, file: &File) -> io::Result<()> {
        self.direct = None;
        self.flush(file)?;
        file.set_len(self.written)
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        let block = &self.memory[self.begin..self.begin + self.filled];
        let direct = self.direct.as_ref().map(|direct| direct.write_all_at(block, self.written));
        match direct {
            Some(Ok(())) => {}
            Some(Err(error)) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            refused => {
                file.write_all_at(block, self.written)?;
                if refused.is_some() {
                    self.direct = None;
                }
            }
        }
        self.written += block.len() as u64;
        self.filled = 0;
        Ok(())
    }
}
