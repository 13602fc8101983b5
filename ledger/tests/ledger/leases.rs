//! The write lease.

use tallow_ledger::Refusal;
use tallow_ledger::record::{Holder, LeaseRecord};
use tallow_ledger::refusal::LeaseRefusal as No;
use tallow_types::limits::LEASES_KEPT;
use tallow_types::tx::{Action, Transaction};
use tallow_types::{ContractId, Incarnation, Lease, PublicKey, TimeMs};

use crate::world::{World, keypair};

const A: u8 = 10;
const B: u8 = 11;
const C: u8 = 12;

fn device(number: u8) -> PublicKey {
    keypair(number).public()
}

struct Leased {
    world: World,
    contract: ContractId,
}

impl Leased {
    fn new() -> Self {
        let mut world = World::with_asks(3);
        let contract = world.open(0, &[0, 1, 2], 1 << 40);
        Self { world, contract }
    }

    fn ask(&mut self, number: u8) -> Transaction {
        self.world.tx(0, Action::Lease { contract: self.contract, device: device(number) })
    }

    fn give(&mut self, number: u8) -> Transaction {
        self.world.tx(0, Action::Release { contract: self.contract, device: device(number) })
    }

    fn record(&self) -> LeaseRecord {
        self.world.contract(&self.contract).lease
    }

    /// Number, holder and who waits.
    fn now(&self) -> (u64, Option<PublicKey>, Option<PublicKey>) {
        let lease = self.record();
        (lease.last.counter, lease.holder.map(|h| h.device), lease.waiting)
    }

    fn at(&mut self, time: TimeMs, tx: Transaction) -> Option<Refusal> {
        let mut built = self.world.block_at(time, vec![tx], Vec::new());
        built.rejected.pop().map(|(_, refusal)| refusal)
    }

    fn expires(&self) -> TimeMs {
        self.record().holder.unwrap().expires
    }
}

/// Goal: a lease is granted, renewed under its number, given back and granted anew under the next. Method: one device.
#[test]
fn one_device_renews_and_gives_back() {
    let mut l = Leased::new();
    let tx = l.give(A);
    assert!(matches!(l.world.refused(tx), Refusal::Lease(No::NotHolder { .. })));
    let tx = l.ask(A);
    l.world.pass(vec![tx]);
    assert_eq!(l.now(), (1, Some(device(A)), None));
    let first = l.expires();
    assert_eq!(first, l.world.tip.time.after(l.world.params.lease).unwrap());
    let tx = l.ask(A);
    l.world.pass(vec![tx]);
    assert_eq!(l.now(), (1, Some(device(A)), None));
    assert!(l.expires() > first);
    let (give, ask) = (l.give(A), l.ask(A));
    l.world.pass(vec![give, ask]);
    assert_eq!(l.now(), (2, Some(device(A)), None), "a fresh number in one block");
    let tx = l.world.tx(1, Action::Lease { contract: l.contract, device: device(B) });
    assert!(matches!(l.world.refused(tx), Refusal::NotOwner { .. }));
}

/// Goal: a second device waits; the first can only finish; on release the second has it at once. Method: both orders of
/// giving up.
#[test]
fn release_hands_over() {
    let mut l = Leased::new();
    let (a, b) = (l.ask(A), l.ask(B));
    l.world.pass(vec![a, b]);
    assert_eq!(l.now(), (1, Some(device(A)), Some(device(B))));
    let tx = l.ask(A);
    assert!(matches!(l.world.refused(tx), Refusal::Lease(No::Wanted { .. })));
    let tx = l.ask(C);
    let refusal = l.world.refused(tx);
    assert!(refusal.is_retryable() && matches!(refusal, Refusal::Lease(No::Busy { .. })));
    let again = l.ask(B);
    l.world.pass(vec![again]);
    assert_eq!(l.now(), (1, Some(device(A)), Some(device(B))), "asking again keeps the place");
    let give = l.give(A);
    l.world.pass(vec![give]);
    assert_eq!(l.now(), (2, Some(device(B)), None));
    assert_eq!(l.expires(), l.world.tip.time.after(l.world.params.lease).unwrap(), "a whole term");
    let (a, leave) = (l.ask(A), l.give(A));
    l.world.pass(vec![a, leave]);
    assert_eq!(l.now(), (2, Some(device(B)), None), "a place in line can be given back");
    assert_eq!(l.record().device_of(Lease { incarnation: Incarnation::ZERO, counter: 1 }), Some(device(A)));
}

/// Goal: a dead holder blocks no longer than its term. Method: expire at the edge, with and without one waiting.
#[test]
fn expiry_frees() {
    let mut l = Leased::new();
    let tx = l.ask(A);
    l.world.pass(vec![tx]);
    let (expiry, b) = (l.expires(), l.ask(B));
    assert_eq!(l.at(TimeMs::new(expiry.get() - 1), b), None);
    assert_eq!(l.now(), (1, Some(device(A)), Some(device(B))), "a moment before");
    let b = l.ask(B);
    assert_eq!(l.at(expiry, b), None);
    assert_eq!(l.now(), (2, Some(device(B)), None), "at the moment");
    let (expiry, c) = (l.expires(), l.ask(C));
    assert_eq!(l.at(expiry, c), None);
    assert_eq!(l.now(), (3, Some(device(C)), None), "nobody waited");
    let (expiry, c) = (l.expires(), l.ask(C));
    assert_eq!(l.at(expiry, c), None);
    assert_eq!(l.now(), (3, Some(device(C)), None), "the holder itself goes on under its number");
}

/// Goal: a dead device in the line blocks no longer than a term either. Method: B waits and dies; C asks within B's term
/// and after it.
#[test]
fn dead_waiters_do_not_block() {
    let mut l = Leased::new();
    let (a, b) = (l.ask(A), l.ask(B));
    l.world.pass(vec![a, b]);
    let (expiry, c) = (l.expires(), l.ask(C));
    assert_eq!(l.at(TimeMs::new(expiry.get() + 5), c), None);
    assert_eq!(l.now(), (2, Some(device(B)), Some(device(C))), "B has it from the expiry on");
    assert_eq!(l.expires(), expiry.after(l.world.params.lease).unwrap(), "and not a moment longer");
    let (expiry, c) = (l.expires(), l.ask(C));
    assert_eq!(l.at(expiry, c), None);
    assert_eq!(l.now(), (3, Some(device(C)), None));
    let (a, long) = (l.ask(A), l.world.params.lease.get() * 3);
    l.world.pass(vec![a]);
    let b = l.ask(B);
    let after = l.world.later(long);
    assert_eq!(l.at(after, b), None);
    assert_eq!(l.now(), (5, Some(device(B)), None), "A's term, 4, passed unused");
}

/// Goal: giving back a lease that ran out brings the handover about, so that a dead successor blocks no longer than its
/// term. Method: A gives back after its expiry while a dead B waits; once B's term is over, A asks again.
#[test]
fn a_late_release_hands_over() {
    let mut l = Leased::new();
    let (a, b) = (l.ask(A), l.ask(B));
    l.world.pass(vec![a, b]);
    let (expiry, give) = (l.expires(), l.give(A));
    assert_eq!(l.at(expiry, give), None);
    assert_eq!(l.now(), (2, Some(device(B)), None));
    let (expiry, a) = (l.expires(), l.ask(A));
    assert_eq!(l.at(expiry, a), None);
    assert_eq!(l.now(), (3, Some(device(A)), None));
}

/// Goal: after a rebuild every lease number leads with the new incarnation, the holder's own included. Method: renew
/// across it.
#[test]
fn rebuilt_ledgers_outrank_forgotten_grants() {
    let mut l = Leased::new();
    let tx = l.ask(A);
    l.world.pass(vec![tx]);
    l.world.incarnation = Incarnation::new(1);
    let tx = l.ask(A);
    l.world.pass(vec![tx]);
    let lease = l.record();
    assert_eq!(lease.last, Lease { incarnation: Incarnation::new(1), counter: 2 });
    assert_eq!(lease.current(), Some((lease.last, Holder { device: device(A), expires: l.expires() })));
}

/// Goal: the memory of leases is bounded and keeps the newest. Method: grant more than it keeps.
#[test]
fn leases_are_remembered_up_to_a_limit() {
    let mut l = Leased::new();
    for _ in 0..=LEASES_KEPT {
        let (ask, give) = (l.ask(A), l.give(A));
        l.world.pass(vec![ask, give]);
    }
    let lease = l.record();
    assert_eq!(lease.recent.len(), LEASES_KEPT);
    let number = |counter| Lease { incarnation: Incarnation::ZERO, counter };
    assert_eq!(lease.device_of(number(1)), None);
    assert_eq!(lease.device_of(number(2)), Some(device(A)));
}
