//! Who holds a folder: a lock that ends with its process, however that ends, and that tells the process's id.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

use crate::failure::{Result, file_failed};

/// A lock held by this process. A record lock of POSIX: this process must not open the file a second time.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

impl Hold {
    /// Takes the lock; `None` if another process has it.
    pub fn take(path: &Path) -> Result<Option<Self>> {
        let file = open(path).map_err(|error| file_failed("open", path, &error))?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
            Err(error) => Err(file_failed("lock", path, &error.into())),
        }
    }

    /// The other process that has the lock, if one has.
    pub fn holder(path: &Path) -> Result<Option<Pid>> {
        let file = match File::options().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_failed("open", path, &error)),
        };
        let held = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
            .map_err(|error| file_failed("ask for the lock of", path, &error.into()))?;
        Ok(held.and_then(|flock| flock.pid))
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}
