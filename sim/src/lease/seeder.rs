//! A seeder: the real rules over a model of its disk. One step of a lane at a time; a step counts once it is durable.

use std::collections::{BTreeMap, VecDeque};

use tallow_storage_node::lanes::{Answer, Event, Grant, Lane, Refusal, Step};
use tallow_storage_node::store::{KeptCommit, LaneKey, LaneRecord, LaneRow, LaneUpdate, Origin};
use tallow_types::commit::{LaneChange, Leaf, Rank, SignedCommit};
use tallow_types::fault::{Code, Fault};
use tallow_types::sign::Keypair;
use tallow_types::{Bytes, ChainId, CommitHash, LeafIndex, Lease, PublicKey};

use super::ledger::Version;

/// Room of a lane, beyond what any run needs.
const ROOM: Bytes = Bytes::new(1 << 30);

/// What a device asks a seeder.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Fence(Lease),
    Countersign { chain: Vec<SignedCommit>, change: LaneChange },
    Show(CommitHash),
}

/// What it is told.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Fenced {
        newest: Option<Box<SignedCommit>>,
    },
    Countersigned(CommitHash),
    Commits(Vec<SignedCommit>),
    /// With the newest commit, for which a device would ask next.
    Refused {
        code: Code,
        newest: Option<CommitHash>,
    },
}

/// Records of one lane, as the index keeps them.
#[derive(Clone, Default)]
struct Disk {
    row: Option<LaneRow>,
    commits: BTreeMap<Rank, KeptCommit>,
    leaves: BTreeMap<LeafIndex, Leaf>,
}

impl Disk {
    fn write(&mut self, update: &LaneUpdate) {
        self.row = Some(update.row.clone());
        for rank in &update.forget {
            self.commits.remove(rank);
        }
        for kept in &update.commits {
            self.commits.insert(kept.signed.commit.rank(), kept.clone());
        }
        for (index, _) in &update.removed {
            self.leaves.remove(index);
        }
        self.leaves.extend(update.appended.iter().map(|(index, leaf)| (*index, *leaf)));
    }

    fn record(&self) -> Option<LaneRecord> {
        Some(LaneRecord {
            row: self.row.clone()?,
            commits: self.commits.values().cloned().collect(),
            leaves: self.leaves.iter().map(|(index, leaf)| (*index, *leaf)).collect(),
        })
    }
}

/// Whom a step is for.
pub(super) struct Asker {
    pub(super) device: usize,
    pub(super) life: u32,
    pub(super) request: u64,
}

/// One slot's seeder.
pub(super) struct Seeder {
    pub(super) name: u64,
    keypair: Keypair,
    key: LaneKey,
    chain: ChainId,
    slots: usize,
    pub(super) up: bool,
    pub(super) life: u32,
    /// How far its copy of the ledger goes.
    pub(super) height: usize,
    first_holder: bool,
    lane: Option<Lane>,
    disk: Disk,
    /// The disk before the newest updates, for the sabotage that forgets them.
    older: VecDeque<Disk>,
    busy: Option<(Asker, Step)>,
    waiting: VecDeque<(Asker, PublicKey, Ask)>,
}

/// What a seeder does next.
pub(super) enum Work {
    Nothing,
    /// Tell at once.
    Tell(Asker, Told),
    /// Call `durable` when the disk has it.
    Sync,
}

impl Seeder {
    pub(super) fn new(name: u64, chain: ChainId, key: LaneKey, slots: usize) -> Self {
        let row = LaneRow::new(Origin::Founder, ROOM, None);
        let mut disk = Disk::default();
        disk.write(&LaneUpdate::row(key, row.clone()));
        Self {
            name,
            keypair: keypair(name),
            key,
            chain,
            slots,
            up: true,
            life: 0,
            height: 0,
            first_holder: true,
            lane: Some(Lane::new(key, row)),
            disk,
            older: VecDeque::new(),
            busy: None,
            waiting: VecDeque::new(),
        }
    }

    /// Another seeder takes the slot, with nothing.
    pub(super) fn replace(&mut self, name: u64) {
        let row = LaneRow::new(Origin::Joiner, ROOM, None);
        self.crash();
        self.name = name;
        self.keypair = keypair(name);
        self.first_holder = false;
        self.disk = Disk::default();
        self.older.clear();
        self.disk.write(&LaneUpdate::row(self.key, row));
    }

    /// The disk is new, and empty.
    pub(super) fn wipe(&mut self) {
        self.crash();
        self.disk = Disk::default();
        self.older.clear();
    }

    /// What was not durable is gone.
    pub(super) fn crash(&mut self) {
        self.up = false;
        self.life += 1;
        self.lane = None;
        self.busy = None;
        self.waiting.clear();
    }

    /// As if the last updates had never been synced.
    pub(super) fn forget_newest(&mut self) {
        if let Some(oldest) = self.older.pop_front() {
            self.disk = oldest;
            self.older.clear();
        }
    }

    /// Starts again from the disk.
    pub(super) fn restart(&mut self) {
        self.up = true;
        self.lane = self.disk.record().map(|record| {
            Lane::from_record(self.key, record).expect("the updates of a lane make up its whole record")
        });
    }

    pub(super) fn ask(&mut self, asker: Asker, caller: PublicKey, ask: Ask, version: &Version) -> Work {
        if self.busy.is_some() {
            self.waiting.push_back((asker, caller, ask));
            return Work::Nothing;
        }
        let grant = self.grant(version);
        let event = match ask {
            Ask::Show(commit) => {
                let commits = self.lane.as_ref().map(|lane| lane.commits_from(&commit)).unwrap_or_default();
                return Work::Tell(asker, Told::Commits(commits));
            }
            Ask::Fence(lease) => Event::Fence { lease },
            Ask::Countersign { chain, change } => Event::Countersign { chain, change: change.into() },
        };
        let lane = match &mut self.lane {
            Some(lane) => lane,
            None => {
                let row = LaneRow::new(Origin::Lost { floor: grant.lease }, ROOM, None);
                self.disk.write(&LaneUpdate::row(self.key, row.clone()));
                self.lane.insert(Lane::new(self.key, row))
            }
        };
        match lane.handle(&self.keypair, &grant, caller, event) {
            Ok(step) => {
                self.busy = Some((asker, step));
                Work::Sync
            }
            Err(refusal) => Work::Tell(asker, self.refused(refusal)),
        }
    }

    /// The disk has the step in work: it counts from now on.
    pub(super) fn durable(&mut self) -> Option<(Asker, Told)> {
        let (asker, step) = self.busy.take()?;
        if let Some(update) = &step.update {
            self.older.push_back(self.disk.clone());
            if self.older.len() > 3 {
                self.older.pop_front();
            }
            self.disk.write(update);
        }
        let lane = self.lane.as_mut().expect("a step has a lane");
        let told = match lane.apply(step) {
            Answer::Fenced { .. } => {
                Told::Fenced { newest: lane.newest().map(|(signed, _)| Box::new(signed.clone())) }
            }
            Answer::Silent => Told::Refused { code: Code::NotFound, newest: None },
            Answer::Countersigned(_) => {
                let newest = lane.newest().expect("it has just countersigned");
                Told::Countersigned(newest.0.commit.hash())
            }
        };
        Some((asker, told))
    }

    /// The next request that waited for the lane.
    pub(super) fn next(&mut self) -> Option<(Asker, PublicKey, Ask)> {
        self.waiting.pop_front()
    }

    /// What it signed last.
    pub(super) fn newest(&self) -> Option<CommitHash> {
        self.lane.as_ref()?.newest().map(|(signed, _)| signed.commit.hash())
    }

    fn refused(&self, refusal: Refusal) -> Told {
        Told::Refused { code: Fault::from(refusal).code(), newest: self.newest() }
    }

    fn grant(&self, version: &Version) -> Grant {
        Grant {
            chain: self.chain,
            lease: version.lease.last,
            device: version.lease.holder.map(|holder| holder.device),
            waiting: version.lease.waiting,
            former: version.lease.recent.iter().copied().collect(),
            room: ROOM,
            // No commit is posted in a run.
            signed: Rank::default(),
            slots: self.slots,
            first_holder: self.first_holder,
        }
    }
}

fn keypair(name: u64) -> Keypair {
    let mut seed = [0x5e; 32];
    seed[..8].copy_from_slice(&name.to_le_bytes());
    Keypair::from_seed(&seed)
}
