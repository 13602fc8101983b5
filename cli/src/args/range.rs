//! Ranges of bytes as typed.

use std::ops::Range;

use crate::human;

/// A range of bytes as typed; the size of the blob makes it a real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From, and up to but not including.
    Between(u64, u64),
    /// From here to the end.
    From(u64),
    /// The last so many.
    Last(u64),
}

impl ByteRange {
    /// The range in a blob of `size` bytes; its end is cut to the size.
    pub fn within(self, size: u64) -> Range<u64> {
        match self {
            Self::Between(start, end) => start..end.min(size).max(start),
            Self::From(start) => start..size.max(start),
            Self::Last(count) => size.saturating_sub(count)..size,
        }
    }
}

pub(super) fn parse_range(text: &str) -> Result<ByteRange, String> {
    let hint = || format!("'{text}' is no range; write 0-1024, 1MiB-, or -100 for the last 100 bytes");
    let (start, end) = text.split_once('-').ok_or_else(hint)?;
    match (start.trim(), end.trim()) {
        ("", "") => Err(hint()),
        ("", last) => human::parse_size(last).map(ByteRange::Last),
        (start, "") => human::parse_size(start).map(ByteRange::From),
        (start, end) => {
            let (start, end) = (human::parse_size(start)?, human::parse_size(end)?);
            if start > end {
                return Err(format!("'{text}' ends before it begins"));
            }
            Ok(ByteRange::Between(start, end))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: ranges mean what the help says. Method: table, with the edges of a blob.
    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("0-1KiB"), Ok(ByteRange::Between(0, 1024)));
        assert_eq!(parse_range("5-"), Ok(ByteRange::From(5)));
        assert_eq!(parse_range("-5"), Ok(ByteRange::Last(5)));
        for text in ["", "-", "5", "7-3", "a-b", "1-2-3"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
        assert_eq!(ByteRange::Between(2, 100).within(10), 2..10);
        assert_eq!(ByteRange::From(12).within(10), 12..12);
        assert_eq!(ByteRange::Last(100).within(10), 0..10);
    }
}
