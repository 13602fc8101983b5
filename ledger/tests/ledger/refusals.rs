//! What every transaction must be, and a seeder's terms.

use tallow_ledger::Refusal;
use tallow_ledger::refusal::{LanesRefusal, OfferRefusal as No};
use tallow_types::contract::Ask;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::TX_LIFETIME_MAX;
use tallow_types::policy::{Policy, Witness};
use tallow_types::tx::Action;
use tallow_types::{
    Bounded, BoundedBytes, ContractId, EpochCount, Fuel, FuelPerMibEpoch, Height, Sequence, Signature, encode,
};

use crate::world::{PRICE, World, keypair, owner, params};

/// Goal: expiry has two edges, both exact. Method: one inside and one outside of each.
#[test]
fn expiry_has_two_edges() {
    let mut world = World::new(params(), 0);
    let send = |world: &mut World, lifetime: i64| {
        let next = world.tip.height.get() + 1;
        let mut core = world.core(0, Action::Transfer { to: owner(1), amount: Fuel::new(1) });
        core.expires = Height::new(next.checked_add_signed(lifetime).unwrap());
        let tx = core.sign(&world.chain, &[&keypair(0)]);
        world.block(vec![tx]).rejected.pop().map(|(_, refusal)| refusal)
    };
    world.block(Vec::new());
    assert_eq!(send(&mut world, 0), None);
    assert!(matches!(send(&mut world, -1), Some(Refusal::Expired { .. })));
    assert_eq!(send(&mut world, TX_LIFETIME_MAX as i64), None);
    assert!(matches!(send(&mut world, TX_LIFETIME_MAX as i64 + 1), Some(Refusal::FarExpiry { .. })));
}

/// Goal: money is asked for by name and amount, fee included. Method: an account with just too little and just enough.
#[test]
fn funds_are_exact() {
    let mut world = World::new(params(), 0);
    let tx = world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::ZERO });
    assert_eq!(world.refused(tx.clone()), Refusal::Nothing);
    let fee = world.params.fee_per_byte.get() * encode(&tx).len() as u128;
    let all = world.balance(&owner(0)).get() - fee;
    let over = world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::new(all + 1) });
    let refusal = world.refused(over);
    assert_eq!(refusal, Refusal::Funds { account: owner(0), have: Fuel::new(all), need: Fuel::new(all + 1) });
    let fault = Fault::from(&refusal);
    assert_eq!(fault.code(), Code::Refused);
    assert!(fault.text.as_str().contains("fund it first"));
    let exact = world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::new(all) });
    world.pass(vec![exact]);
    assert_eq!(world.balance(&owner(0)), Fuel::ZERO);
    assert!(!world.state.contains_key(&tallow_ledger::key::account(&owner(0))), "nothing leaves no record");
}

/// Goal: who cannot pay makes nobody verify signatures. Method: a spoiled signature of an account without money.
#[test]
fn money_is_looked_at_before_signatures() {
    let mut world = World::new(params(), 0);
    let mut tx = world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::new(1) });
    tx.witnesses = Bounded::new(vec![Witness::Signature(keypair(99).public(), Signature::ZERO)]).unwrap();
    tx.core.policy = Policy::Key(keypair(99).public());
    assert!(matches!(world.refused(tx), Refusal::Funds { .. }));
}

/// Goal: seeders are never seated where nobody can pay for their notice. Method: a unit too little, then enough.
#[test]
fn opening_needs_fuel_for_the_notice() {
    let mut world = World::with_asks(4);
    let terms = world.terms(0, 0);
    let little = world.open_tx(&terms, &[0, 1, 2], 0);
    let Refusal::Lanes(LanesRefusal::LittleFuel { need, .. }) = world.refused(little) else {
        panic!("a contract without fuel opened");
    };
    let little = world.open_tx(&terms, &[0, 1, 2], need.get() - 1);
    assert!(matches!(world.refused(little), Refusal::Lanes(LanesRefusal::LittleFuel { .. })));
    let enough = world.open_tx(&terms, &[0, 1, 2], need.get());
    world.pass(vec![enough]);
}

/// Goal: a transaction without, with a foreign, or with a padded witness is refused; so is one for a policy that can't be
/// met. Method: one each.
#[test]
fn witnesses_are_exact() {
    let mut world = World::new(params(), 0);
    let account = owner(0);
    let good = world.tx(0, Action::Transfer { to: owner(1), amount: Fuel::new(1) });
    let mut none = good.clone();
    none.witnesses = Bounded::empty();
    assert_eq!(world.refused(none), Refusal::PolicyNotMet { account });
    let mut padded = good.clone();
    let padding = Witness::Preimage(BoundedBytes::new(vec![0; 64]).unwrap());
    padded.witnesses = Bounded::new(vec![padded.witnesses[0].clone(), padding]).unwrap();
    assert_eq!(world.refused(padded), Refusal::StrayWitness { account });
    let mut forged = good.clone();
    let Witness::Signature(_, signature) = forged.witnesses[0].clone() else { panic!("signed") };
    forged.core.expires = Height::new(forged.core.expires.get() - 1);
    assert!(matches!(world.refused(forged), Refusal::Signature(_)));
    let mut endless = good;
    endless.core.policy = Policy::Threshold { need: 0, of: vec![] };
    endless.witnesses = Bounded::new(vec![Witness::Signature(keypair(0).public(), signature)]).unwrap();
    let refusal = world.refused(endless);
    assert!(matches!(refusal, Refusal::BadPolicy { .. }));
    assert_eq!(Fault::from(&refusal).code(), Code::Malformed);
}

/// Goal: terms are a seeder's own, newer than what is known, inside the network's limits, sent by who backs them.
/// Method: change one thing at a time.
#[test]
fn offers_are_checked() {
    let mut world = World::with_asks(2);
    let good = world.ask(0, 2, PRICE);
    let try_with = |world: &mut World, sender: u8, change: fn(&mut Ask)| {
        let mut ask = good.clone();
        change(&mut ask);
        let signed = world.sign_ask(ask, 0);
        let tx = world.tx(sender, Action::Offer(signed));
        match world.refused(tx) {
            Refusal::Offer(reason) => reason,
            other => panic!("{other}"),
        }
    };
    let stale = try_with(&mut world, 20, |a| a.sequence = Sequence::new(1));
    assert!(matches!(stale, No::Stale { .. }));
    let cheap = try_with(&mut world, 20, |a| a.price = FuelPerMibEpoch::new(999));
    assert!(matches!(cheap, No::TooCheap { .. }));
    let long = try_with(&mut world, 20, |a| a.notice = EpochCount::new(21));
    assert!(matches!(long, No::LongNotice { .. }));
    assert!(matches!(try_with(&mut world, 1, |_| {}), No::NotBacker { .. }), "nobody backs another's seeder");
    let forged = world.sign_ask(good.clone(), 1);
    let tx = world.tx(20, Action::Offer(forged));
    assert!(matches!(world.refused(tx), Refusal::Signature(_)));
    let mut moved = good;
    moved.payout = owner(2);
    let signed = world.sign_ask(moved, 0);
    let tx = world.tx(2, Action::Offer(signed));
    world.pass(vec![tx]);
    let seeder = world.seeder(0);
    assert_eq!((seeder.backer, seeder.ask.payout), (owner(2), owner(2)), "the payout account may back it");
}

/// Goal: actions on a contract that is not there say so. Method: each of them.
#[test]
fn unknown_contracts_are_named() {
    let mut world = World::with_asks(1);
    let contract = ContractId::new([3; 32]);
    let seeder = keypair(20).public().seeder();
    let commit = world.commit(contract, tallow_types::Lease::NONE, 1, &[]);
    let device = keypair(10).public();
    for action in [
        Action::Fill { contract, acceptances: Bounded::empty() },
        Action::End { contract, slot: tallow_types::SlotIndex::ZERO, seeder },
        Action::Refuel { contract, amount: Fuel::new(1) },
        Action::Withdraw { contract, amount: Fuel::new(1) },
        Action::Close { contract },
        Action::Lease { contract, device },
        Action::Release { contract, device },
        Action::Post(world.certificate(commit, 10, &[])),
    ] {
        let tx = world.tx(0, action);
        assert_eq!(world.refused(tx), Refusal::NoContract { contract });
    }
}
