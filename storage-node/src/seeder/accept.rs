//! Taking a slot: what is checked before a seeder says yes, and what it remembers.

use tallow_ledger::record::{Contract, Seeder as SeederRecord};
use tallow_types::contract::{Acceptance, SignedAcceptance, Terms};
use tallow_types::fault::{Code, Fault};
use tallow_types::{Bytes, Height, Lease, SlotIndex};

use super::{Seeder, holds, lock, storage, unread};
use crate::store::{LaneKey, LaneRow, Origin};

/// How long an acceptance may wait for the ledger. Blocks.
const EXPIRES_AFTER: u64 = 512;

fn no(text: impl Into<String>) -> Fault {
    Fault::new(Code::Refused, text)
}

impl Seeder {
    /// Takes a slot if price and room allow. Nothing is reserved before the ledger has it.
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
        let entry = entry.ok_or_else(|| Fault::new(Code::Behind, "this seeder is not on the ledger yet"))?;
        let ask = &entry.ask;
        if ask.price > terms.price_ceiling {
            return Err(no(format!("price {} is above the ceiling {}", ask.price, terms.price_ceiling)));
        }
        let contract = self.contract(&id)?;
        match &contract {
            None => {}
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
            Some(_) => {}
        }
        self.check_room(terms.room, &entry)?;
        if let Some(lane) = self.known(key)? {
            self.amend(key, &lane, |row| LaneRow { origin: on_return(&row, contract.as_ref()), ..row })?;
        }
        let height = self.chain.status().height;
        let expires = Height::new(height.get().saturating_add(EXPIRES_AFTER));
        let mut pending = lock(&self.pending);
        pending.expire(height);
        pending.note(key, expires);
        drop(pending);
        let price = ask.price;
        let acceptance = Acceptance { contract: id, terms, slot, seeder: self.id(), price, expires };
        let signature = self.keypair.sign(&self.chain.id(), &acceptance);
        Ok(SignedAcceptance { acceptance, signature })
    }

    /// Room that the ledger reserved counts as if it were filled. What is merely accepted does not: the ledger reserves for
    /// whoever comes first.
    fn check_room(&self, room: Bytes, entry: &SeederRecord) -> Result<(), Fault> {
        let used = self.store.usage().map_err(storage)?.bytes();
        let free = self.store.free().map_err(unread)?;
        let left = entry.free().min(free.saturating_sub(entry.reserved.saturating_sub(used)));
        if room > left {
            let text = format!("no room for {room} bytes more: {left} are left");
            return Err(Fault::new(Code::DiskFull, text));
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
