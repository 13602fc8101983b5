//! Taking a slot: what is checked before a seeder says yes, and what it remembers.

use tallow_ledger::record::Contract;
use tallow_types::contract::{Acceptance, SignedAcceptance, Terms};
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::ACCEPTANCES_WAITING_MAX;
use tallow_types::{Bytes, Height, Lease, SlotIndex};

use super::{Seeder, holds, is_new, lock, refused, storage, unread};
use crate::store::{LaneKey, LaneRow, LaneUpdate, Origin};

/// How long an acceptance may wait for the ledger. Blocks.
const EXPIRES_AFTER: u64 = 512;

fn no(text: impl Into<String>) -> Fault {
    Fault::new(Code::Refused, text)
}

impl Seeder {
    /// Takes a slot if price and room allow. The room stays promised until the acceptance expires.
    ///
    /// # Errors
    /// A fault for the wire that says why not.
    pub fn accept(&self, terms: Terms, slot: SlotIndex) -> Result<SignedAcceptance, Fault> {
        self.check_adopted()?;
        let _accepting = lock(&self.accepting);
        let id = terms.contract(&self.chain.id());
        let key = LaneKey { contract: id, slot };
        if slot.get() >= terms.profile.slots() {
            return Err(Fault::new(Code::Malformed, "the contract has no such slot"));
        }
        let entry = self.entry()?;
        let ask = entry.ok_or_else(|| Fault::new(Code::Behind, "this seeder is not on the ledger yet"))?.ask;
        if ask.price > terms.price_ceiling {
            return Err(no(format!("price {} is above the ceiling {}", ask.price, terms.price_ceiling)));
        }
        let contract = self.contract(&id)?;
        let origin = match &contract {
            None => Origin::Founder,
            Some(contract) if contract.terms != terms => {
                return Err(no("these are not the contract's terms"));
            }
            Some(contract) if holds(contract, slot, self.id()) => {
                return Err(no("the slot is held already"));
            }
            Some(contract) if contract.lane(slot).is_some() => return Err(no("the slot is not vacant")),
            Some(contract) if contract.lanes().any(|(_, lane)| lane.seeder == self.id()) => {
                return Err(no("this seeder holds another slot of the contract"));
            }
            Some(contract) if is_new(contract, slot) => Origin::Founder,
            Some(_) => Origin::Joiner,
        };
        self.check_room(key, terms.room, ask.room)?;
        let height = self.chain.status().height;
        let expires = Height::new(height.get().saturating_add(EXPIRES_AFTER));
        let promise = LaneRow { orphan: None, ..LaneRow::new(origin, terms.room, Some(expires)) };
        match self.known(key)? {
            None => self.store.update_lane(LaneUpdate::row(key, promise)).map_err(refused)?,
            Some(lane) => self.amend(key, &lane, |row| LaneRow {
                room: row.room.max(terms.room),
                expires: row.expires.max(Some(expires)),
                orphan: None,
                origin: on_return(&row, contract.as_ref()),
                ..row
            })?,
        }
        let price = ask.price;
        let acceptance = Acceptance { contract: id, terms, slot, seeder: self.id(), price, expires };
        let signature = self.keypair.sign(&self.chain.id(), &acceptance);
        Ok(SignedAcceptance { acceptance, signature })
    }

    /// Room that is promised counts as if it were filled.
    fn check_room(&self, key: LaneKey, room: Bytes, offered: Bytes) -> Result<(), Fault> {
        let lanes = self.store.lanes().map_err(storage)?;
        let pending = lanes.iter().filter(|(other, row)| *other != key && row.expires.is_some()).count();
        if pending >= ACCEPTANCES_WAITING_MAX {
            return Err(Fault::new(Code::Busy, "too many acceptances wait for the ledger"));
        }
        // Of one contract a seeder holds at most one slot, however many it has accepted.
        let others =
            lanes.iter().filter(|(other, row)| other.contract != key.contract && row.orphan.is_none());
        let promised = others.fold(0u64, |sum, (_, row)| sum.saturating_add(row.room.get()));
        let used = self.store.usage().map_err(storage)?.bytes();
        let free = self.store.free().map_err(unread)?.get();
        let waiting = promised.saturating_sub(used.get());
        if promised.saturating_add(room.get()) > offered.get() || waiting.saturating_add(room.get()) > free {
            let left = offered.get().saturating_sub(promised).min(free.saturating_sub(waiting));
            return Err(Fault::new(
                Code::DiskFull,
                format!("no room for {room} bytes more: {left} are left"),
            ));
        }
        Ok(())
    }
}

/// What the records of a lane are worth that the ledger does not give to this seeder now. Others may have held the slot
/// since: what was signed then is not known here, so the seeder keeps its promises and is silent, as one that lost its
/// records.
fn on_return(row: &LaneRow, contract: Option<&Contract>) -> Origin {
    let Some((_, newest)) = row.newest else { return row.origin };
    let granted = contract.map_or(Lease::NONE, |contract| contract.lease.last);
    Origin::Lost { floor: granted.max(row.fence).max(newest.lease) }
}
