//! Durations and sizes as people write them: a number and a unit, `250ms` or `64MiB`.

use std::time::Duration;

use crate::config::yaml::quote;

const TIME: &[(&str, u128)] =
    &[("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60 * 1_000_000_000), ("h", 3600 * 1_000_000_000)];

const BYTES: &[(&str, u128)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The longest duration: a year. It keeps sums of times far from overflow.
const LONGEST: u128 = 365 * 24 * 3600 * 1_000_000_000;
/// The largest size: a pebibyte.
const LARGEST: u128 = 1 << 50;

/// Why a text is no amount, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// A duration. Zero is one.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let number = Number::read(text).ok_or_else(|| Wrong {
        message: format!("{} is not a duration", quote(text)),
        hint: "write a number and a unit, such as `250ms`, `2s`, `5m` or `1h`".into(),
    })?;
    if number.unit.is_empty() {
        return Err(Wrong {
            message: format!("the duration {} has no unit", quote(text)),
            hint: format!("write `{}s`, or use `ms`, `m` or `h`", number.text),
        });
    }
    let unit = unit(TIME, number.unit).ok_or_else(|| Wrong {
        message: format!("{} is not a unit of time", quote(number.unit)),
        hint: "the units are `ms`, `s`, `m` and `h`".into(),
    })?;
    match number.times(unit) {
        Some(nanos) if nanos <= LONGEST => Ok(Duration::from_nanos(nanos as u64)),
        _ => Err(Wrong {
            message: format!("the duration {} is too long", quote(text)),
            hint: "a year (`8760h`) is the longest there is".into(),
        }),
    }
}

/// A size in bytes. A bare number is bytes, zero is a size.
pub(crate) fn size(text: &str) -> Result<u64, Wrong> {
    let number = Number::read(text).ok_or_else(|| Wrong {
        message: format!("{} is not a size", quote(text)),
        hint: "write a number of bytes, or a number and a unit, such as `10KB` or `64MiB`".into(),
    })?;
    let unit = match number.unit {
        "" => 1,
        word => unit(BYTES, word).ok_or_else(|| size_unit(&number))?,
    };
    match number.times(unit) {
        Some(bytes) if bytes <= LARGEST => Ok(bytes as u64),
        Some(_) => Err(Wrong {
            message: format!("the size {} is too large", quote(text)),
            hint: "`1024TiB` is the largest there is".into(),
        }),
        None => Err(Wrong {
            message: format!("{} is not a whole number of bytes", quote(text)),
            hint: "use a smaller unit".into(),
        }),
    }
}

fn size_unit(number: &Number<'_>) -> Wrong {
    let prefix = number.unit.chars().next().unwrap_or_default().to_ascii_uppercase();
    Wrong {
        message: format!("{} is not a unit of size", quote(number.unit)),
        hint: match prefix {
            'K' | 'M' | 'G' | 'T' => {
                format!("write `{0}{prefix}iB` (powers of 1024) or `{0}{prefix}B` (powers of 1000)", number.text)
            }
            _ => "the units are `B`, `KB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB` and `TiB`".into(),
        },
    }
}

fn unit(units: &[(&str, u128)], word: &str) -> Option<u128> {
    units.iter().find(|(name, _)| *name == word).map(|(_, factor)| *factor)
}

/// A decimal number before a unit, kept exact.
struct Number<'a> {
    text: &'a str,
    digits: u128,
    /// By how many decimal places the digits are too large.
    places: u32,
    unit: &'a str,
}

impl<'a> Number<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let dot = number.len() > whole.len();
        if whole.is_empty() || part.contains('.') || dot && part.is_empty() || part.len() > 9 {
            return None;
        }
        // Whatever has more digits is too large in every unit.
        let whole: u128 = whole.parse().unwrap_or(u128::MAX).min(1 << 80);
        let places = part.len() as u32;
        let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
        let digits = whole * 10_u128.pow(places) + part;
        Some(Self { text: number, digits, places, unit: unit.trim_start_matches(' ') })
    }

    /// In the smallest unit; `None` if that is not whole.
    fn times(&self, unit: u128) -> Option<u128> {
        let product = self.digits.saturating_mul(unit);
        let scale = 10_u128.pow(self.places);
        product.is_multiple_of(scale).then_some(product / scale)
    }
}

/// A duration as this grammar writes it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, factor) in [("h", 3_600_000), ("m", 60_000)] {
        // A single minute or hour reads better as 60 of the next unit.
        if millis > factor && millis.is_multiple_of(factor) {
            return format!("{}{unit}", millis / factor);
        }
    }
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// A size as this grammar writes it.
pub(crate) fn show_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_exactly() {
        for (text, nanos) in [
            ("250ms", 250_000_000),
            ("2s", 2_000_000_000),
            ("2 s", 2_000_000_000),
            ("5m", 300_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("0s", 0),
            ("8760h", LONGEST as u64),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn wrong_durations_say_what_to_write() {
        for (text, message, hint) in [
            ("5", "the duration `5` has no unit", "write `5s`"),
            ("0.5", "the duration `0.5` has no unit", "write `0.5s`"),
            ("5sec", "`sec` is not a unit of time", "the units are"),
            ("5S", "`S` is not a unit of time", "the units are"),
            ("1m30s", "`m30s` is not a unit of time", "the units are"),
            ("s", "`s` is not a duration", "write a number and a unit"),
            ("", "`` is not a duration", "write a number and a unit"),
            ("-5s", "`-5s` is not a duration", "write a number and a unit"),
            ("1.s", "`1.s` is not a duration", "write a number and a unit"),
            (".5s", "`.5s` is not a duration", "write a number and a unit"),
            ("1.2.3s", "`1.2.3s` is not a duration", "write a number and a unit"),
            ("8761h", "the duration `8761h` is too long", "a year"),
            (&"9".repeat(39), "has no unit", "write"),
            (&format!("{}h", "9".repeat(30)), "is too long", "a year"),
        ] {
            let wrong = duration(text).expect_err(text);
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
            assert!(wrong.hint.contains(hint), "{text}: {}", wrong.hint);
        }
    }

    #[test]
    fn sizes_are_read_exactly() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("10KB", 10_000),
            ("10kB", 10_000),
            ("10KiB", 10_240),
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("1TB", 1_000_000_000_000),
            ("1024TiB", 1 << 50),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_say_what_to_write() {
        for (text, message, hint) in [
            ("10M", "`M` is not a unit of size", "write `10MiB`"),
            ("10mb", "`mb` is not a unit of size", "write `10MiB`"),
            ("10x", "`x` is not a unit of size", "the units are"),
            ("0.5B", "`0.5B` is not a whole number of bytes", "smaller unit"),
            ("1025TiB", "the size `1025TiB` is too large", "1024TiB"),
            ("-1", "`-1` is not a size", "write a number of bytes"),
            ("many", "`many` is not a size", "write a number of bytes"),
        ] {
            let wrong = size(text).expect_err(text);
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
            assert!(wrong.hint.contains(hint), "{text}: {}", wrong.hint);
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for millis in [0, 1, 250, 1000, 60_000, 300_000, 3_600_000, 7_200_000, 90_000] {
            let duration_ = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(duration_)), Ok(duration_));
        }
        for bytes in [0, 1, 1000, 1024, 64 << 10, 10 << 20, 1 << 30, 5 << 40] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
    }
}
