//! Errors of the client: one enum per group of operations, each able to say whose turn it is (`kind`) and what to do
//! next (`hint`).

use tallow_types::fault::Fault;
use tallow_types::id::ChainId;
use tallow_types::unit::{Bytes, Fuel};

/// What sort of problem an error is; the exit codes of a command line follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request can't be met as it was put: unknown path, unwritable target, not enough money.
    User,
    /// The set-up is wrong: another network, a damaged folder, a wallet without an account.
    Config,
    /// The network, or too many seeders, can't be reached or refuse; it may pass later.
    Unavailable,
    /// It was stopped, or lost a race; the same command again goes on.
    Interrupted,
    /// Ours: please report.
    Bug,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::User, Self::Config, Self::Unavailable, Self::Interrupted, Self::Bug];

    /// The word that scripts see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Config => "config",
            Self::Unavailable => "unavailable",
            Self::Interrupted => "interrupted",
            Self::Bug => "bug",
        }
    }
}

/// A seeder that failed, for errors and reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// Its slot in the contract.
    pub slot: u8,
    /// First digits of its id, or "vacant".
    pub seeder: String,
    /// What it did.
    pub reason: String,
}

impl std::fmt::Display for Blame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slot {} ({}): {}", self.slot, self.seeder, self.reason)
    }
}

/// At most six of them in one line.
fn listed(blames: &[Blame]) -> String {
    let mut text: Vec<String> = blames.iter().take(6).map(ToString::to_string).collect();
    if blames.len() > 6 {
        text.push(format!("and {} more", blames.len() - 6));
    }
    if text.is_empty() { String::new() } else { format!(": {}", text.join("; ")) }
}

/// Why the ledger could not be asked, or would not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// No node answered.
    #[error("no node of the network answers: {last}")]
    Unreachable {
        /// What the last one tried said.
        last: String,
    },
    /// A node of another network answered.
    #[error("the node at {address} belongs to network {}, not to {}", .found.short(), .wanted.short())]
    WrongNetwork {
        /// Who.
        address: String,
        /// Its network.
        found: ChainId,
        /// Ours.
        wanted: ChainId,
    },
    /// The ledger refused a transaction.
    #[error("the ledger refused: {0}")]
    Refused(Fault),
    /// The account holds less than this takes.
    #[error("the account holds {have} base units, this takes {need}")]
    Poor {
        /// What it holds.
        have: Fuel,
        /// What it takes.
        need: Fuel,
    },
    /// A record that this program can't read.
    #[error("the ledger's record of {what} can't be read: {reason}")]
    BadRecord {
        /// Of what.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The local journal failed.
    #[error(transparent)]
    Local(#[from] LocalError),
}

/// Why the client's own folder failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Another process works in it.
    #[error("another process is using {0}")]
    Locked(String),
    /// It was made for another network or account.
    #[error("{dir} belongs to another {what}")]
    Foreign {
        /// The folder.
        dir: String,
        /// "network" or "account".
        what: &'static str,
    },
    /// The database failed.
    #[error("local cache: {0}")]
    Database(String),
    /// A file failed.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Why a contract's data could not be reached: what `put`, `get` and the rest have in common.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The local folder.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A valid phrase, but nothing was ever done with it here.
    #[error("this wallet has no account on network {}", .0.short())]
    NoAccount(ChainId),
    /// The account has no contract yet, so nothing is stored.
    #[error("this account has stored nothing on network {}", .0.short())]
    NoContract(ChainId),
    /// Too few seeders sign: read-only.
    #[error("only {have} of {need} needed seeders answered, so nothing can be written{}", listed(.failed))]
    ReadOnly {
        /// Who answered.
        have: usize,
        /// k + margin.
        need: usize,
        /// Who failed.
        failed: Vec<Blame>,
    },
    /// Another device holds the lease and does not let go.
    #[error("another device has been writing to this account for the last {waited_s} s")]
    LeaseHeld {
        /// How long we waited.
        waited_s: u64,
    },
    /// Another device took over in the middle.
    #[error("another device took over the write lease")]
    LeaseLost,
    /// Fewer than k slices of a stripe that holds the catalog.
    #[error("can't read {what}: {have} of {need} needed slices reachable{}", listed(.failed))]
    Unreadable {
        /// What was to be read.
        what: String,
        /// Slices reachable and good.
        have: usize,
        /// k.
        need: usize,
        /// Who failed.
        failed: Vec<Blame>,
    },
    /// Bytes that passed every check of the network's, but don't make sense to this account's keys.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
    /// What another operation that shared the same commit was told.
    #[error("{text}")]
    Shared {
        /// What it said.
        text: String,
        /// What sort of problem it is.
        kind: Kind,
        /// What to do next.
        hint: Option<String>,
    },
    /// This client was opened for reading.
    #[error("this was opened for reading only")]
    NotWritable,
    /// A task of ours died.
    #[error("internal: {0}")]
    Internal(String),
}

/// Why `put` failed. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// See there.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The source isn't there or can't be read.
    #[error("can't read {path}: {source}")]
    Source {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The source is none of file, folder or link.
    #[error("{path} is a {what}, which can't be stored")]
    OddSource {
        /// Which.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A file changed while it was read, twice.
    #[error("{path} changed while it was read")]
    Changed {
        /// Which.
        path: String,
    },
    /// A path that can't name a blob.
    #[error("{path:?} can't name a blob: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// Why.
        reason: String,
    },
    /// Fewer than k + margin seeders took it.
    #[error("only {have} of {need} needed seeders took the data; nothing was changed{}", listed(.failed))]
    TooFew {
        /// Who took it.
        have: usize,
        /// k + margin.
        need: usize,
        /// Who failed, and how.
        failed: Vec<Blame>,
    },
    /// The contract's room is used up.
    #[error("the contract holds {used} bytes a lane and has room for {room}; this needs {need} more")]
    NoRoom {
        /// In use.
        used: Bytes,
        /// Its room.
        room: Bytes,
        /// What more this needs.
        need: Bytes,
    },
    /// Too few seeders would open a contract.
    #[error("{have} of {need} needed seeders accept a contract of {profile} at this price{}", listed(.refused))]
    TooFewSeeders {
        /// Who accepted.
        have: usize,
        /// k + margin.
        need: usize,
        /// The profile asked for.
        profile: String,
        /// Who refused.
        refused: Vec<Blame>,
    },
}

/// Why `get` failed. Files written whole before the failure stay; nothing half-written does.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// See there.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No blob of that path.
    #[error("there is no blob {path:?}")]
    NotFound {
        /// The path.
        path: String,
        /// The nearest names there are.
        near: Vec<String>,
    },
    /// Folders can't be streamed, and have no ranges.
    #[error("{path:?} is a {what}; only a file can be {wanted}")]
    NotAFile {
        /// The path.
        path: String,
        /// What it is.
        what: &'static str,
        /// What was wanted of it.
        wanted: &'static str,
    },
    /// A range outside the blob.
    #[error("the range begins at {start}, but {path:?} has {size} bytes")]
    BadRange {
        /// The path.
        path: String,
        /// Where it begins.
        start: u64,
        /// The blob's size.
        size: u64,
    },
    /// A name in the catalog that would lead outside the target.
    #[error("refused: the stored name {name:?} would be written outside the target ({reason})")]
    UnsafeName {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The target is there already.
    #[error("{path} exists already")]
    Exists {
        /// Which.
        path: String,
    },
    /// The target can't be written.
    #[error("can't write {path}: {source}")]
    Target {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What every error of this crate can tell.
pub trait Explain: std::error::Error {
    /// What sort of problem it is.
    fn kind(&self) -> Kind;
    /// What to do next, if there is something.
    fn hint(&self) -> Option<String>;
    /// Whether the same call may pass later.
    fn is_retryable(&self) -> bool {
        matches!(self.kind(), Kind::Unavailable | Kind::Interrupted)
    }
}

impl Explain for LocalError {
    fn kind(&self) -> Kind {
        match self {
            Self::Locked(_) => Kind::Unavailable,
            Self::Foreign { .. } | Self::Io { .. } | Self::Database(_) => Kind::Config,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Locked(_) => "wait until it is done, or stop it".into(),
            Self::Foreign { .. } => "choose the network it was made for, or another folder".into(),
            Self::Database(_) => {
                "the folder is only a cache: move it away and run the command again to rebuild it".into()
            }
            Self::Io { .. } => return None,
        })
    }
}

impl Explain for LedgerError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } => Kind::Unavailable,
            Self::WrongNetwork { .. } => Kind::Config,
            Self::Refused(fault) if fault.is_retryable() => Kind::Unavailable,
            Self::Refused(_) | Self::Poor { .. } => Kind::User,
            Self::BadRecord { .. } => Kind::Bug,
            Self::Local(inner) => inner.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreachable { .. } => "check that the network is up and its address is right".into(),
            Self::WrongNetwork { .. } => "choose the right network, or its right address".into(),
            Self::Poor { .. } => "send money to this account, or ask for less".into(),
            Self::Local(inner) => return inner.hint(),
            Self::Refused(_) | Self::BadRecord { .. } => return None,
        })
    }
}

impl Explain for SessionError {
    fn kind(&self) -> Kind {
        match self {
            Self::Ledger(inner) => inner.kind(),
            Self::Local(inner) => inner.kind(),
            Self::NoAccount(_) => Kind::Config,
            Self::NoContract(_) | Self::NotWritable => Kind::User,
            Self::ReadOnly { .. } | Self::LeaseHeld { .. } | Self::Unreadable { .. } => Kind::Unavailable,
            Self::LeaseLost => Kind::Interrupted,
            Self::Shared { kind, .. } => *kind,
            Self::Damaged { .. } | Self::Internal(_) => Kind::Bug,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Ledger(inner) => return inner.hint(),
            Self::Local(inner) => return inner.hint(),
            Self::NoAccount(_) => "check the network, or send this account some money first".into(),
            Self::NoContract(_) => "store something first with put".into(),
            Self::ReadOnly { .. } => "what is stored can still be read; try again, or repair".into(),
            Self::LeaseHeld { .. } => "try again when the other device is done".into(),
            Self::LeaseLost => "run the same command again: it goes on where it stopped".into(),
            Self::Unreadable { .. } => "try again when more of its seeders are up".into(),
            Self::Shared { hint, .. } => return hint.clone(),
            Self::NotWritable | Self::Damaged { .. } | Self::Internal(_) => return None,
        })
    }
}

impl Explain for PutError {
    fn kind(&self) -> Kind {
        match self {
            Self::Session(inner) => inner.kind(),
            Self::TooFew { .. } | Self::TooFewSeeders { .. } => Kind::Unavailable,
            Self::Source { .. }
            | Self::OddSource { .. }
            | Self::Changed { .. }
            | Self::BadPath { .. }
            | Self::NoRoom { .. } => Kind::User,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Session(inner) => return inner.hint(),
            Self::TooFew { .. } => "run it again when more seeders are up, or repair to replace them".into(),
            Self::TooFewSeeders { .. } => "raise the price ceiling, or choose a smaller profile".into(),
            Self::Changed { .. } => "run it again when nothing writes to the file".into(),
            Self::NoRoom { .. } => "remove something and wait for its space, or store less".into(),
            Self::Source { .. } | Self::OddSource { .. } | Self::BadPath { .. } => return None,
        })
    }
}

impl From<LocalError> for GetError {
    fn from(error: LocalError) -> Self {
        Self::Session(error.into())
    }
}

impl Explain for GetError {
    fn kind(&self) -> Kind {
        match self {
            Self::Session(inner) => inner.kind(),
            Self::NotFound { .. }
            | Self::NotAFile { .. }
            | Self::BadRange { .. }
            | Self::UnsafeName { .. }
            | Self::Exists { .. }
            | Self::Target { .. } => Kind::User,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Session(inner) => return inner.hint(),
            Self::NotFound { near, .. } if !near.is_empty() => format!("did you mean {}?", near.join(", ")),
            Self::NotFound { .. } => "list what there is with ls".into(),
            Self::NotAFile { .. } => "name a file inside it, or a folder to write it to".into(),
            Self::Exists { .. } => "choose another target, or force it".into(),
            Self::BadRange { .. } | Self::UnsafeName { .. } | Self::Target { .. } => return None,
        })
    }
}
