//! What a seeder offers and what an owner asks for: asks, terms, acceptances.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::{Bounded, BoundedText};
use crate::domain::{self, Domain};
use crate::id::{AccountId, ChainId, ContractId, SeederId, Signature};
use crate::limits::{ADDRESS_MAX, ADDRESSES_MAX, REGION_MAX};
use crate::profile::Profile;
use crate::sign::{BadSignature, Signable, verify};
use crate::tagged;
use crate::unit::{Bytes, EpochCount, FuelPerMibEpoch, Height, Sequence, SlotIndex};

/// A network address of a node, as a multiaddr in text.
pub type Address = BoundedText<ADDRESS_MAX>;
/// A region label, compared as written.
pub type Region = BoundedText<REGION_MAX>;

/// A seeder's terms. The newest by `sequence` counts.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ask {
    /// Who offers; also the key that signs.
    pub seeder: SeederId,
    /// Rises with each change, so that an old ask cannot be played back.
    pub sequence: Sequence,
    /// The account that earns.
    pub payout: AccountId,
    /// What one MiB costs for one epoch.
    pub price: FuelPerMibEpoch,
    /// Where the disk is.
    pub region: Region,
    /// How long before leaving the seeder says so.
    pub notice: EpochCount,
    /// How many bytes it will hold in all.
    pub room: Bytes,
    /// Where it is reached.
    pub addresses: Bounded<Address, ADDRESSES_MAX>,
}
impl Signable for Ask {
    const DOMAIN: Domain = domain::SIGN_ASK;
}

/// An ask with its seeder's signature, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedAsk {
    /// The terms.
    pub ask: Ask,
    /// The seeder's signature of them.
    pub signature: Signature,
}
tagged!(SignedAsk, b"AK", 1, "ask", 4096);

impl SignedAsk {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`BadSignature`] if the seeder did not sign this ask for this network.
    pub fn verify(&self, chain: &ChainId) -> Result<&Ask, BadSignature> {
        verify(chain, &self.ask.seeder.public_key(), &self.ask, &self.signature)?;
        Ok(&self.ask)
    }
}

/// What an owner asks of a contract.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Terms {
    /// The account that owns the data; its policy decides.
    pub owner: AccountId,
    /// Ordinal of the contract in its account: the keys of the contract derive from it.
    pub index: u32,
    /// Redundancy.
    pub profile: Profile,
    /// Most bytes per lane. Collateral and fuel for it are reserved, so a commit inside it cannot be refused.
    pub room: Bytes,
    /// The dearest ask that may hold a slot.
    pub price_ceiling: FuelPerMibEpoch,
    /// Most slots that one payout account may hold; 0 for no limit.
    pub slots_per_operator: u8,
}

impl Terms {
    /// The contract's id: bound to network, owner and index, so that opening it twice is one opening.
    #[must_use]
    pub fn contract(&self, chain: &ChainId) -> ContractId {
        contract_id(chain, &self.owner, self.index)
    }
}

/// The id of an owner's contract of some index.
#[must_use]
pub fn contract_id(chain: &ChainId, owner: &AccountId, index: u32) -> ContractId {
    ContractId::new(domain::CONTRACT.hash(&[chain.as_bytes(), owner.as_bytes(), &index.to_le_bytes()]))
}

/// A seeder's consent to hold one slot of a contract, before it is on the ledger.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Acceptance {
    /// The contract.
    pub contract: ContractId,
    /// The terms it read.
    pub terms: Terms,
    /// The slot it takes.
    pub slot: SlotIndex,
    /// Who takes it.
    pub seeder: SeederId,
    /// What it will be paid.
    pub price: FuelPerMibEpoch,
    /// The last height at which the ledger may take this.
    pub expires: Height,
}
impl Signable for Acceptance {
    const DOMAIN: Domain = domain::SIGN_ACCEPT;
}

/// An acceptance with its seeder's signature, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SignedAcceptance {
    /// What was accepted.
    pub acceptance: Acceptance,
    /// The seeder's signature.
    pub signature: Signature,
}

impl SignedAcceptance {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`BadSignature`] if the seeder did not sign this acceptance for this network.
    pub fn verify(&self, chain: &ChainId) -> Result<&Acceptance, BadSignature> {
        verify(chain, &self.acceptance.seeder.public_key(), &self.acceptance, &self.signature)?;
        Ok(&self.acceptance)
    }
}
