//! Tests of the lease core: a model ledger and model seeders run its effects.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use tallow_types::codec::Bounded;
use tallow_types::id::ContractId;
use tallow_types::unit::{Incarnation, LeafIndex, Sequence};

const LENGTH: u64 = 5_000;

fn key(n: u8) -> PublicKey {
    PublicKey::new([n; 32])
}

fn profile() -> Profile {
    Profile::from_k_of_n(2, 6).expect("valid")
}

fn number(counter: u64) -> Lease {
    Lease { incarnation: Incarnation::ZERO, counter }
}

/// A ledger that grants as the rules say, and seeders that fence.
struct World {
    now: u64,
    grant: Grant,
    counter: u64,
    fences: Vec<Lease>,
    newest: Vec<Option<Commit>>,
    up: Vec<bool>,
}

impl World {
    fn new() -> Self {
        let grant = Grant { lease: number(0), device: None, expires: TimeMs::ZERO, pending: None };
        Self {
            now: 1_000,
            grant,
            counter: 0,
            fences: vec![Lease::NONE; 6],
            newest: vec![None; 6],
            up: vec![true; 6],
        }
    }

    fn give(&mut self, device: PublicKey) {
        self.counter += 1;
        self.grant = Grant {
            lease: number(self.counter),
            device: Some(device),
            expires: TimeMs::new(self.now + LENGTH),
            pending: None,
        };
    }

    fn ask(&mut self, device: PublicKey) {
        let expired = self.now >= self.grant.expires.get();
        match self.grant.device {
            Some(holder) if holder == device && self.grant.pending.is_none() => {
                self.grant.expires = TimeMs::new(self.now + LENGTH);
            }
            Some(holder) if holder == device && !expired => {}
            Some(_) if !expired => {
                self.grant.pending.get_or_insert(device);
            }
            _ => self.give(device),
        }
    }

    fn release(&mut self, device: PublicKey) {
        if self.grant.device == Some(device) {
            match self.grant.pending {
                Some(next) => self.give(next),
                None => self.grant.device = None,
            }
        }
    }

    fn record(&self) -> Event {
        let held = (0..6).map(SlotIndex::new).collect();
        Event::Record { grant: self.grant, now: TimeMs::new(self.now), held }
    }

    /// Runs effects until the core waits for something outside; returns what is left for the shell to know.
    fn run(&mut self, core: &mut LeaseCore, device: PublicKey, effects: Vec<Effect>) -> Vec<Effect> {
        let mut queue: VecDeque<Effect> = effects.into();
        let mut told = Vec::new();
        let mut waits = 0;
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Read => queue.extend(core.handle(self.record())),
                Effect::Ask => {
                    self.ask(device);
                    queue.extend(core.handle(self.record()));
                }
                Effect::Release => {
                    self.release(device);
                    queue.extend(core.handle(self.record()));
                }
                Effect::Wait(time) => {
                    self.now += time.get();
                    waits += 1;
                    if waits > 200 {
                        told.push(Effect::Wait(time));
                        return told;
                    }
                }
                Effect::Fence { lease, slots } => {
                    for slot in slots {
                        let at = usize::from(slot.get());
                        if self.up[at] && self.fences[at] <= lease {
                            self.fences[at] = lease;
                            let newest = self.newest[at].clone().map(Box::new);
                            queue.extend(core.handle(Event::Fenced { slot, newest }));
                        } else {
                            queue.extend(core.handle(Event::NotFenced { slot }));
                        }
                    }
                }
                Effect::Show { commit, .. } => {
                    let found = self.newest.iter().flatten().find(|c| c.hash() == commit).cloned();
                    let event = found.map_or(Event::Hidden(commit), |c| Event::Shown(Box::new(c)));
                    queue.extend(core.handle(event));
                }
                other => told.push(other),
            }
        }
        told
    }
}

fn core(n: u8) -> LeaseCore {
    LeaseCore::new(key(n), profile(), DurationMs::new(LENGTH), DurationMs::new(1_000))
}

fn commit(counter: u64, sequence: u64) -> Commit {
    Commit {
        contract: ContractId::ZERO,
        lease: number(counter),
        sequence: Sequence::new(sequence),
        previous: CommitHash::ZERO,
        leaves: LeafIndex::ZERO,
        width: 0,
        slots: Bounded::empty(),
        catalog_head: Bounded::empty(),
        repair_head: Bounded::empty(),
    }
}

/// Goal: the plain way: ask, fence, write, give back. Method: one device alone.
#[test]
fn one_device_gets_and_returns_it() {
    let (mut world, mut core) = (World::new(), core(1));
    let effects = core.handle(Event::Want);
    assert_eq!(world.run(&mut core, key(1), effects), [Effect::Ready { lease: number(1), base: None }]);
    assert!(world.fences.iter().all(|fence| *fence == number(1)));
    let effects = core.handle(Event::Done);
    assert_eq!(world.run(&mut core, key(1), effects), []);
    assert_eq!((core.held(), world.grant.device), (None, None));
}

/// Goal: a number granted to a process that died is never written under. Method: a new core for the holding device.
#[test]
fn a_forgotten_lease_is_given_back() {
    let mut world = World::new();
    world.give(key(1));
    let mut core = core(1);
    let effects = core.handle(Event::Want);
    assert_eq!(world.run(&mut core, key(1), effects), [Effect::Ready { lease: number(2), base: None }]);
}

/// Goal: the base of what seeders answer is told. Method: k of six signed a commit, one signed a later one.
#[test]
fn ready_tells_the_base() {
    let mut world = World::new();
    let base = commit(1, 1);
    for at in 0..3 {
        world.newest[at] = Some(base.clone());
    }
    let mut later = commit(1, 2);
    later.previous = base.hash();
    world.newest[3] = Some(later);
    world.counter = 1;
    let mut core = core(1);
    let effects = core.handle(Event::Want);
    let ready = Effect::Ready { lease: number(2), base: Some(base.hash()) };
    assert_eq!(world.run(&mut core, key(1), effects), [ready]);
}

/// Goal: with fewer than k + margin promises nothing is written. Method: three of six seeders are down.
#[test]
fn too_few_promises_are_read_only() {
    let (mut world, mut core) = (World::new(), core(1));
    world.up = vec![true, true, true, false, false, false];
    let effects = core.handle(Event::Want);
    assert_eq!(world.run(&mut core, key(1), effects), [Effect::ReadOnly { have: 3, need: 4 }]);
    assert_eq!(core.held(), None);
    world.up = vec![true, true, true, true, false, false];
    let effects = core.handle(Event::Want);
    assert!(matches!(world.run(&mut core, key(1), effects)[..], [Effect::Ready { .. }]));
}

/// Goal: a seeder whose commits nobody shows is no answer. Method: it stands on a lost commit; four answer, then six.
#[test]
fn hidden_commits_are_silence() {
    let (mut world, mut core) = (World::new(), core(1));
    let mut later = commit(1, 2);
    later.previous = commit(1, 1).hash();
    world.newest[0] = Some(later);
    world.counter = 1;
    world.up = vec![true, true, true, true, false, false];
    let effects = core.handle(Event::Want);
    assert_eq!(world.run(&mut core, key(1), effects), [Effect::ReadOnly { have: 3, need: 4 }]);
    assert_eq!(core.held(), None);
    world.up = vec![true; 6];
    let effects = core.handle(Event::Want);
    assert!(matches!(world.run(&mut core, key(1), effects)[..], [Effect::Ready { base: None, .. }]));
}

/// Goal: stragglers are not waited for once enough have promised. Method: only the first four answer.
#[test]
fn stragglers_are_left_behind() {
    let (mut world, mut core) = (World::new(), core(1));
    world.ask(key(1));
    let _ = core.handle(Event::Want);
    world.release(key(1));
    let _ = core.handle(world.record());
    world.ask(key(1));
    let effects = core.handle(world.record());
    assert!(matches!(effects[..], [Effect::Fence { .. }]));
    for slot in 0..3 {
        assert!(core.handle(Event::Fenced { slot: SlotIndex::new(slot), newest: None }).is_empty());
        assert!(core.handle(Event::Straggling).is_empty());
    }
    assert!(core.handle(Event::Fenced { slot: SlotIndex::new(3), newest: None }).is_empty());
    assert!(matches!(core.handle(Event::Straggling)[..], [Effect::Ready { .. }]));
}

/// Goal: a waiting device gets it after its share, and a holder that lost it stops. Method: two devices in turn.
#[test]
fn two_devices_hand_over() {
    let mut world = World::new();
    let (mut a, mut b) = (core(1), core(2));
    let effects = a.handle(Event::Want);
    assert!(matches!(world.run(&mut a, key(1), effects)[..], [Effect::Ready { .. }]));
    world.ask(key(2));
    assert_eq!(world.grant.pending, Some(key(2)));
    let tick = |world: &World| Event::Tick { now: TimeMs::new(world.now) };
    let effects = a.handle(tick(&world));
    assert_eq!(world.run(&mut a, key(1), effects), []);
    world.now += 1_500;
    let effects = a.handle(tick(&world));
    assert_eq!(world.run(&mut a, key(1), effects), [Effect::HandOver]);
    let effects = a.handle(Event::Done);
    assert_eq!(world.run(&mut a, key(1), effects), []);
    // The number that was granted while waiting is new, but this core had not asked for it: it takes another.
    let effects = b.handle(Event::Want);
    assert_eq!(world.run(&mut b, key(2), effects), [Effect::Ready { lease: number(3), base: None }]);
    world.now += LENGTH;
    let effects = a.handle(Event::Want);
    assert_eq!(world.run(&mut a, key(1), effects), [Effect::Ready { lease: number(4), base: None }]);
    let effects = b.handle(tick(&world));
    assert_eq!(world.run(&mut b, key(2), effects), [Effect::Lost]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Goal: never do two devices hold one number, nobody starves, numbers only rise. Method: random steps of two devices that
    /// want, tick, finish and die, against the model.
    #[test]
    fn numbers_are_never_shared(steps in prop::collection::vec((0usize..2, 0u8..5, 0u64..4_000), 1..60)) {
        let mut world = World::new();
        let mut cores = [core(1), core(2)];
        let mut seen: BTreeMap<Lease, usize> = BTreeMap::new();
        for (who, what, time) in steps {
            world.now += time;
            let device = key(u8::try_from(who + 1).expect("small"));
            let event = match what {
                0 | 1 => Event::Want,
                2 => Event::Tick { now: TimeMs::new(world.now) },
                3 => Event::Done,
                _ => {
                    cores[who] = core(u8::try_from(who + 1).expect("small"));
                    continue;
                }
            };
            let effects = cores[who].handle(event);
            for effect in world.run(&mut cores[who], device, effects) {
                if let Effect::Ready { lease, .. } = effect {
                    prop_assert!(seen.keys().all(|old| *old < lease));
                    seen.insert(lease, who);
                }
                prop_assert!(!matches!(effect, Effect::Wait(_)), "starved");
            }
            if let Some(lease) = cores[who].held() {
                prop_assert_eq!(seen.get(&lease), Some(&who));
            }
        }
    }
}
