//! The root of a slice: BLAKE3 of its masked bytes, so that any tool that speaks BLAKE3 can check a slice and a later
//! sample can open one 1 KiB chunk of it.
//!
//! Source: BLAKE3, <https://github.com/BLAKE3-team/BLAKE3-specs>, hash mode.

use tallow_types::SliceRoot;

/// The root of a slice.
#[must_use]
pub fn root(bytes: &[u8]) -> SliceRoot {
    SliceRoot::new(*blake3::hash(bytes).as_bytes())
}

/// Computes the root of a slice that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the slice.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The root of everything taken so far.
    #[must_use]
    pub fn root(&self) -> SliceRoot {
        SliceRoot::new(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the root is plain BLAKE3, however the bytes arrive. Method: the published hash of nothing, and a cut slice.
    #[test]
    fn root_is_blake3() {
        let nothing = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(root(&[]), SliceRoot::from_hex(nothing).expect("hexadecimal"));
        let bytes: Vec<u8> = (0..5000u32).flat_map(u32::to_le_bytes).collect();
        let mut hasher = Hasher::new();
        for piece in bytes.chunks(777) {
            hasher.update(piece);
        }
        assert_eq!(hasher.root(), root(&bytes));
    }
}
