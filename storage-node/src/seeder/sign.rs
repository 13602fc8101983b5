//! Promises and countersignatures: the rules of a lane, run on its records and made durable before anybody is told.

use tallow_types::commit::{Countersignature, Fence, Leaf, SignedCommit};
use tallow_types::fault::{Code, Fault};
use tallow_types::wire::LaneState;
use tallow_types::{LeafIndex, Lease, PublicKey, Signature};

use super::{Seeder, lock, refused};
use crate::lanes::{Answer, Change, Event};
use crate::store::{LaneKey, PutRequest, Slice};

/// A commit to countersign, and what comes with it.
pub struct Asked {
    /// Commits up to it.
    pub chain: Vec<SignedCommit>,
    /// How the lane gets there.
    pub change: Change,
    /// Whether leaves that were staged come before those that the change appends.
    pub staged: bool,
    /// Slices to keep first.
    pub slices: Vec<Slice>,
}

impl Seeder {
    /// Promises to refuse lower leases; with the lane as it stands. `None` from a seeder that has no records of it: the
    /// promise holds, but it does not say what it signed.
    ///
    /// # Errors
    /// A fault for the wire; nothing was promised.
    pub fn fence(
        &self,
        caller: PublicKey,
        key: LaneKey,
        lease: Lease,
    ) -> Result<Option<(Fence, Signature, LaneState)>, Fault> {
        match self.step(caller, key, Event::Fence { lease }, Vec::new())? {
            (Answer::Fenced { fence, signature }, Some(state)) => Ok(Some((fence, signature, state))),
            (Answer::Silent, _) => Ok(None),
            _ => Err(Fault::new(Code::Internal, "a fence was answered by something else")),
        }
    }

    /// Keeps what comes with a commit and countersigns it.
    ///
    /// # Errors
    /// A fault for the wire; nothing was signed.
    pub fn countersign(
        &self,
        caller: PublicKey,
        key: LaneKey,
        asked: Asked,
    ) -> Result<Countersignature, Fault> {
        let Asked { chain, mut change, staged, slices } = asked;
        let is_named = |slice: &Slice| change.appended.contains(&Some(*slice.leaf()));
        if !slices.iter().all(is_named) {
            return Err(Fault::new(Code::Malformed, "a slice comes with a commit that does not name it"));
        }
        let mut taken = Taken { seeder: self, key, count: 0 };
        if staged {
            let lease = self.check_writer(caller, key)?.lease;
            // Without them the commit is refused, unless it was signed before and only the answer got lost.
            let pages = lock(&self.staging).take(key, lease, change.keep);
            taken.count = pages.len();
            change = change.behind(pages);
        }
        match self.step(caller, key, Event::Countersign { chain, change }, slices)? {
            (Answer::Countersigned(signature), _) => Ok(signature),
            _ => Err(Fault::new(Code::Internal, "a commit was answered by something else")),
        }
    }

    /// Remembers a page of leaves for a commit of the lease holder.
    ///
    /// # Errors
    /// A fault for the wire.
    pub fn stage(
        &self,
        caller: PublicKey,
        key: LaneKey,
        (keep, from): (LeafIndex, LeafIndex),
        page: Vec<Option<Leaf>>,
    ) -> Result<(), Fault> {
        let lease = self.check_writer(caller, key)?.lease;
        lock(&self.staging).page(key, lease, (keep, from), page)
    }

    /// Runs the rules of a lane on an event, durably. With the state of the lane if it was fenced.
    fn step(
        &self,
        caller: PublicKey,
        key: LaneKey,
        event: Event,
        slices: Vec<Slice>,
    ) -> Result<(Answer, Option<LaneState>), Fault> {
        let grant = self.grant(key)?;
        let own = self.own(key, &grant)?;
        self.notice(key, &own, &grant)?;
        // A panic inside a step leaves the lane as it was: it changes in `apply` alone, after everything that can fail.
        let mut lane = lock(&own);
        if let Event::Countersign { chain, .. } = &event
            && let Some(SignedCommit { commit, .. }) = chain.last()
            && commit.slots.get(usize::from(key.slot.get())).is_some_and(|slot| slot.bytes > lane.bytes())
        {
            self.check_fuel_for_commit(key, commit)?;
        }
        let mut step = lane.handle(&self.keypair, &grant, caller, event)?;
        match step.update.take() {
            Some(update) if slices.is_empty() => self.store.update_lane(update).map_err(refused)?,
            Some(update) => {
                let request = self.put_request(key, slices, grant.room)?;
                let request = PutRequest { for_commit: true, ..request };
                self.store.put_with_lane(request, update).map_err(refused)?;
            }
            // It signed this very commit before, so it has the slices.
            None => {}
        }
        let answer = lane.apply(step);
        let is_fenced = matches!(answer, Answer::Fenced { .. });
        let state = if is_fenced { Some(self.state(key, &lane)?) } else { None };
        Ok((answer, state))
    }
}

/// Staged leaves in the hands of a step: they count until it has ended, whichever way.
struct Taken<'a> {
    seeder: &'a Seeder,
    key: LaneKey,
    count: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.seeder.staging).end(self.key, self.count);
    }
}
