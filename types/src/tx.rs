//! Transactions: what an account asks of the ledger.
//!
//! An account is the hash of its policy; a transaction carries the policy and its witnesses. There is no sequential
//! nonce, so two devices can sign at once: the idempotency key makes a retry the same transaction, and after `expires`
//! it can never be applied.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::Bounded;
use crate::commit::CommitCertificate;
use crate::contract::{SignedAcceptance, SignedAsk, Terms};
use crate::domain::{self, Domain};
use crate::id::{AccountId, ChainId, ContractId, IdempotencyKey, PublicKey, SeederId, TxId};
use crate::limits::{SLOTS_MAX, TX_MAX, WITNESSES_MAX};
use crate::policy::{Policy, Witness};
use crate::sign::{Keypair, Signable};
use crate::tagged;
use crate::unit::{Fuel, Height, SlotIndex};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Action {
    /// Moves money to another account.
    Transfer {
        /// The receiver.
        to: AccountId,
        /// How much.
        amount: Fuel,
    },
    /// Makes or changes a seeder's entry; the sender pays the byte fee and backs the seeder with its balance.
    Offer(SignedAsk),
    /// Opens a contract owned by the sender, with k + margin or more lanes.
    Open {
        /// What the owner asks for.
        terms: Terms,
        /// Who takes which slot.
        acceptances: Bounded<SignedAcceptance, SLOTS_MAX>,
        /// What goes into the contract at once.
        fuel: Fuel,
    },
    /// Fills vacant slots. Only the owner.
    Fill {
        /// The contract.
        contract: ContractId,
        /// Who takes which slot.
        acceptances: Bounded<SignedAcceptance, SLOTS_MAX>,
    },
    /// Ends a lane from the next epoch: the owner any lane, a seeder's payout account its own.
    End {
        /// The contract.
        contract: ContractId,
        /// The slot that becomes vacant.
        slot: SlotIndex,
        /// Who holds it, so that a late retry cannot end a successor's lane.
        seeder: SeederId,
    },
    /// Adds fuel. Anyone.
    Refuel {
        /// The contract.
        contract: ContractId,
        /// How much.
        amount: Fuel,
    },
    /// Takes fuel back, beyond what the notice of its lanes needs. Only the owner.
    Withdraw {
        /// The contract.
        contract: ContractId,
        /// How much.
        amount: Fuel,
    },
    /// Ends a contract: lanes end, what is left of fuel and deposit returns. Only the owner.
    Close {
        /// The contract.
        contract: ContractId,
    },
    /// Asks for, or renews, the write lease for a device. Only the owner.
    Lease {
        /// The contract.
        contract: ContractId,
        /// The device key that will sign commits.
        device: PublicKey,
    },
    /// Gives the write lease back early. Only the owner.
    Release {
        /// The contract.
        contract: ContractId,
        /// The device that holds it.
        device: PublicKey,
    },
    /// Posts a commit with countersignatures. Anyone; the signatures in it count.
    Post(CommitCertificate),
}

/// The part of a transaction that is signed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TxCore {
    /// The policy of the account that asks and pays.
    pub policy: Policy,
    /// Chosen by the client; the same for every retry.
    pub key: IdempotencyKey,
    /// The last height at which it can be applied.
    pub expires: Height,
    /// What is asked.
    pub action: Action,
}
impl Signable for TxCore {
    const DOMAIN: Domain = domain::SIGN_TX;
}

/// A transaction with its witnesses, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Transaction {
    /// The part that is signed.
    pub core: TxCore,
    /// Evidence for the policy.
    pub witnesses: Bounded<Witness, WITNESSES_MAX>,
}
tagged!(Transaction, b"TX", 1, "transaction", TX_MAX);

impl TxCore {
    /// Signs with the given keys.
    ///
    /// # Panics
    /// Never: a policy that can be met needs fewer keys than a transaction may carry witnesses.
    #[must_use]
    pub fn sign(self, chain: &ChainId, keys: &[&Keypair]) -> Transaction {
        let witnesses =
            keys.iter().map(|key| Witness::Signature(key.public(), key.sign(chain, &self))).collect();
        let witnesses =
            Bounded::new(witnesses).expect("a policy has fewer keys than a transaction has witnesses");
        Transaction { core: self, witnesses }
    }
}

impl Transaction {
    /// The account that asks and pays.
    #[must_use]
    pub fn sender(&self) -> AccountId {
        self.core.policy.account()
    }

    /// The hash of the whole transaction.
    #[must_use]
    pub fn id(&self) -> TxId {
        TxId::new(domain::TX.hash(&[&crate::codec::encode(self)]))
    }
}
