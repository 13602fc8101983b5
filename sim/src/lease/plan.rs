//! What a run is given, and what it comes to.

use tallow_types::Profile;

use crate::Dice;

/// How long a lease lasts in a run. Milliseconds.
pub const TERM_MS: u64 = 3_000;
/// What a handover may take on top of the lease once the faults have stopped: a few round trips, and one attempt that
/// ran into the last fault. Milliseconds.
pub const SLACK_MS: u64 = 3_000;

/// Rules broken on purpose, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A seeder that crashes has forgotten its last promises.
    ForgetPromises,
    /// A device takes k countersignatures for an acknowledgement.
    AcknowledgeEarly,
    /// A device is content with the promises of few seeders.
    FenceFew,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All chance comes from it.
    pub seed: u64,
    /// Redundancy of the contract.
    pub profile: Profile,
    /// How many devices take turns.
    pub devices: usize,
    /// Messages lost, in thousandths.
    pub loss: u64,
    /// Chance of some crash in each tenth of a second, in thousandths.
    pub crashes: u64,
    /// Disks lost and seeders replaced in all.
    pub losses: u32,
    /// How often a device signs two commits of one rank, in thousandths.
    pub two_faced: u64,
    /// How long faults happen. Milliseconds.
    pub chaos_ms: u64,
    /// How long the rest of the run is. Milliseconds.
    pub calm_ms: u64,
    /// A rule to break.
    pub sabotage: Option<Sabotage>,
}

impl Plan {
    /// A plan whose numbers depend on the seed.
    ///
    /// # Panics
    /// Never: the profiles are valid.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x7a11);
        let profiles = [(2, 5), (2, 6), (3, 7), (4, 12)];
        let (k, n) = profiles[dice.index(profiles.len())];
        let profile = Profile::from_k_of_n(k, n).expect("a profile");
        // With more seeders silent than that a contract is read-only, as it should be.
        let spare = u64::from(profile.slots() - profile.quorum());
        Self {
            seed,
            profile,
            devices: 2 + dice.index(2),
            loss: dice.between(0, 150),
            crashes: dice.between(0, 400),
            losses: u32::try_from(dice.between(0, spare + 1)).expect("small"),
            two_faced: if dice.chance(300) { 200 } else { 0 },
            chaos_ms: 20_000,
            calm_ms: 4 * TERM_MS,
            sabotage: None,
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Hash of everything that happened.
    pub trace: String,
    /// Commits acknowledged.
    pub acknowledged: usize,
    /// How often writing began.
    pub turns: usize,
    /// The longest that a device waited for its turn after the faults had stopped. Milliseconds.
    pub longest_wait_ms: u64,
    /// Acknowledged after the faults had stopped.
    pub acknowledged_in_calm: usize,
}

/// The protocol is broken, or the simulation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, at {at_ms} ms: {what}")]
pub struct Violation {
    /// Replays it.
    pub seed: u64,
    /// When. Milliseconds.
    pub at_ms: u64,
    /// What was violated.
    pub what: String,
}
