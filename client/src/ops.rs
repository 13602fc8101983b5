//! Listing, health, removing, money, repair and restore.

use std::collections::BTreeSet;
use std::sync::Arc;

use tallow_ledger::{key, record};
use tallow_market::quote::{self, Funds, LaneCost};
use tallow_seal::entry::{Content, Kind};
use tallow_types::id::AccountId;
use tallow_types::tx::Action;
use tallow_types::unit::{Bytes, DurationMs, Epoch, Fuel, FuelPerMibEpoch, TimeMs};
use tokio::sync::oneshot;

use crate::book::Book;
use crate::client::{Client, Sight, gone};
use crate::damage::{Harm, damaged};
use crate::error::{Explain as _, GetError, PutError, SessionError};
use crate::gather::Whose;
use crate::get::lookup;
use crate::list::{Listing, content_leaves, folder, listed};
use crate::place::{ceiling, suited};
use crate::progress::{Progress, Silent, Stage};
use crate::put::Active;
use crate::report::{
    Balance, ContractReport, Listed, Paid, Quote, RepairReport, RestoreReport, RmReport, SlotReport, Stat,
};
use crate::write::committer::{Command, Extent};
use crate::write::group::Finish;

fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

impl Client {
    /// Lists what is below a path, or at it: direct children, or everything. An empty path means the top.
    ///
    /// # Errors
    /// The path isn't there, or the catalog can't be read.
    pub async fn ls(&self, prefix: &str, recursive: bool) -> Result<Vec<Listed>, GetError> {
        self.list(prefix, recursive).await?.collect()
    }

    /// The same one by one, as it is at this moment: what it takes does not depend on how much there is.
    ///
    /// # Errors
    /// The path isn't there, or the catalog can't be read.
    pub async fn list(&self, prefix: &str, recursive: bool) -> Result<Listing, GetError> {
        let (book, ..) = self.inner.view(silent(), Whose::Quorum).await?;
        Listing::new(self.inner.db.clone(), book, prefix, recursive)
    }

    /// What is known of one path, with the health of the contract that holds it. A folder is walked.
    ///
    /// # Errors
    /// The path isn't there, or the catalog can't be read.
    pub async fn stat(&self, path: &str) -> Result<Stat, GetError> {
        let (book, _, sight) = self.inner.view(silent(), Whose::Everybody).await?;
        let found = lookup(&book.entries, path)?;
        let entry = match book.entries.get(path)? {
            Some(entry) => listed(path, &entry),
            None => folder(path, &book.entries.sum(path)?),
        };
        let (mut files, mut bytes, mut inline, mut leaves) = (0, 0, 0, BTreeSet::new());
        for item in found {
            let Kind::File(content) = item?.1.kind else { continue };
            files += 1;
            bytes += content.size().get();
            inline += u64::from(matches!(content, Content::Inline(_)));
            leaves.extend(content_leaves(&content));
        }
        let contract = self.report(&book, &sight).await?;
        Ok(Stat { entry, files, bytes, stripes: leaves.len() as u64, inline, contract })
    }

    /// The health and the money of the account's contract.
    ///
    /// # Errors
    /// There is none, or it can't be reached.
    pub async fn contract(&self) -> Result<ContractReport, SessionError> {
        // Health must be told even when the catalog can't be read any more.
        match self.inner.view(silent(), Whose::Everybody).await {
            Ok((book, _, sight)) => self.report(&book, &sight).await,
            Err(SessionError::Unreadable { .. }) => {
                let sight = self.inner.sight(Whose::Everybody).await?;
                self.report(&Book::default(), &sight).await
            }
            Err(error) => Err(error),
        }
    }

    async fn report(&self, book: &Book, sight: &Sight) -> Result<ContractReport, SessionError> {
        let params = self.inner.chain.params().await?;
        let head: Option<record::Head> = self.inner.chain.record(key::HEAD.to_vec()).await?;
        let contract = &sight.contract;
        let profile = contract.terms.profile;
        let ids: Vec<_> = contract.lanes().map(|(_, lane)| lane.seeder).collect();
        let seeders = self.inner.chain.seeders_of(&ids).await?;
        let newest = sight.newest.as_ref().map(|signed| signed.commit.hash());
        let commit = sight.newest.as_ref().map(|signed| &signed.commit);
        let here: Vec<_> = sight.seats.iter().filter(|seat| sight.has_answered(seat.slot)).cloned().collect();
        let straggler = self.inner.options.tuning.straggler;
        let told = damaged(&self.inner.caller, contract.id, &here, straggler).await;
        let harm = Harm::new(book, told);
        let mut slots = Vec::new();
        for slot in profile.slot_indices() {
            let lane = contract.lane(slot);
            let answer = sight.answered.iter().find(|(other, _)| *other == slot).map(|(_, newest)| newest);
            let signed = answer.and_then(|signed| signed.as_ref());
            let record = lane.and_then(|lane| seeders.iter().find(|other| other.ask.seeder == lane.seeder));
            let missing = book.rows.lacks(slot);
            slots.push(SlotReport {
                slot: slot.get(),
                seeder: lane.map(|lane| lane.seeder),
                price: lane.map_or(FuelPerMibEpoch::ZERO, |lane| lane.price),
                region: record.map_or_else(String::new, |record| record.ask.region.as_str().to_owned()),
                online: answer.is_some(),
                current: answer.is_some() && signed.map(|signed| signed.commit.hash()) == newest,
                missing,
                damaged: harm.slices_of(slot),
                bytes: commit
                    .and_then(|commit| commit.slots.get(usize::from(slot.get())))
                    .map_or(Bytes::ZERO, |state| state.bytes),
            });
        }
        let count = |test: fn(&SlotReport) -> bool| {
            u8::try_from(slots.iter().filter(|slot| test(slot)).count()).unwrap_or(u8::MAX)
        };
        let (held, healthy) = (count(|slot| slot.seeder.is_some()), count(|slot| slot.current));
        let width = commit.map_or(held, |commit| commit.width);
        let lanes = contract.lanes().map(|(slot, lane)| LaneCost {
            price: lane.price,
            bytes: slots.get(usize::from(slot.get())).map_or(lane.bytes, |slot| slot.bytes.max(lane.bytes)),
        });
        let burn = quote::per_epoch(&params, lanes).unwrap_or(Fuel::MAX);
        let epoch = head.map_or(Epoch::ZERO, |head| head.epoch.epoch);
        let prepaid_until = contract.prepaid.map_or(epoch, |prepaid| prepaid.until);
        let paid_until = quote::paid_until(Funds { fuel: contract.fuel, prepaid_until, per_epoch: burn });
        let paid_until_time =
            paid_until.zip(head).and_then(|(until, head)| ends_at(until, &head, params.epoch));
        Ok(ContractReport {
            contract: contract.id,
            profile,
            phase: contract.phase.to_string(),
            held,
            healthy,
            width,
            can_lose: width.min(healthy).min(harm.narrowest).saturating_sub(profile.data()),
            commit: commit.map(tallow_types::commit::Commit::rank),
            stripes: book.rows.live(),
            stored: Bytes::new(
                slots.iter().filter(|slot| slot.seeder.is_some()).map(|slot| slot.bytes.get()).sum(),
            ),
            room: contract.terms.room,
            fuel: contract.fuel,
            burn,
            paid_until,
            paid_until_time,
            slots,
        })
    }

    /// Removes a blob, or with `recursive` a folder and everything below it. Its space is freed after a grace, when nothing
    /// else refers to it.
    ///
    /// # Errors
    /// The path isn't there; a folder without `recursive`; or the commit can't be made, and nothing is removed.
    pub async fn rm(&self, path: &str, recursive: bool) -> Result<RmReport, GetError> {
        let writer = self.inner.writer().await?;
        let _active = Active::begin(&writer.works.active);
        writer.ready().await?;
        let (book, ..) = self.inner.view(silent(), Whose::Quorum).await?;
        let found = lookup(&book.entries, path)?;
        let is_single = book.entries.sum(path)?.entries == 0;
        if !recursive && !is_single {
            return Err(GetError::NotAFile {
                path: path.to_owned(),
                what: "folder",
                wanted: "removed alone",
            });
        }
        let (mut changes, mut bytes) = (Vec::new(), 0);
        for item in found {
            let (path, entry) = item?;
            if let Kind::File(content) = &entry.kind {
                bytes += content.size().get();
            }
            changes.push((path, None));
        }
        let entries = changes.len() as u64;
        let (reply, answer) = oneshot::channel();
        writer
            .commands
            .send(Command::Finish(Finish { changes, usage: None, reply }))
            .await
            .map_err(|_| gone())?;
        let acked = answer.await.map_err(|_| gone())?.map_err(session_of)?;
        Ok(RmReport { entries, bytes, dead_stripes: acked.dead_stripes })
    }

    /// Adds fuel to the account's contract. A call that was interrupted and is made again with the same amount pays once.
    ///
    /// # Errors
    /// No contract, not enough money, or no ledger.
    pub async fn refuel(&self, amount: Fuel) -> Result<Paid, SessionError> {
        self.has_contract().await?;
        let action = Action::Refuel { contract: self.inner.contract, amount };
        Ok(self.inner.chain.transact(&format!("refuel {amount}"), action).await?)
    }

    /// Takes fuel back that the notice of the lanes doesn't need.
    ///
    /// # Errors
    /// No contract, not so much fuel, or no ledger.
    pub async fn withdraw(&self, amount: Fuel) -> Result<Paid, SessionError> {
        self.has_contract().await?;
        let action = Action::Withdraw { contract: self.inner.contract, amount };
        Ok(self.inner.chain.transact(&format!("withdraw {amount}"), action).await?)
    }

    /// Sends money to another account.
    ///
    /// # Errors
    /// Not enough money, or no ledger.
    pub async fn transfer(&self, to: AccountId, amount: Fuel) -> Result<Paid, SessionError> {
        let purpose = format!("transfer {to} {amount}");
        Ok(self.inner.chain.transact(&purpose, Action::Transfer { to, amount }).await?)
    }

    /// What the account has. An account that nobody ever paid has nothing.
    ///
    /// # Errors
    /// No ledger.
    pub async fn balance(&self) -> Result<Balance, SessionError> {
        let account = self.inner.options.identity.account();
        let free = self.inner.chain.account(&account).await?.map_or(Fuel::ZERO, |account| account.balance);
        let mut in_contracts = Fuel::ZERO;
        for (_, owned) in self.contracts().await? {
            if let Some(contract) = self.inner.chain.contract(&owned.contract).await? {
                let held = contract.fuel.checked_add(contract.escrow).unwrap_or(Fuel::MAX);
                in_contracts = in_contracts.checked_add(held).unwrap_or(Fuel::MAX);
            }
        }
        Ok(Balance { chain: self.inner.options.chain, account, free, in_contracts })
    }

    async fn contracts(&self) -> Result<Vec<(Vec<u8>, record::Owned)>, SessionError> {
        let prefix = key::owned_by(&self.inner.options.identity.account());
        let all = self.inner.chain.scan::<record::Owned>(&prefix).await?;
        Ok(all.into_iter().filter(|(_, owned)| !owned.closed).collect())
    }

    async fn has_contract(&self) -> Result<(), SessionError> {
        match self.inner.chain.contract(&self.inner.contract).await? {
            Some(_) => Ok(()),
            None => Err(SessionError::NoContract(self.inner.options.chain)),
        }
    }

    /// What storing so many bytes for so many epochs would cost: in the account's contract if it has one, or in a new one.
    ///
    /// # Errors
    /// No ledger.
    pub async fn quote(&self, bytes: u64, epochs: u64) -> Result<Quote, SessionError> {
        let params = self.inner.chain.params().await?;
        let seeders = self.inner.chain.seeders().await?;
        let plan = &self.inner.options.contract;
        let fitting = suited(&seeders, plan, ceiling(&seeders, plan));
        let contract = self.inner.chain.contract(&self.inner.contract).await?;
        let profile = contract.as_ref().map_or(plan.profile, |contract| contract.terms.profile);
        let prices: Vec<FuelPerMibEpoch> = match &contract {
            Some(contract) => contract.lanes().map(|(_, lane)| lane.price).collect(),
            None => {
                fitting.iter().map(|seeder| seeder.ask.price).take(usize::from(profile.slots())).collect()
            }
        };
        let unit = u64::from(tallow_types::limits::SLICE_UNIT);
        let lane = bytes.div_ceil(u64::from(profile.data())).div_ceil(unit) * unit;
        let before =
            contract.as_ref().and_then(|contract| contract.lanes().map(|(_, lane)| lane.bytes).max());
        let before = before.unwrap_or(Bytes::ZERO);
        let cost = |bytes: u64| {
            let lanes = prices.iter().map(|price| LaneCost { price: *price, bytes: Bytes::new(bytes) });
            quote::per_epoch(&params, lanes).unwrap_or(Fuel::MAX)
        };
        let per_epoch = match &contract {
            // What it adds: a lane that is held already pays its least fee anyway.
            Some(_) => cost(before.get() + lane).saturating_sub(cost(before.get())),
            None => cost(lane),
        };
        let total = Fuel::new(per_epoch.get().saturating_mul(u128::from(epochs)));
        Ok(Quote {
            profile,
            bytes,
            stored: Bytes::new(lane * u64::from(profile.slots())),
            epochs,
            per_epoch,
            total,
            deposit: if contract.is_some() { Fuel::ZERO } else { params.contract_deposit },
            seeders: fitting.len(),
        })
    }

    /// Gives vacant slots to new seeders and makes again whatever slots miss.
    ///
    /// # Errors
    /// Too few seeders answer, or fewer than k good slices of something are left.
    pub async fn repair(&self, progress: Arc<dyn Progress>) -> Result<RepairReport, SessionError> {
        progress.stage(Stage::Connecting);
        let writer = self.inner.writer().await?;
        let _active = Active::begin(&writer.works.active);
        let (reply, answer) = oneshot::channel();
        writer.commands.send(Command::Repair(reply, progress, Extent::Whole)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Finds everything that belongs to the phrase: money, contracts, and every blob of the catalog.
    ///
    /// # Errors
    /// [`SessionError::NoAccount`] if this phrase was never used on this network: never an empty store instead.
    pub async fn restore(&self, progress: Arc<dyn Progress>) -> Result<RestoreReport, SessionError> {
        progress.stage(Stage::Connecting);
        let account = self.inner.options.identity.account();
        let contracts: Vec<_> =
            self.contracts().await?.into_iter().map(|(_, owned)| owned.contract).collect();
        if contracts.is_empty() && self.inner.chain.account(&account).await?.is_none() {
            return Err(SessionError::NoAccount(self.inner.options.chain));
        }
        let balance = self.balance().await?;
        let (mut files, mut bytes) = (0, 0);
        if contracts.contains(&self.inner.contract) {
            progress.stage(Stage::Fetching);
            let (book, ..) = self.inner.view(progress, Whose::Quorum).await?;
            let all = book.entries.sum("")?;
            (files, bytes) = (all.files, all.bytes);
        }
        Ok(RestoreReport { balance, contracts, files, bytes })
    }
}

/// When an epoch ends, at the network's pace; halted time is not foreseen.
fn ends_at(until: Epoch, head: &record::Head, epoch: DurationMs) -> Option<TimeMs> {
    let whole = until.get().saturating_sub(head.epoch.epoch.get()).checked_mul(epoch.get())?;
    head.time.after(DurationMs::new(whole.saturating_sub(head.epoch.elapsed.get())))
}

fn session_of(error: PutError) -> GetError {
    GetError::Session(match error {
        PutError::Session(inner) => inner,
        other => SessionError::Shared { text: other.to_string(), kind: other.kind(), hint: other.hint() },
    })
}
