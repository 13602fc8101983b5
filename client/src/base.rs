//! Base finding: which commit a contract stands at, from what its seeders signed last.
//!
//! The base is the highest commit (by lease, then sequence) that at least `k` answers signed, descendants counted: an
//! answer whose newest commit follows C, however far back, speaks for C. An acknowledged commit was signed by
//! `k + margin` seeders, and any `k + margin` answers share at least `k` with them, so it is the base or an ancestor of it.
//!
//! A pure walk: it says which commit it must be shown next, and the caller shows it. Who stands on a commit that nobody
//! shows has not said what it signed, so it is no answer: with fewer than `k + margin` left there is no base.
//!
//! Does not: check signatures. The caller shows only commits whose hash is the one asked for.

use std::collections::BTreeMap;

use tallow_types::commit::{Commit, Rank};
use tallow_types::id::CommitHash;
use tallow_types::unit::SlotIndex;

/// What one seeder said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its slot.
    pub slot: SlotIndex,
    /// The newest commit that it signed; `None` if none.
    pub newest: Option<CommitHash>,
}

/// What the walk found, or needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Show this commit; these slots have signed it or a descendant, so they know it.
    Need {
        /// The commit.
        commit: CommitHash,
        /// Who can show it.
        from: Vec<SlotIndex>,
    },
    /// The base; `None`: the contract stands at its beginning.
    Found(Option<CommitHash>),
    /// Too few answers are left: an acknowledged commit could be missed.
    TooFew {
        /// How many are left.
        have: usize,
    },
}

#[derive(Clone, Copy)]
struct Link {
    rank: Rank,
    previous: CommitHash,
}

/// The walk from the newest commits backwards, highest rank first. When a commit's turn comes, every answer that
/// descends from it stands on it, so counting is comparing.
#[derive(Clone)]
pub struct Walk {
    cursors: Vec<(SlotIndex, Option<CommitHash>)>,
    known: BTreeMap<CommitHash, Link>,
    need: usize,
    quorum: usize,
}

impl Walk {
    /// Starts from the answers; `need` is k, `quorum` how many answers there must be.
    #[must_use]
    pub fn new(answers: &[Answer], need: u8, quorum: usize) -> Self {
        Self {
            cursors: answers.iter().map(|answer| (answer.slot, answer.newest)).collect(),
            known: BTreeMap::new(),
            need: usize::from(need),
            quorum,
        }
    }

    /// Shows a commit. One that does not outrank its predecessor was made by no honest device; whoever stands on it
    /// then stands at the beginning.
    pub fn show(&mut self, commit: &Commit) {
        self.known.insert(commit.hash(), Link { rank: commit.rank(), previous: commit.previous });
    }

    /// Nobody can show this commit: those who stand on it count as silent.
    pub fn give_up(&mut self, commit: CommitHash) {
        self.cursors.retain(|(_, cursor)| *cursor != Some(commit));
    }

    /// Goes as far as it can.
    pub fn step(&mut self) -> Step {
        loop {
            let have = self.cursors.len();
            if have < self.quorum {
                return Step::TooFew { have };
            }
            let unknown =
                self.cursors.iter().find_map(|(_, at)| at.filter(|at| !self.known.contains_key(at)));
            if let Some(commit) = unknown {
                let from = self
                    .cursors
                    .iter()
                    .filter(|(_, at)| *at == Some(commit))
                    .map(|(slot, _)| *slot)
                    .collect();
                return Step::Need { commit, from };
            }
            let highest =
                self.cursors.iter().filter_map(|(_, at)| at.map(|at| (self.known[&at].rank, at))).max();
            let Some((rank, commit)) = highest else { return Step::Found(None) };
            let votes = self.cursors.iter().filter(|(_, at)| *at == Some(commit)).count();
            if votes >= self.need {
                return Step::Found(Some(commit));
            }
            let previous = self.known[&commit].previous;
            let below = self.known.get(&previous).is_none_or(|link| link.rank < rank);
            let next = (previous != CommitHash::ZERO && below).then_some(previous);
            for (_, cursor) in &mut self.cursors {
                if *cursor == Some(commit) {
                    *cursor = next;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tallow_types::codec::Bounded;
    use tallow_types::id::ContractId;
    use tallow_types::unit::{Incarnation, LeafIndex, Lease, Sequence};

    use super::*;

    fn commit(counter: u64, sequence: u64, previous: CommitHash) -> Commit {
        Commit {
            contract: ContractId::ZERO,
            lease: Lease { incarnation: Incarnation::ZERO, counter },
            sequence: Sequence::new(sequence),
            previous,
            leaves: LeafIndex::ZERO,
            width: 0,
            slots: Bounded::empty(),
            catalog_head: Bounded::empty(),
            repair_head: Bounded::empty(),
        }
    }

    fn run(answers: &[Answer], commits: &[Commit], need: u8) -> Option<CommitHash> {
        walk(answers, commits, need, answers.len()).expect("all is shown")
    }

    /// Shows what there is; `Err` tells how many answers were left when there were too few.
    fn walk(
        answers: &[Answer],
        commits: &[Commit],
        need: u8,
        quorum: usize,
    ) -> Result<Option<CommitHash>, usize> {
        let mut walk = Walk::new(answers, need, quorum);
        loop {
            match walk.step() {
                Step::Found(found) => return Ok(found),
                Step::TooFew { have } => return Err(have),
                Step::Need { commit, from } => {
                    assert!(!from.is_empty());
                    match commits.iter().find(|c| c.hash() == commit) {
                        Some(commit) => walk.show(commit),
                        None => walk.give_up(commit),
                    }
                }
            }
        }
    }

    /// By the definition, with no cleverness: each commit, highest first, counted over all answers' ancestors.
    fn brute_force(answers: &[Answer], commits: &[Commit], need: u8) -> Option<CommitHash> {
        let by_hash: BTreeMap<_, _> = commits.iter().map(|c| (c.hash(), c)).collect();
        let ancestors = |from: Option<CommitHash>| {
            let mut set = BTreeSet::new();
            let mut at = from;
            while let Some(commit) = at.and_then(|hash| by_hash.get(&hash)) {
                set.insert(commit.hash());
                at = (commit.previous != CommitHash::ZERO).then_some(commit.previous);
            }
            set
        };
        let sets: Vec<_> = answers.iter().map(|answer| ancestors(answer.newest)).collect();
        let mut sorted: Vec<_> = commits.iter().map(|c| (c.rank(), c.hash())).collect();
        sorted.sort();
        sorted
            .into_iter()
            .rev()
            .map(|(_, hash)| hash)
            .find(|hash| sets.iter().filter(|set| set.contains(hash)).count() >= usize::from(need))
    }

    /// Commits as devices make them: each lease begins on any commit there is, and goes on from its own last.
    fn histories() -> impl Strategy<Value = Vec<Commit>> {
        prop::collection::vec((any::<prop::sample::Index>(), 1u64..4), 0..6).prop_map(|leases| {
            let mut commits: Vec<Commit> = Vec::new();
            for (counter, (base, length)) in (1u64..).zip(leases) {
                let at = base.index(commits.len() + 1);
                let mut previous = at.checked_sub(1).map_or(CommitHash::ZERO, |at| commits[at].hash());
                for sequence in 1..=length {
                    let next = commit(counter, sequence, previous);
                    previous = next.hash();
                    commits.push(next);
                }
            }
            commits
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Goal: the walk finds what the definition says. Method: random forks and answers, against brute force.
        #[test]
        fn walk_is_the_definition(
            commits in histories(),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
            need in 1u8..5,
        ) {
            let answers: Vec<Answer> = picks
                .iter()
                .enumerate()
                .map(|(slot, pick)| Answer {
                    slot: SlotIndex::new(u8::try_from(slot).expect("few")),
                    newest: pick.index(commits.len() + 1).checked_sub(1).map(|at| commits[at].hash()),
                })
                .collect();
            prop_assert_eq!(run(&answers, &commits, need), brute_force(&answers, &commits, need));
        }

        /// Goal: an acknowledged commit is never left behind. Method: k + margin of n sign it, a quorum of the n or more
        /// answer, others stand on forks or before it, and some commits are shown by nobody.
        #[test]
        fn acknowledged_commits_are_kept(
            order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
            asked in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
            heard in 8usize..=12,
            ahead in prop::collection::vec(any::<bool>(), 12),
            hidden in prop::collection::vec(prop::bool::weighted(0.2), 4),
        ) {
            let (k, quorum) = (4u8, 8usize);
            let first = commit(1, 1, CommitHash::ZERO);
            let stale = commit(1, 2, first.hash());
            let good = commit(2, 1, first.hash());
            let next = commit(2, 2, good.hash());
            let commits = [first.clone(), stale.clone(), good.clone(), next.clone()];
            let signed: BTreeSet<usize> = order[..quorum].iter().copied().collect();
            let answers: Vec<Answer> = asked[..heard]
                .iter()
                .map(|&slot| Answer {
                    slot: SlotIndex::new(u8::try_from(slot).expect("few")),
                    newest: Some(match (signed.contains(&slot), ahead[slot]) {
                        (true, true) => next.hash(),
                        (true, false) => good.hash(),
                        (false, true) => stale.hash(),
                        (false, false) => first.hash(),
                    }),
                })
                .collect();
            let kept = [Ok(Some(good.hash())), Ok(Some(next.hash()))];
            prop_assert!(kept.contains(&walk(&answers, &commits, k, quorum)));
            let shown: Vec<Commit> =
                commits.iter().zip(hidden).filter(|(_, hidden)| !hidden).map(|(commit, _)| commit.clone()).collect();
            let found = walk(&answers, &shown, k, quorum);
            prop_assert!(found.is_err() || kept.contains(&found));
        }
    }

    /// Goal: who stands on a commit that nobody shows is no answer, rather than one that says "nothing". Method: two of
    /// three answers stand on a lost one, against a quorum of one and of two.
    #[test]
    fn lost_commits_count_as_silence() {
        let first = commit(1, 1, CommitHash::ZERO);
        let lost = CommitHash::new([9; 32]);
        let answer = |slot, newest| Answer { slot: SlotIndex::new(slot), newest: Some(newest) };
        let answers = [answer(0, lost), answer(1, lost), answer(2, first.hash())];
        assert_eq!(walk(&answers, std::slice::from_ref(&first), 1, 1), Ok(Some(first.hash())));
        assert_eq!(walk(&answers, std::slice::from_ref(&first), 2, 1), Ok(None));
        assert_eq!(walk(&answers, &[first], 1, 2), Err(1));
    }

    /// Goal: an acknowledged commit is not passed over because those who know it are slow. Method: eight of twelve answer,
    /// two on a device's last commit and two on a void one, both above an acknowledged commit that is not shown.
    #[test]
    fn hidden_commits_are_not_passed_over() {
        let first = commit(6, 1, CommitHash::ZERO);
        let good = commit(7, 1, first.hash());
        let void = commit(7, 2, good.hash());
        let last = commit(8, 1, good.hash());
        let newest = [&last, &last, &void, &void, &first, &first, &first, &first];
        let answers: Vec<Answer> = (0u8..)
            .zip(newest)
            .map(|(slot, commit)| Answer { slot: SlotIndex::new(slot), newest: Some(commit.hash()) })
            .collect();
        let shown = [first.clone(), void.clone(), last.clone()];
        assert_eq!(walk(&answers, &shown, 4, 8), Err(6));
        let all = [first, good.clone(), void, last];
        assert_eq!(walk(&answers, &all, 4, 8), Ok(Some(good.hash())));
    }
}
