//! Transfers, fees, replays and settlement.

use tallow_ledger::record::Phase;
use tallow_ledger::{Refusal, genesis, light};
use tallow_market::quote::{LaneCost, for_epochs, paid_until};
use tallow_types::limits::{FORGET_PER_BLOCK, SETTLE_MAX, SUPPLY_MAX, TX_LIFETIME_MAX};
use tallow_types::params::{Genesis, Params};
use tallow_types::policy::{Policy, Witness};
use tallow_types::tx::Action;
use tallow_types::{
    Bounded, BoundedBytes, Digest, Epoch, EpochCount, Fuel, Height, IdempotencyKey, TimeMs, encode,
};

use crate::world::{MIB, PRICE, World, keypair, owner, params};

/// Goal: a transfer moves the amount, burns the byte fee, and a replay in any later block is answered with the first
/// receipt and changes nothing. Method: send it three times, once under a new expiry.
#[test]
fn transfers_apply_once() {
    let mut world = World::new(params(), 0);
    let (before, to) = (world.balance(&owner(0)), world.balance(&owner(1)));
    let core = world.core(0, Action::Transfer { to: owner(1), amount: Fuel::new(500) });
    let tx = core.clone().sign(&world.chain, &[&keypair(0)]);
    let fee = world.params.fee_per_byte.get() * encode(&tx).len() as u128;
    let built = world.block(vec![tx.clone(), tx.clone()]);
    let receipt = built.outcome.applied[0].receipt.clone();
    assert_eq!(built.rejected, [(tx.id(), Refusal::Applied(receipt.clone()))], "twice in one block");
    assert_eq!(world.refused(tx.clone()), Refusal::Applied(receipt.clone()));
    let mut again = core.clone();
    again.expires = Height::new(core.expires.get() + 1);
    let again = again.sign(&world.chain, &[&keypair(0)]);
    assert_eq!(world.refused(again), Refusal::Applied(receipt.clone()), "signed anew");
    assert_eq!(world.balance(&owner(0)).get(), before.get() - 500 - fee);
    assert_eq!(world.balance(&owner(1)).get(), to.get() + 500);
    assert_eq!(light::supply(&world.state).unwrap().burned.get(), fee);
    let mut other = core;
    other.action = Action::Transfer { to: owner(1), amount: Fuel::new(501) };
    let other = other.sign(&world.chain, &[&keypair(0)]);
    assert_eq!(world.refused(other), Refusal::KeyReused { tx: receipt.tx });
    assert_eq!(light::seen(&world.state, &tx.core.key, 10).unwrap()[0].receipt(), receipt);
}

/// Goal: keys are forgotten only when nothing signed before can be applied under them, and a bounded number at a time.
/// Method: move the height to the edge by hand.
#[test]
fn keys_are_forgotten_in_time() {
    let mut world = World::new(params(), 0);
    let mut core = world.core(0, Action::Transfer { to: owner(1), amount: Fuel::new(1) });
    core.expires = Height::new(1 + TX_LIFETIME_MAX);
    let tx = core.sign(&world.chain, &[&keypair(0)]);
    world.pass(vec![tx.clone()]);
    let jump = |world: &mut World, height| {
        let head = tallow_ledger::record::Head { height: Height::new(height), ..world.head() };
        let writes = [(tallow_ledger::key::HEAD.to_vec(), Some(encode(&head)))].into();
        tallow_ledger::state::apply(&mut world.state, &writes);
        let (_, update) = tree_at(world, height);
        world.nodes = update.nodes.into_iter().collect();
    };
    jump(&mut world, TX_LIFETIME_MAX);
    assert!(matches!(world.refused(tx.clone()), Refusal::Applied(_)), "the last height of the transaction");
    assert_eq!(light::seen(&world.state, &tx.core.key, 10).unwrap().len(), 1);
    assert_eq!(world.block(Vec::new()).outcome.writes.len(), 3, "key, queue entry, head");
    assert_eq!(light::seen(&world.state, &tx.core.key, 10).unwrap(), []);
    assert!(matches!(world.refused(tx), Refusal::Expired { .. }));
}

/// Goal: one block forgets a bounded number of keys, the oldest first. Method: one more than the bound is overdue.
#[test]
fn forgetting_is_bounded() {
    let mut world = World::new(params(), 0);
    let keys = (0..=FORGET_PER_BLOCK as u64).map(|n| {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&n.to_be_bytes());
        IdempotencyKey::new(key)
    });
    let queue: Vec<_> = keys.map(|key| tallow_ledger::key::forget(Height::ZERO, &key, &owner(0))).collect();
    world.state.extend(queue.iter().map(|key| (key.clone(), Vec::new())));
    let env = world.env(world.soon());
    let built = tallow_ledger::build(&world.state, &env, Vec::new(), Vec::new()).unwrap();
    let gone = |key| built.outcome.writes.get(key) == Some(&None);
    assert_eq!(queue.iter().filter(|key| gone(*key)).count(), FORGET_PER_BLOCK);
    assert!(!gone(queue.last().unwrap()), "the last one waits for the next block");
}

fn tree_at(world: &World, height: u64) -> (tallow_types::StateRoot, tallow_ledger::tree::TreeUpdate) {
    tallow_ledger::tree::rebuild(Height::new(height), world.state.clone()).unwrap()
}

/// Goal: policies of several keys, of time and of hashes work from the start, and nobody can pad a transaction.
/// Method: fund such an account, spend with too little, with too much, and with enough.
#[test]
fn policies_are_met_exactly() {
    let mut world = World::new(params(), 0);
    let secret = BoundedBytes::new(b"open sesame".to_vec()).unwrap();
    let keys = [3, 4, 5].map(|n| keypair(n).public());
    let late = TimeMs::new(world.tip.time.get() + 100);
    let hash = Policy::Hash(Digest::new(*blake3::hash(&secret).as_bytes()));
    let lock = Policy::Threshold { need: 2, of: vec![hash, Policy::After(late)] };
    let policy = Policy::Threshold { need: 1, of: vec![Policy::keys(2, &keys).unwrap(), lock] };
    let account = policy.account();
    let fund = world.tx(0, Action::Transfer { to: account, amount: Fuel::new(1 << 40) });
    world.pass(vec![fund]);
    let mut spend = world.core(0, Action::Transfer { to: owner(1), amount: Fuel::new(1) });
    spend.policy = policy;
    let sign = |signers: &[u8], chain| {
        let keys: Vec<_> = signers.iter().map(|n| keypair(*n)).collect();
        spend.clone().sign(chain, &keys.iter().collect::<Vec<_>>())
    };
    let chain = world.chain;
    for signers in [&[][..], &[3]] {
        assert_eq!(world.refused(sign(signers, &chain)), Refusal::PolicyNotMet { account });
    }
    for signers in [&[3, 4, 6][..], &[3, 4, 4]] {
        assert_eq!(world.refused(sign(signers, &chain)), Refusal::StrayWitness { account });
    }
    let foreign = sign(&[3, 4], &tallow_types::ChainId::ZERO);
    assert!(matches!(world.refused(foreign), Refusal::Signature(_)));
    let mut shown = sign(&[], &chain);
    shown.witnesses = Bounded::new(vec![Witness::Preimage(secret)]).unwrap();
    assert_eq!(world.refused(shown.clone()), Refusal::PolicyNotMet { account }, "too early");
    let built = world.block_at(late, vec![shown], Vec::new());
    assert_eq!(built.rejected, []);
    assert!(
        matches!(world.refused(sign(&[4, 5], &chain)), Refusal::Applied(_)),
        "other signers, same request"
    );
}

/// Goal: what lanes earn, what returns and what burns over epochs is what the rules say, to the unit. Method: one
/// seeder proves always, one half the time, one never; compare with the sum by hand.
#[test]
fn settlement_by_hand() {
    let mut world = World::with_asks(4);
    let contract = world.open(0, &[0, 1, 2], 10 << 40);
    let lease = world.take_lease(contract, 10);
    let certificate =
        world.certificate(world.commit(contract, lease, 1, &[MIB, 2 * MIB, 3 * MIB, 0]), 10, &[0, 1, 2]);
    let post = world.tx(0, Action::Post(certificate));
    world.pass(vec![post]);
    world.pass_epoch(&[0, 1, 2]);
    let balances = || [0, 1, 2].map(|n| owner(20 + n));
    let start = balances().map(|account| world.balance(&account).get());
    let burned = light::supply(&world.state).unwrap().burned.get();
    let record = world.contract(&contract);
    assert_eq!(record.rate(&world.params), Some(Fuel::new(6 * u128::from(PRICE))));
    let settle = world.params.settle.get();
    assert_eq!(settle, 4);
    assert_eq!(record.escrow.get(), 24 * u128::from(PRICE), "four epochs ahead");
    let total = record.fuel.get() + record.escrow.get();
    for provers in [&[0, 1][..], &[0], &[0, 1], &[0]] {
        world.pass_epoch(provers);
    }
    let price = u128::from(PRICE);
    let earned = [4 * price, 2 * 2 * price, 0];
    let paid = earned.map(|amount| amount * 9_700 / 10_000);
    let now = balances().map(|account| world.balance(&account).get());
    assert_eq!([0, 1, 2].map(|n| now[n] - start[n]), paid);
    let charged = 24 * price;
    let refunded = (charged - earned.iter().sum::<u128>()) / 2;
    let record = world.contract(&contract);
    assert_eq!(record.fuel.get() + record.escrow.get(), total - charged + refunded);
    let burns = light::supply(&world.state).unwrap().burned.get() - burned;
    assert_eq!(burns, charged - refunded - paid.iter().sum::<u128>());
}

/// Goal: what a quote says is what the ledger takes, to the unit. Method: quote lanes of different prices and odd sizes
/// for eight epochs, let them pass with every proof, compare.
#[test]
fn quotes_are_exact() {
    let mut world = World::with_asks(4);
    let cheap = world.offer(1, 2, PRICE / 3);
    world.pass(vec![cheap]);
    let terms = world.terms(0, 0);
    let mut accepted = world.accept(&terms, &[0, 1, 2]);
    accepted[1].acceptance.price = world.seeder(1).ask.price;
    accepted[1] = world.sign_acceptance(accepted[1].acceptance.clone(), 1);
    let acceptances = Bounded::new(accepted).unwrap();
    let contract = terms.contract(&world.chain);
    let open = world.tx(0, Action::Open { terms, acceptances, fuel: Fuel::new(1 << 40) });
    world.pass(vec![open]);
    let lease = world.take_lease(contract, 10);
    let bytes = [MIB + 1, 3 * MIB + 777, 1, 0];
    let certificate = world.certificate(world.commit(contract, lease, 1, &bytes), 10, &[0, 1, 2]);
    let post = world.tx(0, Action::Post(certificate));
    world.pass(vec![post]);
    let record = world.contract(&contract);
    let lanes = record
        .lanes()
        .zip(bytes)
        .map(|((_, lane), bytes)| LaneCost { price: lane.price, bytes: tallow_types::Bytes::new(bytes) });
    let quote = for_epochs(&world.params, lanes, EpochCount::new(8)).unwrap();
    world.pass_epoch(&[]);
    let date = paid_until(world.contract(&contract).funds(&world.params, world.epoch()).unwrap());
    for _ in 0..8 {
        world.pass_epoch(&[0, 1, 2]);
    }
    let record = world.contract(&contract);
    assert_eq!(record.fuel.get() + record.escrow.get(), (1 << 40) - quote.get());
    let later = paid_until(record.funds(&world.params, world.epoch()).unwrap());
    assert!(date.is_some() && later == date, "the date stays while everybody proves");
}

/// Goal: what was charged for epochs that have not begun returns whole when a contract is settled before they do.
/// Method: charge four epochs ahead, post a commit in the first, let everybody prove; one epoch's rate is gone.
#[test]
fn epochs_not_begun_return_whole() {
    let mut world = World::with_asks(4);
    let contract = world.open(0, &[0, 1, 2], 1 << 40);
    let lease = world.take_lease(contract, 10);
    world.pass_epoch(&[0, 1, 2]);
    let charged = world.contract(&contract);
    let rate = 3 * world.params.lane_fee_min.get();
    assert_eq!((charged.fuel.get(), charged.escrow.get()), ((1 << 40) - 4 * rate, 4 * rate));
    let certificate = world.certificate(world.commit(contract, lease, 1, &[0; 4]), 10, &[0, 1, 2]);
    let post = world.tx(0, Action::Post(certificate));
    world.pass(vec![post]);
    world.pass_epoch(&[0, 1, 2]);
    let settled = world.contract(&contract);
    assert_eq!(settled.prepaid.unwrap().from, world.epoch());
    assert_eq!(settled.fuel.get() + settled.escrow.get(), (1 << 40) - rate);
}

/// Goal: a contract that cannot pay one epoch falls to embers with everything kept, pays nobody, and is revived by
/// refuelling. Method: fuel for two epochs, then a unit too little, then enough.
#[test]
fn embers_and_back() {
    let mut world = World::with_asks(4);
    let rate = 3 * params().lane_fee_min.get();
    let contract = world.open(0, &[0, 1, 2], 2 * rate);
    world.pass_epoch(&[]);
    let record = world.contract(&contract);
    assert_eq!((record.phase, record.fuel, record.escrow.get()), (Phase::Burning, Fuel::ZERO, 2 * rate));
    let until = paid_until(record.funds(&world.params, world.epoch()).unwrap()).unwrap();
    assert_eq!(until, record.prepaid.unwrap().until);
    for _ in 0..2 {
        assert_eq!(world.contract(&contract).phase, Phase::Burning);
        world.pass_epoch(&[0, 1, 2]);
    }
    assert_eq!(world.epoch(), until, "the date shown was the date");
    let record = world.contract(&contract);
    assert_eq!((record.phase, record.fuel, record.due), (Phase::Embers, Fuel::ZERO, None));
    assert_eq!(record.lanes().count(), 3, "lanes stay");
    let payout = world.balance(&owner(20));
    world.pass_epoch(&[0, 1, 2]);
    assert_eq!(world.balance(&owner(20)), payout, "nobody is paid");
    let refuel = world.tx(1, Action::Refuel { contract, amount: Fuel::new(rate - 1) });
    world.pass(vec![refuel]);
    world.pass_epoch(&[]);
    assert_eq!(world.contract(&contract).phase, Phase::Embers);
    let refuel = world.tx(1, Action::Refuel { contract, amount: Fuel::new(1) });
    world.pass(vec![refuel]);
    world.pass_epoch(&[]);
    assert_eq!(world.contract(&contract).phase, Phase::Burning);
}

/// Goal: fuel that the lanes' notice needs stays, the rest can be taken. Method: both sides of the edge.
#[test]
fn notice_is_reserved() {
    let mut world = World::with_asks(4);
    let contract = world.open(0, &[0, 1, 2], 1 << 40);
    let lease = world.take_lease(contract, 10);
    let certificate = world.certificate(world.commit(contract, lease, 1, &[4 * MIB; 4]), 10, &[0, 1, 2]);
    let post = world.tx(0, Action::Post(certificate));
    world.pass(vec![post]);
    let reserve = 3 * 2 * 4 * u128::from(PRICE);
    let over = world.tx(0, Action::Withdraw { contract, amount: Fuel::new((1 << 40) - reserve + 1) });
    assert!(matches!(world.refused(over), Refusal::Reserved { .. }), "counted with the pending bytes");
    let before = world.balance(&owner(0)).get();
    let take = world.tx(0, Action::Withdraw { contract, amount: Fuel::new((1 << 40) - reserve) });
    let fee = world.params.fee_per_byte.get() * encode(&take).len() as u128;
    world.pass(vec![take]);
    assert_eq!(world.contract(&contract).fuel.get(), reserve);
    assert_eq!(world.balance(&owner(0)).get(), before - fee + (1 << 40) - reserve);
}

/// Goal: a boundary's work is cut by its bound, later blocks go on, and whoever touches a contract that still waits
/// settles it first. Method: five contracts, one settled a block; touch the last in the queue.
#[test]
fn settlement_is_cut_by_its_bound() {
    let mut world = World::with_asks_under(Params { settle_per_block: 1, ..params() }, 3);
    let mut contracts: Vec<_> = (0..5).map(|index| world.open_small(index)).collect();
    contracts.sort();
    let at = tallow_ledger::due(&world.state).unwrap().at;
    world.block_at(at, Vec::new(), Vec::new());
    let settled =
        |world: &World| contracts.iter().map(|id| world.contract(id).prepaid.is_some()).collect::<Vec<_>>();
    assert_eq!(settled(&world), [true, false, false, false, false]);
    let refuel = world.tx(1, Action::Refuel { contract: contracts[4], amount: Fuel::new(1) });
    world.pass(vec![refuel]);
    assert_eq!(settled(&world), [true, true, false, false, true], "touched, so settled");
    world.settle_in();
    for id in &contracts {
        let from = world.contract(id).prepaid.unwrap().from;
        assert_eq!(from, Epoch::new(1), "all are settled in the same epoch");
    }
}

/// Goal: a genesis that cannot work is refused by name. Method: break one rule at a time.
#[test]
fn bad_genesis_is_refused() {
    use tallow_ledger::GenesisError as E;
    let validator =
        tallow_types::params::Validator { key: keypair(99).public(), vrf_key: [0; 32], weight: 1 };
    let good = Genesis {
        time: TimeMs::new(1),
        params: Params::main(),
        validators: Bounded::new(vec![validator]).unwrap(),
        endowments: Bounded::new(vec![(owner(0), Fuel::new(SUPPLY_MAX))]).unwrap(),
        salt: [0; 16],
    };
    assert!(genesis(&good).is_ok());
    let with = |change: fn(&mut Genesis)| {
        let mut wrong = good.clone();
        change(&mut wrong);
        genesis(&wrong).unwrap_err()
    };
    assert_eq!(with(|g| g.validators = Bounded::empty()), E::NoValidators);
    assert_eq!(with(|g| g.validators = Bounded::new(vec![g.validators[0]; 2]).unwrap()), E::BadValidator);
    assert_eq!(with(|g| g.validators[0].weight = 0), E::BadValidator);
    assert_eq!(with(|g| g.endowments = Bounded::new(vec![g.endowments[0]; 2]).unwrap()), E::BadEndowment);
    assert_eq!(with(|g| g.endowments[0].1 = Fuel::ZERO), E::BadEndowment);
    assert_eq!(with(|g| g.endowments[0].1 = Fuel::new(SUPPLY_MAX + 1)), E::TooMuchMoney);
    assert_eq!(with(|g| g.params.samples = 8), E::BadParameter("samples"));
    assert_eq!(with(|g| g.params.settle_per_block = 0), E::BadParameter("settle_per_block"));
    assert_eq!(with(|g| g.params.settle = EpochCount::new(SETTLE_MAX + 1)), E::BadParameter("settle"));
    assert_eq!(with(|g| g.params.window = g.params.epoch.next().unwrap()), E::BadParameter("window"));
}
