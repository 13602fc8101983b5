//! Random histories: whatever happens, what must always hold holds after every block (see `World::check`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tallow_ledger::record::Phase;
use tallow_ledger::{Refusal, due, light};
use tallow_types::tx::{Action, Transaction};
use tallow_types::{Bounded, ContractId, Fuel, SlotIndex, TxId};

use crate::world::{MIB, World, keypair, owner, seeder_key};

const SEEDERS: u8 = 6;

/// One thing that happens: which, and three numbers that it takes as it needs them.
type Step = (u8, u8, u8, u16);

struct History {
    world: World,
    contracts: Vec<ContractId>,
    sent: Vec<Transaction>,
    applied: BTreeSet<TxId>,
    seen: BTreeMap<&'static str, u32>,
}

impl History {
    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn contract(&self, a: u8) -> Option<ContractId> {
        self.contracts.get(usize::from(a) % self.contracts.len().max(1)).copied()
    }

    /// The owner of most contracts, now and then somebody else.
    fn sender(a: u8) -> u8 {
        if a.is_multiple_of(7) { 1 } else { 0 }
    }

    fn step(&mut self, (kind, a, b, c): Step) {
        let wide = u128::from(c);
        match kind % 20 {
            0..=3 => self.time(a, b, c),
            4 => self.replay(a),
            5 => self.open(a, b),
            6 => {
                let to = if b < 128 { owner(b % 3) } else { owner(20 + b % SEEDERS) };
                self.send("transfer", a % 3, Action::Transfer { to, amount: Fuel::new(wide << (b % 40)) });
            }
            7 => {
                let price = 1_000 + u64::from(c);
                let signed =
                    self.world.sign_ask(self.world.ask(a % SEEDERS, u64::from(b), price), a % SEEDERS);
                self.send("offer", 20 + a % SEEDERS, Action::Offer(signed));
            }
            _ => {
                if let Some(contract) = self.contract(a) {
                    self.touch(kind % 20, contract, b, c);
                }
            }
        }
        for id in &self.contracts {
            if let Some(contract) = light::contract(&self.world.state, id).unwrap() {
                let embers = contract.phase == Phase::Embers;
                *self.seen.entry(if embers { "embers" } else { "burning" }).or_default() += 1;
            } else {
                *self.seen.entry("gone").or_default() += 1;
            }
        }
    }

    fn touch(&mut self, kind: u8, contract: ContractId, b: u8, c: u16) {
        let (sender, device) = (Self::sender(b), keypair(10 + b % 3).public());
        let amount = Fuel::new(u128::from(c) << (b % 24));
        match kind {
            8 => self.send("refuel", b % 3, Action::Refuel { contract, amount }),
            9 => self.send("withdraw", sender, Action::Withdraw { contract, amount }),
            10 | 11 => self.send("lease", sender, Action::Lease { contract, device }),
            12 => self.send("release", sender, Action::Release { contract, device }),
            13 if b.is_multiple_of(4) => self.send("close", sender, Action::Close { contract }),
            13 | 14 => self.end(contract, b),
            15 => self.fill(contract, b),
            _ => self.post(contract, b, c),
        }
    }

    fn send(&mut self, what: &'static str, sender: u8, action: Action) {
        let tx = self.world.tx(sender, action);
        self.submit(what, tx);
    }

    fn submit(&mut self, what: &'static str, tx: Transaction) {
        let id = tx.id();
        let built = self.world.block(vec![tx.clone()]);
        match &built.rejected[..] {
            [] => {
                assert!(self.applied.insert(id), "nothing applies twice");
                self.note(what);
            }
            [(_, Refusal::Applied(receipt))] => assert_eq!(receipt.tx, id),
            [(_, refusal)] => {
                assert!(!self.applied.contains(&id), "{refusal}");
                self.note("refused");
            }
            more => panic!("{more:?}"),
        }
        self.sent.push(tx);
    }

    fn replay(&mut self, a: u8) {
        if let Some(tx) = self.sent.get(usize::from(a) * 7 % self.sent.len().max(1)).cloned() {
            self.submit("late", tx);
        }
    }

    /// Some proofs and the next boundary, or a part of an epoch, or a halt.
    fn time(&mut self, a: u8, b: u8, c: u16) {
        self.world.settle_in();
        let proofs = (0..SEEDERS).filter(|n| b >> n & 1 == 1).map(|n| self.world.proof(n)).collect();
        let soon = self.world.soon();
        let built = self.world.block_at(soon, Vec::new(), proofs);
        if !built.body.proofs.is_empty() {
            self.note("proofs");
        }
        let at = match a % 8 {
            0 => self.world.later(u64::from(c) % 1_400 + 1),
            1 => self.world.later(60_000),
            _ => due(&self.world.state).unwrap().at,
        };
        self.world.block_at(at, Vec::new(), Vec::new());
    }

    fn open(&mut self, a: u8, b: u8) {
        let mut terms = self.world.terms(0, u32::from(a % 4));
        terms.slots_per_operator = b % 3;
        let slots: Vec<u8> = if b.is_multiple_of(2) { vec![0, 1, 2] } else { vec![0, 1, 2, 3] };
        let mut accepted = self.world.accept(&terms, &slots);
        for (signed, n) in accepted.iter_mut().zip(0..) {
            signed.acceptance.price = self.world.seeder(n).ask.price;
            *signed = self.world.sign_acceptance(signed.acceptance.clone(), n);
        }
        let id = terms.contract(&self.world.chain);
        if !self.contracts.contains(&id) {
            self.contracts.push(id);
        }
        let acceptances = Bounded::new(accepted).unwrap();
        let fuel = Fuel::new(u128::from(b) << 16);
        self.send("open", 0, Action::Open { terms, acceptances, fuel });
    }

    fn end(&mut self, contract: ContractId, b: u8) {
        let Some(record) = light::contract(&self.world.state, &contract).unwrap() else { return };
        let slot = SlotIndex::new(b % 4);
        let Some(lane) = record.lane(slot) else { return };
        let number = (0..SEEDERS).find(|n| seeder_key(*n).public().seeder() == lane.seeder).unwrap();
        let sender = if b.is_multiple_of(3) { 0 } else { 20 + number };
        self.send("end", sender, Action::End { contract, slot, seeder: lane.seeder });
    }

    fn fill(&mut self, contract: ContractId, b: u8) {
        let Some(record) = light::contract(&self.world.state, &contract).unwrap() else { return };
        let (slot, seeder) = (b % 4, b / 4 % SEEDERS);
        let mut acceptance = self.world.acceptance(&record.terms, slot, seeder);
        acceptance.price = self.world.seeder(seeder).ask.price;
        let signed = self.world.sign_acceptance(acceptance, seeder);
        self.send("fill", 0, Action::Fill { contract, acceptances: Bounded::new(vec![signed]).unwrap() });
    }

    /// A commit by the holder of the lease, countersigned by some who hold slots.
    fn post(&mut self, contract: ContractId, b: u8, c: u16) {
        let Some(record) = light::contract(&self.world.state, &contract).unwrap() else { return };
        let Some((lease, holder)) = record.lease.current() else { return };
        let device = (10..13).find(|n| keypair(*n).public() == holder.device).unwrap();
        let bytes: Vec<u64> = (0..4).map(|n| u64::from(c >> n & 0xff) * MIB / 8).collect();
        let commit = self.world.commit(contract, lease, u64::from(c), &bytes);
        let number = |id| (0..SEEDERS).find(|n| seeder_key(*n).public().seeder() == id).unwrap();
        let signers = record.lanes().filter(|(slot, _)| b >> slot.get() & 0x11 != 0 || b < 99);
        let counters =
            signers.map(|(slot, lane)| self.world.countersign(&commit, slot.get(), number(lane.seeder)));
        let counters = Bounded::new(counters.collect()).unwrap();
        let mut certificate = self.world.certificate(commit, device, &[]);
        certificate.countersignatures = counters;
        self.send("post", 2, Action::Post(certificate));
    }
}

/// Goal: money is conserved, nothing goes negative, queue and escrow agree with the records, nothing applies twice, and
/// a built block executes to the same root, whatever accounts, seeders and time do. Method: random histories of every
/// action, with replays, halts and missed proofs; afterwards make sure that all of it really happened.
#[test]
fn every_history_keeps_the_rules() {
    let step = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u16>());
    let histories = proptest::collection::vec(step, 1..120);
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let coverage = RefCell::new(BTreeMap::<&'static str, u32>::new());
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let result = runner.run(&histories, |steps: Vec<Step>| {
        let mut history = History {
            world: World::with_asks(SEEDERS),
            contracts: Vec::new(),
            sent: Vec::new(),
            applied: BTreeSet::new(),
            seen: BTreeMap::new(),
        };
        history.open(0, 254);
        steps.into_iter().for_each(|step| history.step(step));
        for (what, count) in history.seen {
            *coverage.borrow_mut().entry(what).or_default() += count;
        }
        Ok(())
    });
    result.unwrap();
    let coverage = coverage.into_inner();
    println!("{coverage:?}");
    for what in [
        "transfer", "offer", "open", "refuel", "withdraw", "lease", "release", "close", "end", "fill",
        "post", "proofs", "refused", "embers", "burning", "gone",
    ] {
        let count = coverage.get(what).copied().unwrap_or_default();
        assert!(count >= 5, "{what} happened {count} times: {coverage:?}");
    }
}
