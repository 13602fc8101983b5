//! Why the ledger refuses a transaction or a proof: who, what, and what to do next.

use tallow_types::wire::Receipt;

/// Why a transaction is refused. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This very request was applied before: not a failure but the answer to a retry.
    #[error("this transaction was applied at height {}", .0.height)]
    Applied(Receipt),
}

/// Why an epoch proof is refused. It changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofRefusal {}
