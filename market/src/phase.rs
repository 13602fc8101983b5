//! What its fuel makes of a contract.

use borsh::{BorshDeserialize, BorshSerialize};

/// The phase of a contract. Variants are added behind, never changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Phase {
    /// Its fuel pays: seeders earn.
    #[default]
    Burning,
    /// Its fuel cannot pay one epoch: nobody is paid, data and roots stay, refuelling revives it.
    Embers,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Burning => "burning",
            Self::Embers => "embers",
        })
    }
}
