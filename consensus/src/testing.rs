//! A small network for this crate's tests: one validator, three rich accounts, and a disk that loses what was not synced.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use tallow_proofs::beacon::{self, R255, Vrf};
use tallow_types::params::{Genesis, Params, Validator as Member};
use tallow_types::policy::Policy;
use tallow_types::sign::Keypair;
use tallow_types::tx::{Action, Transaction, TxCore};
use tallow_types::{AccountId, Bounded, Fuel, Height, IdempotencyKey, TimeMs};

use crate::chain::{Chain, Options};
use crate::clock::Clock;
use crate::validator::{Answer, Config, Event, Guard, Runner, Seat, Ticket};

/// When the test network begins.
pub const START: u64 = 1_700_000_000_000;

pub fn key(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

pub fn account(n: u8) -> AccountId {
    Policy::Key(key(n).public()).account()
}

/// The validator has key 1, the accounts have keys 10 to 12.
pub fn genesis() -> Genesis {
    let member = Member { key: key(1).public(), vrf_key: R255::public(&R255::secret(&[1; 32])), weight: 1 };
    Genesis {
        time: TimeMs::new(START),
        params: Params::dev(),
        validators: Bounded::new(vec![member]).expect("one"),
        endowments: Bounded::new((10..13).map(|n| (account(n), Fuel::new(1 << 60))).collect()).expect("few"),
        salt: [5; 16],
    }
}

pub fn config(clock: Clock) -> Config {
    Config { signer: key(1), vrf: secret(), clock }
}

pub fn secret() -> beacon::Secret {
    R255::secret(&[1; 32])
}

/// A transfer from one of the accounts. `id` makes it one of its kind.
pub fn transfer(from: u8, to: u8, amount: u128, id: u64) -> Transaction {
    let mut bytes = [from; 16];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    let core = TxCore {
        policy: Policy::Key(key(from).public()),
        key: IdempotencyKey::new(bytes),
        expires: Height::new(50_000),
        action: Action::Transfer { to: account(to), amount: Fuel::new(amount) },
    };
    core.sign(&genesis().chain(), &[&key(from)])
}

pub fn options(keep_blocks: u64) -> Options {
    Options { keep_blocks, ..Options::default() }
}

/// A validator in a folder, driven by hand.
pub fn validator(dir: &Path, clock: Clock, keep: u64) -> Runner {
    let seat = crate::validator::open(dir, &genesis(), options(keep)).expect("opens");
    Runner::new(seat, config(clock)).expect("genesis names these keys")
}

/// A validator on a disk that can crash.
pub fn validator_on(ledger: &Disk, guard: &Disk, dir: &Path, clock: Clock) -> Option<Runner> {
    let chain = Chain::open_on(ledger.medium(), dir, &genesis(), options(32)).ok()?;
    let guard = Guard::open_on(guard.medium(), chain.id()).ok()?;
    let seat = Seat::new(chain, guard).ok()?;
    Some(Runner::new(seat, config(clock)).expect("genesis names these keys"))
}

/// Handles an event and then whatever is due at once, until the validator has nothing to do before `now`. Answers all
/// answers, in order.
pub fn drive(runner: &mut Runner, now: TimeMs, event: Event) -> Vec<(Ticket, Answer)> {
    let (mut answers, mut wake) = runner.handle(now, event).expect("the disk works");
    while wake == Some(std::time::Duration::ZERO) {
        let (more, next) = runner.handle(now, Event::Wake).expect("the disk works");
        answers.extend(more);
        wake = next;
    }
    answers
}

/// Random numbers from a seed: a failing test prints the seed, and that is enough.
pub struct Random(pub u64);

impl Random {
    /// The next number (SplitMix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A moment after the start.
pub fn at(ms: u64) -> TimeMs {
    TimeMs::new(START + ms)
}

/// A disk in memory that keeps what was synced apart from what was only written, and can lose the latter.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What a reader sees now.
    seen: Vec<u8>,
    /// What is sure to be there after a crash.
    durable: Vec<u8>,
    /// What was done since, in order.
    pending: Vec<Op>,
    /// Writes and syncs until the power fails; `None` for never.
    left: Option<u64>,
    /// Bumped by a crash, so that handles from before it are dead.
    life: u64,
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    Length(usize),
}

fn perform(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write(offset, data) => {
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[*offset..offset + data.len()].copy_from_slice(data);
        }
        Op::Length(len) => bytes.resize(*len, 0),
    }
}

impl Disk {
    pub fn medium(&self) -> Medium {
        Medium { disk: self.clone(), life: self.0.lock().expect("no test panics in it").life }
    }

    /// Lets the power fail after so many more writes and syncs.
    pub fn fail_after(&self, ops: u64) {
        self.0.lock().expect("no test panics in it").left = Some(ops);
    }

    /// Bytes of the file.
    pub fn len(&self) -> usize {
        self.0.lock().expect("no test panics in it").seen.len()
    }

    /// The power is off: of what was not synced, each write is there, torn or gone, as `chance` says.
    pub fn crash(&self, mut chance: impl FnMut() -> u8) {
        let mut platter = self.0.lock().expect("no test panics in it");
        let mut bytes = std::mem::take(&mut platter.durable);
        for op in std::mem::take(&mut platter.pending) {
            match (chance() % 3, op) {
                (0, _) => {}
                (1, Op::Write(offset, data)) => {
                    let keep = data.len() * usize::from(chance()) / 256;
                    perform(&mut bytes, &Op::Write(offset, data[..keep].to_vec()));
                }
                (_, op) => perform(&mut bytes, &op),
            }
        }
        platter.seen.clone_from(&bytes);
        platter.durable = bytes;
        platter.left = None;
        platter.life += 1;
    }
}

/// One handle of a disk.
#[derive(Debug)]
pub struct Medium {
    disk: Disk,
    life: u64,
}

impl Medium {
    fn with<T>(&self, changes: bool, act: impl FnOnce(&mut Platter) -> T) -> io::Result<T> {
        let mut platter = self.disk.0.lock().expect("no test panics in it");
        if platter.life != self.life || platter.left == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        if changes {
            platter.left = platter.left.map(|left| left - 1);
        }
        Ok(act(&mut platter))
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        self.with(false, |platter| platter.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).expect("a small file");
        self.with(false, |platter| {
            let bytes = platter.seen.get(start..start + out.len());
            bytes.map(|bytes| out.copy_from_slice(bytes)).ok_or(io::ErrorKind::UnexpectedEof.into())
        })?
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::Length(usize::try_from(len).expect("a small file")))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(true, |platter| {
            for op in std::mem::take(&mut platter.pending) {
                perform(&mut platter.durable, &op);
            }
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(usize::try_from(offset).expect("a small file"), data.to_vec()))
    }
}

impl Medium {
    fn change(&self, op: Op) -> io::Result<()> {
        self.with(true, |platter| {
            perform(&mut platter.seen, &op);
            platter.pending.push(op);
        })
    }
}
