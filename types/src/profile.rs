//! The redundancy of a contract: k of n.

use std::num::NonZeroU8;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::limits::SLOTS_MAX;
use crate::unit::SlotIndex;

/// `data` slices are enough to read a stripe of `data + parity`. Kept as two counts of at least one, so that k <= n and
/// n > k cannot be broken; their sum is at most [`SLOTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Profile {
    data: NonZeroU8,
    parity: NonZeroU8,
}

impl Profile {
    /// From k and n, or `None` unless 0 < k < n <= 255.
    #[must_use]
    pub const fn from_k_of_n(k: u8, n: u8) -> Option<Self> {
        let Some(parity) = n.checked_sub(k) else { return None };
        match (NonZeroU8::new(k), NonZeroU8::new(parity)) {
            (Some(data), Some(parity)) => Some(Self { data, parity }),
            _ => None,
        }
    }

    /// k: slices that are enough.
    #[must_use]
    pub const fn data(self) -> u8 {
        self.data.get()
    }

    /// n - k: slices that may go.
    #[must_use]
    pub const fn parity(self) -> u8 {
        self.parity.get()
    }

    /// n: slices in all.
    #[must_use]
    pub const fn slots(self) -> u8 {
        self.data.get() + self.parity.get()
    }

    /// `ceil((n - k) / 2)`: what an acknowledgement needs above k, so that any two quorums share k seeders.
    #[must_use]
    pub const fn margin(self) -> u8 {
        self.parity.get().div_ceil(2)
    }

    /// k + margin: countersignatures that make a commit acknowledged. Always more than n/2.
    #[must_use]
    pub const fn quorum(self) -> u8 {
        self.data.get() + self.margin()
    }

    /// Every slot index of the contract, in order.
    pub fn slot_indices(self) -> impl Iterator<Item = SlotIndex> {
        (0..self.slots()).map(SlotIndex::new)
    }
}

impl BorshDeserialize for Profile {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        let [k, parity] = <[u8; 2]>::deserialize_reader(reader)?;
        let n = k.checked_add(parity).filter(|n| usize::from(*n) <= SLOTS_MAX);
        n.and_then(|n| Self::from_k_of_n(k, n))
            .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "profile out of range"))
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.data(), self.slots())
    }
}

impl std::str::FromStr for Profile {
    type Err = &'static str;

    /// Reads `k/n`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hint = "a profile is written k/n with 0 < k < n <= 255, such as 4/12";
        let (k, n) = text.split_once('/').ok_or(hint)?;
        let (k, n) = (k.trim().parse().map_err(|_| hint)?, n.trim().parse().map_err(|_| hint)?);
        Self::from_k_of_n(k, n).ok_or(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: two quorums always share at least k slots, and a quorum is a majority. Method: every profile there is.
    #[test]
    fn quorums_intersect_in_k() {
        for n in 2..=255u8 {
            for k in 1..n {
                let profile = Profile::from_k_of_n(k, n).expect("in range");
                let (quorum, n) = (u32::from(profile.quorum()), u32::from(n));
                assert!(quorum <= n && 2 * quorum >= n + u32::from(k) && 2 * quorum > n);
            }
        }
    }

    /// Goal: what is out of range is refused. Method: each edge, in both forms.
    #[test]
    fn edges_are_refused() {
        assert!(Profile::from_k_of_n(0, 4).is_none() && Profile::from_k_of_n(4, 4).is_none());
        assert!(Profile::try_from_slice(&[200, 100]).is_err() && Profile::try_from_slice(&[0, 1]).is_err());
        assert!("4/12".parse::<Profile>().is_ok_and(|p| p.quorum() == 8));
        assert!("12/4".parse::<Profile>().is_err() && "4".parse::<Profile>().is_err());
    }
}
