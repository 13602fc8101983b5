//! Progress of a transfer as one bar on standard error: drawn only at a terminal, so that logs and pipes stay clean.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tallow_client::{Progress, Silent, Stage};
use tallow_types::{SeederId, SlotIndex};

use crate::output::Output;

/// A bar that follows an operation of the client.
pub struct Bar {
    bar: ProgressBar,
    blobs: AtomicU64,
    blobs_done: AtomicU64,
}

/// A bar where somebody sees it, else nothing.
pub fn bar(out: Output) -> Arc<dyn Progress> {
    if out.json || out.quiet {
        return Arc::new(Silent);
    }
    Arc::new(Bar::new())
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        bar.set_style(waiting());
        Self { bar, blobs: AtomicU64::new(0), blobs_done: AtomicU64::new(0) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn waiting() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix}").expect("a valid template")
}

fn moving() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {wide_msg}",
    )
    .expect("a valid template")
    .progress_chars("=> ")
}

const fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Connecting => "connecting",
        Stage::Opening => "opening a contract",
        Stage::Leasing => "waiting for the write lease",
        Stage::Storing => "storing",
        Stage::Committing => "waiting for countersignatures",
        Stage::Fetching => "fetching",
        Stage::Repairing => "repairing",
        Stage::Posting => "posting to the ledger",
    }
}

impl Progress for Bar {
    fn stage(&self, stage: Stage) {
        self.bar.set_prefix(words(stage));
        let moves = matches!(stage, Stage::Storing | Stage::Fetching | Stage::Repairing);
        self.bar.set_style(if moves { moving() } else { waiting() });
        self.bar.tick();
    }

    fn expect(&self, blobs: u64, bytes: u64) {
        self.blobs.store(blobs, Ordering::Relaxed);
        self.bar.set_length(bytes.max(self.bar.position()));
    }

    fn blob(&self, path: &str) {
        let done = self.blobs_done.fetch_add(1, Ordering::Relaxed) + 1;
        // Names come from files and from other machines: control characters must not reach the terminal.
        let shown: String = path.chars().filter(|c| !c.is_control()).collect();
        match self.blobs.load(Ordering::Relaxed) {
            0 | 1 => self.bar.set_message(shown),
            all => self.bar.set_message(format!("{done}/{} {shown}", all.max(done))),
        }
    }

    fn plain(&self, bytes: u64) {
        self.bar.inc(bytes);
        if self.bar.position() > self.bar.length().unwrap_or(0) {
            self.bar.set_length(self.bar.position());
        }
    }

    fn lost(&self, slot: SlotIndex, seeder: &SeederId, reason: &str) {
        let shown: String = reason.chars().filter(|c| !c.is_control()).collect();
        self.bar.println(format!("slot {slot} ({}) dropped out: {shown}", seeder.short()));
    }
}
