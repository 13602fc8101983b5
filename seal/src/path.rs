//! The path of a blob in its catalog: checked once, so that no name in a catalog can lead outside the folder that a
//! `get` writes to.
//!
//! ```text
//! UTF-8, components joined by '/', 1 to 4096 bytes; a component has 1 to 255 bytes, is neither "." nor "..", and has no NUL
//! ```
//!
//! Guarantees: every `BlobPath`, parsed or decoded, keeps these rules; joined below a folder it names something below
//! that folder, as long as no part of it is a symbolic link, which the writer of files sees to.
//!
//! A file whose name is not UTF-8 has no blob path: it is reported by name, never stored under another one.

use std::path::{Component, Path, PathBuf};

use borsh::{BorshDeserialize, BorshSerialize};
use tallow_types::codec::BoundedBytes;
use tallow_types::limits::{PATH_COMPONENT_MAX, PATH_MAX};

/// A checked path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct BlobPath(String);

/// Why a name is no blob path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum PathError {
    /// Nothing.
    #[error("a path can't be empty")]
    Empty,
    /// Too long as a whole.
    #[error("the path has {len} bytes, at most {PATH_MAX} are possible")]
    TooLong { len: usize },
    /// One component is too long.
    #[error("a name in the path has {len} bytes, at most {PATH_COMPONENT_MAX} are possible")]
    ComponentTooLong { len: usize },
    /// It begins with '/', or is a path of another system's root.
    #[error("'{path}' is not relative; blob paths begin with a name")]
    NotRelative { path: String },
    /// Two slashes in a row, or one at the end.
    #[error("'{path}' has an empty name in it")]
    EmptyComponent { path: String },
    /// "." or "..".
    #[error("'{path}' has '{component}' in it, which leads elsewhere")]
    Dots { path: String, component: &'static str },
    /// A NUL byte.
    #[error("'{path}' has a NUL byte in it")]
    Nul { path: String },
    /// A file name that is not UTF-8; it is shown with its odd bytes escaped.
    #[error("the name '{shown}' is not UTF-8 and can't be stored; rename the file")]
    NotUtf8 { shown: String },
}

impl BlobPath {
    /// Checks a text.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        check(text)?;
        Ok(Self(text.to_owned()))
    }

    /// From a relative path of the local system.
    ///
    /// # Errors
    /// See [`PathError`]; [`PathError::NotUtf8`] names the file.
    pub fn from_path(path: &Path) -> Result<Self, PathError> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let name = name.to_str();
                    names.push(name.ok_or_else(|| PathError::NotUtf8 { shown: shown_bytes(path) })?);
                }
                Component::CurDir => {}
                Component::ParentDir => {
                    return Err(PathError::Dots { path: shown_bytes(path), component: ".." });
                }
                Component::RootDir | Component::Prefix(_) => {
                    return Err(PathError::NotRelative { path: shown_bytes(path) });
                }
            }
        }
        Self::parse(&names.join("/"))
    }

    /// The path below another one.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn join(&self, rest: &Self) -> Result<Self, PathError> {
        Self::parse(&format!("{}/{}", self.0, rest.0))
    }

    /// The text as it is. For people, use `Display`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names that it is made of.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// All paths that it lies below, the nearest first.
    pub fn parents(&self) -> impl Iterator<Item = Self> {
        self.0.char_indices().rev().filter(|(_, c)| *c == '/').map(|(at, _)| Self(self.0[..at].to_owned()))
    }

    /// Whether it lies below `folder`, or is it.
    #[must_use]
    pub fn is_within(&self, folder: &Self) -> bool {
        let rest = self.0.strip_prefix(&folder.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path below a folder of the local system.
    #[must_use]
    pub fn under(&self, folder: &Path) -> PathBuf {
        let mut path = folder.to_owned();
        path.extend(self.components());
        path
    }
}

fn check(text: &str) -> Result<(), PathError> {
    let path = || shown(text);
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.len() > PATH_MAX {
        return Err(PathError::TooLong { len: text.len() });
    }
    if text.starts_with('/') {
        return Err(PathError::NotRelative { path: path() });
    }
    if text.contains('\0') {
        return Err(PathError::Nul { path: path() });
    }
    for component in text.split('/') {
        match component {
            "" => return Err(PathError::EmptyComponent { path: path() }),
            "." => return Err(PathError::Dots { path: path(), component: "." }),
            ".." => return Err(PathError::Dots { path: path(), component: ".." }),
            name if name.len() > PATH_COMPONENT_MAX => {
                return Err(PathError::ComponentTooLong { len: name.len() });
            }
            _ => {}
        }
    }
    Ok(())
}

/// A text as a terminal may see it: characters that would steer it are escaped.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_steering(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Control characters, and those that turn the direction of the text around them.
fn is_steering(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A system path as a terminal may see it: bytes that are no text are written `\xNN`.
fn shown_bytes(path: &Path) -> String {
    let mut out = String::new();
    for part in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        out.push_str(&shown(part.valid()));
        for byte in part.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// So that a table of paths can be searched by text. Paths compare as their texts do.
impl std::borrow::Borrow<str> for BlobPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for BlobPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&shown(&self.0))
    }
}

impl std::str::FromStr for BlobPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl BorshDeserialize for BlobPath {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        let bad = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
        let bytes = BoundedBytes::<PATH_MAX>::deserialize_reader(reader)?.into_vec();
        let text = String::from_utf8(bytes).map_err(|_| bad("path is not UTF-8".to_owned()))?;
        check(&text).map_err(|error| bad(error.to_string()))?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests;
