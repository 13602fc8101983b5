//! Memory for coded stripes. A block holds all slices of one stripe; it comes back when the last of them is done with, and
//! is kept for the next stripe: touching fresh memory costs more than coding into it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes as Payload;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pieces of memory that are kept for whoever needs the like next, the warmest first.
#[derive(Clone)]
pub(crate) struct Spare {
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    most: usize,
}

impl Spare {
    /// For so many pieces at most.
    pub fn new(most: usize) -> Self {
        Self { kept: Arc::default(), most }
    }

    /// What is kept, if anything is.
    pub fn take(&self) -> Vec<u8> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Keeps this, if there is room for it.
    pub fn give(&self, memory: Vec<u8>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < self.most {
            kept.push(memory);
        }
    }
}

/// As many blocks as may be in memory at once.
pub(crate) struct Blocks {
    turns: Arc<Semaphore>,
    spare: Spare,
    /// What a full stripe takes. Bytes.
    largest: usize,
}

/// The right to take a block.
pub(crate) struct Grant {
    turn: OwnedSemaphorePermit,
    spare: Spare,
    largest: usize,
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
    pub fn new(count: usize, largest: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(count)), spare: Spare::new(count), largest }
    }

    /// Waits until one of them is free.
    pub async fn grant(&self) -> Option<Grant> {
        let turn = self.turns.clone().acquire_owned().await.ok()?;
        Some(Grant { turn, spare: self.spare.clone(), largest: self.largest })
    }
}

impl Grant {
    /// A block of a length. What is in it is of no meaning.
    pub fn block(self, len: usize) -> Block {
        let mut bytes = self.spare.take();
        if bytes.len() < len {
            // As much as the next one may need, though no more is touched than this one needs.
            bytes = vec![0; len.max(self.largest)];
        }
        Block { bytes, len, spare: self.spare, turn: Some(self.turn) }
    }
}

impl Block {
    /// Memory that nobody counts or keeps, for a small stripe that must not wait for large ones.
    pub fn apart(len: usize) -> Self {
        Self { bytes: vec![0; len], len, spare: Spare::new(0), turn: None }
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
        let blocks = Blocks::new(1, 4000);
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
        let larger = blocks.grant().await.expect("never closed").block(4000);
        assert_eq!((larger.as_ref().len(), larger.as_ref().as_ptr()), (4000, at));
        drop(larger);
        let larger = blocks.grant().await.expect("never closed").block(5000);
        assert_eq!(larger.as_ref(), [0; 5000]);
    }
}
