//! The lane tree: a Merkle *sum* tree over the slices of one slot, in append order.
//!
//! ```text
//! leaf    hash = LANE_LEAF(stripe 16, slice root 32, length u32)     sum = length
//! empty   hash = LANE_EMPTY()                                        sum = 0
//! node    hash = LANE_NODE(l.hash 32, l.sum u64, r.hash 32, r.sum u64)   sum = l.sum + r.sum
//! E(0) = empty, E(h+1) = node(E(h), E(h));   height = ceil(log2(leaves)), 0 for none
//! root         = LANE_ROOT(height u8, top.hash 32, top.sum u64)
//! ```
//!
//! Guarantees: the root commits to every leaf, its position and the bytes before it, so that a byte offset leads to
//! exactly one place in one slice; a change costs O(log leaves); the empty space behind the last leaf is a constant of
//! its height, neither stored nor sent.
//!
//! The root does not commit to the number of leaves: a tail of empty leaves within one height looks like none. The
//! commit that carries the root carries the number too, and every verifier here takes it from there.

mod change;

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::commit::Leaf;
use tallow_types::limits::{LANE_LEAVES_MAX, SLICE_MAX, SLICE_UNIT};
use tallow_types::{Bounded, Bytes, LaneRoot, LeafIndex, domain};

pub use change::Changed;

/// Most levels below the top: 2^40 leaves.
pub const HEIGHT_MAX: usize = LANE_LEAVES_MAX.ilog2() as usize;

const NO_OVERFLOW: &str = "2^40 leaves of at most 4 MiB are less than 2^64 bytes";

/// One node: a hash, and the bytes below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Node {
    /// Commits to everything below.
    pub hash: [u8; 32],
    /// Length of all slices below. Bytes.
    pub sum: u64,
}

impl Node {
    fn leaf(leaf: &Leaf) -> Self {
        let hash = domain::LANE_LEAF.hash(&[
            leaf.stripe.as_bytes(),
            leaf.root.as_bytes(),
            &leaf.length.to_le_bytes(),
        ]);
        Self { hash, sum: u64::from(leaf.length) }
    }

    fn of(leaf: Option<&Leaf>) -> Self {
        leaf.map_or(empty(0), Self::leaf)
    }

    /// `None` if the sum overflows, which only a forged path can make it do.
    fn join(left: &Self, right: &Self) -> Option<Self> {
        let sum = left.sum.checked_add(right.sum)?;
        let hash = domain::LANE_NODE.hash(&[
            &left.hash,
            &left.sum.to_le_bytes(),
            &right.hash,
            &right.sum.to_le_bytes(),
        ]);
        Some(Self { hash, sum })
    }

    fn root(&self, height: usize) -> LaneRoot {
        let height = u8::try_from(height).expect("a height is at most 40");
        LaneRoot::new(domain::LANE_ROOT.hash(&[&[height], &self.hash, &self.sum.to_le_bytes()]))
    }
}

/// The top of an empty subtree of the given height.
fn empty(height: usize) -> Node {
    static EMPTY: std::sync::LazyLock<Vec<Node>> = std::sync::LazyLock::new(|| {
        let mut nodes = vec![Node { hash: domain::LANE_EMPTY.hash(&[]), sum: 0 }];
        while let (Some(below), true) = (nodes.last(), nodes.len() <= HEIGHT_MAX) {
            let node = Node::join(below, below).expect("zero plus zero does not overflow");
            nodes.push(node);
        }
        nodes
    });
    EMPTY[height]
}

/// Levels between the leaves and the top.
fn height(leaves: u64) -> usize {
    leaves.max(1).next_power_of_two().ilog2() as usize
}

/// The root of a lane without leaves.
#[must_use]
pub fn empty_root() -> LaneRoot {
    empty(0).root(0)
}

/// Why a lane can't change as asked: the one who asked is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    /// A leaf that the lane does not have.
    #[error("the lane has {leaves} leaves, not {index}")]
    NoLeaf {
        /// What was asked for.
        index: LeafIndex,
        /// What there is.
        leaves: LeafIndex,
    },
    /// A slice of no or too great a length, or one that is no multiple of 1 KiB.
    #[error("a slice has 1 to 4096 KiB, not {length} bytes")]
    Length {
        /// Its length. Bytes.
        length: u32,
    },
    /// More leaves than a lane may have.
    #[error("a lane has at most 2^40 leaves")]
    Full,
}

/// Checks the length of a slice.
///
/// # Errors
/// [`LaneError::Length`].
pub const fn check_length(leaf: &Leaf) -> Result<(), LaneError> {
    if leaf.length == 0 || leaf.length > SLICE_MAX || !leaf.length.is_multiple_of(SLICE_UNIT) {
        return Err(LaneError::Length { length: leaf.length });
    }
    Ok(())
}

/// A lane tree with all its nodes in memory: about 80 bytes a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumTree {
    /// `levels[h]` holds the nodes of height `h` that have a leaf below them; the last level is the top alone.
    levels: Vec<Vec<Node>>,
}

impl Default for SumTree {
    fn default() -> Self {
        Self::new()
    }
}

impl SumTree {
    /// A lane without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self { levels: vec![Vec::new()] }
    }

    /// The lane of these leaves, empty ones as `None`.
    ///
    /// # Errors
    /// [`LaneError::Length`] or [`LaneError::Full`].
    pub fn from_leaves<'a>(leaves: impl IntoIterator<Item = Option<&'a Leaf>>) -> Result<Self, LaneError> {
        let mut tree = Self::new();
        tree.extend(leaves)?;
        Ok(tree)
    }

    /// Number of leaves, empty ones counted.
    #[must_use]
    pub fn len(&self) -> LeafIndex {
        LeafIndex::new(self.levels[0].len() as u64)
    }

    /// Whether there are no leaves at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels[0].is_empty()
    }

    /// Length of all slices.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes::new(self.top().sum)
    }

    /// The root that a commit names.
    #[must_use]
    pub fn root(&self) -> LaneRoot {
        self.top().root(self.levels.len() - 1)
    }

    /// Adds a leaf behind the last; `None` for a slice that this slot never had.
    ///
    /// # Errors
    /// [`LaneError::Length`] or [`LaneError::Full`].
    pub fn append(&mut self, leaf: Option<&Leaf>) -> Result<LeafIndex, LaneError> {
        let index = self.len();
        self.extend([leaf])?;
        Ok(index)
    }

    /// Adds leaves behind the last, hashing each node above them once. On error nothing has changed.
    ///
    /// # Errors
    /// [`LaneError::Length`] or [`LaneError::Full`].
    pub fn extend<'a>(
        &mut self,
        leaves: impl IntoIterator<Item = Option<&'a Leaf>>,
    ) -> Result<(), LaneError> {
        let mut nodes = Vec::new();
        for leaf in leaves {
            leaf.map_or(Ok(()), check_length)?;
            nodes.push(Node::of(leaf));
        }
        let first = self.levels[0].len();
        if (first + nodes.len()) as u64 > LANE_LEAVES_MAX {
            return Err(LaneError::Full);
        }
        self.levels[0].extend(nodes);
        self.repair(first);
        Ok(())
    }

    /// Makes a leaf empty; one that is empty stays so.
    ///
    /// # Errors
    /// [`LaneError::NoLeaf`].
    pub fn clear(&mut self, index: LeafIndex) -> Result<(), LaneError> {
        let at = self.position(index)?;
        self.levels[0][at] = empty(0);
        for h in 1..self.levels.len() {
            self.levels[h][at >> h] = self.joined(h, at >> h);
        }
        Ok(())
    }

    /// Fills an empty leaf, or changes one: what catching up with a missed slice does.
    ///
    /// # Errors
    /// [`LaneError::NoLeaf`] or [`LaneError::Length`].
    pub fn set(&mut self, index: LeafIndex, leaf: &Leaf) -> Result<(), LaneError> {
        let at = self.position(index)?;
        check_length(leaf)?;
        self.levels[0][at] = Node::leaf(leaf);
        for h in 1..self.levels.len() {
            self.levels[h][at >> h] = self.joined(h, at >> h);
        }
        Ok(())
    }

    /// Keeps the first `leaves` leaves.
    ///
    /// # Errors
    /// [`LaneError::NoLeaf`] if there are fewer.
    pub fn truncate(&mut self, leaves: LeafIndex) -> Result<(), LaneError> {
        if leaves > self.len() {
            return Err(LaneError::NoLeaf { index: leaves, leaves: self.len() });
        }
        let keep = usize::try_from(leaves.get()).expect("no more than are in memory");
        self.levels[0].truncate(keep);
        self.repair(keep.saturating_sub(1));
        Ok(())
    }

    /// The path that shows a leaf, or its emptiness, to whoever knows root and number of leaves.
    ///
    /// # Errors
    /// [`LaneError::NoLeaf`].
    pub fn prove(&self, index: LeafIndex) -> Result<Path, LaneError> {
        let at = self.position(index)?;
        let siblings = self.levels[..self.levels.len() - 1]
            .iter()
            .enumerate()
            .filter_map(|(h, level)| level.get((at >> h) ^ 1).copied())
            .collect();
        Ok(Path { siblings: Bounded::new(siblings).expect("a tree is at most 40 high") })
    }

    /// The leaf that holds a byte of the lane, and the offset in its slice; `None` behind the last byte.
    #[must_use]
    pub fn locate(&self, offset: Bytes) -> Option<(LeafIndex, u32)> {
        let mut rest = offset.get();
        if rest >= self.top().sum {
            return None;
        }
        let mut at = 0;
        for level in self.levels[..self.levels.len() - 1].iter().rev() {
            at *= 2;
            let left = level[at].sum;
            if rest >= left {
                rest -= left;
                at += 1;
            }
        }
        let offset = u32::try_from(rest).expect("an offset inside a slice is below 4 MiB");
        Some((LeafIndex::new(at as u64), offset))
    }

    fn position(&self, index: LeafIndex) -> Result<usize, LaneError> {
        let leaves = self.len();
        if index >= leaves {
            return Err(LaneError::NoLeaf { index, leaves });
        }
        Ok(usize::try_from(index.get()).expect("no more than are in memory"))
    }

    fn top(&self) -> Node {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or(empty(0))
    }

    /// The node of height `h` from the two below it.
    fn joined(&self, h: usize, at: usize) -> Node {
        let below = &self.levels[h - 1];
        let left = below.get(2 * at).copied().unwrap_or(empty(h - 1));
        let right = below.get(2 * at + 1).copied().unwrap_or(empty(h - 1));
        Node::join(&left, &right).expect(NO_OVERFLOW)
    }

    /// Makes the levels above the leaves fit them again, given that leaves before `first` did not change.
    fn repair(&mut self, first: usize) {
        let leaves = self.levels[0].len();
        self.levels.resize_with(height(leaves as u64) + 1, Vec::new);
        for h in 1..self.levels.len() {
            let width = leaves.div_ceil(1 << h);
            let keep = (first >> h).min(self.levels[h].len());
            self.levels[h].truncate(keep);
            for at in keep..width {
                let node = self.joined(h, at);
                self.levels[h].push(node);
            }
        }
    }
}

/// What shows one leaf: the siblings on its way up, from the bottom, without those that lie behind the last leaf.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Path {
    /// The siblings.
    pub siblings: Bounded<Node, HEIGHT_MAX>,
}

/// A path that does not show what it should: the prover is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path does not lead from leaf {index} to the root")]
pub struct BadPath {
    /// The leaf.
    pub index: LeafIndex,
}

/// Checks that leaf `index` of the lane with this root and number of leaves is `leaf`, `None` meaning empty, and gives
/// the number of bytes in the leaves before it.
///
/// # Errors
/// [`BadPath`] in every other case.
pub fn verify_leaf(
    root: &LaneRoot,
    leaves: LeafIndex,
    index: LeafIndex,
    leaf: Option<&Leaf>,
    path: &Path,
) -> Result<Bytes, BadPath> {
    let bad = BadPath { index };
    if index >= leaves || leaves.get() > LANE_LEAVES_MAX {
        return Err(bad);
    }
    leaf.map_or(Ok(()), check_length).map_err(|_| bad)?;
    let last = leaves.get() - 1;
    let (mut node, mut at, mut before) = (Node::of(leaf), index.get(), 0u64);
    let mut siblings = path.siblings.iter();
    let height = height(leaves.get());
    for h in 0..height {
        let sibling = if (at ^ 1) <= (last >> h) { *siblings.next().ok_or(bad)? } else { empty(h) };
        let (left, right) = if at & 1 == 0 { (&node, &sibling) } else { (&sibling, &node) };
        if at & 1 == 1 {
            before = before.checked_add(sibling.sum).ok_or(bad)?;
        }
        node = Node::join(left, right).ok_or(bad)?;
        at >>= 1;
    }
    if siblings.next().is_some() || node.root(height) != *root {
        return Err(bad);
    }
    Ok(Bytes::new(before))
}

/// Checks that byte `offset` of the lane lies in leaf `index`, and gives its offset in that slice.
///
/// # Errors
/// [`BadPath`] if the leaf isn't there, or holds other bytes of the lane.
pub fn verify_offset(
    root: &LaneRoot,
    leaves: LeafIndex,
    offset: Bytes,
    (index, leaf): (LeafIndex, &Leaf),
    path: &Path,
) -> Result<u32, BadPath> {
    let before = verify_leaf(root, leaves, index, Some(leaf), path)?;
    let inside = offset.checked_sub(before).and_then(|inside| u32::try_from(inside.get()).ok());
    inside.filter(|&inside| inside < leaf.length).ok_or(BadPath { index })
}

#[cfg(test)]
mod tests;
