//! The canonical encoding: Borsh (little-endian, fixed width), behind an envelope of a two-byte type tag and a version
//! byte. Every type that is stored or sent on its own is `Tagged`; whatever it contains is bare Borsh.
//!
//! ```text
//! | tag u16 | version u8 | body (Borsh) |
//! ```
//!
//! Guarantees: one value has one encoding; a decoder refuses trailing bytes, unknown versions by name, and any list
//! longer than its limit before it takes memory for it.
//!
//! Source of the body format: the Borsh specification, <https://borsh.io>.

use std::io::{Error as IoError, ErrorKind, Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};

/// Two bytes that name a type in front of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u16);

impl Tag {
    /// From two letters.
    #[must_use]
    pub const fn new(letters: [u8; 2]) -> Self {
        Self(u16::from_le_bytes(letters))
    }
}

/// A type that is stored or sent on its own.
pub trait Tagged: BorshSerialize + BorshDeserialize {
    /// Names the type.
    const TAG: Tag;
    /// Names the layout of the body.
    const VERSION: u8;
    /// What people call it, for errors.
    const NAME: &'static str;
    /// Largest encoding, envelope included. Bytes.
    const MAX: usize;
}

/// Declares the envelope of a type: `tagged!(Commit, b"CM", 1, "commit", COMMIT_MAX)`.
#[macro_export]
macro_rules! tagged {
    ($type:ty, $letters:literal, $version:literal, $name:literal, $max:expr) => {
        impl $crate::codec::Tagged for $type {
            const TAG: $crate::codec::Tag = $crate::codec::Tag::new(*$letters);
            const VERSION: u8 = $version;
            const NAME: &'static str = $name;
            const MAX: usize = $max;
        }
    };
}

/// Why bytes are not an encoding of the type asked for. The sender is at fault, or the file is damaged.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the message of each variant names its fields")]
pub enum DecodeError {
    /// Larger than the limit of the type.
    #[error("{name} of {len} bytes is larger than the limit of {max}")]
    TooLarge { name: &'static str, len: usize, max: usize },
    /// Another type's bytes, or garbage.
    #[error("these bytes are not a {name}")]
    WrongTag { name: &'static str },
    /// A layout that this program does not know.
    #[error("{name} has version {found}, this program reads version {known}")]
    UnknownVersion { name: &'static str, found: u8, known: u8 },
    /// The body breaks the format or a limit in it.
    #[error("{name} is damaged: {reason}")]
    Damaged { name: &'static str, reason: String },
}

/// Encodes with envelope.
///
/// # Panics
/// Never: writing to memory cannot fail.
#[must_use]
pub fn encode<T: Tagged>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&T::TAG.0.to_le_bytes());
    out.push(T::VERSION);
    value.serialize(&mut out).expect("writing to a vector cannot fail");
    out
}

/// Decodes bytes with envelope; all of them must be used.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: Tagged>(bytes: &[u8]) -> Result<T, DecodeError> {
    let name = T::NAME;
    if bytes.len() > T::MAX {
        return Err(DecodeError::TooLarge { name, len: bytes.len(), max: T::MAX });
    }
    let [tag0, tag1, version, body @ ..] = bytes else { return Err(DecodeError::WrongTag { name }) };
    if u16::from_le_bytes([*tag0, *tag1]) != T::TAG.0 {
        return Err(DecodeError::WrongTag { name });
    }
    if *version != T::VERSION {
        return Err(DecodeError::UnknownVersion { name, found: *version, known: T::VERSION });
    }
    T::try_from_slice(body).map_err(|error| DecodeError::Damaged { name, reason: error.to_string() })
}

/// A list of at most `MAX` values. The length is checked before memory is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bounded<T, const MAX: usize>(Vec<T>);

/// A byte string of at most `MAX` bytes.
pub type BoundedBytes<const MAX: usize> = Bounded<u8, MAX>;

impl<T, const MAX: usize> Bounded<T, MAX> {
    /// The values, or `None` if there are more than `MAX`.
    #[must_use]
    pub fn new(values: Vec<T>) -> Option<Self> {
        (values.len() <= MAX).then_some(Self(values))
    }

    /// No values.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The values themselves.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T, const MAX: usize> std::ops::Deref for Bounded<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MAX: usize> std::ops::DerefMut for Bounded<T, MAX> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: BorshSerialize, const MAX: usize> BorshSerialize for Bounded<T, MAX> {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        self.0.serialize(writer)
    }
}

impl<T: BorshDeserialize, const MAX: usize> BorshDeserialize for Bounded<T, MAX> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let len = u32::deserialize_reader(reader)? as usize;
        if len > MAX {
            return Err(IoError::new(ErrorKind::InvalidData, format!("list of {len}, limit {MAX}")));
        }
        // A list of bytes is read in one go; a list of anything else grows as its items prove to be there.
        if let Some(values) = T::vec_from_reader(len.try_into().unwrap_or(u32::MAX), reader)? {
            return Ok(Self(values));
        }
        let mut values = Vec::with_capacity(len.min(64));
        for _ in 0..len {
            values.push(T::deserialize_reader(reader)?);
        }
        Ok(Self(values))
    }
}

/// A text of at most `MAX` bytes of UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundedText<const MAX: usize>(String);

impl<const MAX: usize> BoundedText<MAX> {
    /// The text, or `None` if it is too long.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        (text.len() <= MAX).then_some(Self(text))
    }

    /// The text, cut at the last whole character that fits.
    #[must_use]
    pub fn cut(mut text: String) -> Self {
        let mut end = text.len().min(MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> BorshSerialize for BoundedText<MAX> {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        self.0.serialize(writer)
    }
}

impl<const MAX: usize> BorshDeserialize for BoundedText<MAX> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let bytes = BoundedBytes::<MAX>::deserialize_reader(reader)?.into_vec();
        let text = String::from_utf8(bytes).map_err(|_| IoError::new(ErrorKind::InvalidData, "not UTF-8"))?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, BorshSerialize, BorshDeserialize)]
    struct Sample {
        list: Bounded<u16, 3>,
        bytes: BoundedBytes<4>,
    }
    tagged!(Sample, b"zz", 7, "sample", 64);

    /// Goal: the envelope is what the module says. Method: one golden value.
    #[test]
    fn golden_envelope() {
        let value = Sample {
            list: Bounded::new(vec![1, 2]).expect("fits"),
            bytes: Bounded::new(vec![9]).expect("fits"),
        };
        let bytes = encode(&value);
        assert_eq!(hex::encode(&bytes), "7a7a0702000000010002000100000009");
        assert_eq!(decode::<Sample>(&bytes), Ok(value));
    }

    /// Goal: each way to be wrong has its own answer. Method: break one thing at a time.
    #[test]
    fn wrong_bytes_are_named() {
        let good = encode(&Sample { list: Bounded::empty(), bytes: Bounded::empty() });
        let mut tag = good.clone();
        tag[0] ^= 1;
        assert!(matches!(decode::<Sample>(&tag), Err(DecodeError::WrongTag { .. })));
        let mut version = good.clone();
        version[2] = 8;
        assert!(matches!(
            decode::<Sample>(&version),
            Err(DecodeError::UnknownVersion { found: 8, known: 7, .. })
        ));
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(matches!(decode::<Sample>(&trailing), Err(DecodeError::Damaged { .. })));
        assert!(matches!(decode::<Sample>(&good[..5]), Err(DecodeError::Damaged { .. })));
        assert!(matches!(decode::<Sample>(&[0; 65]), Err(DecodeError::TooLarge { len: 65, max: 64, .. })));
        assert!(matches!(decode::<Sample>(&[]), Err(DecodeError::WrongTag { .. })));
    }

    /// Goal: one above the limit is refused, and a huge claimed length costs nothing. Method: forge lengths.
    #[test]
    fn lists_are_bounded_before_allocation() {
        let over = borsh::to_vec(&(vec![1u16, 2, 3, 4], Vec::<u8>::new())).expect("encodes");
        let mut bytes = vec![b'z', b'z', 7];
        bytes.extend(over);
        assert!(matches!(decode::<Sample>(&bytes), Err(DecodeError::Damaged { .. })));
        let huge = [b'z', b'z', 7, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decode::<Sample>(&huge), Err(DecodeError::Damaged { .. })));
        assert!(Bounded::<u8, 2>::new(vec![0; 3]).is_none());
    }

    /// Goal: cutting a text never splits a character. Method: a limit in the middle of one.
    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(BoundedText::<4>::cut("abc\u{e9}".to_owned()).as_str(), "abc");
        assert_eq!(BoundedText::<5>::cut("abc\u{e9}".to_owned()).as_str(), "abc\u{e9}");
    }
}
