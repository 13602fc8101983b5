//! A device: the real lease core, in a shell that writes commits as long as it holds the lease.

mod io;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tallow_client::lease::{Effect, Event, Grant, LeaseCore};
use tallow_types::commit::SignedCommit;
use tallow_types::fault::Code;
use tallow_types::sign::Keypair;
use tallow_types::{CommitHash, DurationMs, Lease, Profile, SlotIndex, StripeId, TimeMs};

use super::history::Delta;
use super::ledger::{Action, Version};
use super::seeder::{Ask, Told};
use crate::Dice;

pub(super) use io::{Context, Manners, Out, Timer};

/// A fence waits this long for answers beyond a quorum. Milliseconds.
const STRAGGLER: u64 = 150;
/// And this long for a quorum.
const PATIENCE: u64 = 1500;
/// One seeder is waited for this long when it is asked to show a commit.
const SHOW: u64 = 300;
/// What has no answer is sent again after this.
const AGAIN: u64 = 80;
/// A commit that is not acknowledged by then has failed.
const COMMIT: u64 = 2000;

/// One device in one life. A crash makes a new one: it keeps nothing but its key.
pub(super) struct Device {
    keypair: Keypair,
    profile: Profile,
    manners: Manners,
    term: DurationMs,
    core: LeaseCore,
    effects: VecDeque<Effect>,
    op: Option<Op>,
    numbers: u64,
    /// Newest block time known, and when it was learnt.
    clock: (TimeMs, u64),
    wanted_ms: Option<u64>,
    resting: bool,
    known: BTreeMap<SlotIndex, Option<CommitHash>>,
    writing: Option<Writing>,
}

/// The effect that is being run.
struct Op {
    id: u64,
    began_ms: u64,
    kind: OpKind,
}

enum OpKind {
    Read,
    Act(Action),
    Wait,
    Fence {
        lease: Lease,
        slots: Vec<SlotIndex>,
        good: BTreeMap<SlotIndex, Option<Box<SignedCommit>>>,
        bad: BTreeSet<SlotIndex>,
    },
    Show {
        commit: CommitHash,
        from: VecDeque<SlotIndex>,
        asked: bool,
    },
}

struct Writing {
    lease: Lease,
    tip: CommitHash,
    sequence: u64,
    left: u64,
    closing: bool,
    current: Option<Current>,
}

/// The commit under way; two of them from a device that is two-faced.
struct Current {
    number: u64,
    began_ms: u64,
    faces: Vec<(CommitHash, BTreeSet<SlotIndex>)>,
    refused: BTreeSet<SlotIndex>,
}

impl Device {
    /// `numbers` must not be used in an earlier life.
    pub(super) fn new(
        keypair: Keypair,
        profile: Profile,
        manners: Manners,
        term: DurationMs,
        numbers: u64,
    ) -> Self {
        let share = DurationMs::new(term.get() / 5);
        Self {
            core: LeaseCore::new(keypair.public(), manners.believed, term, share),
            keypair,
            profile,
            manners,
            term,
            effects: VecDeque::new(),
            op: None,
            numbers,
            clock: (TimeMs::ZERO, 0),
            wanted_ms: None,
            resting: false,
            known: BTreeMap::new(),
            writing: None,
        }
    }

    /// Whether it holds the lease, by its own reckoning.
    pub(super) const fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    pub(super) fn start(&mut self, cx: &mut Context<'_>) {
        cx.timer(self.term.get() / 10, Timer::Tick);
        self.advance(cx);
    }

    pub(super) fn timer(&mut self, cx: &mut Context<'_>, timer: Timer) {
        match timer {
            Timer::Want => {
                self.resting = false;
                self.wanted_ms.get_or_insert(cx.now_ms);
                self.feed(Event::Want);
            }
            Timer::Tick => {
                cx.timer(self.term.get() / 10, Timer::Tick);
                if self.core.held().is_some() && self.op.is_none() && self.effects.is_empty() {
                    let now = self.now(cx);
                    self.feed(Event::Tick { now });
                }
            }
            Timer::Op(id) => self.op_timer(cx, id),
            Timer::Write(number) => self.write_timer(cx, number),
        }
        self.advance(cx);
    }

    /// The ledger, as some node knows it. Answers `Read`.
    pub(super) fn record(&mut self, cx: &mut Context<'_>, op: u64, version: &Version) {
        if self.take_op(op, |kind| matches!(kind, OpKind::Read)).is_none() {
            return;
        }
        if version.time > self.clock.0 {
            self.clock = (version.time, cx.now_ms);
        }
        let lease = &version.lease;
        let grant = Grant {
            lease: lease.last,
            device: lease.holder.map(|holder| holder.device),
            expires: lease.holder.map_or(TimeMs::ZERO, |holder| holder.expires),
            pending: lease.waiting,
        };
        let now = self.now(cx);
        self.feed(Event::Record { grant, now, held: self.profile.slot_indices().collect() });
        self.advance(cx);
    }

    /// A transaction is in a block, or was refused there.
    pub(super) fn acted(&mut self, cx: &mut Context<'_>, op: u64) {
        if self.take_op(op, |kind| matches!(kind, OpKind::Act(_))).is_some() {
            self.effects.push_front(Effect::Read);
        }
        self.advance(cx);
    }

    /// A seeder's answer.
    pub(super) fn told(&mut self, cx: &mut Context<'_>, slot: SlotIndex, request: u64, told: Told) {
        match told {
            Told::Fenced { newest } => {
                self.known.insert(slot, newest.as_ref().map(|signed| signed.commit.hash()));
                if let Some(Op { id, kind: OpKind::Fence { good, bad, .. }, .. }) = &mut self.op
                    && *id == request
                {
                    bad.remove(&slot);
                    good.insert(slot, newest);
                }
                self.judge_fence(cx);
            }
            Told::Commits(commits) => self.shown(cx, request, &commits),
            Told::Countersigned(hash) => {
                self.known.insert(slot, Some(hash));
                self.vote(cx, slot, hash);
            }
            Told::Refused { code, newest } => {
                self.known.insert(slot, newest);
                if let Some(Op { id, kind: OpKind::Fence { good, bad, .. }, .. }) = &mut self.op
                    && *id == request
                {
                    if code != Code::Behind && !good.contains_key(&slot) {
                        bad.insert(slot);
                    }
                } else {
                    self.refused(slot, code);
                }
                self.judge_fence(cx);
            }
        }
        self.advance(cx);
    }

    fn now(&self, cx: &Context<'_>) -> TimeMs {
        let (time, learnt) = self.clock;
        time.after(DurationMs::new(cx.now_ms - learnt)).expect("simulated time is short")
    }

    fn feed(&mut self, event: Event) {
        let effects = self.core.handle(event);
        self.effects.extend(effects);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn take_op(&mut self, id: u64, fits: impl Fn(&OpKind) -> bool) -> Option<Op> {
        self.op.take_if(|op| op.id == id && fits(&op.kind))
    }

    /// Runs effects until one must wait; rests when there is nothing to do.
    fn advance(&mut self, cx: &mut Context<'_>) {
        while self.op.is_none()
            && let Some(effect) = self.effects.pop_front()
        {
            self.run(cx, effect);
        }
        if self.op.is_none() && self.writing.is_none() && !self.resting {
            self.resting = true;
            let rest = cx.dice.between(0, self.term.get() / 3);
            cx.timer(rest, Timer::Want);
        }
    }

    fn run(&mut self, cx: &mut Context<'_>, effect: Effect) {
        let kind = match effect {
            Effect::Read => OpKind::Read,
            Effect::Ask => OpKind::Act(Action::Lease),
            Effect::Release => OpKind::Act(Action::Release),
            Effect::Wait(_) => OpKind::Wait,
            Effect::Fence { lease, ref slots } => {
                self.known.clear();
                OpKind::Fence { lease, slots: slots.clone(), good: BTreeMap::new(), bad: BTreeSet::new() }
            }
            // Those that stand on it first, as the client's shell does; then the others, which may have it behind them.
            Effect::Show { commit, ref from } => {
                let others = self.profile.slot_indices().filter(|slot| !from.contains(slot));
                let from = from.iter().copied().chain(others).collect();
                OpKind::Show { commit, from, asked: false }
            }
            Effect::Ready { lease, base } => return self.begin_writing(cx, lease, base),
            Effect::HandOver => return self.close(),
            Effect::Lost => {
                self.writing = None;
                return;
            }
            Effect::ReadOnly { .. } => return,
        };
        let id = self.number();
        self.op = Some(Op { id, began_ms: cx.now_ms, kind });
        let after_ms = if let Effect::Wait(wait) = effect { wait.get() } else { 0 };
        cx.timer(after_ms, Timer::Op(id));
    }

    /// Sends what an effect needs, again if there was no answer.
    fn op_timer(&mut self, cx: &mut Context<'_>, number: u64) {
        let Some(Op { id, kind, .. }) = &mut self.op else { return };
        if *id != number {
            return;
        }
        let id = *id;
        match kind {
            OpKind::Wait => {
                self.op = None;
                return;
            }
            OpKind::Read => cx.out.push(Out::Read { op: id }),
            OpKind::Act(action) => cx.out.push(Out::Submit { op: id, action: *action }),
            OpKind::Fence { lease, slots, good, bad } => {
                for slot in slots.iter().filter(|slot| !good.contains_key(slot) && !bad.contains(slot)) {
                    cx.out.push(Out::Send { slot: *slot, request: id, ask: Ask::Fence(*lease) });
                }
            }
            OpKind::Show { commit, from, asked } => {
                if std::mem::replace(asked, true) {
                    from.pop_front();
                }
                if let Some(slot) = from.front() {
                    cx.out.push(Out::Send { slot: *slot, request: id, ask: Ask::Show(*commit) });
                    cx.timer(SHOW, Timer::Op(id));
                } else {
                    let commit = *commit;
                    self.op = None;
                    self.feed(Event::Hidden(commit));
                }
                return;
            }
        }
        cx.timer(AGAIN, Timer::Op(id));
        self.judge_fence(cx);
    }

    /// Ends a fence when enough has been heard, as the client's shell does.
    fn judge_fence(&mut self, cx: &Context<'_>) {
        let quorum = usize::from(self.manners.believed.quorum());
        // Who believes that few are enough does not wait for more.
        let straggler = if self.manners.believed == self.profile { STRAGGLER } else { 0 };
        let Some(Op { began_ms, kind: OpKind::Fence { slots, good, bad, .. }, .. }) = &self.op else {
            return;
        };
        let age = cx.now_ms - began_ms;
        let all = good.len() + bad.len() == slots.len();
        if !(all || good.len() >= quorum && age >= straggler || age >= PATIENCE) {
            return;
        }
        let Some(Op { kind: OpKind::Fence { slots, mut good, .. }, .. }) = self.op.take() else { return };
        for slot in slots {
            let event = match good.remove(&slot) {
                Some(newest) => Event::Fenced { slot, newest: newest.map(|signed| Box::new(signed.commit)) },
                None => Event::NotFenced { slot },
            };
            self.feed(event);
        }
    }

    fn shown(&mut self, cx: &mut Context<'_>, request: u64, commits: &[SignedCommit]) {
        let Some(Op { id, kind: OpKind::Show { commit, .. }, .. }) = &self.op else { return };
        if *id != request {
            return;
        }
        match commits.iter().find(|signed| signed.commit.hash() == *commit) {
            Some(signed) => {
                self.op = None;
                self.feed(Event::Shown(Box::new(signed.commit.clone())));
            }
            // It has it no more: the next one, at once.
            None => self.op_timer(cx, request),
        }
    }

    fn begin_writing(&mut self, cx: &mut Context<'_>, lease: Lease, base: Option<CommitHash>) {
        let waited_ms = cx.now_ms - self.wanted_ms.take().unwrap_or(cx.now_ms);
        cx.out.push(Out::Ready { waited_ms });
        let left = cx.dice.between(1, 12);
        let tip = base.unwrap_or(CommitHash::ZERO);
        self.writing = Some(Writing { lease, tip, sequence: 0, left, closing: false, current: None });
        self.next_commit(cx);
    }

    fn close(&mut self) {
        let Some(writing) = &mut self.writing else { return };
        writing.closing = true;
        if writing.current.is_none() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.writing = None;
        self.feed(Event::Done);
    }

    fn break_off(&mut self) {
        self.writing = None;
        self.feed(Event::Broken);
    }

    fn next_commit(&mut self, cx: &mut Context<'_>) {
        let number = self.number();
        let Some(writing) = &mut self.writing else { return };
        writing.sequence += 1;
        let two_faced = cx.dice.chance(self.manners.two_faced) && !cx.calm;
        let faces = if two_faced { 2 } else { 1 };
        let faces = (0..faces).map(|_| {
            let leaves = cx.history.leaves(writing.tip);
            let drop = (leaves > 0 && cx.dice.chance(150)).then(|| cx.dice.index(leaves));
            let append = (0..cx.dice.between(1, 3)).map(|_| stripe(cx.dice)).collect();
            let delta = Delta { drop, append };
            let hash = cx.history.write(&self.keypair, writing.lease, writing.sequence, writing.tip, &delta);
            (hash, BTreeSet::new())
        });
        let faces = faces.collect();
        writing.current = Some(Current { number, began_ms: cx.now_ms, faces, refused: BTreeSet::new() });
        self.write_timer(cx, number);
    }

    /// Sends the commit under way to those who have not signed it, or begins the next.
    fn write_timer(&mut self, cx: &mut Context<'_>, number: u64) {
        let Some(writing) = &mut self.writing else { return };
        let Some(current) = &mut writing.current else {
            return self.next_commit(cx);
        };
        if current.number != number {
            return;
        }
        if cx.now_ms - current.began_ms > COMMIT {
            return self.break_off();
        }
        for slot in self.profile.slot_indices() {
            let (hash, votes) = &current.faces[usize::from(slot.get()) % current.faces.len()];
            if votes.contains(&slot) {
                continue;
            }
            let newest = self.known.get(&slot).copied().flatten();
            let mut chain = cx.history.chain(newest, *hash);
            if chain.is_empty() {
                // It signed this one, but the answer was lost: the same request has the same answer.
                chain = cx.history.chain(None, *hash);
            }
            let change = cx.history.change(slot, newest, *hash);
            cx.out.push(Out::Send { slot, request: number, ask: Ask::Countersign { chain, change } });
        }
        cx.timer(AGAIN, Timer::Write(number));
    }

    fn vote(&mut self, cx: &mut Context<'_>, slot: SlotIndex, hash: CommitHash) {
        let enough = self.manners.enough.unwrap_or_else(|| usize::from(self.profile.quorum()));
        let Some(writing) = &mut self.writing else { return };
        let Some(current) = &mut writing.current else { return };
        let Some((_, votes)) = current.faces.iter_mut().find(|(face, _)| *face == hash) else { return };
        votes.insert(slot);
        if votes.len() < enough {
            return;
        }
        cx.out.push(Out::Acknowledged(hash));
        writing.tip = hash;
        writing.current = None;
        writing.left -= 1;
        if writing.left == 0 || writing.closing {
            return self.finish();
        }
        let pause = cx.dice.between(1, 120);
        cx.timer(pause, Timer::Write(0));
    }

    fn refused(&mut self, slot: SlotIndex, code: Code) {
        let Some(Current { refused, .. }) =
            self.writing.as_mut().and_then(|writing| writing.current.as_mut())
        else {
            return;
        };
        if matches!(code, Code::Fenced | Code::Forbidden) {
            refused.insert(slot);
        }
        if refused.len() > usize::from(self.profile.slots() - self.profile.quorum()) {
            self.break_off();
        }
    }
}

fn stripe(dice: &mut Dice) -> StripeId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&dice.roll().to_le_bytes());
    bytes[8..].copy_from_slice(&dice.roll().to_le_bytes());
    StripeId::new(bytes)
}
