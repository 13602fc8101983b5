//! Keys of state records: one prefix byte, then fields. Numbers in keys are big-endian, so that the order of keys is
//! the order of numbers.
//!
//! ```text
//! P                                   Network      rules and name of the network
//! V                                   Validators   who orders blocks
//! H                                   Head         height, time, epoch
//! M                                   Supply       money in all
//! A account                           Account
//! S seeder                            Seeder
//! C contract                          Contract
//! N contract                          Certificate  the active commit
//! Q contract                          Certificate  the pending commit
//! O owner  index u32                  Owned        contracts by owner
//! D epoch u64  contract               -            contracts to settle, by epoch
//! T idempotency key  sender           Seen         transactions applied
//! X height u64  idempotency key  sender            when to forget them
//! ```

use tallow_types::{AccountId, ContractId, Epoch, Height, IdempotencyKey, SeederId};

/// The record of the network's rules.
pub const NETWORK: &[u8] = b"P";
/// The record of the validator set.
pub const VALIDATORS: &[u8] = b"V";
/// The record of height, time and epoch.
pub const HEAD: &[u8] = b"H";
/// The record of all money.
pub const SUPPLY: &[u8] = b"M";
/// Beginning of the keys of accounts.
pub const ACCOUNTS: &[u8] = b"A";
/// Beginning of the keys of seeders.
pub const SEEDERS: &[u8] = b"S";
/// Beginning of the keys of contracts.
pub const CONTRACTS: &[u8] = b"C";
/// Beginning of the queue of contracts to settle.
pub const DUE: &[u8] = b"D";
/// Beginning of the queue of transactions to forget.
pub const FORGET: &[u8] = b"X";

fn join(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(prefix);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The record of an account.
#[must_use]
pub fn account(id: &AccountId) -> Vec<u8> {
    join(b'A', &[id.as_bytes()])
}

/// The record of a seeder.
#[must_use]
pub fn seeder(id: &SeederId) -> Vec<u8> {
    join(b'S', &[id.as_bytes()])
}

/// The record of a contract.
#[must_use]
pub fn contract(id: &ContractId) -> Vec<u8> {
    join(b'C', &[id.as_bytes()])
}

/// The certificate of a contract's active commit.
#[must_use]
pub fn active(id: &ContractId) -> Vec<u8> {
    join(b'N', &[id.as_bytes()])
}

/// The certificate of a contract's pending commit.
#[must_use]
pub fn pending(id: &ContractId) -> Vec<u8> {
    join(b'Q', &[id.as_bytes()])
}

/// The record that an owner has, or had, a contract of this index.
#[must_use]
pub fn owned(owner: &AccountId, index: u32) -> Vec<u8> {
    join(b'O', &[owner.as_bytes(), &index.to_be_bytes()])
}

/// Beginning of the keys of an owner's contracts.
#[must_use]
pub fn owned_by(owner: &AccountId) -> Vec<u8> {
    join(b'O', &[owner.as_bytes()])
}

/// The place of a contract in the queue of those to settle.
#[must_use]
pub fn due(epoch: Epoch, id: &ContractId) -> Vec<u8> {
    join(b'D', &[&epoch.get().to_be_bytes(), id.as_bytes()])
}

/// Epoch and contract of a key made by [`due`].
#[must_use]
pub fn parse_due(key: &[u8]) -> Option<(Epoch, ContractId)> {
    let (epoch, id) = key.strip_prefix(DUE)?.split_first_chunk::<8>()?;
    Some((Epoch::new(u64::from_be_bytes(*epoch)), ContractId::new(id.try_into().ok()?)))
}

/// The record that a transaction was applied.
#[must_use]
pub fn seen(key: &IdempotencyKey, sender: &AccountId) -> Vec<u8> {
    join(b'T', &[key.as_bytes(), sender.as_bytes()])
}

/// Beginning of the keys of transactions with an idempotency key, whoever sent them.
#[must_use]
pub fn seen_by_anyone(key: &IdempotencyKey) -> Vec<u8> {
    join(b'T', &[key.as_bytes()])
}

/// The place of a transaction in the queue of those to forget.
#[must_use]
pub fn forget(height: Height, key: &IdempotencyKey, sender: &AccountId) -> Vec<u8> {
    join(b'X', &[&height.get().to_be_bytes(), key.as_bytes(), sender.as_bytes()])
}

/// Height of a key made by [`forget`], and the key of the record to remove.
#[must_use]
pub fn parse_forget(key: &[u8]) -> Option<(Height, Vec<u8>)> {
    let (height, rest) = key.strip_prefix(FORGET)?.split_first_chunk::<8>()?;
    Some((Height::new(u64::from_be_bytes(*height)), join(b'T', &[rest])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_types::limits::STATE_KEY_MAX;

    /// Goal: queues are read in the order of their numbers, and back. Method: compare across a byte's edge.
    #[test]
    fn queues_are_ordered_and_parse() {
        let (id, key, sender) =
            (ContractId::new([7; 32]), IdempotencyKey::new([8; 16]), AccountId::new([9; 32]));
        assert!(due(Epoch::new(255), &id) < due(Epoch::new(256), &ContractId::ZERO));
        assert_eq!(parse_due(&due(Epoch::new(256), &id)), Some((Epoch::new(256), id)));
        assert_eq!(parse_due(b"D"), None);
        let longest = forget(Height::new(300), &key, &sender);
        assert_eq!(parse_forget(&longest), Some((Height::new(300), seen(&key, &sender))));
        assert!(longest.len() <= STATE_KEY_MAX);
        assert!(
            owned(&sender, 255) < owned(&sender, 256) && owned(&sender, 1).starts_with(&owned_by(&sender))
        );
    }
}
