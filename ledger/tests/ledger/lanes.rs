//! Opening, filling, ending, closing.

use tallow_ledger::refusal::LanesRefusal as No;
use tallow_ledger::{Refusal, light};
use tallow_market::collateral;
use tallow_types::contract::{Acceptance, Terms};
use tallow_types::limits::ROOM_MAX;
use tallow_types::params::Params;
use tallow_types::tx::{Action, Transaction};
use tallow_types::{Bounded, Bytes, ContractId, Fuel, FuelPerMibEpoch, Height, Profile, SlotIndex, encode};

use crate::world::{PRICE, ROOM, World, owner, params, seeder_key};

fn fill(world: &mut World, contract: ContractId, acceptance: Acceptance, seeder: u8) -> Transaction {
    let signed = world.sign_acceptance(acceptance, seeder);
    world.tx(0, Action::Fill { contract, acceptances: Bounded::new(vec![signed]).unwrap() })
}

fn end(world: &mut World, sender: u8, contract: ContractId, seeder: u8) -> Transaction {
    let key = seeder_key(seeder).public().seeder();
    world.tx(sender, Action::End { contract, slot: SlotIndex::new(seeder), seeder: key })
}

fn reason(refusal: Refusal) -> No {
    match refusal {
        Refusal::Lanes(reason) => reason,
        other => panic!("{other}"),
    }
}

/// Goal: a contract locks what it says: deposit and fuel of the owner, collateral and room of each seeder, and costs
/// nothing before the next boundary. Method: open one and look at every balance.
#[test]
fn opening_locks_money() {
    let mut world = World::with_asks(4);
    let before = world.balance(&owner(0)).get();
    let backer = world.balance(&owner(20)).get();
    let terms = world.terms(0, 0);
    let tx = world.open_tx(&terms, &[0, 1, 2], 1 << 40);
    let fee = world.params.fee_per_byte.get() * encode(&tx).len() as u128;
    world.pass(vec![tx]);
    let contract = world.contract(&terms.contract(&world.chain));
    let deposit = world.params.contract_deposit.get();
    assert_eq!(world.balance(&owner(0)).get(), before - fee - deposit - (1 << 40));
    let lock = collateral::of_lane(&world.params, FuelPerMibEpoch::new(PRICE), Bytes::new(ROOM)).unwrap();
    assert_eq!(world.balance(&owner(20)).get(), backer - lock.get());
    let seeder = world.seeder(0);
    assert_eq!((seeder.lanes, seeder.reserved.get(), seeder.collateral), (1, ROOM, lock));
    assert_eq!((contract.fuel.get(), contract.escrow, contract.prepaid), (1 << 40, Fuel::ZERO, None));
    assert_eq!(contract.vacant().collect::<Vec<_>>(), [SlotIndex::new(3)]);
    let owned = light::contracts_of(&world.state, &owner(0), 10).unwrap();
    assert_eq!(owned.iter().map(|o| (o.contract, o.closed)).collect::<Vec<_>>(), [(contract.id, false)]);
}

/// Goal: terms that break a rule are refused by name. Method: one change at a time.
#[test]
fn bad_terms_are_refused() {
    let mut world = World::with_asks(4);
    let good = world.terms(0, 0);
    let try_with = |world: &mut World, change: fn(&mut Terms), slots: &[u8]| {
        let mut terms = good.clone();
        change(&mut terms);
        let acceptances = Bounded::new(world.accept(&terms, slots)).unwrap();
        let tx = world.tx(0, Action::Open { terms, acceptances, fuel: Fuel::new(1 << 30) });
        reason(world.refused(tx))
    };
    let refusal = try_with(&mut world, |t| t.owner = owner(1), &[0, 1, 2]);
    assert!(matches!(refusal, No::NotOwner { .. }));
    assert!(matches!(try_with(&mut world, |t| t.room = Bytes::ZERO, &[0, 1, 2]), No::BadRoom { .. }));
    let refusal = try_with(&mut world, |t| t.room = Bytes::new(ROOM_MAX + 1), &[0, 1, 2]);
    assert!(matches!(refusal, No::BadRoom { .. }));
    let refusal = try_with(&mut world, |_| {}, &[0, 1]);
    assert_eq!(refusal, No::TooFew { have: 2, need: 3 });
    let refusal = try_with(&mut world, |t| t.price_ceiling = FuelPerMibEpoch::new(PRICE - 1), &[0, 1, 2]);
    assert!(matches!(refusal, No::Placement(_)));
    let contract = world.open(0, &[0, 1, 2], 1 << 30);
    assert_eq!(try_with(&mut world, |_| {}, &[0, 1, 2]), No::Exists { contract });
    let close = world.tx(0, Action::Close { contract });
    world.pass(vec![close]);
    world.pass_epoch(&[]);
    assert_eq!(try_with(&mut world, |_| {}, &[0, 1, 2]), No::Exists { contract }, "an index is used once");
}

/// Goal: a network that wants strong profiles refuses weak ones with a hint. Method: 4 of 12 where 4 of 14 is needed.
#[test]
fn weak_profiles_are_refused() {
    let strict = Params { weak_profiles: false, ..params() };
    let mut world = World::new(strict, 1);
    let mut terms = world.terms(0, 0);
    terms.profile = Profile::from_k_of_n(4, 12).unwrap();
    let tx = world.tx(0, Action::Open { terms, acceptances: Bounded::empty(), fuel: Fuel::ZERO });
    let refusal = world.refused(tx);
    assert!(refusal.to_string().ends_with("4 needs at least 14 slots"), "{refusal}");
}

/// Goal: only a seeder's present, signed consent to these very terms fills a slot. Method: break it in each way.
#[test]
fn consent_is_checked() {
    let mut world = World::with_asks(6);
    let contract = world.open(0, &[0, 1, 2], 1 << 30);
    let terms = world.terms(0, 0);
    let good = world.acceptance(&terms, 3, 3);
    let try_with = |world: &mut World, change: fn(&mut Acceptance), signer: u8| {
        let mut acceptance = good.clone();
        change(&mut acceptance);
        let tx = fill(world, contract, acceptance, signer);
        world.refused(tx)
    };
    assert!(matches!(try_with(&mut world, |_| {}, 4), Refusal::Signature(_)));
    let refusal = try_with(&mut world, |a| a.terms.index = 9, 3);
    assert!(matches!(reason(refusal), No::OtherTerms { .. }));
    let refusal = try_with(&mut world, |a| a.contract = ContractId::ZERO, 3);
    assert!(matches!(reason(refusal), No::OtherTerms { .. }));
    let refusal = try_with(&mut world, |a| a.expires = Height::new(1), 3);
    assert!(matches!(reason(refusal), No::AcceptanceExpired { .. }));
    let refusal = try_with(&mut world, |a| a.price = FuelPerMibEpoch::new(PRICE - 1), 3);
    assert!(matches!(reason(refusal), No::PriceMoved { .. }));
    let refusal = try_with(&mut world, |a| a.slot = SlotIndex::new(0), 3);
    assert!(matches!(reason(refusal), No::Placement(_)));
    let stranger = world.acceptance(&terms, 3, 7);
    let tx = fill(&mut world, contract, stranger, 7);
    assert!(matches!(reason(world.refused(tx)), No::NoSeeder { .. }));
    let tx = world.tx(0, Action::Fill { contract, acceptances: Bounded::empty() });
    assert!(matches!(reason(world.refused(tx)), No::TooFew { .. }));
    let mut spend = world.tx(23, Action::Transfer { to: owner(0), amount: Fuel::ZERO });
    let fee = world.params.fee_per_byte.get() * encode(&spend).len() as u128;
    let all_but_enough = world.balance(&owner(23)).get() - fee - lock_of_lane(&world).get() + 1;
    spend = world.tx(23, Action::Transfer { to: owner(0), amount: Fuel::new(all_but_enough) });
    world.pass(vec![spend]);
    let late = world.acceptance(&terms, 3, 3);
    let tx = fill(&mut world, contract, late.clone(), 3);
    assert!(matches!(reason(world.refused(tx)), No::Collateral { .. }), "one unit short");
    let back = world.tx(0, Action::Transfer { to: owner(23), amount: Fuel::new(1) });
    world.pass(vec![back]);
    let tx = fill(&mut world, contract, late, 3);
    world.pass(vec![tx]);
    assert_eq!(world.contract(&contract).vacant().count(), 0);
}

fn lock_of_lane(world: &World) -> Fuel {
    collateral::of_lane(&world.params, FuelPerMibEpoch::new(PRICE), Bytes::new(ROOM)).unwrap()
}

/// Goal: the owner ends a lane at the next boundary, the seeder's side after its notice; collateral and room return,
/// and the slot can be filled by another. Method: end one each way, count epochs.
#[test]
fn lanes_end_from_both_sides() {
    let mut world = World::with_asks(6);
    let first_consent = world.acceptance(&world.terms(0, 0), 0, 0).expires;
    let contract = world.open(0, &[0, 1, 2], 1 << 40);
    let tx = end(&mut world, 1, contract, 0);
    assert!(matches!(reason(world.refused(tx)), No::NotYours { .. }));
    let tx = end(&mut world, 0, contract, 3);
    assert!(matches!(reason(world.refused(tx)), No::NotHeld { .. }));
    let locked = lock_of_lane(&world);
    let (owners, seeders) = (end(&mut world, 0, contract, 0), end(&mut world, 21, contract, 1));
    world.pass(vec![owners, seeders]);
    let tx = end(&mut world, 21, contract, 1);
    assert!(matches!(reason(world.refused(tx)), No::Ending { .. }));
    let before = world.balance(&owner(20)).get();
    world.pass_epoch(&[0, 1, 2]);
    let held = |world: &World| world.contract(&contract).lanes().map(|(s, _)| s.get()).collect::<Vec<_>>();
    assert_eq!(held(&world), [1, 2], "the owner's choice took effect");
    assert_eq!(world.balance(&owner(20)).get(), before + locked.get());
    assert_eq!((world.seeder(0).lanes, world.seeder(0).collateral), (0, Fuel::ZERO));
    world.pass_epoch(&[1, 2]);
    assert_eq!(held(&world), [1, 2], "notice of two epochs");
    world.pass_epoch(&[1, 2]);
    assert_eq!(held(&world), [2]);
    let terms = world.terms(0, 0);
    let mut used = world.acceptance(&terms, 0, 0);
    used.expires = first_consent;
    let tx = fill(&mut world, contract, used, 0);
    assert!(matches!(reason(world.refused(tx)), No::UsedConsent { .. }), "one consent, one lane");
    let acceptance = world.acceptance(&terms, 0, 4);
    let tx = fill(&mut world, contract, acceptance, 4);
    world.pass(vec![tx]);
    assert_eq!(held(&world), [0, 2]);
}

/// Goal: an owner may shorten a seeder's notice but nobody may lengthen an end. Method: end twice in both orders.
#[test]
fn ends_only_move_closer() {
    let mut world = World::with_asks(3);
    let contract = world.open(0, &[0, 1, 2], 1 << 40);
    let (slow, fast) = (end(&mut world, 20, contract, 0), end(&mut world, 0, contract, 0));
    world.pass(vec![slow, fast]);
    let next = world.epoch().next();
    assert_eq!(world.contract(&contract).lane(SlotIndex::new(0)).unwrap().ends, next);
    let tx = end(&mut world, 20, contract, 0);
    assert!(matches!(reason(world.refused(tx)), No::Ending { .. }));
}

/// Goal: closing returns fuel and deposit to the owner and collateral to backers, and the record goes. Method: close
/// after epochs of payment; try to touch it on the way out.
#[test]
fn closing_returns_everything() {
    let mut world = World::with_asks(3);
    let contract = world.open(0, &[0, 1, 2], 1 << 40);
    world.pass_epoch(&[0, 1, 2]);
    let tx = world.tx(1, Action::Close { contract });
    assert!(matches!(world.refused(tx), Refusal::NotOwner { .. }));
    let tx = world.tx(0, Action::Close { contract });
    world.pass(vec![tx]);
    for action in [
        Action::Close { contract },
        Action::Refuel { contract, amount: Fuel::new(1) },
        Action::Withdraw { contract, amount: Fuel::new(1) },
    ] {
        let tx = world.tx(0, action);
        assert!(matches!(world.refused(tx), Refusal::Closing { .. }));
    }
    let before = world.balance(&owner(0));
    world.pass_epoch(&[0, 1, 2]);
    assert_eq!(light::contract(&world.state, &contract).unwrap(), None);
    assert!(world.balance(&owner(0)) > before);
    let audit = light::audit(&world.state).unwrap();
    assert_eq!([audit.fuel, audit.escrow, audit.deposits, audit.collateral], [Fuel::ZERO; 4]);
    assert!((0..3).all(|n| world.seeder(n).lanes == 0));
    let tx = world.tx(0, Action::Refuel { contract, amount: Fuel::new(1) });
    assert!(matches!(world.refused(tx), Refusal::NoContract { .. }));
}
