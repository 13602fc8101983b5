//! The write lease and the commit protocol under attack.
//!
//! The rules are the real ones: `storage-node`'s lanes, with what they keep on disk, and the client's lease core with
//! its search for the base. Around them everything is simulated: a ledger that grants leases by block time and whose
//! copies lag, disks that finish late, messages that are lost, doubled, reordered and held up, crashes of seeders and
//! devices at any moment, disks that are lost, seeders that are replaced, devices that sign two commits of one rank.
//!
//! Checked in every run:
//! * all commits that were ever acknowledged, whenever and by whomever, are one chain;
//! * no seeder key ever signs two commits of one rank;
//! * once the faults stop, a device that wants the lease gets it within the lease and a little, though the one that
//!   held it died.
//!
//! Does not: model slices (a seeder is taken to hold what it is sent), or the ledger's blocks.

mod device;
mod happening;
mod history;
mod ledger;
mod plan;
mod seeder;

use std::collections::{BTreeMap, BTreeSet};

use tallow_storage_node::store::LaneKey;
use tallow_types::sign::Keypair;
use tallow_types::{ChainId, ContractId, DurationMs, Profile, SlotIndex};

use crate::Dice;
use device::{Context, Device, Manners, Out};
use happening::Happening;
use history::History;
use ledger::Ledger;
use seeder::{Ask, Asker, Seeder, Told, Work};

pub use plan::{Plan, Report, SLACK_MS, Sabotage, TERM_MS, Violation};

/// Runs a plan to its end.
///
/// # Errors
/// [`Violation`], at the first one.
pub fn run(plan: &Plan) -> Result<Report, Violation> {
    World::new(plan).run()
}

/// A device's place: who is in it now.
struct Place {
    life: u32,
    device: Option<Device>,
    killed: bool,
}

struct World<'a> {
    plan: &'a Plan,
    dice: Dice,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    order: u64,
    trace: blake3::Hasher,
    ledger: Ledger,
    seeders: Vec<Seeder>,
    places: Vec<Place>,
    history: History,
    /// Ways between a device and a slot that are cut.
    cuts: BTreeSet<(usize, usize)>,
    losses: u32,
    names: u64,
    turns: usize,
    longest_wait_ms: u64,
    acknowledged_in_calm: usize,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan) -> Self {
        let (chain, contract) = (ChainId::new([1; 32]), ContractId::new([2; 32]));
        let slots = plan.profile.slots();
        let seeders = plan.profile.slot_indices().map(|slot| {
            Seeder::new(u64::from(slot.get()), chain, LaneKey { contract, slot }, usize::from(slots))
        });
        let places = (0..plan.devices).map(|_| Place { life: 0, device: None, killed: false });
        let mut world = Self {
            plan,
            dice: Dice::new(plan.seed),
            now_ms: 0,
            queue: BTreeMap::new(),
            order: 0,
            trace: blake3::Hasher::new(),
            ledger: Ledger::new(DurationMs::new(TERM_MS)),
            seeders: seeders.collect(),
            places: places.collect(),
            history: History::new(plan.profile, chain, contract),
            cuts: BTreeSet::new(),
            losses: plan.losses,
            names: u64::from(slots),
            turns: 0,
            longest_wait_ms: 0,
            acknowledged_in_calm: 0,
        };
        for device in 0..plan.devices {
            world.after(0, Happening::DeviceStarts { device, life: 0 });
        }
        world.after(100, Happening::Chaos);
        world
    }

    fn run(mut self) -> Result<Report, Violation> {
        let end = self.plan.chaos_ms + self.plan.calm_ms;
        while let Some(((at, order), happening)) = self.queue.pop_first() {
            if at > end {
                break;
            }
            self.now_ms = at;
            self.note(at, order, &happening);
            self.happen(happening).map_err(|what| self.violation(what))?;
        }
        if self.longest_wait_ms > TERM_MS + SLACK_MS && self.plan.devices == 2 {
            let what = format!("a device waited {} ms for the lease", self.longest_wait_ms);
            return Err(self.violation(what));
        }
        if self.acknowledged_in_calm == 0 {
            return Err(self.violation("nothing was acknowledged once the faults had stopped".to_owned()));
        }
        Ok(Report {
            trace: self.trace.finalize().to_string(),
            acknowledged: self.history.acknowledgements(),
            turns: self.turns,
            longest_wait_ms: self.longest_wait_ms,
            acknowledged_in_calm: self.acknowledged_in_calm,
        })
    }

    fn violation(&self, what: String) -> Violation {
        Violation { seed: self.plan.seed, at_ms: self.now_ms, what }
    }

    const fn is_calm(&self) -> bool {
        self.now_ms >= self.plan.chaos_ms
    }

    fn after(&mut self, delay_ms: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now_ms + delay_ms, self.order), happening);
    }

    /// A message on its way: lost, doubled, held up.
    fn travel(&mut self, message: impl Fn() -> Happening) {
        let calm = self.is_calm();
        let (lost, twice) = (self.dice.chance(self.plan.loss), self.dice.chance(50));
        for copy in 0..=u64::from(twice) {
            let held_up = self.dice.chance(20) && !calm;
            let delay = if held_up { self.dice.between(500, 6_000) } else { self.dice.between(1, 40) };
            let arrives = if calm { copy == 0 } else { !lost };
            if arrives {
                self.after(delay, message());
            }
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Asked { slot, asker, ask } => self.asked(slot, asker, ask),
            Happening::Synced { slot, life } => self.synced(slot, life)?,
            Happening::Told { device, life, slot, request, told } => {
                self.with_device(device, life, |device, cx| device.told(cx, slot, request, told))?;
            }
            Happening::Submitted { device, life, op, action } => {
                let id = op << 16 | u64::try_from(device).expect("few") << 8 | u64::from(life & 0xff);
                let key = device_key(device).public();
                self.ledger.submit(id, self.now_ms, key, action);
                self.publish();
                self.travel(|| Happening::Acted { device, life, op });
            }
            Happening::Acted { device, life, op } => {
                self.with_device(device, life, |device, cx| device.acted(cx, op))?;
            }
            Happening::Record { device, life, op, height } => {
                let version = self.ledger.at(height).clone();
                self.with_device(device, life, |device, cx| device.record(cx, op, &version))?;
            }
            Happening::Timer { device, life, timer } => {
                self.with_device(device, life, |device, cx| device.timer(cx, timer))?;
            }
            Happening::Follows { slot, height } => {
                let seeder = &mut self.seeders[slot];
                if seeder.up {
                    seeder.height = seeder.height.max(height);
                }
            }
            Happening::Chaos => self.chaos(),
            Happening::SeederStarts { slot, life } => {
                if self.seeders[slot].life == life {
                    self.seeders[slot].restart();
                    let (height, delay) = (self.ledger.height(), self.dice.between(1, 300));
                    self.after(delay, Happening::Follows { slot, height });
                }
            }
            Happening::DeviceStarts { device, life } => self.start_device(device, life)?,
        }
        Ok(())
    }

    fn asked(&mut self, slot: usize, asker: Asker, ask: Ask) {
        let caller = device_key(asker.device).public();
        let seeder = &mut self.seeders[slot];
        if !seeder.up {
            return;
        }
        let version = self.ledger.at(seeder.height).clone();
        match seeder.ask(asker, caller, ask, &version) {
            Work::Nothing => {}
            Work::Sync => {
                let (life, delay) = (seeder.life, self.dice.between(0, 15));
                self.after(delay, Happening::Synced { slot, life });
            }
            Work::Tell(asker, told) => {
                self.tell(slot, &asker, &told);
                self.work_on(slot);
            }
        }
    }

    fn synced(&mut self, slot: usize, life: u32) -> Result<(), String> {
        let seeder = &mut self.seeders[slot];
        if seeder.life != life {
            return Ok(());
        }
        let Some((asker, told)) = seeder.durable() else { return Ok(()) };
        if let Told::Countersigned(hash) = told {
            self.history.countersigned(seeder.name, hash)?;
        }
        self.tell(slot, &asker, &told);
        self.work_on(slot);
        Ok(())
    }

    /// Takes the next request that waited for a lane.
    fn work_on(&mut self, slot: usize) {
        if let Some((asker, _, ask)) = self.seeders[slot].next() {
            self.asked(slot, asker, ask);
        }
    }

    fn tell(&mut self, slot: usize, asker: &Asker, told: &Told) {
        let (device, life, request) = (asker.device, asker.life, asker.request);
        if self.cuts.contains(&(device, slot)) {
            return;
        }
        let index = slot_index(slot);
        self.travel(|| Happening::Told { device, life, slot: index, request, told: told.clone() });
    }

    /// Lets a device act, and does what it asks.
    fn with_device(
        &mut self,
        index: usize,
        life: u32,
        act: impl FnOnce(&mut Device, &mut Context<'_>),
    ) -> Result<(), String> {
        let calm = self.is_calm();
        let place = &mut self.places[index];
        let Some(device) = place.device.as_mut().filter(|_| place.life == life) else { return Ok(()) };
        let mut cx = Context {
            now_ms: self.now_ms,
            calm,
            dice: &mut self.dice,
            history: &mut self.history,
            out: Vec::new(),
        };
        act(device, &mut cx);
        for out in cx.out {
            self.obey(index, life, out)?;
        }
        Ok(())
    }

    fn obey(&mut self, device: usize, life: u32, out: Out) -> Result<(), String> {
        match out {
            Out::Send { slot, request, ask } => {
                let slot = usize::from(slot.get());
                if !self.cuts.contains(&(device, slot)) {
                    let asker = || Asker { device, life, request };
                    self.travel(|| Happening::Asked { slot, asker: asker(), ask: ask.clone() });
                }
            }
            Out::Submit { op, action } => {
                self.travel(|| Happening::Submitted { device, life, op, action });
            }
            Out::Read { op } => {
                // Some node answers; its copy may be behind.
                let lags = self.dice.chance(250);
                let node = self.dice.index(self.seeders.len());
                let height = if lags { self.seeders[node].height } else { self.ledger.height() };
                self.travel(|| Happening::Record { device, life, op, height });
            }
            Out::Timer { after_ms, timer } => {
                // A clock that rings at once still lets others go first.
                self.after(after_ms.max(1), Happening::Timer { device, life, timer });
            }
            Out::Acknowledged(hash) => {
                self.history.acknowledge(hash)?;
                self.acknowledged_in_calm += usize::from(self.is_calm());
            }
            Out::Ready { waited_ms } => {
                self.turns += 1;
                // What was waited before the faults stopped is theirs.
                let since = self.now_ms.saturating_sub(self.plan.chaos_ms);
                if self.is_calm() {
                    self.longest_wait_ms = self.longest_wait_ms.max(waited_ms.min(since));
                }
            }
        }
        Ok(())
    }

    /// Tells the copies of the ledger, each in its own time.
    fn publish(&mut self) {
        let height = self.ledger.height();
        for slot in 0..self.seeders.len() {
            let slow = self.dice.chance(100) && !self.is_calm();
            let delay = if slow { self.dice.between(200, 3_000) } else { self.dice.between(1, 60) };
            self.after(delay, Happening::Follows { slot, height });
        }
    }

    fn start_device(&mut self, index: usize, life: u32) -> Result<(), String> {
        let place = &mut self.places[index];
        if place.life != life || place.killed {
            return Ok(());
        }
        let plan = self.plan;
        let enough =
            (plan.sabotage == Some(Sabotage::AcknowledgeEarly)).then(|| usize::from(plan.profile.data()));
        let believed = match plan.sabotage {
            Some(Sabotage::FenceFew) => Profile::from_k_of_n(1, 2).expect("a profile"),
            _ => plan.profile,
        };
        let manners = Manners { two_faced: plan.two_faced, enough, believed };
        let numbers = u64::from(life) << 32;
        let term = DurationMs::new(TERM_MS);
        place.device = Some(Device::new(device_key(index), plan.profile, manners, term, numbers));
        self.with_device(index, life, |device, cx| device.start(cx))
    }

    /// Something breaks, or heals. The last act of the chaos mends everything, and kills a device that holds the lease.
    fn chaos(&mut self) {
        if self.is_calm() {
            return self.end_chaos();
        }
        let next = 100.min(self.plan.chaos_ms - self.now_ms);
        self.after(next, Happening::Chaos);
        if self.dice.chance(self.plan.crashes) {
            let slot = self.dice.index(self.seeders.len());
            self.break_seeder(slot);
        }
        if self.dice.chance(self.plan.crashes / 4) {
            let device = self.dice.index(self.places.len());
            self.crash_device(device);
            let (life, delay) = (self.places[device].life, self.dice.between(10, 3_000));
            self.after(delay, Happening::DeviceStarts { device, life });
        }
        if self.dice.chance(self.plan.loss / 4) {
            let device = self.dice.index(self.places.len());
            let slots = (0..self.seeders.len()).filter(|_| self.dice.chance(400)).map(|slot| (device, slot));
            self.cuts = slots.collect();
        } else if self.dice.chance(100) {
            self.cuts.clear();
        }
    }

    fn break_seeder(&mut self, slot: usize) {
        let lasting = self.losses > 0 && self.dice.chance(100);
        let replaced = self.dice.chance(500);
        let seeder = &mut self.seeders[slot];
        if lasting {
            self.losses -= 1;
            if replaced {
                self.names += 1;
                seeder.replace(self.names);
            } else {
                seeder.wipe();
            }
        } else {
            seeder.crash();
            if self.plan.sabotage == Some(Sabotage::ForgetPromises) {
                seeder.forget_newest();
            }
        }
        let (life, delay) = (seeder.life, self.dice.between(10, 2_000));
        self.after(delay, Happening::SeederStarts { slot, life });
    }

    fn crash_device(&mut self, device: usize) {
        let place = &mut self.places[device];
        place.life += 1;
        place.device = None;
    }

    fn end_chaos(&mut self) {
        self.cuts.clear();
        for slot in 0..self.seeders.len() {
            if !self.seeders[slot].up {
                self.seeders[slot].restart();
            }
            self.seeders[slot].height = self.ledger.height();
        }
        let writes = |place: &Place| place.device.as_ref().is_some_and(Device::is_writing);
        let victim = self.places.iter().position(writes).unwrap_or(0);
        self.crash_device(victim);
        self.places[victim].killed = true;
        for device in 0..self.places.len() {
            if device != victim && self.places[device].device.is_none() {
                self.crash_device(device);
                let life = self.places[device].life;
                self.after(0, Happening::DeviceStarts { device, life });
            }
        }
    }

    fn note(&mut self, at: u64, order: u64, happening: &Happening) {
        let text = happening.describe();
        self.trace.update(format!("{at} {order} {text}\n").as_bytes());
    }
}

fn slot_index(slot: usize) -> SlotIndex {
    SlotIndex::new(u8::try_from(slot).expect("at most 255 slots"))
}

fn device_key(device: usize) -> Keypair {
    Keypair::from_seed(&[0xd0 + u8::try_from(device).expect("few devices"); 32])
}
