//! What goes in and out of a device's shell.

use tallow_types::{CommitHash, Profile, SlotIndex};

use crate::Dice;
use crate::lease::history::History;
use crate::lease::ledger::Action;
use crate::lease::seeder::Ask;

/// What the shell asks of the world.
pub(in crate::lease) enum Out {
    Send {
        slot: SlotIndex,
        request: u64,
        ask: Ask,
    },
    Submit {
        op: u64,
        action: Action,
    },
    Read {
        op: u64,
    },
    Timer {
        after_ms: u64,
        timer: Timer,
    },
    Acknowledged(CommitHash),
    /// The lease is held, and writing begins.
    Ready {
        waited_ms: u64,
    },
}

/// What a device sets its clock for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lease) enum Timer {
    Want,
    Tick,
    Op(u64),
    Write(u64),
}

/// What the shell works with.
pub(in crate::lease) struct Context<'a> {
    pub(in crate::lease) now_ms: u64,
    /// Whether the faults have stopped, those of manners too.
    pub(in crate::lease) calm: bool,
    pub(in crate::lease) dice: &'a mut Dice,
    pub(in crate::lease) history: &'a mut History,
    pub(in crate::lease) out: Vec<Out>,
}

impl Context<'_> {
    pub(super) fn timer(&mut self, after_ms: u64, timer: Timer) {
        self.out.push(Out::Timer { after_ms, timer });
    }
}

/// How a device is made to break the rules.
#[derive(Clone, Copy, Debug)]
pub(in crate::lease) struct Manners {
    /// The redundancy that it takes the contract to have.
    pub(in crate::lease) believed: Profile,
    /// Signs two commits of one rank this often, in thousandths.
    pub(in crate::lease) two_faced: u64,
    /// Countersignatures that it takes for an acknowledgement, if not the quorum.
    pub(in crate::lease) enough: Option<usize>,
}
