//! Identifiers: fixed-length byte strings, each a type of its own.

use borsh::{BorshDeserialize, BorshSerialize};

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($len:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
            /// The value of all zeros: "none yet" where a format says so.
            pub const ZERO: Self = Self([0; $len]);

            /// From raw bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// From the hexadecimal text that `Display` prints; `None` if it is anything else.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Self(bytes))
            }

            /// The first eight hexadecimal digits, for logs and people.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    )*};
}

id! {
    /// A network: the hash of its genesis.
    ChainId(32);
    /// An account: the hash of its owner policy.
    AccountId(32);
    /// A contract: the hash of network, owner and the owner's index for it.
    ContractId(32);
    /// An Ed25519 verifying key (RFC 8032).
    PublicKey(32);
    /// An Ed25519 signature (RFC 8032).
    Signature(64);
    /// A seeder: its Ed25519 verifying key, which is also its peer key on the wire.
    SeederId(32);
    /// A stripe: 128 random bits, new for each encoding attempt.
    StripeId(16);
    /// BLAKE3 of the masked bytes of a slice.
    SliceRoot(32);
    /// Root of a lane's Merkle sum tree.
    LaneRoot(32);
    /// Hash of a commit.
    CommitHash(32);
    /// Hash of a block header.
    BlockHash(32);
    /// Hash of a transaction with its witnesses.
    TxId(32);
    /// Root of the authenticated state tree.
    StateRoot(32);
    /// A client-chosen number that makes a retried transaction the same transaction.
    IdempotencyKey(16);
    /// Any other BLAKE3 hash; the field that holds it says of what.
    Digest(32);
}

impl SeederId {
    /// The key that the seeder signs with.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        PublicKey(self.0)
    }
}

impl PublicKey {
    /// The seeder that signs with this key.
    #[must_use]
    pub const fn seeder(&self) -> SeederId {
        SeederId(self.0)
    }
}
