//! The time of a record: format `auto`.

use trilith_proto::interval::parse_instant;

use crate::columns::Value;
use crate::number::long_of_number;

/// The field of a record that is its time, whether the statement reads it or not.
pub(crate) const TIME_FIELD: &str = "__time";

/// The `__time` of a record cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTime(pub String);

/// Names of time zones that Java has and the tz database has not.
const JAVA_ZONES: [&str; 25] = [
    "ACT", "AET", "AGT", "ART", "AST", "BET", "BST", "CAT", "CNT", "CST", "CTT", "EAT", "ECT", "IET", "IST",
    "JST", "MIT", "NET", "NST", "PLT", "PNT", "PRT", "PST", "SST", "VST",
];

/// Digits are milliseconds, anything else is ISO-8601; missing is 0.
pub(crate) fn time_ms(value: Value<'_>) -> Result<i64, BadTime> {
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => long_of_number(number).ok_or_else(|| BadTime(number.to_owned())),
        Value::Text(text) => of_text(text),
        Value::Escaped(raw) => of_text(&crate::columns::unescape(raw)),
        Value::Bool(value) => Err(BadTime(value.to_string())),
        Value::Nested(raw) | Value::Bytes(raw) => Err(BadTime(raw.to_owned())),
    }
}

fn of_text(text: &str) -> Result<i64, BadTime> {
    let trimmed = text.trim();
    trimmed
        .parse::<i64>()
        .ok()
        .or_else(|| parse_instant(trimmed))
        .or_else(|| unusual(trimmed))
        .ok_or_else(|| BadTime(trimmed.to_owned()))
}

/// All that is not the usual shape: parts of a date, weeks, quotes, a zone after a space.
fn unusual(text: &str) -> Option<i64> {
    let text = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inside) => inside.trim(),
        None => text,
    };
    // Druid shows the time in that zone, but does not read it in it.
    let text = match text.rsplit_once(' ') {
        Some((time, zone)) if is_zone(zone) => time,
        _ => text,
    };
    parse_instant(text).or_else(|| trilith_functions::parse_timestamp(&text.replace(',', "."), "UTC"))
}

fn is_zone(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && (JAVA_ZONES.contains(&text) || trilith_functions::is_time_zone(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_auto_reads() {
        let day = 1_704_067_200_000;
        let hour = 3_600_000;
        let cases = [
            ("1704067200000", day),
            ("2024-01-01", day),
            ("\"2024-01-01\"", day),
            (" \" 2024-01-01 \" ", day),
            ("2024-01", day),
            ("2024-001", day),
            ("2024-032", day + 31 * 24 * hour),
            ("2024-W01-1", day),
            ("2024-W02", day + 7 * 24 * hour),
            ("2024-01-01T", day),
            ("2024-01-01T10", day + 10 * hour),
            ("2024-01-01T10:30", day + 10 * hour + hour / 2),
            ("2024-01-01T10:00:00+0200", day + 8 * hour),
            ("2024-01-01T10:00:00+02:00", day + 8 * hour),
            ("2024-01-01T10:00:00+02", day + 8 * hour),
            ("2024-01-01 10:00:00-08:00", day + 18 * hour),
            ("2024-01-01 10:00:00Z", day + 10 * hour),
            ("2024-01-01T10:00:00.25", day + 10 * hour + 250),
            ("2024-01-01T10:00:00,5", day + 10 * hour + 500),
            ("2024-01-01T10:00:00.123456+0200", day + 8 * hour + 123),
            ("2024-01-01 00:00:00 UTC", day),
            ("2024-01-01 00:00:00 America/New_York", day),
            ("\"2024-01-01 00:00:00 PST\"", day),
        ];
        for (text, expected) in cases {
            assert_eq!(time_ms(Value::Text(text)), Ok(expected), "{text}");
        }
        for text in [
            "",
            "asdf",
            "2024-13-01",
            "2024-01-01 10:00:00 Nowhere",
            "2024-01-01x",
            "\"",
            "\"\"",
        ] {
            assert!(time_ms(Value::Text(text)).is_err(), "{text}");
        }
        assert!(time_ms(Value::Bool(true)).is_err());
        assert_eq!(time_ms(Value::Null), Ok(0));
    }
}
