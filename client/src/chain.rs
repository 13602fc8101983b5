//! The ledger as a client sees it: records by key, and transactions that are never paid twice.
//!
//! Guarantees: reads never go back in height within one client; a transaction is journaled before it is sent, so that
//! a call that is interrupted and made again finishes the same transaction.
//!
//! Does not: verify that a node answers from the true state. With one validator the client trusts the nodes it names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes as Payload;
use tallow_ledger::{key, record};
use tallow_net::{Peer, Reply, Transport};
use tallow_types::codec::{Bounded, DecodeError, Tagged, decode, encode};
use tallow_types::contract::Address;
use tallow_types::fault::{Code, Fault, Retry};
use tallow_types::id::{AccountId, ChainId, ContractId, IdempotencyKey, SeederId};
use tallow_types::params::Params;
use tallow_types::tx::{Action, Transaction, TxCore};
use tallow_types::unit::{DurationMs, Height};
use tallow_types::wire::{ChainStatus, Receipt, Request, Response};

use crate::db::{Db, TXS};
use crate::error::{LedgerError, LocalError};
use crate::identity::{Identity, random_bytes};
use crate::report::Paid;

/// For how many blocks a transaction stays valid: enough for a day of epochs, and short of the ledger's limit.
const LIFETIME_BLOCKS: u64 = 50_000;

/// The ledger by way of some nodes.
pub(crate) struct Chain {
    transport: Arc<dyn Transport>,
    peers: Vec<Peer>,
    chain: ChainId,
    identity: Identity,
    db: Arc<Db>,
    timeout: Duration,
    patience: Duration,
    seen: AtomicU64,
    /// Index of the node that answered last.
    favourite: AtomicU64,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Pending {
    transaction: Vec<u8>,
}

impl Chain {
    pub fn new(
        transport: Arc<dyn Transport>,
        peers: Vec<Peer>,
        chain: ChainId,
        identity: Identity,
        db: Arc<Db>,
        (timeout, patience): (Duration, Duration),
    ) -> Self {
        let (seen, favourite) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { transport, peers, chain, identity, db, timeout, patience, seen, favourite }
    }

    /// Says hello to nodes until one of the right network answers.
    pub async fn connect(&self) -> Result<(), LedgerError> {
        let mut last = "no bootstrap address".to_owned();
        for (at, peer) in (0u64..).zip(&self.peers) {
            match self.call(peer, Request::Hello { chain: self.chain }, Payload::new()).await {
                Ok(Reply { response: Response::Hello { chain, .. }, .. }) if chain == self.chain => {
                    self.favourite.store(at, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(Reply { response: Response::Hello { chain: found, .. }, .. }) => {
                    let address = peer.addresses.first().map_or("?", Address::as_str).to_owned();
                    return Err(LedgerError::WrongNetwork { address, found, wanted: self.chain });
                }
                Ok(_) => last = "an answer of another kind".into(),
                Err(fault) if fault.code() == Code::WrongChain => return Err(LedgerError::Refused(fault)),
                Err(fault) => last = fault.to_string(),
            }
        }
        Err(LedgerError::Unreachable { last })
    }

    async fn call(&self, peer: &Peer, request: Request, payload: Payload) -> Result<Reply, Fault> {
        match tokio::time::timeout(self.timeout, self.transport.call(peer, request, payload)).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::new(Code::Unreachable, "no answer in time")),
        }
    }

    /// Asks nodes in turn, the one that answered last first, until one answers for good.
    async fn ask(&self, request: Request, payload: Payload) -> Result<Reply, LedgerError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        let mut pause = Duration::from_millis(20);
        loop {
            let mut last = "no bootstrap address".to_owned();
            let first = self.favourite.load(Ordering::Relaxed);
            let count = self.peers.len() as u64;
            for at in (0..count).map(|step| (first + step) % count) {
                let peer = &self.peers[usize::try_from(at).unwrap_or(0)];
                match self.call(peer, request.clone(), payload.clone()).await {
                    Ok(reply) => {
                        self.favourite.store(at, Ordering::Relaxed);
                        return Ok(reply);
                    }
                    Err(fault) if fault.code().retry() == Retry::Never => {
                        return Err(LedgerError::Refused(fault));
                    }
                    Err(fault) => last = fault.to_string(),
                }
            }
            if tokio::time::Instant::now() + pause >= deadline || self.peers.is_empty() {
                return Err(LedgerError::Unreachable { last });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Where the ledger stands.
    pub async fn status(&self) -> Result<ChainStatus, LedgerError> {
        let request = Request::Status { above: Height::ZERO, wait: DurationMs::ZERO };
        match self.ask(request, Payload::new()).await?.response {
            Response::Status(status) => {
                self.seen.fetch_max(status.height.get(), Ordering::Relaxed);
                Ok(status)
            }
            _ => Err(wrong_kind()),
        }
    }

    /// Waits until the node that answers has reached the newest height that this client knows of.
    async fn catch_up(&self) {
        let above = Height::new(self.seen.load(Ordering::Relaxed).saturating_sub(1));
        let request = Request::Status { above, wait: DurationMs::new(200) };
        if self.ask(request, Payload::new()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether an answer of this height is new enough; remembers it if so.
    fn is_fresh(&self, height: Height) -> bool {
        self.seen.fetch_max(height.get(), Ordering::Relaxed) <= height.get()
    }

    /// Records by key, all of one state.
    pub async fn records(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, LedgerError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        loop {
            let bounded = keys.iter().filter_map(|key| Bounded::new(key.clone())).collect();
            let bounded = Bounded::new(bounded).ok_or_else(wrong_kind)?;
            let reply = self.ask(Request::State { keys: bounded }, Payload::new()).await?;
            let Response::State { height, values } = reply.response else { return Err(wrong_kind()) };
            if values.len() != keys.len() {
                return Err(wrong_kind());
            }
            if self.is_fresh(height) {
                return Ok(values.into_vec().into_iter().map(|value| value.map(Bounded::into_vec)).collect());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(LedgerError::Unreachable { last: "the nodes that answer are behind".into() });
            }
            self.catch_up().await;
        }
    }

    /// One record, decoded.
    pub async fn record<T: Tagged>(&self, key: Vec<u8>) -> Result<Option<T>, LedgerError> {
        let value = self.records(&[key]).await?.pop().flatten();
        value.map(|bytes| decode(&bytes).map_err(|error| bad_record::<T>(&error))).transpose()
    }

    /// All records whose key begins with `prefix`, decoded.
    pub async fn scan<T: Tagged>(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, T)>, LedgerError> {
        let mut found = Vec::new();
        let mut after = Vec::new();
        loop {
            let (Some(prefix), Some(start)) = (Bounded::new(prefix.to_vec()), Bounded::new(after)) else {
                return Err(wrong_kind());
            };
            let reply = self.ask(Request::Scan { prefix, after: start }, Payload::new()).await?;
            let Response::Scan { records, more, .. } = reply.response else { return Err(wrong_kind()) };
            let Some(last) = records.last().map(|(key, _)| key.to_vec()) else { return Ok(found) };
            for (key, value) in records.into_vec() {
                let value = decode(&value).map_err(|error| bad_record::<T>(&error))?;
                found.push((key.into_vec(), value));
            }
            if !more {
                return Ok(found);
            }
            after = last;
        }
    }

    /// The rules of the network.
    pub async fn params(&self) -> Result<Params, LedgerError> {
        let network: Option<record::Network> = self.record(key::NETWORK.to_vec()).await?;
        network.map(|network| network.params).ok_or_else(wrong_kind)
    }

    /// The record of a contract.
    pub async fn contract(&self, id: &ContractId) -> Result<Option<record::Contract>, LedgerError> {
        self.record(key::contract(id)).await
    }

    /// The record of an account.
    pub async fn account(&self, id: &AccountId) -> Result<Option<record::Account>, LedgerError> {
        self.record(key::account(id)).await
    }

    /// All seeders there are.
    pub async fn seeders(&self) -> Result<Vec<record::Seeder>, LedgerError> {
        Ok(self.scan(key::SEEDERS).await?.into_iter().map(|(_, seeder)| seeder).collect())
    }

    /// The records of some seeders.
    pub async fn seeders_of(&self, ids: &[SeederId]) -> Result<Vec<record::Seeder>, LedgerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = ids.iter().map(key::seeder).collect();
        self.records(&keys)
            .await?
            .into_iter()
            .flatten()
            .map(|bytes| decode(&bytes).map_err(|error| bad_record::<record::Seeder>(&error)))
            .collect()
    }

    /// Sends a transaction that does no harm when it is made twice: leases, posts.
    pub async fn act(&self, action: Action) -> Result<Receipt, LedgerError> {
        let transaction = self.signed(action).await?;
        let reply = self.ask(Request::Submit, Payload::from(encode(&transaction))).await?;
        let Response::Applied(receipt) = reply.response else { return Err(wrong_kind()) };
        self.seen.fetch_max(receipt.height.get(), Ordering::Relaxed);
        Ok(receipt)
    }

    async fn signed(&self, action: Action) -> Result<Transaction, LedgerError> {
        let status = self.status().await?;
        let core = TxCore {
            policy: self.identity.policy(),
            key: IdempotencyKey::new(random_bytes()),
            expires: Height::new(status.height.get().saturating_add(LIFETIME_BLOCKS)),
            action,
        };
        Ok(core.sign(&self.chain, &[self.identity.account_key()]))
    }

    /// Does something once. `purpose` names it: a call with the same purpose after an interruption finishes the
    /// transaction that was sent then, instead of making another.
    pub async fn transact(&self, purpose: &str, action: Action) -> Result<Paid, LedgerError> {
        if let Some(paid) = self.resume(purpose).await? {
            return Ok(paid);
        }
        let transaction = self.signed(action).await?;
        self.db.set_named(TXS, purpose, &Pending { transaction: encode(&transaction) })?;
        let receipt = self.send(purpose, &transaction).await?;
        Ok(Paid { height: receipt.height, resumed: false })
    }

    /// Finishes what an interrupted call of this purpose left behind, if anything.
    pub async fn resume(&self, purpose: &str) -> Result<Option<Paid>, LedgerError> {
        let Some(pending) = self.db.named::<Pending>(TXS, purpose)? else { return Ok(None) };
        let transaction: Transaction = decode(&pending.transaction)
            .map_err(|error: DecodeError| LocalError::Database(error.to_string()))?;
        let reply = self.ask(Request::Receipt { key: transaction.core.key }, Payload::new()).await?;
        if let Response::Receipt(Some(receipt)) = reply.response {
            self.settled(purpose, &receipt)?;
            return Ok(Some(Paid { height: receipt.height, resumed: true }));
        }
        match self.send(purpose, &transaction).await {
            Ok(receipt) => Ok(Some(Paid { height: receipt.height, resumed: true })),
            // It was refused then, too, or has expired: it never counts, so a new one may be made.
            Err(LedgerError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, purpose: &str, transaction: &Transaction) -> Result<Receipt, LedgerError> {
        let reply = match self.ask(Request::Submit, Payload::from(encode(transaction))).await {
            Ok(reply) => reply,
            Err(error @ LedgerError::Refused(_)) => {
                self.db.remove_named(TXS, purpose)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let Response::Applied(receipt) = reply.response else { return Err(wrong_kind()) };
        self.settled(purpose, &receipt)?;
        Ok(receipt)
    }

    fn settled(&self, purpose: &str, receipt: &Receipt) -> Result<(), LedgerError> {
        self.seen.fetch_max(receipt.height.get(), Ordering::Relaxed);
        Ok(self.db.remove_named(TXS, purpose)?)
    }
}

fn wrong_kind() -> LedgerError {
    LedgerError::BadRecord { what: "an answer", reason: "it is of another kind than was asked for".into() }
}

fn bad_record<T: Tagged>(error: &DecodeError) -> LedgerError {
    LedgerError::BadRecord { what: T::NAME, reason: error.to_string() }
}
