//! Every domain tag of the project in one place: the context strings of BLAKE3 `derive_key`, so that no hash,
//! key or signature made for one purpose can be taken for another.
//!
//! A tag never changes its meaning; a new format takes a new string.

/// A BLAKE3 key-derivation context, named after what it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(&'static str);

impl Domain {
    /// The context string itself.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// A hasher that starts in this domain.
    #[must_use]
    pub fn hasher(self) -> blake3::Hasher {
        blake3::Hasher::new_derive_key(self.0)
    }

    /// The 32-byte hash of `parts`, one after another, in this domain. Callers keep the parts unambiguous: fixed
    /// lengths, or one variable part at the end.
    #[must_use]
    pub fn hash(self, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = self.hasher();
        for part in parts {
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }
}

macro_rules! domains {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Domain = Domain($text);)*
        /// All tags, for the test that no two are alike.
        pub const ALL: &[Domain] = &[$($name),*];
    };
}

domains! {
    /// Chain id from genesis.
    CHAIN = "tallow v1 chain id";
    /// Account id from an owner policy.
    ACCOUNT = "tallow v1 account id";
    /// Contract id from network, owner and index.
    CONTRACT = "tallow v1 contract id";
    /// Hash of a block header.
    BLOCK = "tallow v1 block";
    /// Hash of a transaction.
    TX = "tallow v1 transaction";
    /// Root over the transactions and proofs of a block.
    BLOCK_BODY = "tallow v1 block body";
    /// Hash of a validator set.
    VALIDATORS = "tallow v1 validator set";
    /// Hash of a commit.
    COMMIT = "tallow v1 commit";
    /// Signature of a transaction.
    SIGN_TX = "tallow v1 sign transaction";
    /// Signature of a block header by its proposer.
    SIGN_BLOCK = "tallow v1 sign block";
    /// Signature of a commit by an owner or device key.
    SIGN_COMMIT = "tallow v1 sign commit";
    /// Countersignature of a commit by a seeder.
    SIGN_COUNTER = "tallow v1 countersign commit";
    /// A seeder's promise to refuse leases below the one named.
    SIGN_FENCE = "tallow v1 sign lease fence";
    /// A seeder's acceptance of a slot.
    SIGN_ACCEPT = "tallow v1 sign acceptance";
    /// A seeder's ask.
    SIGN_ASK = "tallow v1 sign ask";
    /// A seeder's epoch proof.
    SIGN_PROOF = "tallow v1 sign epoch proof";
    /// Key of a record in the state tree.
    STATE_KEY = "tallow v1 state key";
    /// Value or node of the state tree.
    STATE_NODE = "tallow v1 state node";
    /// What a transaction asks, to tell a retry from another use of its key.
    TX_ACTION = "tallow v1 transaction action";
    /// Input of the beacon's VRF.
    BEACON_INPUT = "tallow v1 beacon input";
    /// The next beacon from the one before and a VRF output.
    BEACON = "tallow v1 beacon";
    /// Leaf of a lane tree.
    LANE_LEAF = "tallow v1 lane leaf";
    /// The fixed empty leaf of a lane tree.
    LANE_EMPTY = "tallow v1 lane empty";
    /// Inner node of a lane tree.
    LANE_NODE = "tallow v1 lane node";
    /// Lane root from the height and top of its tree.
    LANE_ROOT = "tallow v1 lane root";
    /// Which keys of a table end a part of its snapshot.
    PART_END = "tallow v1 part end";
    /// Account key from the seed.
    KEY_ACCOUNT = "tallow v1 key account";
    /// Device key from the seed and a device number.
    KEY_DEVICE = "tallow v1 key device";
    /// Content key from the seed, a contract index and a generation.
    KEY_CONTENT = "tallow v1 key content";
    /// Mask secret from the seed and a contract index.
    KEY_MASK = "tallow v1 key mask secret";
    /// Repair key from the mask secret.
    KEY_REPAIR = "tallow v1 key repair";
    /// VRF key from the seed.
    KEY_VRF = "tallow v1 key vrf";
    /// Sharing (X25519) key from the seed.
    KEY_SHARING = "tallow v1 key sharing";
    /// Check value of the content key, to tell a wrong key from damaged data.
    KEY_CHECK = "tallow v1 key check";
    /// Secret under which chunk ids are made, from the seed.
    KEY_CHUNK_ID = "tallow v1 key chunk id";
    /// Key of one sealed chunk from the content key and the chunk id.
    CHUNK_KEY = "tallow v1 chunk key";
    /// Secret under which nonces are made, from the content key.
    CHUNK_NONCE = "tallow v1 chunk nonce";
    /// Mask key of a stripe from the contract's mask secret.
    MASK_STRIPE = "tallow v1 mask stripe";
    /// Mask key of a slice from its stripe's.
    MASK_SLICE = "tallow v1 mask slice";
    /// Key of the catalog head in a commit.
    CATALOG_HEAD = "tallow v1 catalog head";
    /// Key of the repair head in a commit.
    REPAIR_HEAD = "tallow v1 repair head";
    /// Digest of the sealed bytes of a stripe, in the upload journal.
    STRIPE_DIGEST = "tallow v1 stripe digest";
    /// Key of the local wallet file.
    WALLET_FILE = "tallow v1 wallet file";
    /// Check value of the local wallet file.
    WALLET_CHECK = "tallow v1 wallet check";
    /// Digest over the local wallet file, to tell damage from a wrong password.
    WALLET_DIGEST = "tallow v1 wallet digest";
    /// Reference of a chunk in the local cache.
    LOCAL_CACHE = "tallow v1 local cache";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no two purposes share a tag. Method: collect them all.
    #[test]
    fn tags_are_distinct_ascii() {
        let set: std::collections::BTreeSet<_> = ALL.iter().map(|d| d.as_str()).collect();
        assert_eq!(set.len(), ALL.len());
        assert!(set.iter().all(|text| text.is_ascii()));
    }
}
