//! What can happen in a run, and how the trace calls it.

use tallow_types::SlotIndex;

use super::device::Timer;
use super::ledger::Action;
use super::seeder::{Ask, Asker, Told};

/// One thing that happens at one moment.
pub(super) enum Happening {
    Asked { slot: usize, asker: Asker, ask: Ask },
    Synced { slot: usize, life: u32 },
    Told { device: usize, life: u32, slot: SlotIndex, request: u64, told: Told },
    Submitted { device: usize, life: u32, op: u64, action: Action },
    Acted { device: usize, life: u32, op: u64 },
    Record { device: usize, life: u32, op: u64, height: usize },
    Timer { device: usize, life: u32, timer: Timer },
    Follows { slot: usize, height: usize },
    Chaos,
    SeederStarts { slot: usize, life: u32 },
    DeviceStarts { device: usize, life: u32 },
}

impl Happening {
    /// A line of the trace.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Asked { slot, asker, ask } => {
                let what = match ask {
                    Ask::Fence(lease) => format!("fence {lease}"),
                    Ask::Countersign { chain, .. } => {
                        format!("countersign {:?}", chain.last().map(|signed| signed.commit.hash()))
                    }
                    Ask::Show(commit) => format!("show {commit:?}"),
                };
                format!("device {} asks slot {slot}: {what}", asker.device)
            }
            Self::Told { device, slot, told, .. } => {
                let what = match told {
                    Told::Fenced { newest } => {
                        format!("fenced at {:?}", newest.as_ref().map(|signed| signed.commit.hash()))
                    }
                    Told::Countersigned(hash) => format!("signed {hash:?}"),
                    Told::Commits(commits) => format!("{} commits", commits.len()),
                    Told::Refused { code, newest } => format!("refused {code:?} at {newest:?}"),
                };
                format!("slot {slot} tells device {device}: {what}")
            }
            Self::Synced { slot, life } => format!("slot {slot}.{life} synced"),
            Self::Submitted { device, op, action, .. } => format!("device {device} submits {action:?} {op}"),
            Self::Acted { device, op, .. } => format!("device {device} acted {op}"),
            Self::Record { device, op, height, .. } => format!("device {device} reads {height} for {op}"),
            Self::Timer { device, life, timer } => format!("device {device}.{life} {timer:?}"),
            Self::Follows { slot, height } => format!("slot {slot} follows to {height}"),
            Self::Chaos => "chaos".to_owned(),
            Self::SeederStarts { slot, life } => format!("slot {slot}.{life} starts"),
            Self::DeviceStarts { device, life } => format!("device {device}.{life} starts"),
        }
    }
}
