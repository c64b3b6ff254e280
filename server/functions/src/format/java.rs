//! Conversions of `String.format` that only Java has: parts of times, hashes, doubles with hexadecimal digits.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};

/// A part of a time, in UTC; none if the letter means nothing.
pub(super) fn time_part(letter: char, ms: i64) -> Option<String> {
    let time = DateTime::<Utc>::from_timestamp_millis(ms)?.naive_utc();
    let shown = |shape: &str| time.format(shape).to_string();
    Some(match letter {
        'H' | 'I' | 'M' | 'S' | 'B' | 'b' | 'h' | 'A' | 'a' | 'y' | 'j' | 'm' | 'd' | 'R' | 'T' | 'D' => {
            shown(&format!("%{letter}"))
        }
        'k' => time.hour().to_string(),
        'l' => time.hour12().1.to_string(),
        'e' => time.day().to_string(),
        'L' => shown("%3f"),
        'N' => shown("%9f"),
        'p' => shown("%P"),
        'r' => shown("%I:%M:%S %p"),
        'z' => "+0000".to_owned(),
        'Z' => "UTC".to_owned(),
        's' => time.and_utc().timestamp().to_string(),
        'Q' => ms.to_string(),
        'C' => format!("{:02}", time.year() / 100),
        'Y' => year(&time),
        'F' => format!("{}-{}", year(&time), shown("%m-%d")),
        'c' => format!("{} UTC {}", shown("%a %b %d %T"), year(&time)),
        _ => return None,
    })
}

fn year(time: &NaiveDateTime) -> String {
    format!("{:04}", time.year())
}

/// `Long.hashCode`.
pub(super) fn long_hash(value: i64) -> u32 {
    let bits = value.cast_unsigned();
    // The lower half is what an int has of it.
    ((bits ^ (bits >> 32)) & u64::from(u32::MAX)) as u32
}

/// `Double.hashCode`.
pub(super) fn double_hash(value: f64) -> u32 {
    let bits = if value.is_nan() { f64::NAN } else { value }.to_bits();
    long_hash(bits.cast_signed())
}

/// `String.hashCode`.
pub(super) fn text_hash(text: &str) -> u32 {
    text.encode_utf16().fold(0_u32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(u32::from(unit))
    })
}

/// `Double.toHexString` of a finite number that is not negative.
pub(super) fn hex_double(magnitude: f64) -> String {
    let bits = magnitude.to_bits();
    let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    let digits = format!("{fraction:013x}");
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        digits => digits,
    };
    match (exponent, fraction) {
        (0, 0) => "0x0.0p0".to_owned(),
        (0, _) => format!("0x0.{digits}p-1022"),
        _ => format!("0x1.{digits}p{}", exponent.cast_signed() - 1023),
    }
}
