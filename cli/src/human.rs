//! Numbers as people write them: sizes, durations, dates, fuel. Output only rounds what it shows; JSON carries the
//! exact values.

use std::time::Duration;

use tallow_market::money;
use tallow_types::{Fuel, TimeMs};

/// A size in binary units, three significant digits: `4.03 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Thousandths of the unit, in integers, so that 1023.99 never prints as 1024.
    let mut milli = u128::from(bytes) * 1000 / 1024;
    let mut unit = 0;
    while milli >= 1_024_000 && unit + 1 < UNITS.len() {
        milli /= 1024;
        unit += 1;
    }
    format!("{} {}", three_digits(milli), UNITS[unit])
}

/// Thousandths with three significant digits, rounded down.
fn three_digits(milli: u128) -> String {
    let (whole, rest) = (milli / 1000, milli % 1000);
    match whole {
        0..=9 => format!("{whole}.{:02}", rest / 10),
        10..=99 => format!("{whole}.{}", rest / 100),
        _ => whole.to_string(),
    }
}

/// Reads a size: `20`, `64K`, `1.5GiB`, `100 MB`. Decimal units are powers of 1000, binary ones (and bare letters) of
/// 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let hint = || format!("'{text}' is no size; write for example 500MB, 20GiB or 4096");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (text[..split].trim(), text[split..].trim().to_ascii_lowercase());
    let scale: u128 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return Err(hint()),
    };
    let scaled = decimal(number, scale).ok_or_else(hint)?;
    u64::try_from(scaled).map_err(|_| hint())
}

/// Reads a rate in bytes a second: a size such as `600K`, or bits such as `5Mbit`, each with or without `/s`.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let hint =
        || format!("'{text}' is no rate; write for example 600K or 2MB for bytes, 5Mbit for bits a second");
    let rate = text.trim().to_ascii_lowercase();
    let rate = rate.strip_suffix("/s").unwrap_or(&rate);
    let Some(bits) = rate.strip_suffix("bit") else { return parse_size(rate).map_err(|_| hint()) };
    let split = bits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bits.len());
    let scale = match bits[split..].trim() {
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return Err(hint()),
    };
    let scaled = decimal(bits[..split].trim(), scale).ok_or_else(hint)?;
    u64::try_from(scaled / 8).map_err(|_| hint())
}

/// `text x scale` for a decimal text such as `1.25`, rounded down; `None` if it is no number or overflows.
fn decimal(text: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18
    {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let tens = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(scale)?.checked_add(part.checked_mul(scale)? / tens)
}

/// A duration with its two largest units: `3 d 4 h`, `1.2 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0 if time.as_millis() < 1000 && time.subsec_millis() > 0 => format!("{} ms", time.subsec_millis()),
        0..=59 => format!("{}.{} s", seconds, time.subsec_millis() / 100),
        60..=3599 => two((minutes, "min"), (seconds % 60, "s")),
        3600..=86_399 => two((hours, "h"), (minutes, "min")),
        _ => two((days, "d"), (hours, "h")),
    }
}

fn two((large, unit): (u64, &str), (small, fraction): (u64, &str)) -> String {
    if small == 0 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {fraction}") }
}

/// Reads a duration: `30d`, `2 weeks`, `12h`, `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no duration; write for example 30d, 12h or 90m");
    let span: jiff::Span = text.parse().map_err(|_| bad())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let duration = span.to_duration(days).map_err(|_| bad())?;
    Duration::try_from(duration).map_err(|_| bad())
}

/// A moment in the machine's time zone, to the minute: `2026-11-21 13:05`.
pub fn date(time: TimeMs) -> String {
    date_in(time, &jiff::tz::TimeZone::system())
}

fn date_in(time: TimeMs, zone: &jiff::tz::TimeZone) -> String {
    let stamp = i64::try_from(time.get()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(
        || "a date beyond reckoning".to_owned(),
        |stamp| stamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

/// A moment as JSON carries it: RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(time: TimeMs) -> Option<String> {
    let stamp = jiff::Timestamp::from_millisecond(i64::try_from(time.get()).ok()?).ok()?;
    Some(stamp.to_string())
}

/// An amount of money, never more than there is: `1.5 fuel`.
pub fn fuel(amount: Fuel) -> String {
    format!("{} fuel", money::format(amount))
}

/// Reads an amount in fuel: `12`, `0.5`.
pub fn parse_fuel(text: &str) -> Result<Fuel, String> {
    money::parse(text.trim().trim_end_matches("fuel")).map_err(|error| error.to_string())
}

/// `one blob`, `3 blobs`.
pub fn count(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// `1 entry`, `3 entries`.
pub fn entries(number: usize) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: sizes round down and never show four digits before a unit change. Method: table with the edges.
    #[test]
    fn sizes_read_well() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            ((1 << 20) - 1, "1023 KiB"),
            (1 << 20, "1.00 MiB"),
            (4_225_000, "4.02 MiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
    }

    /// Goal: what people type is read or refused by name. Method: table.
    #[test]
    fn sizes_parse() {
        for (text, bytes) in
            [("20", 20), ("64K", 65_536), ("1.5GiB", 3 << 29), ("100 MB", 100_000_000), (".5k", 512)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "x", "1.2.3", "5 furlongs", "-1", "99999999999999P", "."] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    /// Goal: two units are enough, none is lost. Method: table.
    #[test]
    fn durations_read_well() {
        let table = [
            (Duration::ZERO, "0.0 s"),
            (Duration::from_millis(12), "12 ms"),
            (Duration::from_millis(1_250), "1.2 s"),
            (Duration::from_secs(61), "1 min 1 s"),
            (Duration::from_secs(7_260), "2 h 1 min"),
            (Duration::from_secs(266_400), "3 d 2 h"),
            (Duration::from_secs(30 * 86_400), "30 d"),
        ];
        for (time, text) in table {
            assert_eq!(duration(time), text);
        }
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert!(parse_duration("soon").is_err());
        assert!(parse_duration("-3h").is_err());
    }

    /// Goal: dates are stable. Method: one moment in UTC, both ways.
    #[test]
    fn dates_read_well() {
        let time = TimeMs::new(1_795_262_700_123);
        assert_eq!(date_in(time, &jiff::tz::TimeZone::UTC), "2026-11-21 12:05");
        assert_eq!(rfc3339(time).as_deref(), Some("2026-11-21T12:05:00.123Z"));
        assert_eq!(rfc3339(TimeMs::MAX), None);
        assert_eq!(date(TimeMs::MAX), "a date beyond reckoning");
    }

    /// Goal: money reads both ways. Method: table and round trip.
    #[test]
    fn fuel_reads_well() {
        assert_eq!(fuel(Fuel::ZERO), "0 fuel");
        assert_eq!(fuel(Fuel::new(1)), "<0.000001 fuel");
        assert_eq!(fuel(Fuel::new(3 << 39)), "1.5 fuel");
        assert_eq!(fuel(Fuel::new((1 << 40) + 1)), "1 fuel");
        assert_eq!(parse_fuel("1.5"), Ok(Fuel::new(3 << 39)));
        assert_eq!(parse_fuel("2 fuel"), Ok(Fuel::new(2 << 40)));
        assert!(parse_fuel("").is_err());
        assert!(parse_fuel("340282366920938463463374607431768211455").is_err());
        assert_eq!((count(1, "blob"), count(0, "blob")), ("1 blob".to_owned(), "0 blobs".to_owned()));
    }
}
