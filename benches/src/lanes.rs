//! What a seeder pays to countersign, by the length of the lane: one slice more, tried, signed and taken. Beside what a copy of
//! the lane tree alone costs.

use anyhow::{Context, Result};
use tallow_proofs::lane::SumTree;
use tallow_storage_node::lanes::{Change, Event, Grant, Lane};
use tallow_storage_node::store::{LaneKey, LaneRow, Origin};
use tallow_types::commit::{Commit, Leaf, Rank, SignedCommit, SlotState};
use tallow_types::sign::Keypair;
use tallow_types::{
    Bounded, Bytes, ChainId, CommitHash, ContractId, Incarnation, Lease, Sequence, SliceRoot, SlotIndex,
    StripeId,
};

use crate::timing::{median, noise};

const ROOM: Bytes = Bytes::new(1 << 50);
const LEASE: Lease = Lease { incarnation: Incarnation::ZERO, counter: 1 };

/// Prints a line for each length.
pub fn run() -> Result<()> {
    println!("countersigning one slice more, by the leaves of the lane");
    for leaves in [100, 10_000, 100_000, 1_000_000] {
        let mut seeder = Seeder::new(leaves)?;
        let ours = median(|| seeder.countersign()).as_secs_f64() * 1e6;
        let copy = median(|| seeder.tree.clone()).as_secs_f64() * 1e6;
        println!(
            "  {leaves:>9} leaves  {ours:>8.0} us  {:>8.3}x a copy of its tree ({copy:.0} us)",
            ours / copy
        );
    }
    Ok(())
}

/// A lane, and the device that fills it.
struct Seeder {
    keypair: Keypair,
    device: Keypair,
    grant: Grant,
    lane: Lane,
    tree: SumTree,
    newest: CommitHash,
    sequence: u64,
    stripes: u64,
}

impl Seeder {
    fn new(leaves: u64) -> Result<Self> {
        let (keypair, device) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]));
        let grant = Grant {
            chain: ChainId::new([3; 32]),
            lease: LEASE,
            device: Some(device.public()),
            waiting: None,
            former: Vec::new(),
            room: ROOM,
            signed: Rank::default(),
            slots: 1,
            first_holder: true,
        };
        let key = LaneKey { contract: ContractId::new([4; 32]), slot: SlotIndex::new(0) };
        let lane = Lane::new(key, LaneRow::new(Origin::Founder, ROOM, None));
        let tree = SumTree::new();
        let (newest, sequence, stripes) = (CommitHash::ZERO, 0, 0);
        let mut seeder = Self { keypair, device, grant, lane, tree, newest, sequence, stripes };
        seeder.show(leaves).context("the lane can't be made")?;
        Ok(seeder)
    }

    fn countersign(&mut self) {
        self.show(1).expect("the commit follows the rules");
    }

    /// Shows a commit of so many slices more.
    fn show(&mut self, more: u64) -> Option<()> {
        let appended: Vec<Option<Leaf>> = (0..more).map(|_| Some(self.leaf())).collect();
        let keep = self.tree.len();
        let changed = self.tree.change(keep, &[], &appended).ok()?;
        self.sequence += 1;
        let slot = SlotState { root: changed.root(), bytes: changed.bytes() };
        let commit = Commit {
            contract: ContractId::new([4; 32]),
            lease: LEASE,
            sequence: Sequence::new(self.sequence),
            previous: self.newest,
            leaves: changed.len(),
            width: 1,
            slots: Bounded::new(vec![slot])?,
            catalog_head: Bounded::empty(),
            repair_head: Bounded::empty(),
        };
        self.tree.accept(changed);
        self.newest = commit.hash();
        let chain: Vec<SignedCommit> = vec![commit.sign(&self.grant.chain, &self.device)];
        let change = Change { keep, dropped: Vec::new(), appended };
        let event = Event::Countersign { chain, change };
        let step = self.lane.handle(&self.keypair, &self.grant, self.device.public(), event).ok()?;
        self.lane.apply(step);
        Some(())
    }

    fn leaf(&mut self) -> Leaf {
        self.stripes += 1;
        let mut stripe = [0; 16];
        stripe.copy_from_slice(&noise(16, 7)[..16]);
        stripe[..8].copy_from_slice(&self.stripes.to_le_bytes());
        Leaf { stripe: StripeId::new(stripe), root: SliceRoot::new([8; 32]), length: 1024 }
    }
}
