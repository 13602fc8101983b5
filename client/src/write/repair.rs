//! Repair by the owner: vacant slots are given to new seeders, and every slice that a slot misses is made again from k
//! others and stored. Then a commit says so, and everybody who is whole countersigns it.
//!
//! Guarantees: a slice made again has the root that the lane has always named; one stripe is in memory at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes as Payload;
use tallow_types::codec::Bounded;
use tallow_types::commit::Leaf;
use tallow_types::fault::{Code, Fault};
use tallow_types::id::StripeId;
use tallow_types::tx::Action;
use tallow_types::unit::{LeafIndex, SlotIndex};
use tallow_types::wire::{Request, Response};

use super::committer::{Committer, Extent};
use super::countersign::Lanes;
use super::lanes::Standing;
use crate::damage::damaged;
use crate::error::{Blame, SessionError};
use crate::place;
use crate::progress::{Progress, Stage};
use crate::report::RepairReport;
use crate::seats::{Seat, seats};

/// What all lanes together may miss to be caught up at the start of a lease. Bytes.
const CATCH_UP_BYTES: u64 = 32 << 20;

/// What a seat misses.
struct Patient {
    seat: Seat,
    missing: BTreeSet<LeafIndex>,
    standing: Standing,
    failed: Option<String>,
}

impl Committer {
    /// Fills vacant slots and brings every lane up to the newest commit.
    pub async fn repair(
        &mut self,
        progress: &Arc<dyn Progress>,
        extent: Extent,
    ) -> Result<RepairReport, SessionError> {
        progress.stage(Stage::Leasing);
        self.take_session().await?;
        let mut report = RepairReport::default();
        self.fill_vacant(&mut report).await?;
        if extent == Extent::IfFilled && report.filled.is_empty() {
            return Ok(report);
        }
        progress.stage(Stage::Repairing);
        let mut patients = self.examine(&mut report).await?;
        self.treat(&mut patients, &mut report, progress).await?;
        let healed: Vec<&Patient> = patients.iter().filter(|patient| patient.failed.is_none()).collect();
        for patient in patients.iter().filter(|patient| patient.failed.is_some()) {
            let reason = patient.failed.clone().unwrap_or_default();
            report.failed.push(patient.seat.blame(reason));
        }
        if healed.is_empty() {
            return Ok(report);
        }
        self.seat_healed(&healed);
        let is_current = healed.iter().all(|patient| !matches!(patient.standing, Standing::Elsewhere(_)));
        let healed = healed.iter().map(|patient| patient.seat.slot);
        let healed: Vec<_> = healed.map(|slot| (slot, self.book.rows_mut().mark_present(slot))).collect();
        if is_current && healed.iter().all(|(_, marked)| marked.is_empty()) {
            // Damaged slices were put in their places: no lane has changed by that.
            report.caught_up.extend(healed.iter().map(|(slot, _)| slot.get()));
            return Ok(report);
        }
        progress.stage(Stage::Committing);
        let committed = self.commit_alone().await;
        let lost = self.works.uplink.lost();
        for (slot, marked) in healed {
            let blame = lost.iter().find(|blame| blame.slot == slot.get());
            if committed.is_err() || blame.is_some() {
                // What its seeder did not sign for, it need not keep.
                self.book.rows_mut().unmark_present(slot, &marked);
            }
            match blame {
                Some(blame) => report.failed.push(blame.clone()),
                None => report.caught_up.push(slot.get()),
            }
        }
        committed.map(|()| report)
    }

    /// At the start of a lease: lanes that miss little get it, so that they can sign the next commit. Whoever misses more, or
    /// does not take it at once, waits for a repair.
    pub async fn catch_up(&mut self) {
        let behind = match &self.session {
            Some(session) if !session.behind.is_empty() => session.behind.clone(),
            _ => return,
        };
        let caught = tokio::time::timeout(self.works.tuning.patience / 3, self.try_catch_up(&behind)).await;
        match caught {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "lanes that miss little could not be caught up"),
            Err(_) => tracing::warn!("lanes that miss little could not be caught up in time"),
        }
    }

    async fn try_catch_up(&mut self, behind: &BTreeSet<SlotIndex>) -> Result<(), SessionError> {
        let mut report = RepairReport::default();
        let mut patients = self.examine(&mut report).await?;
        let mut left = CATCH_UP_BYTES;
        patients.retain(|patient| {
            let lengths = patient.missing.iter().filter_map(|leaf| self.book.row(*leaf));
            let missing: u64 = lengths.map(|row| u64::from(row.slice_len)).sum();
            let fits = behind.contains(&patient.seat.slot) && missing <= left;
            left -= if fits { missing } else { 0 };
            fits
        });
        self.treat(&mut patients, &mut report, &super::uplink::silent()).await?;
        tracing::info!(slices = report.slices, bytes = report.bytes, "lanes were caught up");
        Ok(())
    }

    /// Gives vacant slots to seeders that accept.
    async fn fill_vacant(&mut self, report: &mut RepairReport) -> Result<(), SessionError> {
        let works = self.works.clone();
        let contract = works.chain.contract(&works.contract).await?;
        let contract = contract.ok_or(SessionError::NoContract(works.network))?;
        let vacant: Vec<SlotIndex> = contract.vacant().collect();
        if vacant.is_empty() {
            return Ok(());
        }
        let (accepted, refused) =
            place::fill(&works.chain, &works.caller, &works.network, &contract, &vacant).await?;
        report.failed.extend(refused);
        if accepted.is_empty() {
            for slot in &vacant {
                let reason = "vacant, and no seeder takes it on the contract's terms".to_owned();
                report.failed.push(Blame { slot: slot.get(), seeder: "vacant".into(), reason });
            }
            return Ok(());
        }
        let slots: Vec<u8> = accepted.iter().map(|signed| signed.acceptance.slot.get()).collect();
        let acceptances = Bounded::new(accepted).unwrap_or_default();
        let purpose = format!("fill {}", works.contract);
        let action = Action::Fill { contract: works.contract, acceptances };
        works.chain.transact(&purpose, action).await?;
        report.filled = slots;
        Ok(())
    }

    /// Every held slot that is not whole, with what it misses.
    async fn examine(&mut self, report: &mut RepairReport) -> Result<Vec<Patient>, SessionError> {
        let works = self.works.clone();
        let contract = works.chain.contract(&works.contract).await?;
        let contract = contract.ok_or(SessionError::NoContract(works.network))?;
        let ids: Vec<_> = contract.lanes().map(|(_, lane)| lane.seeder).collect();
        let everybody = seats(&contract, &works.chain.seeders_of(&ids).await?);
        let base = self.book.commit.clone();
        let Some(session) = &mut self.session else { return Err(SessionError::LeaseLost) };
        session.fetcher.seats.clone_from(&everybody);
        let lanes = Lanes::new(base);
        let straggler = works.tuning.straggler;
        let told = damaged(&session.fetcher.caller, works.contract, &everybody, straggler).await;
        let mut patients = Vec::new();
        let asked = everybody.iter().map(|seat| async {
            let standing = lanes.ask(&session.fetcher, seat).await;
            (seat.clone(), standing)
        });
        for (seat, standing) in futures::future::join_all(asked).await {
            let Some(standing) = standing else {
                report.failed.push(seat.blame("it does not answer"));
                continue;
            };
            let present =
                |leaf: LeafIndex| self.book.row(leaf).is_some_and(|row| row.present.contains(seat.slot));
            let harmed = |told: &BTreeSet<StripeId>| -> BTreeSet<LeafIndex> {
                let rows = self.book.rows.iter().filter_map(|(leaf, row)| Some((leaf, row?)));
                rows.filter(|(_, row)| told.contains(&row.stripe)).map(|(leaf, _)| leaf).collect()
            };
            let harmed = told.get(&seat.slot).map(harmed).unwrap_or_default();
            let mut known: BTreeSet<LeafIndex> = match &standing {
                Standing::Base => {
                    let whole = (0..self.book.leaves().get()).map(LeafIndex::new);
                    let absent = whole.filter(|leaf| self.book.row(*leaf).is_some() && !present(*leaf));
                    // It signed the newest commit, so it has everything, whatever the index says.
                    if absent.count() == 0 && harmed.is_empty() {
                        continue;
                    }
                    (0..self.book.leaves().get()).map(LeafIndex::new).collect()
                }
                Standing::Signed(_) if harmed.is_empty() => continue,
                Standing::Signed(_) => (0..self.book.leaves().get()).map(LeafIndex::new).collect(),
                Standing::Elsewhere(leaves) => {
                    let target = self.book.lane(seat.slot).unwrap_or_default();
                    let same = leaves.iter().zip(&target).zip(0u64..).filter(|((old, new), _)| old == new);
                    same.map(|(_, leaf)| LeafIndex::new(leaf)).collect()
                }
            };
            known.retain(|leaf| !harmed.contains(leaf));
            let missing: BTreeSet<LeafIndex> = (0..self.book.leaves().get())
                .map(LeafIndex::new)
                .filter(|leaf| self.book.row(*leaf).is_some() && !known.contains(leaf))
                .collect();
            patients.push(Patient { seat, missing, standing, failed: None });
        }
        Ok(patients)
    }

    /// Makes missing slices again, stripe by stripe, and stores them.
    async fn treat(
        &self,
        patients: &mut [Patient],
        report: &mut RepairReport,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), SessionError> {
        let Some(session) = &self.session else { return Err(SessionError::LeaseLost) };
        let mut wanted: BTreeMap<LeafIndex, Vec<usize>> = BTreeMap::new();
        for (at, patient) in patients.iter().enumerate() {
            for leaf in &patient.missing {
                wanted.entry(*leaf).or_default().push(at);
            }
        }
        progress.expect(wanted.len() as u64, 0);
        for (leaf, who) in wanted {
            let Some(row) = self.book.row(leaf) else { continue };
            let sick: BTreeSet<SlotIndex> =
                patients.iter().filter(|p| p.missing.contains(&leaf)).map(|p| p.seat.slot).collect();
            let place = row.into();
            let columns = session.fetcher.verified(&place, &sick).await?;
            let slots: Vec<SlotIndex> = who.iter().map(|at| patients[*at].seat.slot).collect();
            let slices = session.fetcher.recreate(&place, &columns, &slots)?;
            for (at, bytes) in who.into_iter().zip(slices) {
                let patient = &mut patients[at];
                let Some(leaf) = row.leaf(patient.seat.slot).filter(|_| patient.failed.is_none()) else {
                    continue;
                };
                if tallow_proofs::slice::root(&bytes) != leaf.root {
                    return Err(SessionError::Internal("a slice made again has another root".into()));
                }
                let length = bytes.len() as u64;
                progress.moved(patient.seat.slot, &patient.seat.seeder, length);
                match self.store(&patient.seat, leaf, Payload::from(bytes)).await {
                    Ok(()) => {
                        report.slices += 1;
                        report.bytes += length;
                        progress.acknowledged(patient.seat.slot, &patient.seat.seeder, length);
                    }
                    Err(fault) => patient.failed = Some(fault.to_string()),
                }
            }
        }
        Ok(())
    }

    async fn store(&self, seat: &Seat, leaf: Leaf, bytes: Payload) -> Result<(), Fault> {
        let deadline = tokio::time::Instant::now() + self.works.tuning.patience;
        loop {
            let slices = Bounded::new(vec![leaf]).unwrap_or_default();
            let request = Request::Store { contract: self.works.contract, slot: seat.slot, slices };
            let fault = match self.works.caller.call(seat, request, bytes.clone()).await {
                Ok(reply) if reply.response == Response::Stored => return Ok(()),
                Ok(_) => Fault::new(Code::Garbage, "an answer of another kind"),
                Err(fault) => fault,
            };
            // A new holder's copy of the ledger may not know of its slot yet.
            let again = fault.is_retryable() || fault.code() == Code::NotFound;
            if !again || tokio::time::Instant::now() >= deadline {
                return Err(fault);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Lets the healed ones sign again.
    fn seat_healed(&mut self, healed: &[&Patient]) {
        let Some(session) = &mut self.session else { return };
        let mut sitting = self.works.uplink.seats();
        for patient in healed {
            // It may have announced other addresses since: it sits once all the same.
            sitting.retain(|seat| seat.slot != patient.seat.slot);
            sitting.push(patient.seat.clone());
            session.lanes.set(patient.seat.slot, patient.standing.clone());
        }
        self.works.uplink.set_seats(sitting);
    }
}
