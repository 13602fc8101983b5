//! The authenticated tree over the state: a Jellyfish Merkle tree whose keys are hashes of state keys and whose leaves
//! are hashes of record bytes. The tree never holds a record, only its hash; nodes are kept wherever a [`NodeRead`]
//! keeps them, under opaque keys.
//!
//! Guarantees: the root depends on the records alone, not on the order or the heights in which they were written; a
//! proof of presence or absence that verifies against a root is true of the state with that root.
//!
//! Does not contain: files; which nodes are still wanted. What an update makes stale is named, so that a store can
//! remove it once no proof of an earlier height is wanted.
//!
//! Source: Z. Gao, Y. Hu, Q. Wu, "Jellyfish Merkle Tree" (2021), in the layout of the `jmt` crate, hashed with BLAKE3.

use borsh::BorshDeserialize;
use jmt::proof::SparseMerkleProof;
use jmt::storage::{LeafNode, Node, NodeKey, TreeReader, TreeUpdateBatch};
use jmt::{JellyfishMerkleTree, KeyHash, OwnedValue, RootHash, SimpleHasher, Version};
use tallow_types::limits::STATE_PROOF_MAX;
use tallow_types::{BoundedBytes, Height, StateRoot, domain};

use crate::state::{ReadError, Writes};

/// A source of tree nodes by the opaque keys that [`TreeUpdate`] gave them.
pub trait NodeRead {
    /// The node under a key.
    ///
    /// # Errors
    /// [`ReadError`] if the store fails.
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;
}

impl NodeRead for std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.get(key).cloned())
    }
}

/// What a block changes in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeUpdate {
    /// New nodes. Keys begin with the height, big-endian, and are never used twice.
    pub nodes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Nodes that trees of this height and above don't contain.
    pub stale: Vec<Vec<u8>>,
}

/// A proof that a record is, or is not, in the state: opaque bytes for the wire.
pub type StateProof = BoundedBytes<STATE_PROOF_MAX>;

/// A proof that doesn't prove. Whoever sent it is at fault, or asked about another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof at all.
    #[error("these bytes are not a proof of the ledger's state")]
    Malformed,
    /// A proof of something else.
    #[error("this proof does not show the record in the state that the header names")]
    Wrong,
}

/// BLAKE3 in the domain of the tree.
struct Blake3(blake3::Hasher);

impl SimpleHasher for Blake3 {
    fn new() -> Self {
        Self(domain::STATE_NODE.hasher())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finalize(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// Reads nodes for the tree; at the height before `empty_before` the tree counts as empty.
struct Reader<'a> {
    nodes: &'a dyn NodeRead,
    empty_before: Option<Version>,
}

impl TreeReader for Reader<'_> {
    fn get_node_option(&self, key: &NodeKey) -> anyhow::Result<Option<Node>> {
        if self.empty_before.is_some_and(|version| key.version() < version) {
            return Ok(Some(Node::Null));
        }
        let bytes = self.nodes.node(&node_key(key))?;
        Ok(bytes.map(|bytes| Node::try_from_slice(&bytes)).transpose()?)
    }

    /// The tree asks for a value only to hand it back; ours lie elsewhere.
    fn get_value_option(&self, _: Version, _: KeyHash) -> anyhow::Result<Option<OwnedValue>> {
        Ok(Some(OwnedValue::new()))
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        Err(ReadError::new("the tree is not restored leaf by leaf").into())
    }
}

/// `| height u64 big-endian | nibbles u8 | path, two nibbles a byte |`.
fn node_key(key: &NodeKey) -> Vec<u8> {
    let path = key.nibble_path();
    let mut out = key.version().to_be_bytes().to_vec();
    out.push(u8::try_from(path.num_nibbles()).expect("a path has at most 64 nibbles"));
    // Borsh writes the count as eight bytes and the length as four in front of the packed nibbles.
    out.extend_from_slice(&borsh::to_vec(path).expect("writing to a vector cannot fail")[12..]);
    out
}

fn key_hash(key: &[u8]) -> KeyHash {
    KeyHash(domain::STATE_KEY.hash(&[key]))
}

fn into_update(batch: &TreeUpdateBatch) -> TreeUpdate {
    let encode = |node| borsh::to_vec(node).expect("writing to a vector cannot fail");
    TreeUpdate {
        nodes: batch.node_batch.nodes().iter().map(|(key, node)| (node_key(key), encode(node))).collect(),
        stale: batch.stale_node_index_batch.iter().map(|index| node_key(&index.node_key)).collect(),
    }
}

fn put(reader: &Reader<'_>, height: Height, writes: &Writes) -> Result<(StateRoot, TreeUpdate), ReadError> {
    let values = writes.iter().map(|(key, value)| (key_hash(key), value.clone()));
    let tree = JellyfishMerkleTree::<_, Blake3>::new(reader);
    let (root, batch) = tree.put_value_set(values, height.get()).map_err(ReadError::new)?;
    Ok((StateRoot::new(root.0), into_update(&batch)))
}

/// The root after a block, and the nodes that change. The tree of the height before must be in `nodes`, unless
/// `height` is zero.
///
/// # Errors
/// [`ReadError`] if nodes are missing or damaged.
pub fn update(
    nodes: &dyn NodeRead,
    height: Height,
    writes: &Writes,
) -> Result<(StateRoot, TreeUpdate), ReadError> {
    if let Some(before) = height.checked_sub(Height::new(1)) {
        // The tree would take a missing root for an empty tree.
        root(nodes, before)?;
    }
    put(&Reader { nodes, empty_before: None }, height, writes)
}

/// The whole tree of a state at `height`, from its records alone: what a node does with a snapshot.
///
/// # Errors
/// [`ReadError`] if the tree cannot be made.
pub fn rebuild(
    height: Height,
    records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Result<(StateRoot, TreeUpdate), ReadError> {
    let nodes = std::collections::BTreeMap::new();
    let writes = records.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let (root, mut update) =
        put(&Reader { nodes: &nodes, empty_before: Some(height.get()) }, height, &writes)?;
    // Below lies the empty tree, of which nothing was ever kept.
    update.stale.clear();
    Ok((root, update))
}

/// The root of the tree at a height.
///
/// # Errors
/// [`ReadError`] if that tree is not there.
pub fn root(nodes: &dyn NodeRead, height: Height) -> Result<StateRoot, ReadError> {
    let reader = Reader { nodes, empty_before: None };
    let tree = JellyfishMerkleTree::<_, Blake3>::new(&reader);
    tree.get_root_hash(height.get()).map(|root| StateRoot::new(root.0)).map_err(ReadError::new)
}

/// Proves the presence or absence of the record under `key` at a height.
///
/// # Errors
/// [`ReadError`] if that tree is not there.
pub fn prove(nodes: &dyn NodeRead, height: Height, key: &[u8]) -> Result<StateProof, ReadError> {
    let reader = Reader { nodes, empty_before: None };
    let tree = JellyfishMerkleTree::<_, Blake3>::new(&reader);
    let (_, proof) = tree.get_with_proof(key_hash(key), height.get()).map_err(ReadError::new)?;
    let bytes = borsh::to_vec(&proof).expect("writing to a vector cannot fail");
    StateProof::new(bytes).ok_or_else(|| ReadError::new("a proof is longer than a path of the tree"))
}

/// Checks that the state with this root holds `value` under `key`, or nothing if `value` is `None`.
///
/// # Errors
/// [`ProofError`] if the proof doesn't show that.
pub fn verify(
    root: &StateRoot,
    key: &[u8],
    value: Option<&[u8]>,
    proof: &StateProof,
) -> Result<(), ProofError> {
    let proof = SparseMerkleProof::<Blake3>::try_from_slice(proof).map_err(|_| ProofError::Malformed)?;
    proof.verify(RootHash(*root.as_bytes()), key_hash(key), value).map_err(|_| ProofError::Wrong)
}

#[cfg(test)]
mod tests;
