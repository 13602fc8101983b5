//! A development network whose validator's folder is lost: it goes on from a seeder's copy of the ledger.
//!
//! Every storage node keeps the ledger. The copy with the most blocks becomes the validator's; its next start takes the
//! validator's place under a new incarnation number, which outranks every lease that the lost blocks may have granted.

use std::path::{Path, PathBuf};

use tallow_consensus::{Chain, Options};

use crate::dev::folder::{Folder, Plan, VALIDATOR};
use crate::failure::{Failure, Result, file_failed};
use crate::home::private_dir;

/// Looks whether the validator's ledger is there. If it is lost and `wanted`, puts a seeder's copy in its place. True if
/// the validator must adopt what is in its folder.
pub fn check(folder: &Folder, plan: &Plan, wanted: bool) -> Result<bool> {
    let place = folder.path(VALIDATOR).join("ledger");
    let (ledger, guard) = (place.join("ledger.redb"), place.join("guard.redb"));
    if ledger.exists() && guard.exists() {
        return Ok(false);
    }
    // A ledger without the guard of its signer is a copy that was never adopted, or a start that was killed before there was
    // anything in it.
    if ledger.exists() && Chain::reopen(&place, Options::default()).is_ok() {
        return Ok(true);
    }
    let copies: Vec<PathBuf> = plan
        .seeder_names()
        .map(|name| folder.path(&name).join("ledger"))
        .filter(|dir| dir.join("ledger.redb").exists())
        .collect();
    if copies.is_empty() {
        // The first start, or one that did not come far: it begins at genesis.
        return Ok(false);
    }
    if !wanted {
        return Err(Failure::user(format!(
            "the validator's ledger in {} is lost",
            folder.path(VALIDATOR).display()
        ))
        .hint("go on from a seeder's copy with: tallow dev up --rebuild-validator"));
    }
    let newest = newest(&copies)?;
    private_dir(&place)?;
    // Under another name until it is whole: half a copy must not be taken for a ledger.
    let half = place.join("ledger.redb.copy");
    std::fs::copy(newest.join("ledger.redb"), &half)
        .and_then(|_| std::fs::File::open(&half)?.sync_all())
        .and_then(|()| std::fs::rename(&half, &ledger))
        .map_err(|error| file_failed("copy a ledger to", &ledger, &error))?;
    Ok(true)
}

/// The newest copy: of the highest incarnation, since a later validator may have begun below what an earlier one made,
/// and of those with the most blocks.
fn newest(copies: &[PathBuf]) -> Result<&Path> {
    let mut best = None;
    for dir in copies {
        // A copy that can't be opened is none; another may do.
        let Ok(chain) = Chain::reopen(dir, Options::default()) else { continue };
        let status = chain.status();
        let rank = (status.incarnation, status.height);
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, dir));
        }
    }
    best.map(|(_, dir): (_, &PathBuf)| dir.as_path())
        .ok_or_else(|| Failure::unavailable("no seeder has a readable copy of the ledger"))
}
