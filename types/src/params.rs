//! Parameters of a network and its genesis. They are state: a change takes effect at a height, with the protocol
//! version. The chain id is the hash of genesis, so a network with other rules is another network.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::Bounded;
use crate::domain;
use crate::id::{AccountId, ChainId, Digest, PublicKey};
use crate::limits::{ENDOWMENTS_MAX, VALIDATORS_MAX};
use crate::tagged;
use crate::unit::{DurationMs, EpochCount, Fuel, FuelPerMibEpoch, TimeMs};

/// The numbers that rules take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Params {
    /// Version of the rules.
    pub protocol: u16,
    /// Length of an epoch.
    pub epoch: DurationMs,
    /// Part of an epoch in which its proof counts.
    pub window: DurationMs,
    /// Blocks between an epoch's cut-off block and its beacon block.
    pub beacon_gap: u8,
    /// Ordinary samples of one epoch proof. 0 while fees do not need proofs.
    pub samples: u8,
    /// Fee burned for each byte of a transaction.
    pub fee_per_byte: Fuel,
    /// Deposit locked by a contract until it goes.
    pub contract_deposit: Fuel,
    /// Least fee of a lane for one epoch.
    pub lane_fee_min: Fuel,
    /// Share of every fee that is burned, in basis points.
    pub protocol_share_bp: u16,
    /// Epochs of fee at full room that a seeder locks for a lane.
    pub collateral_epochs: EpochCount,
    /// Lowest price that an ask may name.
    pub price_min: FuelPerMibEpoch,
    /// How long a write lease lasts unless renewed.
    pub lease: DurationMs,
    /// Epochs of full-width cost below which redundancy thins out.
    pub fading: EpochCount,
    /// Epochs without fuel after which a contract's record goes.
    pub embers: EpochCount,
    /// Epochs settled at one time: how often a contract that nobody touches is due.
    pub settle: EpochCount,
    /// Contracts settled by one block at most.
    pub settle_per_block: u16,
    /// Farthest that a block's time may lie from a validator's own clock.
    pub clock_drift: DurationMs,
    /// Whether profiles of weak durability are accepted.
    pub weak_profiles: bool,
}

impl Params {
    /// The main network's.
    #[must_use]
    pub const fn main() -> Self {
        Self {
            protocol: 1,
            epoch: DurationMs::new(600_000),
            window: DurationMs::new(180_000),
            beacon_gap: 2,
            samples: 0,
            fee_per_byte: Fuel::new(1 << 16),
            contract_deposit: Fuel::new(1 << 34),
            lane_fee_min: Fuel::new(1 << 10),
            protocol_share_bp: 300,
            collateral_epochs: EpochCount::new(30 * 144),
            price_min: FuelPerMibEpoch::new(1_000),
            lease: DurationMs::new(120_000),
            fading: EpochCount::new(30 * 144),
            embers: EpochCount::new(90 * 144),
            settle: EpochCount::new(36),
            settle_per_block: 256,
            clock_drift: DurationMs::new(10_000),
            weak_profiles: false,
        }
    }

    /// A network for development: the same rules, short epochs.
    #[must_use]
    pub const fn dev() -> Self {
        Self {
            epoch: DurationMs::new(3_000),
            window: DurationMs::new(1_500),
            collateral_epochs: EpochCount::new(20),
            lease: DurationMs::new(5_000),
            fading: EpochCount::new(20),
            embers: EpochCount::new(40),
            settle: EpochCount::new(4),
            weak_profiles: true,
            ..Self::main()
        }
    }
}

/// A validator of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Validator {
    /// Signs blocks.
    pub key: PublicKey,
    /// Verifies its beacon shares.
    pub vrf_key: [u8; 32],
    /// Voting weight, in GiB.
    pub weight: u64,
}

/// A set of validators.
pub type ValidatorSet = Bounded<Validator, VALIDATORS_MAX>;

/// The hash of a set, as headers carry it.
///
/// # Panics
/// Never: writing to a hasher cannot fail.
#[must_use]
pub fn validators_hash(set: &ValidatorSet) -> Digest {
    let mut hasher = domain::VALIDATORS.hasher();
    set.serialize(&mut hasher).expect("writing to a hasher cannot fail");
    Digest::new(*hasher.finalize().as_bytes())
}

/// Where a network begins.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Genesis {
    /// When.
    pub time: TimeMs,
    /// Under which rules.
    pub params: Params,
    /// Ordered by whom.
    pub validators: ValidatorSet,
    /// Who has what, by account, each once.
    pub endowments: Bounded<(AccountId, Fuel), ENDOWMENTS_MAX>,
    /// Random bytes, so that two networks of the same makers differ.
    pub salt: [u8; 16],
}
tagged!(Genesis, b"GN", 1, "genesis", 128 << 10);

impl Genesis {
    /// The network's id.
    #[must_use]
    pub fn chain(&self) -> ChainId {
        ChainId::new(domain::CHAIN.hash(&[&crate::codec::encode(self)]))
    }
}
