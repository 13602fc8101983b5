//! Errors that travel: a number, whose fault it was, and whether to try again.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::BoundedText;
use crate::limits::TEXT_MAX;

/// Whose fault an error was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Party {
    /// The one who asked: a bad or forbidden request.
    Caller,
    /// The one who answers: a full disk, a damaged file, a bug.
    Callee,
    /// The way between them.
    Network,
    /// Nobody: the state of the ledger forbids it, or is not known here yet.
    Ledger,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Retry {
    /// The same request will fail again.
    Never,
    /// The same request may pass later, here.
    Later,
    /// Another peer may serve it.
    Elsewhere,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $party:ident, $retry:ident;)*) => {
        /// What went wrong. The numbers are part of the wire format and never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn blames(self) -> Party {
                match self { $(Self::$name => Party::$party,)* }
            }

            /// Whether trying again can help.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)* }
            }
        }
    };
}

codes! {
    /// A message that is no message, or breaks a limit.
    Malformed = 100, Caller, Never;
    /// A message of another network.
    WrongChain = 101, Caller, Never;
    /// A signature that is not valid.
    BadSignature = 102, Caller, Never;
    /// The caller may not do this: not the lease holder, not the owner.
    Forbidden = 103, Caller, Never;
    /// The slice bytes don't have the root or length that was announced.
    WrongBytes = 104, Caller, Never;
    /// A lower lease than one that was promised.
    Fenced = 105, Caller, Never;
    /// A commit that doesn't follow the one countersigned before, or whose root doesn't match its change.
    WrongCommit = 106, Caller, Never;
    /// More bytes than the contract's room.
    NoRoom = 107, Caller, Never;
    /// A request of a kind that this node does not serve.
    Unsupported = 108, Caller, Elsewhere;
    /// The thing asked for isn't here.
    NotFound = 200, Callee, Elsewhere;
    /// The disk's reserve is reached; nothing was stored.
    DiskFull = 201, Callee, Elsewhere;
    /// A read or write failed, or stored bytes are damaged.
    Storage = 202, Callee, Elsewhere;
    /// Slices that a commit names are missing here.
    MissingSlices = 203, Callee, Later;
    /// Too much is under way.
    Busy = 204, Callee, Later;
    /// A bug.
    Internal = 205, Callee, Later;
    /// No answer in time, or the connection broke.
    Unreachable = 300, Network, Later;
    /// An answer that is not what was asked for.
    Garbage = 301, Callee, Elsewhere;
    /// The ledger refuses it; the text says why.
    Refused = 400, Ledger, Never;
    /// The ledger isn't known here up to the height that this needs.
    Behind = 401, Ledger, Later;
    /// The contract's fuel does not pay for more than it holds; it can be refuelled.
    NoFuel = 402, Ledger, Later;
}

/// An error as it travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, thiserror::Error)]
#[error("{} (code {code})", .text.as_str())]
pub struct Fault {
    code: u16,
    /// For people: what, and what to do next.
    pub text: BoundedText<TEXT_MAX>,
}

impl Fault {
    /// From a code and a text, which is cut to its limit.
    #[must_use]
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code: code.number(), text: BoundedText::cut(text.into()) }
    }

    /// The code; `Internal` for a number that this version doesn't know.
    #[must_use]
    pub fn code(&self) -> Code {
        Code::ALL.iter().copied().find(|code| code.number() == self.code).unwrap_or(Code::Internal)
    }

    /// Whose fault it was.
    #[must_use]
    pub fn blames(&self) -> Party {
        self.code().blames()
    }

    /// Whether the same request may pass later at the same peer.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.code().retry() == Retry::Later
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: numbers are unique, and an unknown one is still an error. Method: all codes, one forged.
    #[test]
    fn codes_are_distinct() {
        let set: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.number()).collect();
        assert_eq!(set.len(), Code::ALL.len());
        let forged = Fault { code: 9999, text: BoundedText::default() };
        assert_eq!(forged.code(), Code::Internal);
        assert!(Fault::new(Code::Busy, "busy").is_retryable());
        assert_eq!(Fault::new(Code::DiskFull, "full").blames(), Party::Callee);
    }
}
