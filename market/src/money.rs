//! Money as people write it: decimal fuel, where one fuel is 2^40 base units.

use tallow_types::Fuel;

/// Why a text is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not digits with at most one point.
    #[error("an amount is written in digits, such as 12 or 0.5")]
    NotANumber,
    /// More decimals than base units can tell apart.
    #[error("an amount has at most {DECIMALS} decimals")]
    TooFine,
    /// More than there can be.
    #[error("this amount is more than any network holds")]
    TooLarge,
}

/// Decimals that a text may have; the last ones are finer than a base unit and are rounded down.
const DECIMALS: usize = 15;

/// Decimals shown at most, rounded down: nobody is shown more than there is.
const SHOWN: u32 = 6;

/// Reads an amount such as `12`, `0.5` or `.25`; what is finer than a base unit is rounded down.
///
/// # Errors
/// See [`AmountError`].
pub fn parse(text: &str) -> Result<Fuel, AmountError> {
    let text = text.trim();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return Err(AmountError::NotANumber);
    }
    if part.len() > DECIMALS {
        return Err(AmountError::TooFine);
    }
    let number = |s: &str| if s.is_empty() { Ok(0) } else { s.parse::<u128>() };
    let whole = number(whole).map_err(|_| AmountError::TooLarge)?;
    let part = number(&format!("{part:0<DECIMALS$}")).map_err(|_| AmountError::TooLarge)?;
    let fine = Fuel::ONE.mul_div_floor(part, 10u128.pow(15)).ok_or(AmountError::TooLarge)?;
    let units = whole.checked_mul(Fuel::ONE.get()).ok_or(AmountError::TooLarge)?;
    Fuel::new(units).checked_add(fine).ok_or(AmountError::TooLarge)
}

/// Writes an amount with up to six decimals, rounded down; what is above zero but below the last decimal is shown as
/// `<0.000001`, never as nothing.
#[must_use]
pub fn format(amount: Fuel) -> String {
    let one = Fuel::ONE.get();
    let (whole, rest) = (amount.get() / one, amount.get() % one);
    let part = rest * 10u128.pow(SHOWN) / one;
    if whole == 0 && part == 0 && rest > 0 {
        return "<0.000001".to_owned();
    }
    let text = format!("{whole}.{part:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Goal: texts that people write are read, others are named. Method: a table.
    #[test]
    fn amounts_are_read_and_shown() {
        for (text, units) in [
            ("1", 1u128 << 40),
            ("0.5", 1 << 39),
            (".25", 1 << 38),
            (" 12. ", 12 << 40),
            ("0.000000000001", 1),
        ] {
            assert_eq!(parse(text), Ok(Fuel::new(units)), "{text}");
        }
        for text in ["", ".", "-1", "1e3", "1,5", "1.2.3", "0x1"] {
            assert_eq!(parse(text), Err(AmountError::NotANumber), "{text}");
        }
        assert_eq!(parse("0.0000000000000001"), Err(AmountError::TooFine));
        assert_eq!(parse(&"9".repeat(40)), Err(AmountError::TooLarge));
        assert_eq!(parse(&"9".repeat(30)), Err(AmountError::TooLarge));
        for (units, text) in
            [(0, "0"), (1 << 40, "1"), (3 << 39, "1.5"), (1, "<0.000001"), ((1 << 40) - 1, "0.999999")]
        {
            assert_eq!(format(Fuel::new(units)), text);
        }
    }

    proptest! {
        /// Goal: what is shown, read again, is never more, and less than a millionth off. Method: any amount.
        #[test]
        fn shown_is_close_from_below(units in 1u128 << 21..1 << 100) {
            let shown = parse(&format(Fuel::new(units))).expect("what is shown can be read").get();
            prop_assert!(shown <= units && units - shown <= (1 << 40) / 1_000_000 + 1);
        }
    }
}
