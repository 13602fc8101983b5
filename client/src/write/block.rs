//! Memory for coded stripes. A block holds all slices of one stripe; it comes back when the last of them is done with, and
//! one is kept for the next stripe, since touching fresh memory costs as much as coding into it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes as Payload;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One piece of memory that is kept for whoever needs the like next.
#[derive(Clone, Default)]
pub(crate) struct Spare(Arc<Mutex<Vec<u8>>>);

impl Spare {
    /// What is kept, if anything is.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps this, unless what is kept is larger.
    pub fn give(&self, memory: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.capacity() < memory.capacity() {
            *kept = memory;
        }
    }
}

/// As many blocks as may be in memory at once.
pub(crate) struct Blocks {
    turns: Arc<Semaphore>,
    spare: Spare,
}

/// The right to take a block.
pub(crate) struct Grant {
    turn: OwnedSemaphorePermit,
    spare: Spare,
}

/// Memory of one stripe's slices, one behind the other.
pub(crate) struct Block {
    bytes: Vec<u8>,
    len: usize,
    spare: Spare,
    #[expect(dead_code, reason = "held until the last slice is done with")]
    turn: Option<OwnedSemaphorePermit>,
}

impl Blocks {
    pub fn new(count: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(count)), spare: Spare::default() }
    }

    /// Waits until one of them is free.
    pub async fn grant(&self) -> Option<Grant> {
        let turn = self.turns.clone().acquire_owned().await.ok()?;
        Some(Grant { turn, spare: self.spare.clone() })
    }
}

impl Grant {
    /// A block of a length. What is in it is of no meaning.
    pub fn block(self, len: usize) -> Block {
        let mut bytes = self.spare.take();
        if bytes.len() < len {
            bytes = vec![0; len];
        }
        Block { bytes, len, spare: self.spare, turn: Some(self.turn) }
    }
}

impl Block {
    /// Memory that nobody counts or keeps, for a small stripe that must not wait for large ones.
    pub fn apart(len: usize) -> Self {
        Self { bytes: vec![0; len], len, spare: Spare::default(), turn: None }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Its slices. The block is free again when all of them are gone.
    pub fn slices(self, slice_len: usize) -> Vec<Payload> {
        let len = self.len;
        let all = Payload::from_owner(self);
        (0..len).step_by(slice_len).map(|begin| all.slice(begin..len.min(begin + slice_len))).collect()
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a block is free when its last slice is gone, not sooner, and its memory is used again. Method: one block for
    /// all; hold slices of it, and look where the next one lies.
    #[tokio::test]
    async fn blocks_come_back() {
        let blocks = Blocks::new(1);
        let mut block = blocks.grant().await.expect("never closed").block(3000);
        block.bytes().copy_from_slice(&[7; 3000]);
        let at = block.as_ref().as_ptr();
        let mut slices = block.slices(1000);
        assert!(slices.len() == 3 && slices.iter().all(|slice| slice.as_ref() == [7; 1000]));
        assert_eq!(blocks.turns.available_permits(), 0);
        let last = slices.pop();
        drop(slices);
        assert_eq!(blocks.turns.available_permits(), 0);
        drop(last);
        assert_eq!(blocks.turns.available_permits(), 1);
        let smaller = blocks.grant().await.expect("never closed").block(2000);
        assert_eq!((smaller.as_ref().len(), smaller.as_ref().as_ptr()), (2000, at));
        drop(smaller);
        let larger = blocks.grant().await.expect("never closed").block(5000);
        assert_eq!(larger.as_ref(), [0; 5000]);
    }
}
