//! Two devices hand a lease back and forth over seeders whose ledgers lag, whose answers get lost, who crash before and
//! after their records are durable, and some of whom lose them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const N: usize = 6;
const K: usize = 2;
/// k + margin.
const QUORUM: usize = 4;
/// Seeders that may be without records at a time.
const LOST_MAX: usize = 2;

#[derive(Clone, Debug)]
enum Order {
    /// The ledger grants the next lease to a device.
    Grant(u8),
    /// The ledgers of the seeders of a mask catch up.
    Learn(u8),
    /// A device fences the seeders of a mask, and finds its base if enough answer.
    Fence(u8, u8),
    /// A device makes its next commit, or with `again` sends its last one, to the seeders of a mask. Answers of the second
    /// mask get lost.
    Commit { device: u8, again: bool, drop: bool, to: u8, lost: u8 },
    /// A seeder crashes, in the middle of its next step: before its records are durable, or after.
    Crash(usize, bool),
    /// A seeder loses its records.
    Lose(usize),
    /// A seeder loses its copy of the ledger, and begins again with an older one.
    Forget(usize),
}

/// All seeders, or any of them.
fn mask() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0xff), any::<u8>()]
}

fn orders() -> impl Strategy<Value = Vec<Order>> {
    let order = prop_oneof![
        1 => (0..2u8).prop_map(Order::Grant),
        3 => mask().prop_map(Order::Learn),
        3 => (0..2u8, mask()).prop_map(|(device, mask)| Order::Fence(device, mask)),
        8 => (0..2u8, any::<bool>(), any::<bool>(), mask(), any::<u8>()).prop_map(
            |(device, again, drop, to, lost)| Order::Commit { device, again, drop, to, lost: lost & 0x15 }
        ),
        2 => (0..N, any::<bool>()).prop_map(|(seeder, durable)| Order::Crash(seeder, durable)),
        1 => (0..N).prop_map(Order::Lose),
        1 => (0..N).prop_map(Order::Forget),
    ];
    prop::collection::vec(order, 1..80)
}

struct SimSeeder {
    key: Keypair,
    lane: Lane,
    disk: LaneRecord,
    /// How many grants its ledger knows.
    knows: usize,
    /// Set when the next step ends in a crash: whether its records were durable.
    crash: Option<bool>,
    signed: BTreeMap<Rank, CommitHash>,
    fenced: Lease,
}

#[derive(Clone, Copy)]
struct SimDevice {
    /// Its lease, once it has a base in it.
    lease: Option<Lease>,
    tip: CommitHash,
    sequence: u64,
}

struct Sim {
    seeders: Vec<SimSeeder>,
    devices: [SimDevice; 2],
    /// Device of each lease; the first is 1.
    grants: Vec<u8>,
    commits: BTreeMap<CommitHash, (SignedCommit, Vec<Option<Leaf>>)>,
    acknowledged: BTreeSet<CommitHash>,
    stripes: u64,
}

fn write(disk: &mut LaneRecord, update: LaneUpdate) {
    disk.row = update.row;
    disk.commits.retain(|kept| !update.forget.contains(&kept.signed.commit.rank()));
    disk.commits.extend(update.commits);
    let removed = |index: &LeafIndex| update.removed.iter().any(|(gone, _)| gone == index);
    disk.leaves.retain(|(index, _)| !removed(index));
    disk.leaves.extend(update.appended);
}

fn empty(origin: Origin) -> LaneRecord {
    LaneRecord { row: LaneRow::new(origin, ROOM, None), commits: Vec::new(), leaves: Vec::new() }
}

impl Sim {
    fn new() -> Self {
        let seeder = |n: usize| {
            let disk = empty(Origin::Founder);
            let slot = u8::try_from(n).unwrap();
            let lane = Lane::from_record(lane_key(slot), disk.clone()).unwrap();
            let (signed, fenced) = (BTreeMap::new(), Lease::NONE);
            SimSeeder { key: super::seeder(slot), lane, disk, knows: 0, crash: None, signed, fenced }
        };
        Self {
            seeders: (0..N).map(seeder).collect(),
            devices: [SimDevice { lease: None, tip: CommitHash::ZERO, sequence: 0 }; 2],
            grants: Vec::new(),
            commits: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            stripes: 0,
        }
    }

    /// One event at one seeder; `None` if it refused, or crashed before it answered.
    fn ask(&mut self, n: usize, device: u8, event: Event) -> Option<Answer> {
        let seeder = &mut self.seeders[n];
        let current = *self.grants.get(seeder.knows.checked_sub(1)?)?;
        let grant = grant(seeder.knows as u64, &super::device(current), N);
        let mut step = seeder.lane.handle(&seeder.key, &grant, super::device(device).public(), event).ok()?;
        let crash = seeder.crash.take();
        if crash != Some(false)
            && let Some(update) = step.update.take()
        {
            write(&mut seeder.disk, update);
        }
        if crash.is_some() {
            seeder.lane = Lane::from_record(lane_key(u8::try_from(n).unwrap()), seeder.disk.clone()).unwrap();
            return None;
        }
        let answer = seeder.lane.apply(step);
        let reread = Lane::from_record(lane_key(u8::try_from(n).unwrap()), seeder.disk.clone()).unwrap();
        assert_eq!(reread.leaves, seeder.lane.leaves, "memory and disk agree");
        match &answer {
            Answer::Fenced { fence, .. } => seeder.fenced = seeder.fenced.max(fence.lease),
            Answer::Silent => {}
            Answer::Countersigned(_) => {
                let (hash, rank) = seeder.lane.row().newest.unwrap();
                let before = *seeder.signed.entry(rank).or_insert(hash);
                assert_eq!(before, hash, "two commits of rank {rank:?}");
                assert!(rank.lease >= seeder.fenced, "signed below its fence");
            }
        }
        Some(answer)
    }

    fn ancestors(&self, from: CommitHash) -> Vec<CommitHash> {
        let mut found = Vec::new();
        let mut at = from;
        while let Some((signed, _)) = self.commits.get(&at) {
            found.push(at);
            at = signed.commit.previous;
        }
        found
    }

    fn fence(&mut self, device: u8, mask: u8) {
        // A device knows its own newest grant, and tries with that.
        let Some(last) = self.grants.iter().rposition(|granted| *granted == device) else { return };
        let lease = lease(last as u64 + 1);
        let mut newest = Vec::new();
        for n in (0..N).filter(|n| mask >> n & 1 == 1) {
            if let Some(Answer::Fenced { fence, .. }) = self.ask(n, device, Event::Fence { lease }) {
                newest.push(fence.newest);
            }
        }
        let known = self.devices[usize::from(device)].lease;
        if newest.len() < QUORUM || known == Some(lease) {
            return;
        }
        let mut counts: BTreeMap<CommitHash, usize> = BTreeMap::new();
        for commit in newest.iter().flat_map(|commit| self.ancestors(*commit)) {
            *counts.entry(commit).or_default() += 1;
        }
        let found = counts.into_iter().filter(|(_, count)| *count >= K).map(|(commit, _)| commit);
        let base =
            found.max_by_key(|commit| self.commits[commit].0.commit.rank()).unwrap_or(CommitHash::ZERO);
        let held = self.ancestors(base);
        for acknowledged in &self.acknowledged {
            assert!(held.contains(acknowledged), "an acknowledged commit is not in the base");
        }
        self.devices[usize::from(device)] = SimDevice { lease: Some(lease), tip: base, sequence: 0 };
    }

    fn commit(&mut self, device: u8, again: bool, drop: bool, (to, lost): (u8, u8)) {
        let state = &self.devices[usize::from(device)];
        let Some(lease) = state.lease else { return };
        if !(again && state.sequence > 0) {
            let sequence = state.sequence + 1;
            let mut leaves =
                self.commits.get(&state.tip).map(|(_, leaves)| leaves.clone()).unwrap_or_default();
            if let Some(last) = leaves.last_mut().filter(|_| drop) {
                *last = None;
            }
            self.stripes += 1;
            leaves.push(Some(leaf(self.stripes)));
            let commit = commit_of((lease.counter, sequence), state.tip, &leaves, N);
            let signed = commit.sign(&chain_id(), &super::device(device));
            let tip = signed.commit.hash();
            self.commits.insert(tip, (signed, leaves));
            self.devices[usize::from(device)] = SimDevice { lease: Some(lease), tip, sequence };
        }
        let tip = self.devices[usize::from(device)].tip;
        let mut signatures = 0;
        for n in (0..N).filter(|n| to >> n & 1 == 1) {
            let event = self.countersign(n, tip);
            if self.ask(n, device, event).is_some() && lost >> n & 1 == 0 {
                signatures += 1;
            }
        }
        if signatures >= QUORUM {
            self.acknowledged.insert(tip);
        }
    }

    /// What a device would send to bring this seeder to a commit.
    fn countersign(&self, n: usize, tip: CommitHash) -> Event {
        let row = self.seeders[n].lane.row();
        let newest = row.newest.map(|(hash, _)| hash);
        let mut chain = Vec::new();
        let mut linked = newest.is_none();
        for commit in self.ancestors(tip) {
            if Some(commit) == newest {
                linked = true;
                break;
            }
            chain.push(self.commits[&commit].0.clone());
        }
        if !linked {
            let ahead = row.newest.map_or(Lease::NONE, |(_, rank)| rank.lease);
            chain.retain(|signed| signed.commit.lease > ahead);
        }
        chain.truncate(COMMIT_CHAIN_MAX);
        chain.reverse();
        if chain.is_empty() {
            chain.push(self.commits[&tip].0.clone());
        }
        let from = newest.map(|newest| self.commits[&newest].1.clone()).unwrap_or_default();
        let linked = linked && from.len() <= self.commits[&tip].1.len();
        Event::Countersign { chain, change: change_between(&from, &self.commits[&tip].1, linked).into() }
    }

    fn lose(&mut self, n: usize) {
        let is_silent = |seeder: &SimSeeder| {
            matches!(seeder.disk.row.origin, Origin::Lost { .. }) && seeder.disk.row.newest.is_none()
        };
        if self.seeders.iter().filter(|seeder| is_silent(seeder)).count() >= LOST_MAX {
            return;
        }
        // It notices when its ledger is known up to now.
        let floor = lease(self.grants.len() as u64);
        let seeder = &mut self.seeders[n];
        seeder.knows = self.grants.len();
        seeder.disk = empty(Origin::Lost { floor });
        seeder.lane = Lane::from_record(lane_key(u8::try_from(n).unwrap()), seeder.disk.clone()).unwrap();
        // Its promise is gone with the rest: only the ledger, and its silence, stand for it now.
        seeder.fenced = Lease::NONE;
    }

    fn run(&mut self, order: Order) {
        match order {
            Order::Grant(device) => self.grants.push(device),
            Order::Learn(mask) => {
                for n in (0..N).filter(|n| mask >> n & 1 == 1) {
                    self.seeders[n].knows = self.grants.len();
                }
            }
            Order::Fence(device, mask) => self.fence(device, mask),
            Order::Commit { device, again, drop, to, lost } => self.commit(device, again, drop, (to, lost)),
            Order::Crash(n, durable) => self.seeders[n].crash = Some(durable),
            Order::Lose(n) => self.lose(n),
            Order::Forget(n) => self.seeders[n].knows /= 2,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: no seeder signs two commits of one rank or below its fence; every acknowledged commit is in every later base.
    /// Method: random orders of everything that can happen; the checks are where the answers are.
    #[test]
    fn acknowledged_commits_are_never_left_behind(orders in orders()) {
        let mut sim = Sim::new();
        for order in orders {
            sim.run(order);
        }
    }
}

/// Goal: the random orders above really acknowledge, take over and take over from behind. Method: count over fixed runs.
#[test]
fn orders_reach_what_they_should() {
    let mut acknowledged = 0;
    let mut rebased = 0;
    let mut lot = crate::store::torn::Lot(7);
    for _ in 0..300 {
        let mut sim = Sim::new();
        for _ in 0..80 {
            let mask = u8::try_from(lot.below(256)).unwrap();
            let device = mask & 1;
            sim.run(match lot.below(12) {
                0 => Order::Grant(device),
                1..4 => Order::Learn(mask | 0x2c),
                4..7 => Order::Fence(device, mask | 0x1e),
                _ => Order::Commit {
                    device,
                    again: mask & 2 == 0,
                    drop: mask & 4 == 0,
                    to: mask | 0x31,
                    lost: 0,
                },
            });
        }
        acknowledged += sim.acknowledged.len();
        let leases = |hash: &CommitHash| sim.commits[hash].0.commit.lease;
        rebased += usize::from(sim.acknowledged.iter().map(leases).collect::<BTreeSet<_>>().len() > 1);
    }
    assert!(acknowledged > 300 && rebased > 20, "{acknowledged} acknowledged, {rebased} runs with takeovers");
}
