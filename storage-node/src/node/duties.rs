//! The loops that do a seeder's duties whenever the ledger moves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tallow_consensus::Chain;
use tallow_consensus::validator::Handle;
use tallow_types::block::SignedEpochProof;
use tallow_types::contract::Address;
use tallow_types::encode;
use tallow_types::fault::{Code, Fault};
use tallow_types::tx::Transaction;
use tallow_types::wire::Request;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{PAUSE_MAX, PAUSE_MIN};
use crate::seeder::{Offered, Seeder, Terms, blocking};
use crate::upstream::Upstream;

/// How a seeder reaches whoever makes blocks.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) validator: Option<Handle>,
    pub(super) upstream: Upstream,
}

impl Way {
    async fn submit(&self, tx: Transaction) -> Result<(), Fault> {
        match &self.validator {
            Some(validator) => validator.submit(tx).await.map(drop),
            None => self.upstream.call(&Request::Submit, &Bytes::from(encode(&tx))).await.map(drop),
        }
    }

    async fn prove(&self, proof: SignedEpochProof) -> Result<(), Fault> {
        match &self.validator {
            Some(validator) => validator.prove(proof).await,
            None => self.upstream.call(&Request::Prove, &Bytes::from(encode(&proof))).await.map(drop),
        }
    }
}

/// Starts all duties. Answers whether the ledger has the seeder's newest terms.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    seeder: &Arc<Seeder>,
    chain: &Arc<Chain>,
    way: Way,
    (terms, addresses): (Terms, Vec<Address>),
    synced: &watch::Receiver<bool>,
) -> watch::Receiver<bool> {
    let (offered, is_offered) = watch::channel(false);
    let (one, two, three) = (seeder.clone(), seeder.clone(), seeder.clone());
    let (tips, epochs) = (chain.subscribe(), chain.subscribe());
    let (then, later) = (synced.clone(), synced.clone());
    let (compared, is_compared) = watch::channel(false);
    let sender = way.clone();
    tasks.spawn(async move {
        // Whoever sees the offer may ask for an acceptance, which needs the lanes compared.
        if is_set(is_compared).await {
            offer(&one, &sender, &terms, &addresses).await;
            offered.send_replace(true);
        }
        // The receiver must not see the sender go while the node runs.
        std::future::pending::<()>().await;
    });
    tasks.spawn(async move {
        if is_set(then).await {
            prove(&two, &way, tips).await;
        }
    });
    tasks.spawn(async move {
        if is_set(later).await {
            compare(&three).await;
            compared.send_replace(true);
            sweep(&three, epochs).await;
        }
    });
    is_offered
}

/// Says in the table of nodes which contracts are held here, whenever an epoch ends: whoever lost the ledger finds them.
pub(super) fn announce(
    tasks: &mut JoinSet<()>,
    seeder: &Arc<Seeder>,
    chain: &Arc<Chain>,
    net: &Arc<tallow_net::Node>,
    synced: &watch::Receiver<bool>,
) {
    let (seeder, net) = (seeder.clone(), net.clone());
    let (mut tip, synced) = (chain.subscribe(), synced.clone());
    tasks.spawn(async move {
        if !is_set(synced).await {
            return;
        }
        loop {
            let epoch = tip.borrow_and_update().epoch;
            let own = seeder.clone();
            match blocking(move || own.contracts()).await {
                Ok(held) => net.announce(held).await,
                Err(fault) => tracing::warn!(%fault, "what is held here is not announced"),
            }
            if tip.wait_for(|status| status.epoch > epoch).await.is_err() {
                return;
            }
        }
    });
}

async fn is_set(mut flag: watch::Receiver<bool>) -> bool {
    flag.wait_for(|set| *set).await.is_ok()
}

/// Tells the ledger what the seeder asks for, until it has it. A seeder that can't pay yet waits, quietly.
async fn offer(seeder: &Arc<Seeder>, way: &Way, terms: &Terms, addresses: &[Address]) {
    let mut pause = PAUSE_MIN;
    let mut said = None;
    loop {
        let (own, terms, addresses) = (seeder.clone(), terms.clone(), addresses.to_vec());
        let outcome = match blocking(move || own.offer(&terms, &addresses)).await {
            Ok(Offered::Yes) => return,
            Ok(Offered::Not(tx)) => way.submit(*tx).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = outcome {
            if said != Some(fault.code()) {
                tracing::info!(%fault, "the ledger does not take this seeder's offer yet");
                said = Some(fault.code());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        } else {
            // Applied where blocks are made; the loop ends when it is known here.
            tokio::time::sleep(PAUSE_MIN).await;
        }
    }
}

/// Sends one message an epoch, as early in its window as the ledger shows it.
async fn prove(seeder: &Arc<Seeder>, way: &Way, mut tip: watch::Receiver<tallow_types::wire::ChainStatus>) {
    let mut last = None;
    loop {
        tip.mark_unchanged();
        let own = seeder.clone();
        let failed = match blocking(move || own.proof(last)).await {
            Ok(None) => None,
            Ok(Some(proof)) => {
                let epoch = proof.proof.epoch;
                match way.prove(proof).await {
                    Ok(()) => {
                        last = Some(epoch);
                        None
                    }
                    // The ledger has judged it: nothing that is sent again changes that.
                    Err(fault) if !fault.is_retryable() && fault.code() != Code::Unsupported => {
                        tracing::warn!(%epoch, %fault, "epoch proof was refused");
                        last = Some(epoch);
                        None
                    }
                    Err(fault) => Some(fault),
                }
            }
            Err(fault) => Some(fault),
        };
        if let Some(fault) = failed {
            tracing::debug!(%fault, "epoch proof is sent again");
            tokio::time::sleep(PAUSE_MIN).await;
        } else if tip.changed().await.is_err() {
            return;
        }
    }
}

/// Finds lanes of the ledger that have no records here.
async fn compare(seeder: &Arc<Seeder>) {
    let own = seeder.clone();
    match blocking(move || own.adopt()).await {
        Ok(0) => {}
        Ok(lost) => tracing::warn!(lost, "lanes without records: each is served from its next lease on"),
        Err(fault) => tracing::error!(%fault, "lanes can't be compared with the ledger"),
    }
}

/// Frees what nobody needs, once an epoch.
async fn sweep(seeder: &Arc<Seeder>, mut tip: watch::Receiver<tallow_types::wire::ChainStatus>) {
    loop {
        let epoch = tip.borrow_and_update().epoch;
        let own = seeder.clone();
        match blocking(move || own.sweep()).await {
            Ok(swept) if swept.slices > 0 => {
                tracing::info!(slices = swept.slices, bytes = %swept.bytes, "freed what nobody needs");
            }
            Ok(_) => {}
            Err(fault) => {
                tracing::error!(%fault, "sweep failed");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        if tip.wait_for(|status| status.epoch > epoch).await.is_err() {
            return;
        }
    }
}
