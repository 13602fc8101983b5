//! Everything that was ever written or acknowledged, and the checks of it.

use std::collections::{BTreeMap, BTreeSet};

use tallow_proofs::lane::SumTree;
use tallow_types::commit::{Commit, LaneChange, Leaf, Rank, SignedCommit, SlotState};
use tallow_types::sign::Keypair;
use tallow_types::{
    Bounded, ChainId, CommitHash, ContractId, LeafIndex, Lease, Profile, Sequence, SliceRoot, SlotIndex,
    StripeId,
};

/// A commit with the content that it names: the stripes of every lane, `None` where one was dropped.
#[derive(Clone)]
pub(super) struct Written {
    pub(super) signed: SignedCommit,
    stripes: Vec<Option<StripeId>>,
    trees: Vec<SumTree>,
}

/// What is new in a commit.
pub(super) struct Delta {
    pub(super) drop: Option<usize>,
    pub(super) append: Vec<StripeId>,
}

/// All commits by hash, and who signed what.
pub(super) struct History {
    profile: Profile,
    chain: ChainId,
    contract: ContractId,
    written: BTreeMap<CommitHash, Written>,
    /// Acknowledged ones by rank: one chain, or the protocol is broken.
    acknowledged: BTreeMap<Rank, CommitHash>,
    /// What each seeder key signed at each rank, through all its lives.
    signed: BTreeMap<(u64, Rank), CommitHash>,
}

impl History {
    pub(super) const fn new(profile: Profile, chain: ChainId, contract: ContractId) -> Self {
        Self {
            profile,
            chain,
            contract,
            written: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            signed: BTreeMap::new(),
        }
    }

    pub(super) fn acknowledgements(&self) -> usize {
        self.acknowledged.len()
    }

    pub(super) fn get(&self, hash: CommitHash) -> Option<&Written> {
        self.written.get(&hash)
    }

    pub(super) fn leaves(&self, hash: CommitHash) -> usize {
        self.get(hash).map_or(0, |written| written.stripes.len())
    }

    /// Writes the commit that follows `previous`.
    pub(super) fn write(
        &mut self,
        device: &Keypair,
        lease: Lease,
        sequence: u64,
        previous: CommitHash,
        delta: &Delta,
    ) -> CommitHash {
        let (mut stripes, mut trees) = match self.written.get(&previous) {
            Some(before) => (before.stripes.clone(), before.trees.clone()),
            None => (Vec::new(), vec![SumTree::new(); usize::from(self.profile.slots())]),
        };
        if let Some(drop) = delta.drop {
            stripes[drop] = None;
        }
        stripes.extend(delta.append.iter().copied().map(Some));
        let slots = self.profile.slot_indices().zip(&mut trees).map(|(slot, tree)| {
            if let Some(drop) = delta.drop {
                tree.clear(index(drop)).expect("the leaf is there");
            }
            let leaves: Vec<_> = delta.append.iter().map(|stripe| leaf(slot, *stripe)).collect();
            tree.extend(leaves.iter().map(Some)).expect("room for leaves");
            SlotState { root: tree.root(), bytes: tree.bytes() }
        });
        let commit = Commit {
            contract: self.contract,
            lease,
            sequence: Sequence::new(sequence),
            previous,
            slots: Bounded::new(slots.collect()).expect("no more than slots"),
            leaves: index(stripes.len()),
            width: self.profile.slots(),
            catalog_head: Bounded::empty(),
            repair_head: Bounded::empty(),
        };
        let hash = commit.hash();
        let signed = commit.sign(&self.chain, device);
        self.written.insert(hash, Written { signed, stripes, trees });
        hash
    }

    /// How a lane gets from one commit to another.
    pub(super) fn change(&self, slot: SlotIndex, from: Option<CommitHash>, to: CommitHash) -> LaneChange {
        let none = Vec::new();
        let from = from.and_then(|hash| self.get(hash)).map_or(&none, |written| &written.stripes);
        let to = &self.written[&to].stripes;
        let fits = |(a, b): &(&Option<StripeId>, &Option<StripeId>)| a == b || b.is_none();
        let keep = from.iter().zip(to).take_while(fits).count();
        let dropped = (0..keep).filter(|&at| from[at] != to[at]).map(index).collect();
        let appended = to[keep..].iter().map(|stripe| stripe.map(|stripe| leaf(slot, stripe))).collect();
        LaneChange {
            keep: index(keep),
            dropped: Bounded::new(dropped).expect("few"),
            appended: Bounded::new(appended).expect("few"),
        }
    }

    /// The commits that lead to one, oldest first: those of its lease behind `newest`.
    pub(super) fn chain(&self, newest: Option<CommitHash>, to: CommitHash) -> Vec<SignedCommit> {
        let lease = self.written[&to].signed.commit.lease;
        let mut chain = Vec::new();
        let mut at = to;
        while Some(at) != newest
            && let Some(written) = self.get(at)
            && written.signed.commit.lease == lease
        {
            chain.push(written.signed.clone());
            at = written.signed.commit.previous;
        }
        chain.reverse();
        chain
    }

    /// Notes a countersignature. `Err` if that seeder has signed another commit of the rank.
    pub(super) fn countersigned(&mut self, seeder: u64, hash: CommitHash) -> Result<(), String> {
        let rank = self.written[&hash].signed.commit.rank();
        match self.signed.insert((seeder, rank), hash) {
            Some(other) if other != hash => {
                Err(format!("seeder {seeder} signed two commits of rank {rank:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Notes an acknowledgement. `Err` unless all acknowledged commits are still one chain.
    pub(super) fn acknowledge(&mut self, hash: CommitHash) -> Result<(), String> {
        let rank = self.written[&hash].signed.commit.rank();
        if let Some(other) = self.acknowledged.insert(rank, hash)
            && other != hash
        {
            return Err(format!("two commits of rank {rank:?} were acknowledged"));
        }
        let below = self.acknowledged.range(..rank).next_back().map(|(rank, hash)| (*rank, *hash));
        let above = self.acknowledged.range(rank..).nth(1).map(|(rank, hash)| (*rank, *hash));
        if let Some((lower, older)) = below
            && !self.descends(hash, older)
        {
            return Err(format!("acknowledged {rank:?} leaves acknowledged {lower:?} behind"));
        }
        if let Some((upper, newer)) = above
            && !self.descends(newer, hash)
        {
            return Err(format!(
                "acknowledged {upper:?} had left {rank:?} behind, which was then acknowledged"
            ));
        }
        Ok(())
    }

    fn descends(&self, from: CommitHash, ancestor: CommitHash) -> bool {
        let mut seen = BTreeSet::new();
        let mut at = from;
        while at != ancestor {
            let Some(written) = self.get(at) else { return false };
            if !seen.insert(at) {
                return false;
            }
            at = written.signed.commit.previous;
        }
        true
    }
}

fn index(at: usize) -> LeafIndex {
    LeafIndex::new(u64::try_from(at).expect("few leaves"))
}

fn leaf(slot: SlotIndex, stripe: StripeId) -> Leaf {
    let mut root = [slot.get(); 32];
    root[..16].copy_from_slice(stripe.as_bytes());
    Leaf { stripe, root: SliceRoot::new(root), length: 1 << 10 }
}
