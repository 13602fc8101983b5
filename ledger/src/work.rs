//! What rules work on: the state as changed so far, with typed records and money that cannot be made or lost.

use std::fmt::Display;

use tallow_types::params::Params;
use tallow_types::{
    AccountId, ChainId, ContractId, Epoch, Fuel, Height, Incarnation, SeederId, Tagged, TimeMs, decode,
    encode,
};

use crate::block::BlockEnv;
use crate::key;
use crate::record::{Account, Contract, Network, Seeder, Supply};
use crate::refusal::Refusal;
use crate::state::{Overlay, ReadError, StateRead, Writes};

/// Why a rule stops.
#[derive(Debug)]
pub(crate) enum Stop<R = Refusal> {
    /// The transaction or proof is at fault.
    Refused(R),
    /// The state cannot be read.
    Read(ReadError),
}

impl<R> From<ReadError> for Stop<R> {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

macro_rules! stops {
    ($refusal:ty: $($from:ty),*) => {$(
        impl From<$from> for Stop<$refusal> {
            fn from(refusal: $from) -> Self {
                Self::Refused(refusal.into())
            }
        }
    )*};
}
stops!(Refusal: Refusal, crate::refusal::OfferRefusal, crate::refusal::LanesRefusal);
stops!(Refusal: crate::refusal::LeaseRefusal, crate::refusal::CommitRefusal, tallow_types::sign::BadSignature);
stops!(crate::refusal::ProofRefusal: crate::refusal::ProofRefusal, tallow_types::sign::BadSignature);

/// Reads a record.
pub(crate) fn load<T: Tagged>(state: &dyn StateRead, key: &[u8]) -> Result<Option<T>, ReadError> {
    state.get(key)?.map(|bytes| decode(&bytes).map_err(ReadError::new)).transpose()
}

/// Reads a record that genesis wrote.
pub(crate) fn need<T: Tagged>(state: &dyn StateRead, key: &[u8]) -> Result<T, ReadError> {
    load(state, key)?.ok_or_else(|| ReadError::new(format_args!("there is no {}", T::NAME)))
}

/// A sum that only damaged records could overflow: all money together is below 2^100.
pub(crate) fn plus(a: Fuel, b: Fuel) -> Result<Fuel, ReadError> {
    a.checked_add(b).ok_or_else(|| damaged("a sum of money overflows"))
}

/// A difference that only damaged records could bring below zero.
pub(crate) fn minus(a: Fuel, b: Fuel) -> Result<Fuel, ReadError> {
    a.checked_sub(b).ok_or_else(|| damaged("an amount of money falls below zero"))
}

/// What only a damaged state, or a bug, leads to.
pub(crate) fn damaged(what: impl Display) -> ReadError {
    ReadError::new(format_args!("its records contradict each other: {what}"))
}

/// The state as changed so far, and the circumstances of the block.
pub(crate) struct Work<'a> {
    pub(crate) state: Overlay<'a>,
    pub(crate) chain: ChainId,
    pub(crate) params: Params,
    pub(crate) height: Height,
    pub(crate) time: TimeMs,
    pub(crate) incarnation: Incarnation,
    pub(crate) epoch: Epoch,
}

impl<'a> Work<'a> {
    /// Nothing changed yet.
    pub(crate) fn new(state: &'a dyn StateRead, env: &BlockEnv, epoch: Epoch) -> Result<Self, ReadError> {
        let network: Network = need(state, key::NETWORK)?;
        Ok(Self {
            state: Overlay::new(state),
            chain: network.chain,
            params: network.params,
            height: env.height,
            time: env.time,
            incarnation: env.incarnation,
            epoch,
        })
    }

    /// Does all of `step` or nothing.
    pub(crate) fn attempt<T, R>(
        &mut self,
        step: impl FnOnce(&mut Work<'_>) -> Result<T, Stop<R>>,
    ) -> Result<T, Stop<R>> {
        let mut inner = Work { state: Overlay::new(&self.state), ..*self };
        let value = step(&mut inner)?;
        let writes: Writes = inner.state.into_writes();
        self.state.absorb(writes);
        Ok(value)
    }

    pub(crate) fn load<T: Tagged>(&self, key: &[u8]) -> Result<Option<T>, ReadError> {
        load(&self.state, key)
    }

    pub(crate) fn save<T: Tagged>(&mut self, key: Vec<u8>, record: &T) {
        self.state.put(key, encode(record));
    }

    /// The next epoch.
    pub(crate) fn next_epoch(&self) -> Result<Epoch, ReadError> {
        self.epoch.next().ok_or_else(|| damaged("epochs end"))
    }

    // Money. Whoever takes it from one place puts it into another, or burns it.

    pub(crate) fn balance(&self, id: &AccountId) -> Result<Fuel, ReadError> {
        Ok(self.load::<Account>(&key::account(id))?.unwrap_or_default().balance)
    }

    fn set_balance(&mut self, id: &AccountId, balance: Fuel) {
        let key = key::account(id);
        if balance == Fuel::ZERO {
            self.state.remove(key);
        } else {
            self.save(key, &Account { balance });
        }
    }

    /// Takes money from an account, or refuses for want of it.
    pub(crate) fn take(&mut self, id: &AccountId, need: Fuel) -> Result<(), Stop> {
        let have = self.balance(id)?;
        let rest = have.checked_sub(need).ok_or(Refusal::Funds { account: *id, have, need })?;
        self.set_balance(id, rest);
        Ok(())
    }

    /// Puts money into an account.
    pub(crate) fn pay(&mut self, id: &AccountId, amount: Fuel) -> Result<(), ReadError> {
        if amount != Fuel::ZERO {
            let balance = plus(self.balance(id)?, amount)?;
            self.set_balance(id, balance);
        }
        Ok(())
    }

    /// Ends money.
    pub(crate) fn burn(&mut self, amount: Fuel) -> Result<(), ReadError> {
        let mut supply: Supply = need(&self.state, key::SUPPLY)?;
        supply.burned = plus(supply.burned, amount)?;
        self.save(key::SUPPLY.to_vec(), &supply);
        Ok(())
    }

    // Records.

    pub(crate) fn seeder(&self, id: &SeederId) -> Result<Option<Seeder>, ReadError> {
        self.load(&key::seeder(id))
    }

    /// A seeder that a lane names, so it must be there.
    pub(crate) fn seeder_of_lane(&self, id: &SeederId) -> Result<Seeder, ReadError> {
        self.seeder(id)?.ok_or_else(|| damaged("a lane's seeder has no record"))
    }

    pub(crate) fn save_seeder(&mut self, seeder: &Seeder) {
        self.save(key::seeder(&seeder.ask.seeder), seeder);
    }

    /// A contract, settled if it was due: until the boundary's cursor has passed, whoever touches a contract settles
    /// it first.
    pub(crate) fn contract(&mut self, id: &ContractId) -> Result<Contract, Stop> {
        let missing = Refusal::NoContract { contract: *id };
        let contract: Contract = self.load(&key::contract(id))?.ok_or(missing.clone())?;
        if contract.due.is_some_and(|due| due <= self.epoch) {
            return Ok(crate::settle::settle(self, contract)?.ok_or(missing)?);
        }
        Ok(contract)
    }

    /// A contract that is not being closed.
    pub(crate) fn open_contract(&mut self, id: &ContractId) -> Result<Contract, Stop> {
        let contract = self.contract(id)?;
        if contract.closing { Err(Refusal::Closing { contract: *id }.into()) } else { Ok(contract) }
    }

    /// A contract that is not being closed and that `sender` owns.
    pub(crate) fn own_contract(&mut self, id: &ContractId, sender: &AccountId) -> Result<Contract, Stop> {
        let contract = self.open_contract(id)?;
        if contract.terms.owner != *sender {
            return Err(Refusal::NotOwner { contract: *id, sender: *sender }.into());
        }
        Ok(contract)
    }

    pub(crate) fn save_contract(&mut self, contract: &Contract) {
        self.save(key::contract(&contract.id), contract);
    }

    /// Queues a contract to be settled at the boundary to `epoch`, unless it is settled sooner.
    pub(crate) fn queue(&mut self, contract: &mut Contract, epoch: Epoch) {
        if contract.due.is_some_and(|due| due <= epoch) {
            return;
        }
        self.unqueue(contract);
        contract.due = Some(epoch);
        self.state.put(key::due(epoch, &contract.id), Vec::new());
    }

    /// Takes a contract out of the queue.
    pub(crate) fn unqueue(&mut self, contract: &mut Contract) {
        if let Some(due) = contract.due.take() {
            self.state.remove(key::due(due, &contract.id));
        }
    }
}
