//! Following a ledger: blocks from anyone, believed only as far as they can be checked.
//!
//! Guarantees: a block is applied only if it follows the newest one here, the network's validator signed it, and
//! executing it gives the state that its header names. Two blocks of one height and incarnation, both signed, halt the
//! follower for good, with the second one kept as evidence. The one way off a branch is a validator that was rebuilt and
//! signs under a higher incarnation: the follower then steps back to where the branches part.
//!
//! Does not choose whom to ask, nor how often: callers bring a [`Source`] and call [`Follower::step`].

mod source;

use std::path::Path;
use std::sync::Arc;

use tallow_ledger::{BlockEnv, BlockError, block, execute};
use tallow_types::block::Block;
use tallow_types::fault::{Code, Fault};
use tallow_types::params::Genesis;
use tallow_types::{ChainId, DurationMs, Height, decode};

use crate::chain::{Chain, ChainError, Change, Options, check_certificate};

pub use source::Source;

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks applied.
    pub applied: u64,
    /// Whether a snapshot took the place of everything before.
    pub snapshot: bool,
    /// Where it stepped back to, to follow a rebuilt validator.
    pub stepped_back: Option<Height>,
}

/// Why a follower could not go on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message says they are")]
pub enum FollowError {
    /// The validator signed two branches. Nothing here can be trusted to be final; a person must look.
    #[error("the ledger forked at block {height}: its validator signed two branches; this node halts")]
    Fork { height: Height },
    /// The source sent something that is no valid block, genesis or snapshot.
    #[error("the source sent an invalid {what}: {reason}")]
    Invalid { what: &'static str, reason: String },
    /// The source is on a branch that a rebuilt validator has left behind.
    #[error("the source follows a branch of an earlier incarnation")]
    Stale,
    /// The source could not be asked.
    #[error("the source failed: {0}")]
    Source(#[from] Fault),
    /// The ledger here failed.
    #[error(transparent)]
    Chain(ChainError),
}

impl FollowError {
    /// Whether this node must stop, loudly.
    #[must_use]
    pub fn is_fork(&self) -> bool {
        matches!(self, Self::Fork { .. })
    }

    /// Whether another source may do better.
    #[must_use]
    pub fn blames_source(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Stale | Self::Source(_))
    }

    fn block(reason: impl std::fmt::Display) -> Self {
        Self::Invalid { what: "block", reason: reason.to_string() }
    }
}

impl From<ChainError> for FollowError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::BadSnapshot { reason } => Self::Invalid { what: "snapshot", reason },
            other => Self::Chain(other),
        }
    }
}

/// Follows one ledger.
#[derive(Clone, Debug)]
pub struct Follower {
    chain: Arc<Chain>,
}

/// Begins to follow a network of which only the id is known: genesis comes from the source and is checked against it.
/// A ledger that is in `dir` already is opened.
///
/// # Errors
/// [`FollowError`].
pub async fn join(
    dir: &Path,
    id: ChainId,
    source: &dyn Source,
    options: Options,
) -> Result<Arc<Chain>, FollowError> {
    match Chain::reopen(dir, options) {
        Ok(chain) if chain.id() == id => return Ok(chain),
        Ok(chain) => return Err(ChainError::OtherNetwork { wanted: id, found: chain.id() }.into()),
        Err(error) if error.is_absent() => {}
        Err(error) => return Err(error.into()),
    }
    let answer = source.blocks(Height::ZERO, DurationMs::ZERO).await?;
    let invalid = |reason: String| FollowError::Invalid { what: "genesis", reason };
    let first = answer.first().ok_or_else(|| invalid("there is none".to_owned()))?;
    let genesis: Genesis = decode(first).map_err(|error| invalid(error.to_string()))?;
    if genesis.chain() != id {
        return Err(invalid(format!("it begins network {}", genesis.chain())));
    }
    Ok(Chain::open(dir, &genesis, options)?)
}

impl Follower {
    /// Follows the network of a ledger that was opened.
    #[must_use]
    pub fn new(chain: Arc<Chain>) -> Self {
        Self { chain }
    }

    /// The ledger.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Asks the source for what follows, waiting up to `wait` for it, and applies that.
    ///
    /// # Errors
    /// [`FollowError`]: see `is_fork`, `blames_source`. What was applied before the error stays applied.
    pub async fn step(&self, source: &dyn Source, wait: DurationMs) -> Result<Progress, FollowError> {
        if let Some(evidence) = self.chain.fork()? {
            return Err(FollowError::Fork { height: evidence.header.height });
        }
        let tip = self.chain.status();
        let next = Height::new(tip.height.get() + 1);
        let answer = match source.blocks(next, wait).await {
            Ok(answer) => answer,
            Err(fault) if fault.code() == Code::NotFound => return self.take_snapshot(source).await,
            Err(fault) => return Err(fault.into()),
        };
        let Some(first) = answer.first() else {
            // A rebuilt validator's branch may be shorter than this one.
            let theirs = source.status().await?;
            return if theirs.incarnation > tip.incarnation {
                self.change_branch(source).await
            } else {
                Ok(Progress::default())
            };
        };
        let first: Block = decode(first).map_err(FollowError::block)?;
        if first.header.parent == tip.tip {
            let applied = self.apply_all(answer).await?;
            return Ok(Progress { applied, ..Progress::default() });
        }
        if first.header.height != next {
            return Err(FollowError::block("it is not the one that was asked for"));
        }
        self.check_branch(&first)?;
        if first.header.incarnation > tip.incarnation {
            return self.change_branch(source).await;
        }
        if first.header.incarnation < tip.incarnation {
            return Err(FollowError::Stale);
        }
        let height = first.header.height;
        tracing::error!(%height, "the ledger's validator signed two branches");
        self.chain.record_fork(&first)?;
        Err(FollowError::Fork { height })
    }

    /// Checks what can be checked of a block on another branch: that the validator made it.
    fn check_branch(&self, block: &Block) -> Result<(), FollowError> {
        block.verify().map_err(FollowError::block)?;
        check_certificate(self.chain.genesis(), &block.header, &block.signature).map_err(FollowError::block)
    }

    /// Applies encoded blocks in order, off the runtime's threads.
    async fn apply_all(&self, blocks: Vec<Vec<u8>>) -> Result<u64, FollowError> {
        let chain = self.chain.clone();
        let work = move || {
            let mut applied = 0;
            for bytes in blocks {
                apply(&chain, &decode(&bytes).map_err(FollowError::block)?)?;
                applied += 1;
            }
            Ok(applied)
        };
        off_runtime(work).await
    }

    /// Looks for the block where the source's branch parts from this one, which a higher incarnation entitles it to,
    /// steps back to it, and follows.
    async fn change_branch(&self, source: &dyn Source) -> Result<Progress, FollowError> {
        let tip = self.chain.status();
        let mut from = self.chain.oldest()?;
        while from <= tip.height {
            let answer = match source.blocks(from, DurationMs::ZERO).await {
                Ok(answer) => answer,
                Err(fault) if fault.code() == Code::NotFound => return self.take_snapshot(source).await,
                Err(fault) => return Err(fault.into()),
            };
            // Of height 0 only genesis is sent, which is the same on all branches.
            for (at, bytes) in answer.iter().enumerate() {
                let theirs: Block = decode(bytes).map_err(FollowError::block)?;
                let height = theirs.header.height;
                if height.get() != from.get() + at as u64 {
                    return Err(FollowError::block("it is not the one that was asked for"));
                }
                if self.chain.block(height)?.is_some_and(|ours| ours.header.hash() == theirs.header.hash()) {
                    continue;
                }
                self.check_branch(&theirs)?;
                return self.leave_branch(&theirs, answer[at..].to_vec()).await;
            }
            match answer.len() {
                0 => return Err(FollowError::block("its source names blocks that it does not send")),
                some => from = Height::new(from.get() + some as u64),
            }
        }
        // All of ours is theirs: nothing to leave.
        Ok(Progress::default())
    }

    async fn leave_branch(&self, first: &Block, blocks: Vec<Vec<u8>>) -> Result<Progress, FollowError> {
        let tip = self.chain.status();
        if first.header.incarnation <= tip.incarnation {
            return Err(FollowError::block("it leaves the branch without a higher incarnation"));
        }
        let meeting = Height::new(first.header.height.get() - 1);
        if self.chain.hash_at(meeting)? != Some(first.header.parent) {
            return Err(FollowError::block("it follows no block that is known here"));
        }
        let incarnation = first.header.incarnation;
        tracing::warn!(from = %tip.height, to = %meeting, %incarnation, "stepping back: the validator was rebuilt");
        let chain = self.chain.clone();
        off_runtime(move || Ok(chain.rewind(meeting)?)).await?;
        let applied = self.apply_all(blocks).await?;
        Ok(Progress { applied, stepped_back: Some(meeting), snapshot: false })
    }

    async fn take_snapshot(&self, source: &dyn Source) -> Result<Progress, FollowError> {
        let (file, len) = source::download(&self.chain, source).await?;
        let chain = self.chain.clone();
        let status = off_runtime(move || Ok(chain.import(&file, len)?)).await?;
        tracing::info!(height = %status.height, "took a snapshot");
        Ok(Progress { snapshot: true, ..Progress::default() })
    }
}

async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FollowError> + Send + 'static,
) -> Result<T, FollowError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Checks the next block in every way and applies it.
///
/// # Errors
/// [`FollowError::Invalid`] if it is not valid, or doesn't follow the newest block.
pub fn apply(chain: &Chain, next: &Block) -> Result<(), FollowError> {
    let view = chain.view()?;
    let header = next.verify().map_err(FollowError::block)?;
    if header.parent != view.hash() {
        return Err(FollowError::block("it does not follow the newest block"));
    }
    let read = |error| match error {
        BlockError::Read(error) => FollowError::Chain(error.into()),
        other => FollowError::block(other),
    };
    block::check_header(&view, header).map_err(read)?;
    let outcome = execute(&view, &BlockEnv::from(header), &next.body).map_err(read)?;
    let (root, tree) = view.root_after(&outcome.writes).map_err(ChainError::from)?;
    if root != header.state {
        return Err(FollowError::block("its state is not the one that its header names"));
    }
    drop(view);
    chain.commit(next, &Change { writes: outcome.writes, tree })?;
    Ok(())
}

#[cfg(test)]
mod tests;
