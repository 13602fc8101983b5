//! Owner policies: who may act for an account. An account *is* the hash of its policy, so a transaction shows the
//! policy and enough witnesses for it; nothing is registered beforehand.
//!
//! The tree gives single keys, k-of-n, time locks and hash locks. It is bounded in depth and in nodes, because a nested
//! policy is the attacker's way to exhaust a stack.

use std::io::{Error as IoError, ErrorKind, Read};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::{Bounded, BoundedBytes};
use crate::domain;
use crate::id::{AccountId, Digest, PublicKey, Signature};
use crate::limits::{POLICY_DEPTH_MAX, POLICY_NODES_MAX, PREIMAGE_MAX};
use crate::unit::TimeMs;

/// A condition on a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub enum Policy {
    /// This key signed.
    Key(PublicKey),
    /// At least `need` of the parts hold.
    Threshold {
        /// How many; at least one, at most the number of parts.
        need: u8,
        /// The conditions counted.
        of: Vec<Policy>,
    },
    /// The block's time has reached this moment.
    After(TimeMs),
    /// Somebody showed bytes with this BLAKE3 hash.
    Hash(Digest),
}

/// Evidence for a policy.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Witness {
    /// A signature over the transaction's core.
    Signature(PublicKey, Signature),
    /// The bytes behind a hash lock.
    Preimage(BoundedBytes<PREIMAGE_MAX>),
}

impl Policy {
    /// `need` of these keys; `None` if that can't be met or is too large.
    #[must_use]
    pub fn keys(need: u8, keys: &[PublicKey]) -> Option<Self> {
        let policy = Self::Threshold { need, of: keys.iter().copied().map(Self::Key).collect() };
        policy.is_well_formed().then_some(policy)
    }

    /// The account that this policy is.
    ///
    /// # Panics
    /// Never: writing to a hasher cannot fail.
    #[must_use]
    pub fn account(&self) -> AccountId {
        let mut hasher = domain::ACCOUNT.hasher();
        self.serialize(&mut hasher).expect("writing to a hasher cannot fail");
        AccountId::new(*hasher.finalize().as_bytes())
    }

    /// Whether depth, nodes and thresholds are inside their limits. Every decoded policy is.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let mut nodes = 0;
        self.check(0, &mut nodes)
    }

    fn check(&self, depth: usize, nodes: &mut usize) -> bool {
        *nodes += 1;
        if depth >= POLICY_DEPTH_MAX || *nodes > POLICY_NODES_MAX {
            return false;
        }
        match self {
            Self::Threshold { need, of } => {
                *need > 0
                    && usize::from(*need) <= of.len()
                    && of.iter().all(|part| part.check(depth + 1, nodes))
            }
            _ => true,
        }
    }

    /// Whether the evidence satisfies the policy at `now`. `signed` and `shown` are the keys whose signatures and the
    /// hashes whose preimages were already checked.
    #[must_use]
    pub fn is_met(&self, signed: &[PublicKey], shown: &[Digest], now: TimeMs) -> bool {
        match self {
            Self::Key(key) => signed.contains(key),
            Self::Hash(hash) => shown.contains(hash),
            Self::After(time) => now >= *time,
            Self::Threshold { need, of } => {
                of.iter().filter(|part| part.is_met(signed, shown, now)).count() >= usize::from(*need)
            }
        }
    }

    fn read<R: Read>(reader: &mut R, depth: usize, nodes: &mut usize) -> std::io::Result<Self> {
        let bad = |reason: &str| IoError::new(ErrorKind::InvalidData, reason.to_owned());
        *nodes += 1;
        if depth >= POLICY_DEPTH_MAX {
            return Err(bad("policy too deep"));
        }
        if *nodes > POLICY_NODES_MAX {
            return Err(bad("policy has too many parts"));
        }
        match u8::deserialize_reader(reader)? {
            0 => Ok(Self::Key(PublicKey::deserialize_reader(reader)?)),
            1 => {
                let need = u8::deserialize_reader(reader)?;
                let len = u32::deserialize_reader(reader)? as usize;
                if need == 0 || usize::from(need) > len || len > POLICY_NODES_MAX {
                    return Err(bad("policy threshold out of range"));
                }
                let of = (0..len).map(|_| Self::read(reader, depth + 1, nodes)).collect::<Result<_, _>>()?;
                Ok(Self::Threshold { need, of })
            }
            2 => Ok(Self::After(TimeMs::deserialize_reader(reader)?)),
            3 => Ok(Self::Hash(Digest::deserialize_reader(reader)?)),
            _ => Err(bad("unknown policy part")),
        }
    }
}

impl BorshDeserialize for Policy {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Self::read(reader, 0, &mut 0)
    }
}

/// The keys and hashes that a list of witnesses shows, each signature already checked by `check`.
///
/// # Errors
/// Whatever `check` says of the first signature that fails.
pub fn shown_by<E, const MAX: usize>(
    witnesses: &Bounded<Witness, MAX>,
    mut check: impl FnMut(&PublicKey, &Signature) -> Result<(), E>,
) -> Result<(Vec<PublicKey>, Vec<Digest>), E> {
    let (mut signed, mut shown) = (Vec::new(), Vec::new());
    for witness in witnesses.iter() {
        match witness {
            Witness::Signature(key, signature) => {
                check(key, signature)?;
                signed.push(*key);
            }
            Witness::Preimage(bytes) => shown.push(Digest::new(*blake3::hash(bytes).as_bytes())),
        }
    }
    Ok((signed, shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey::new([n; 32])
    }

    fn nested(depth: usize) -> Policy {
        (1..depth).fold(Policy::Key(key(1)), |inner, _| Policy::Threshold { need: 1, of: vec![inner] })
    }

    /// Goal: depth and nodes stop one above their limits. Method: build both edges and decode them.
    #[test]
    fn limits_hold_one_above() {
        for (depth, ok) in [(POLICY_DEPTH_MAX, true), (POLICY_DEPTH_MAX + 1, false)] {
            let bytes = borsh::to_vec(&nested(depth)).expect("encodes");
            assert_eq!(Policy::try_from_slice(&bytes).is_ok(), ok);
            assert_eq!(nested(depth).is_well_formed(), ok);
        }
        for (keys, ok) in [(POLICY_NODES_MAX - 1, true), (POLICY_NODES_MAX, false)] {
            let policy = Policy::Threshold { need: 1, of: vec![Policy::Key(key(1)); keys] };
            assert_eq!(Policy::try_from_slice(&borsh::to_vec(&policy).expect("encodes")).is_ok(), ok);
        }
    }

    /// Goal: k-of-n, time and hash locks mean what they say. Method: a table.
    #[test]
    fn conditions_are_met() {
        let two_of_three = Policy::keys(2, &[key(1), key(2), key(3)]).expect("well formed");
        let now = TimeMs::new(100);
        assert!(two_of_three.is_met(&[key(1), key(3)], &[], now));
        assert!(!two_of_three.is_met(&[key(1), key(1)], &[], now));
        assert!(Policy::After(TimeMs::new(100)).is_met(&[], &[], now));
        assert!(!Policy::After(TimeMs::new(101)).is_met(&[], &[], now));
        assert!(Policy::Hash(Digest::new([7; 32])).is_met(&[], &[Digest::new([7; 32])], now));
        assert!(Policy::keys(0, &[key(1)]).is_none() && Policy::keys(2, &[key(1)]).is_none());
        assert_ne!(two_of_three.account(), Policy::Key(key(1)).account());
    }
}
