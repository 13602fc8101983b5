//! What people use otherwise: a plain copy, and a backup to a local folder.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::files::{Used, timed};

/// Copies a file or folder and syncs it.
pub fn copy(source: &Path, to: &Path) -> Result<Used> {
    let (source, to) = (text(source)?, text(to)?);
    let used = timed(Command::new("sh").args(["-c", &format!("cp -r {source} {to} && sync {to}")]))?;
    timed(Command::new("rm").args(["-r", to]))?;
    Ok(used)
}

/// Backs a file or folder up into a new repository below `folder`, and restores it.
pub fn restic(folder: &Path, source: &Path) -> Result<(Used, Used)> {
    let password = folder.join("restic.password");
    std::fs::write(&password, "bench")?;
    let repository = folder.join("restic");
    let command = |args: &[&str]| -> Result<Used> {
        let mut command = Command::new("restic");
        command.arg("-q").arg("-r").arg(&repository).arg("--password-file").arg(&password);
        command.env("XDG_CACHE_HOME", folder.join("cache")).args(args);
        timed(&mut command)
    };
    command(&["init"])?;
    let backup = command(&["backup", text(source)?])?;
    let target = folder.join("restic.back");
    let restore = command(&["restore", "latest", "--target", text(&target)?])?;
    for gone in [&target, &repository] {
        std::fs::remove_dir_all(gone)?;
    }
    Ok((backup, restore))
}

/// A path as text.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a temporary folder has a plain name")
}
