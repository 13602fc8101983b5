//! What a seeder does of its own accord: offers itself, proves each epoch, frees what nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use tallow_ledger::key;
use tallow_ledger::record::{Contract, Network};
use tallow_types::block::{EpochProof, SignedEpochProof};
use tallow_types::codec::BoundedBytes;
use tallow_types::commit::Rank;
use tallow_types::contract::{Address, Ask, Region, SignedAsk};
use tallow_types::fault::{Code, Fault};
use tallow_types::params::Params;
use tallow_types::policy::Policy;
use tallow_types::tx::{Action, Transaction, TxCore};
use tallow_types::{
    AccountId, Bounded, Bytes, ContractId, Epoch, EpochCount, FuelPerMibEpoch, Height, IdempotencyKey, Lease,
    Sequence, decode,
};

use super::{Seeder, holds, refused, storage};
use crate::store::{LaneKey, LaneRow, LaneUpdate, Origin, Swept, judge};

/// A slice in no commit stays for an epoch, and at least this long: an upload that was interrupted can go on. Milliseconds
/// of the ledger's time.
const GRACE_MS: u64 = 600_000;
/// Slices freed by one write.
const SWEEP_MAX: usize = 4096;
/// How many blocks an offer may wait.
const OFFER_EXPIRES_AFTER: u64 = 512;

/// What a seeder asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who earns; the seeder's own account if not said.
    pub payout: Option<AccountId>,
    /// What one MiB costs for one epoch.
    pub price: FuelPerMibEpoch,
    /// Where the disk is.
    pub region: Region,
    /// How long before leaving it says so.
    pub notice: EpochCount,
    /// How many bytes it will hold in all.
    pub room: Bytes,
}

/// Whether the ledger has the newest terms.
#[derive(Debug)]
pub enum Offered {
    /// It has.
    Yes,
    /// This would tell it.
    Not(Box<Transaction>),
}

impl Seeder {
    /// The account that pays for offers and backs lanes.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy::Key(self.keypair.public())
    }

    /// Compares the ledger's entry with what this seeder asks for now.
    ///
    /// # Errors
    /// A fault of the ledger's file.
    pub fn offer(&self, terms: &Terms, addresses: &[Address]) -> Result<Offered, Fault> {
        let entry = self.entry()?;
        let sequence = entry.as_ref().map_or(Some(Sequence::new(1)), |entry| entry.ask.sequence.next());
        let sequence = sequence.ok_or_else(|| Fault::new(Code::Internal, "the ask was changed too often"))?;
        let addresses: Vec<_> = addresses.iter().take(tallow_types::limits::ADDRESSES_MAX).cloned().collect();
        let ask = Ask {
            seeder: self.id(),
            sequence,
            payout: terms.payout.unwrap_or_else(|| self.policy().account()),
            price: terms.price,
            region: terms.region.clone(),
            notice: terms.notice,
            room: terms.room,
            addresses: super::fitted(addresses),
        };
        if entry.is_some_and(|entry| Ask { sequence, ..entry.ask } == ask) {
            return Ok(Offered::Yes);
        }
        let mut random = [0; IdempotencyKey::LEN];
        getrandom::fill(&mut random).map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
        let chain = self.chain.id();
        let signature = self.keypair.sign(&chain, &ask);
        let core = TxCore {
            policy: self.policy(),
            key: IdempotencyKey::new(random),
            expires: Height::new(self.chain.status().height.get().saturating_add(OFFER_EXPIRES_AFTER)),
            action: Action::Offer(SignedAsk { ask, signature }),
        };
        Ok(Offered::Not(Box::new(core.sign(&chain, &[&self.keypair]))))
    }

    /// The network's rules.
    ///
    /// # Errors
    /// A fault of the ledger's file.
    pub fn params(&self) -> Result<Params, Fault> {
        let network: Option<Network> = self.record(key::NETWORK)?;
        Ok(network.ok_or_else(|| Fault::new(Code::Storage, "the ledger here has no rules"))?.params)
    }

    /// The message of this epoch, if the window is open, a lane is held, and `last` is not this epoch.
    ///
    /// # Errors
    /// A fault of the ledger's file.
    pub fn proof(&self, last: Option<Epoch>) -> Result<Option<SignedEpochProof>, Fault> {
        let head = self.head()?;
        let epoch = head.epoch.epoch;
        let lanes = self.entry()?.map_or(0, |entry| entry.lanes);
        if last == Some(epoch) || lanes == 0 || !head.epoch.is_open(&self.params()?) {
            return Ok(None);
        }
        let proof = EpochProof {
            epoch,
            seeder: self.id(),
            samples: Bounded::empty(),
            capacity: BoundedBytes::empty(),
        };
        let signature = self.keypair.sign(&self.chain.id(), &proof);
        Ok(Some(SignedEpochProof { proof, signature }))
    }

    /// Writes down which lanes the ledger gives this seeder and it has no records of: whatever it signed for them, it
    /// signed in leases up to the present ones. To be called when the ledger is known up to now.
    ///
    /// # Errors
    /// A fault of ledger or store.
    pub fn adopt(&self) -> Result<usize, Fault> {
        self.adopted.store(true, Ordering::Release);
        let (mut after, mut lost) = (Vec::new(), 0);
        loop {
            let page = self.chain.scan(key::CONTRACTS, &after, 256)?;
            let Some((last, _)) = page.last() else { return Ok(lost) };
            after.clone_from(last);
            for (_, bytes) in page {
                let contract: Contract =
                    decode(&bytes).map_err(|error| Fault::new(Code::Storage, error.to_string()))?;
                let mine = contract.lanes().filter(|(_, lane)| lane.seeder == self.id());
                for (slot, _) in mine.collect::<Vec<_>>() {
                    let key = LaneKey { contract: contract.id, slot };
                    let grant = self.grant(key)?;
                    match self.known(key)? {
                        Some(lane) => self.notice(key, &lane, &grant)?,
                        None => {
                            self.own(key, &grant)?;
                            lost += 1;
                        }
                    }
                }
            }
        }
    }

    /// Contracts of which this seeder holds a lane, by the ledger and by what is here.
    ///
    /// # Errors
    /// A fault of ledger or store.
    pub fn contracts(&self) -> Result<BTreeSet<ContractId>, Fault> {
        let mut held = BTreeSet::new();
        for lane in self.lanes_here()? {
            let contract = self.contract(&lane.contract)?;
            if contract.is_some_and(|contract| holds(&contract, lane.slot, self.id())) {
                held.insert(lane.contract);
            }
        }
        Ok(held)
    }

    /// Frees slices in no commit that are old enough, slices that an active commit left out, and lanes that the ledger
    /// gave to others. To be called once an epoch, when the ledger is known up to now.
    ///
    /// # Errors
    /// A fault of ledger or store.
    pub fn sweep(&self) -> Result<Swept, Fault> {
        let epoch = self.head()?.epoch.epoch;
        let grace = GRACE_MS.div_ceil(self.params()?.epoch.get().max(1));
        let mut active = BTreeMap::new();
        let mut total = Swept::default();
        for lane in self.lanes_here()? {
            let contract = self.contract(&lane.contract)?;
            if contract.as_ref().is_some_and(|contract| holds(contract, lane.slot, self.id())) {
                let rank = contract.and_then(|contract| contract.active).map(|active| active.rank);
                active.insert(lane, self.settled(lane, rank)?);
            } else if self.is_orphaned(lane, epoch)? {
                add(&mut total, self.forget(lane)?);
            }
        }
        loop {
            let active = active.clone();
            let rule = move |key: &crate::store::SliceKey, state| {
                judge(state, epoch, grace, active.get(&key.lane()).copied().flatten())
            };
            let swept = self.store.sweep(SWEEP_MAX, Box::new(rule)).map_err(refused)?;
            add(&mut total, swept);
            if !swept.more {
                return Ok(total);
            }
        }
    }

    fn lanes_here(&self) -> Result<Vec<LaneKey>, Fault> {
        let mut lanes = self.store.lanes_with_slices().map_err(storage)?;
        lanes.extend(self.store.lanes().map_err(storage)?.into_iter().map(|(key, _)| key));
        // What was accepted and is on the ledger by now gets its records here, before anybody asks for it.
        let mut pending = super::lock(&self.pending);
        pending.expire(self.chain.status().height);
        let accepted = pending.keys();
        drop(pending);
        for key in accepted {
            if self.contract(&key.contract)?.is_some_and(|contract| holds(&contract, key.slot, self.id())) {
                lanes.push(key);
            }
        }
        lanes.sort_unstable();
        lanes.dedup();
        Ok(lanes)
    }

    /// Notes that the ledger has a lane, and answers the rank of its active commit if this seeder has come as far: what a
    /// commit up to that one left out is in no root that can still be asked for.
    fn settled(&self, key: LaneKey, active: Option<Rank>) -> Result<Option<Rank>, Fault> {
        let lane = match self.known(key)? {
            Some(lane) => lane,
            None => self.own(key, &self.grant(key)?)?,
        };
        self.amend(key, &lane, |row| LaneRow { expires: None, orphan: None, ..row })?;
        let newest = super::lock(&lane).row().newest.map(|(_, rank)| rank);
        Ok(active.filter(|active| newest.is_some_and(|newest| *active <= newest)))
    }

    /// Whether a lane that the ledger does not give to this seeder can go.
    fn is_orphaned(&self, key: LaneKey, epoch: Epoch) -> Result<bool, Fault> {
        let Some(lane) = self.known(key)? else {
            let row = LaneRow::new(Origin::Lost { floor: Lease::NONE }, Bytes::ZERO, None);
            let row = LaneRow { orphan: Some(epoch), ..row };
            self.store.update_lane(LaneUpdate::row(key, row)).map_err(refused)?;
            return Ok(false);
        };
        let height = self.chain.status().height;
        self.amend(key, &lane, |row| match row.expires {
            // It may still come onto the ledger.
            Some(expires) if height <= expires => row,
            _ => LaneRow { orphan: row.orphan.or(Some(epoch)), ..row },
        })?;
        let orphan = super::lock(&lane).row().orphan;
        Ok(orphan.is_some_and(|since| epoch.since(since).get() > 1))
    }

    fn forget(&self, key: LaneKey) -> Result<Swept, Fault> {
        // No new promise for it while the old ones go.
        let _accepting = super::lock(&self.accepting);
        let mut total = Swept::default();
        loop {
            let swept = self.store.remove_lane(key, SWEEP_MAX).map_err(refused)?;
            add(&mut total, swept);
            if !swept.more {
                self.lanes().remove(&key);
                tracing::info!(contract = key.contract.short(), slot = %key.slot, "lane is over");
                return Ok(total);
            }
        }
    }
}

fn add(total: &mut Swept, part: Swept) {
    total.slices += part.slices;
    total.bytes = Bytes::new(total.bytes.get().saturating_add(part.bytes.get()));
}
