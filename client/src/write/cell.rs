//! A stripe on its way: from the first chunk packed into it until a commit names it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tallow_seal::chunk::{ChunkId, ChunkRef};
use tallow_types::id::{Digest, StripeId};
use tallow_types::unit::{Bytes, LeafIndex};
use tokio::sync::watch;

use crate::error::{Blame, PutError, SessionError};
use crate::stripes::Row;

/// Why a stripe came to nothing.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    TooFew {
        have: usize,
        need: usize,
        failed: Vec<Blame>,
    },
    NoRoom {
        used: Bytes,
        room: Bytes,
        need: Bytes,
    },
    /// The lease went, and could not be had again.
    Lost,
    Internal(String),
}

impl From<Failure> for PutError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::TooFew { have, need, failed } => Self::TooFew { have, need, failed },
            Failure::NoRoom { used, room, need } => Self::NoRoom { used, room, need },
            Failure::Lost => SessionError::LeaseLost.into(),
            Failure::Internal(reason) => SessionError::Internal(reason).into(),
        }
    }
}

/// Where it stands.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Chunks are still being added.
    Open,
    /// Being coded, or waiting for its turn.
    Moving,
    /// With the seeders' queues.
    Sending,
    /// A quorum holds it durably.
    Settled(Arc<Row>),
    /// An acknowledged commit names it; the id tells whether the leaf is still that stripe.
    Committed {
        leaf: LeafIndex,
        stripe: StripeId,
    },
    Failed(Failure),
}

/// A chunk in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    pub id: ChunkId,
    pub offset: u32,
    pub sealed_len: u32,
    pub plain_len: u32,
}

/// A stripe on its way.
pub(crate) struct Cell {
    /// The order in which cells were begun.
    pub ordinal: u64,
    state: watch::Sender<State>,
    chunks: Mutex<Vec<Packed>>,
    /// Parts of tables, which are no blobs.
    parts: Mutex<Vec<Packed>>,
    /// The journal's name for it, once it is coded; stripes of records have none.
    pub digest: OnceLock<Digest>,
}

impl Cell {
    pub fn new(ordinal: u64) -> Arc<Self> {
        Arc::new(Self {
            ordinal,
            state: watch::Sender::new(State::Open),
            chunks: Mutex::default(),
            parts: Mutex::default(),
            digest: OnceLock::new(),
        })
    }

    pub fn add(&self, packed: Packed) {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).push(packed);
    }

    /// A part of a table, for a later snapshot to find.
    pub fn add_part(&self, packed: Packed) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(packed);
    }

    /// All that can be found in it again.
    pub fn chunks(&self) -> Vec<Packed> {
        let mut all = self.chunks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.extend_from_slice(&self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        all
    }

    /// Whether there is no blob in it: records alone.
    pub fn is_bare(&self) -> bool {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Moves on. What is committed or failed stays so.
    pub fn set(&self, state: State) {
        self.state.send_if_modified(|now| {
            let moves = !matches!(now, State::Committed { .. } | State::Failed(_));
            if moves {
                *now = state;
            }
            moves
        });
    }

    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until it is settled, committed or failed. One that is still open is waited for until somebody closes it.
    pub async fn settled(&self) -> State {
        let mut state = self.state.subscribe();
        let found =
            state.wait_for(|state| !matches!(state, State::Open | State::Moving | State::Sending)).await;
        found
            .map(|state| state.clone())
            .unwrap_or_else(|_| State::Failed(Failure::Internal("dropped".into())))
    }
}

/// Where a chunk is, or will be.
#[derive(Clone)]
pub(crate) enum Placement {
    /// In a stripe of a commit.
    Stored { stripe: StripeId, chunk: ChunkRef },
    /// In a stripe on its way.
    Coming { cell: Arc<Cell>, packed: Packed },
}

impl Placement {
    pub const fn plain_len(&self) -> u32 {
        match self {
            Self::Stored { chunk, .. } => chunk.plain_len,
            Self::Coming { packed, .. } => packed.plain_len,
        }
    }
}
