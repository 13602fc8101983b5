//! How a command fails: one of five kinds, a message, what caused it, and what to type next.
//!
//! The kind decides the exit code, which `docs/operating/exit-codes.md` lists. Whoever raises a failure knows best what
//! helps, so hints travel with it; the shell only prints them.

use std::fmt::{self, Display};

pub use tallow_client::Kind;

/// The exit code of a failure.
pub const fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::User => 1,
        Kind::Config => 2,
        Kind::Unavailable => 3,
        Kind::Interrupted => 4,
        Kind::Bug => 5,
    }
}

/// Why a command ended without doing its work.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// One line, lower case, no full stop.
    pub message: String,
    /// What lies behind it, nearest first.
    pub causes: Vec<String>,
    /// Who or what was part of it, one line each.
    pub details: Vec<String>,
    /// What to do next, one line each.
    pub hints: Vec<String>,
}

/// What commands return.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Of a kind that somebody else has judged.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let (causes, details, mut hints) = (Vec::new(), Vec::new(), Vec::new());
        if kind == Kind::Bug {
            hints.push("this should not happen: please report it with the output of --verbose".to_owned());
        }
        Self { kind, message: message.into(), causes, details, hints }
    }

    /// The user asked for something that cannot be.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Kind::User, message)
    }

    /// A file or option that configures the program is not usable.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(Kind::Config, message)
    }

    /// Somebody who is needed is not there.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// The user stopped it.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, message)
    }

    /// The program broke one of its own rules.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what lies behind it, with everything behind that.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Errors that wrap others often repeat their text; said once is enough.
            let said = |earlier: &String| earlier.contains(&text);
            if !said(&self.message) && !self.causes.iter().any(said) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// As people read it: message and causes in a line, details and hints below.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}", self.message);
        for cause in &self.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        text.push('\n');
        for detail in &self.details {
            text.push_str("  ");
            text.push_str(detail);
            text.push('\n');
        }
        for hint in &self.hints {
            text.push_str("hint: ");
            text.push_str(hint);
            text.push('\n');
        }
        text
    }

    /// What another process of ours printed on standard error with `--json`.
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        let kind = value.get("kind")?.as_str()?;
        let list = |name: &str| -> Option<Vec<String>> {
            value.get(name)?.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        };
        Some(Self {
            kind: Kind::ALL.into_iter().find(|known| known.name() == kind)?,
            message: value.get("message")?.as_str()?.to_owned(),
            causes: list("causes")?,
            details: list("details")?,
            hints: list("hints")?,
        })
    }

    /// As `--json` prints it on standard error.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "type": "error",
            "kind": self.kind.name(),
            "exit": exit_code(self.kind),
            "message": self.message,
            "causes": self.causes,
            "details": self.details,
            "hints": self.hints,
        })
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

/// Turns an error of the file system into a failure that names the file. A full or broken disk is not the user's doing;
/// a missing file or a forbidden one is.
pub fn file_failed(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    use std::io::ErrorKind as E;
    let message = format!("cannot {doing} {}", path.display());
    match error.kind() {
        E::NotFound => Failure::user(message).because(error),
        E::PermissionDenied | E::ReadOnlyFilesystem => Failure::user(message)
            .because(error)
            .hint("choose a place that you may use, or change its permissions"),
        E::StorageFull | E::QuotaExceeded => {
            Failure::unavailable(message).because(error).hint("free some space and try again")
        }
        E::Interrupted => Failure::interrupted(message).because(error),
        _ => Failure::unavailable(message).because(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: scripts can tell kinds apart. Method: codes and names are distinct, none is 0.
    #[test]
    fn kinds_are_distinct() {
        let codes: std::collections::BTreeSet<_> = Kind::ALL.into_iter().map(exit_code).collect();
        let names: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!((codes.len(), names.len()), (5, 5));
        assert!(!codes.contains(&0));
    }

    /// Goal: the page of exit codes is true. Method: each kind has its row.
    #[test]
    fn exit_codes_are_documented() {
        let page = include_str!("../../docs/operating/exit-codes.md");
        for kind in Kind::ALL {
            let row = format!("| {} | {} |", exit_code(kind), kind.name());
            assert!(page.contains(&row), "docs/operating/exit-codes.md lacks {row}");
        }
    }

    /// Goal: a chain of causes reads as one line without repetition. Method: a wrapped error.
    #[test]
    fn causes_are_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] std::io::Error);
        let failure = Failure::user("no").because(&Outer(std::io::Error::other("inner"))).hint("type x");
        assert_eq!(failure.render(), "error: no: outer: inner\nhint: type x\n");
        let carried = Failure::from_json(&failure.to_json()).expect("reads what it prints");
        assert_eq!((carried.kind, carried.render()), (failure.kind, failure.render()));
    }
}
