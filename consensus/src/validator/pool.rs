//! What waits for a block: transactions and epoch proofs, bounded in number and bytes.

use std::collections::{BTreeMap, VecDeque};

use tallow_types::block::SignedEpochProof;
use tallow_types::limits::{
    BLOCK_MAX, BLOCK_PROOFS_MAX, BLOCK_TXS_MAX, POOL_BYTES_MAX, POOL_TXS_MAX, TX_MAX,
};
use tallow_types::tx::Transaction;
use tallow_types::{SeederId, TimeMs, TxId, encode};

use super::Ticket;

/// Why something can't wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// The pool has no room: ask again later.
    #[error("too many transactions wait for a block")]
    Pool,
    /// No block could ever hold it.
    #[error("a transaction has at most {TX_MAX} bytes, not {0}")]
    TooLarge(usize),
}

/// One transaction, and who waits for it.
struct Waiting {
    tx: Transaction,
    len: usize,
    tickets: Vec<Ticket>,
}

/// What waits for a block.
#[derive(Default)]
pub(super) struct Pool {
    order: VecDeque<TxId>,
    txs: BTreeMap<TxId, Waiting>,
    bytes: usize,
    oldest_tx: Option<TimeMs>,
    proofs: BTreeMap<SeederId, (SignedEpochProof, Vec<Ticket>)>,
    oldest_proof: Option<TimeMs>,
}

impl Pool {
    pub(super) fn add_tx(&mut self, ticket: Ticket, tx: Transaction, now: TimeMs) -> Result<(), Full> {
        let id = tx.id();
        if let Some(waiting) = self.txs.get_mut(&id) {
            waiting.tickets.push(ticket);
            return Ok(());
        }
        let len = encode(&tx).len();
        if len > TX_MAX {
            return Err(Full::TooLarge(len));
        }
        if self.txs.len() >= POOL_TXS_MAX || self.bytes + len > POOL_BYTES_MAX {
            return Err(Full::Pool);
        }
        self.bytes += len;
        self.order.push_back(id);
        self.txs.insert(id, Waiting { tx, len, tickets: vec![ticket] });
        self.oldest_tx.get_or_insert(now);
        Ok(())
    }

    /// Takes a proof in whose signature was checked. A seeder has one at a time, the newest; answers who waits for one that
    /// has no place any more.
    pub(super) fn add_proof(
        &mut self,
        ticket: Ticket,
        proof: SignedEpochProof,
        now: TimeMs,
    ) -> Result<Vec<Ticket>, Full> {
        let seeder = proof.proof.seeder;
        let full = self.proofs.len() >= BLOCK_PROOFS_MAX;
        match self.proofs.get_mut(&seeder) {
            Some((waiting, tickets)) if *waiting == proof => {
                tickets.push(ticket);
                Ok(Vec::new())
            }
            Some((waiting, _)) if waiting.proof.epoch > proof.proof.epoch => Ok(vec![ticket]),
            Some(entry) => Ok(std::mem::replace(entry, (proof, vec![ticket])).1),
            None if full => Err(Full::Pool),
            None => {
                self.proofs.insert(seeder, (proof, vec![ticket]));
                self.oldest_proof.get_or_insert(now);
                Ok(Vec::new())
            }
        }
    }

    /// When the first transaction, and the first proof, of those that wait came.
    pub(super) fn oldest(&self) -> (Option<TimeMs>, Option<TimeMs>) {
        (self.oldest_tx, self.oldest_proof)
    }

    /// Whether a block could be filled with what waits.
    pub(super) fn is_rich(&self) -> bool {
        self.bytes >= BLOCK_MAX || self.txs.len() >= BLOCK_TXS_MAX / 4
    }

    /// Candidates for the next block, oldest first: no more than one block could hold. They stay until answered.
    pub(super) fn candidates(&self) -> (Vec<Transaction>, Vec<SignedEpochProof>) {
        let mut bytes = 0;
        let waiting = self.order.iter().filter_map(|id| self.txs.get(id));
        let txs = waiting
            .take(BLOCK_TXS_MAX)
            .take_while(|waiting| {
                bytes += waiting.len;
                bytes <= BLOCK_MAX
            })
            .map(|waiting| waiting.tx.clone());
        (txs.collect(), self.proofs.values().map(|(proof, _)| proof.clone()).collect())
    }

    /// Forgets a transaction that has its answer, and says who waits for that.
    pub(super) fn take_tx(&mut self, id: &TxId) -> Vec<Ticket> {
        let Some(waiting) = self.txs.remove(id) else { return Vec::new() };
        self.bytes -= waiting.len;
        waiting.tickets
    }

    /// Forgets a proof that has its answer, and says who waits for that.
    pub(super) fn take_proof(&mut self, seeder: &SeederId) -> Vec<Ticket> {
        self.proofs.remove(seeder).map_or_else(Vec::new, |(_, tickets)| tickets)
    }

    /// After the answers of a block: what is still here waits from now on.
    pub(super) fn settle(&mut self, now: TimeMs) {
        self.order.retain(|id| self.txs.contains_key(id));
        self.oldest_tx = (!self.txs.is_empty()).then_some(now);
        self.oldest_proof = (!self.proofs.is_empty()).then_some(now);
    }
}
