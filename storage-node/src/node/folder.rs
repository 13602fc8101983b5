//! The node's folder: one process at a time, and a file that says where it listens.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tallow_types::contract::Address;

use super::StartError;

/// Held while a process has the folder; the system takes it back however the process ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, StartError> {
        let failed = |source| StartError::Folder { dir: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Who it is is a courtesy: without it the message is shorter.
                let _ = file.read_to_string(&mut text);
                return Err(StartError::InUse { dir: dir.to_owned(), process: text.trim().parse().ok() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Writes where the node listens: whole or not at all, whoever reads meanwhile.
pub(super) fn write_address(dir: &Path, addresses: &[Address]) -> Result<(), StartError> {
    let text: String = addresses.iter().map(|address| format!("{}\n", address.as_str())).collect();
    let (path, new) = (dir.join("address"), dir.join("address.new"));
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(new, path))
        .map_err(|source| StartError::Folder { dir: dir.to_owned(), source })
}
