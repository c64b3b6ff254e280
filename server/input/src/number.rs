//! Numbers in external data: as Java reads and prints them.

use serde_json::{Number, Value as Json};

/// Small enough to be printed as it stands.
pub(crate) fn is_plain_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit()) && digits != "0" || number == "0"
}

/// Integers of 64 bits as they are, other numbers as Java prints a double.
pub(crate) fn number_text(number: &str) -> String {
    match number.parse::<i64>() {
        Ok(integer) => integer.to_string(),
        Err(_) => number
            .parse::<f64>()
            .map_or_else(|_| number.to_owned(), trilith_proto::java::double),
    }
}

/// A double as JSON, which has no word for what is no number: that is text, and reads as the same double.
pub(crate) fn json_double(value: f64) -> Json {
    match Number::from_f64(value) {
        Some(number) => Json::Number(number),
        None => Json::String(trilith_proto::java::double(value)),
    }
}

/// A JSON number as it is normalised: a long if it fits, else a double.
pub(crate) fn json_number(number: &str) -> Option<Json> {
    match number.parse::<i64>() {
        Ok(integer) => Some(Json::from(integer)),
        Err(_) => number.parse::<f64>().ok().map(json_double),
    }
}

/// Up to 18 digits with or without a minus: the usual long.
pub(crate) fn plain_long(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, bytes),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value: i64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// A JSON number as a long, cut towards zero.
pub(crate) fn long_of_number(number: &str) -> Option<i64> {
    plain_long(number.as_bytes())
        .or_else(|| number.parse::<i64>().ok())
        .or_else(|| number.parse::<f64>().ok().map(|value| value as i64))
}

/// Text as a long: a number that is not whole is cut towards zero, and what is no number is 0, as in Java.
pub(crate) fn long_of_text(text: &str) -> Option<i64> {
    plain_long(text.as_bytes()).or_else(|| {
        let text = cleaned(text);
        let whole = text.parse::<i64>().ok();
        whole.or_else(|| parse_double(&text).map(|value| value as i64))
    })
}

/// Text as a double.
pub(crate) fn double_of_text(text: &str) -> Option<f64> {
    parse_double(&cleaned(text))
}

/// Without commas, and without a plus before digits.
fn cleaned(text: &str) -> String {
    let text: String = text.trim().chars().filter(|c| *c != ',').collect();
    match text.strip_prefix('+') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => rest.to_owned(),
        _ => text,
    }
}

/// A double in any spelling of Java's `Double.valueOf`: decimal or hexadecimal, with or without a letter for its
/// type at the end. Rust's parser also reads "inf" and "nan" in any case; those are none of Java's spellings.
pub(crate) fn parse_double(text: &str) -> Option<f64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = match digits {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ if digits.starts_with("0x") || digits.starts_with("0X") => hexadecimal(&digits[2..])?,
        _ if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => untyped(digits).parse().ok()?,
        _ => return None,
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// Without the letter for float or double at the end.
fn untyped(number: &str) -> &str {
    number.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(number)
}

/// `1.8p3`: hexadecimal digits, then the power of two, which must be there.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, power) = text.split_once(['p', 'P'])?;
    let power = untyped(power);
    if power.trim_start_matches(['+', '-']).is_empty() {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0_f64;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let places = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    let power = power
        .parse::<i32>()
        .ok()?
        .checked_sub(places)?
        .clamp(-4_000, 4_000);
    // In two steps: a half of a small power is still a number.
    let half = power / 2;
    Some(value * 2.0_f64.powi(half) * 2.0_f64.powi(power - half))
}

/// The number that `tryParseNumbers` makes of a cell: a long, else a double. None: it stays text.
pub(crate) fn cell_number(text: &str) -> Option<Json> {
    if !is_creatable(text) {
        return None;
    }
    // The parser for longs knows no plus.
    let long = (!text.starts_with('+'))
        .then(|| text.parse::<i64>().ok())
        .flatten();
    long.map(Json::from)
        .or_else(|| parse_double(text).map(json_double))
}

/// Whether Java has a literal like this one: zeros in front mean base eight, and then other digits are wrong.
fn is_creatable(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = bytes
        .strip_prefix(b"-")
        .or(bytes.strip_prefix(b"+"))
        .unwrap_or(bytes);
    match digits {
        [b'0', b'x' | b'X', rest @ ..] if !bytes.contains(&b'.') => {
            !rest.is_empty() && rest.iter().all(u8::is_ascii_hexdigit)
        }
        [b'0', b'0'..=b'9', ..] if !bytes.contains(&b'.') => {
            digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        }
        _ => is_decimal(digits),
    }
}

/// Digits with a point and an exponent, and a letter for the type at the end.
fn is_decimal(text: &[u8]) -> bool {
    let text = match text.split_last() {
        Some((b'd' | b'D' | b'f' | b'F', rest)) => rest,
        _ => text,
    };
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(text);
    let rest = &text[whole..];
    let (fraction, rest) = match rest.split_first() {
        Some((b'.', rest)) => {
            let count = digits(rest);
            (count, &rest[count..])
        }
        _ => (0, rest),
    };
    if whole + fraction == 0 {
        return false;
    }
    match rest.split_first() {
        None => true,
        Some((b'e' | b'E', power)) => {
            let power = power
                .strip_prefix(b"-")
                .or(power.strip_prefix(b"+"))
                .unwrap_or(power);
            !power.is_empty() && digits(power) == power.len()
        }
        Some(_) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_doubles_as_java_does() {
        let cases = [
            ("1d", Some(1.0)),
            ("1.5F", Some(1.5)),
            ("-1.e2", Some(-100.0)),
            (".5", Some(0.5)),
            ("+.5", Some(0.5)),
            ("0x1p3", Some(8.0)),
            ("-0X.8P-1d", Some(-0.25)),
            ("0x1.8p1", Some(3.0)),
            ("0x1p-1074", Some(5e-324)),
            ("1e400", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("+Infinity", Some(f64::INFINITY)),
            ("infinity", None),
            ("inf", None),
            ("nan", None),
            ("0x1", None),
            ("0xp1", None),
            ("0x1p", None),
            ("1dd", None),
            ("d", None),
            (".", None),
            ("", None),
            ("++1", None),
            ("1_0", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_double(text), expected, "{text}");
        }
        assert!(parse_double("NaN").unwrap().is_nan());
        let longs = [
            ("1d", Some(1)),
            ("0x1p3", Some(8)),
            ("NaN", Some(0)),
            ("+1,000", Some(1_000)),
            ("-Infinity", Some(i64::MIN)),
            ("++5", None),
        ];
        for (text, expected) in longs {
            assert_eq!(long_of_text(text), expected, "{text}");
        }
    }

    #[test]
    fn makes_numbers_of_cells_that_are_some() {
        let cases = [
            ("5", json!(5)),
            ("-5", json!(-5)),
            ("+5", json!(5.0)),
            ("1d", json!(1.0)),
            ("1.", json!(1.0)),
            (".5", json!(0.5)),
            ("00.5", json!(0.5)),
            ("1e5", json!(100_000.0)),
            ("017", json!(17)),
            ("99999999999999999999", json!(1e20)),
            ("1e400", json!("Infinity")),
        ];
        for (text, expected) in cases {
            assert_eq!(cell_number(text), Some(expected), "{text}");
        }
        for text in [
            "08", "-08", "0x1F", "5L", "NaN", "Infinity", "", "-", ".", "1e", "1e+", "e5", "1.2.3", "1 ", "x",
        ] {
            assert_eq!(cell_number(text), None, "{text}");
        }
    }
}
