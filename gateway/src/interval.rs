//! Intervals of requests, in every ISO form that Joda's `Interval` takes.

use std::ops::Neg;

use chrono::{DateTime, Days, Months, NaiveDate, NaiveDateTime, TimeDelta};
use trilith_proto::interval::{Interval, parse_instant};

/// Reads "start/end", "start/period" or "period/end"; `_` may stand for `/`.
pub(crate) fn parse(text: &str) -> Option<Interval> {
    let (start, end) = text.split_once('/').or_else(|| text.split_once('_'))?;
    let interval = match (start.strip_prefix(['P', 'p']), end.strip_prefix(['P', 'p'])) {
        (Some(_), Some(_)) => return None,
        (Some(period), None) => {
            let end = instant(end)?;
            Interval::new(Period::read(period)?.before(end)?, end)
        }
        (None, Some(period)) => {
            let start = instant(start)?;
            Interval::new(start, Period::read(period)?.after(start)?)
        }
        (None, None) => Interval::new(instant(start)?, instant(end)?),
    };
    (interval.start_ms <= interval.end_ms).then_some(interval)
}

/// A date, down to the year, with a time, down to the hour; UTC when it names no offset.
fn instant(text: &str) -> Option<i64> {
    parse_instant(text).or_else(|| {
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let midnight = self::date(date)?
            .and_hms_opt(0, 0, 0)?
            .and_utc()
            .timestamp_millis();
        match time {
            None | Some("") => Some(midnight),
            Some(time) => midnight.checked_add(self::time(time)?),
        }
    })
}

/// "2024", "2024-02", "2024-02-03", "2024-W05", "2024-W05-3" or "2024-034".
fn date(text: &str) -> Option<NaiveDate> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let parts: Vec<&str> = digits.split('-').collect();
    let year = i32::try_from(number(parts.first()?)?).ok()? * sign;
    match parts.as_slice() {
        [_] => NaiveDate::from_ymd_opt(year, 1, 1),
        [_, week, rest @ ..] if week.starts_with('W') && rest.len() < 2 => {
            let day = rest.first().map_or(Some(1), |day| number(day))?;
            let day = chrono::Weekday::try_from(u8::try_from(day.checked_sub(1)?).ok()?).ok()?;
            NaiveDate::from_isoywd_opt(year, number(&week[1..])?, day)
        }
        [_, day] if day.len() == 3 => NaiveDate::from_yo_opt(year, number(day)?),
        [_, month] => NaiveDate::from_ymd_opt(year, number(month)?, 1),
        [_, month, day] => NaiveDate::from_ymd_opt(year, number(month)?, number(day)?),
        _ => None,
    }
}

/// "05", "05:06", "05:06:07.8", with an offset or without, as milliseconds after the midnight of UTC.
fn time(text: &str) -> Option<i64> {
    let (clock, offset) = match text.find(['Z', '+', '-']) {
        Some(at) => (&text[..at], self::offset(&text[at..])?),
        None => (text, 0),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let mut millis = 0;
    for (index, part) in parts.iter().enumerate() {
        let (unit, most) = [(3_600_000, 24), (60_000, 60), (1_000, 60)].get(index).copied()?;
        let (whole, fraction) = part.split_once(['.', ',']).unwrap_or((part, ""));
        let last = index + 1 == parts.len();
        let whole = number(whole).filter(|whole| i64::from(*whole) < most)?;
        millis += i64::from(whole) * unit;
        if !fraction.is_empty() {
            let fraction = last.then(|| fraction.get(..fraction.len().min(9)))??;
            let digits = u32::try_from(fraction.len()).ok()?;
            millis += i64::from(number(fraction)?) * unit / 10_i64.pow(digits);
        }
    }
    Some(millis - offset)
}

/// "Z", "+05", "+05:30" or "+0530" in milliseconds.
fn offset(text: &str) -> Option<i64> {
    let digits = text.get(1..)?.replace(':', "");
    let minutes = match (digits.len(), text.starts_with('Z')) {
        (0, true) => 0,
        (2, false) => i64::from(number(&digits)?) * 60,
        (4, false) => i64::from(number(digits.get(..2)?)?) * 60 + i64::from(number(digits.get(2..)?)?),
        _ => return None,
    };
    Some(minutes * if text.starts_with('-') { -60_000 } else { 60_000 })
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Months, days and milliseconds that are added one after the other.
struct Period {
    months: u32,
    days: u64,
    time: TimeDelta,
}

impl Period {
    /// Reads what follows the P: "1Y2M3W4DT5H6M7.5S".
    fn read(text: &str) -> Option<Period> {
        let mut period = Period {
            months: 0,
            days: 0,
            time: TimeDelta::zero(),
        };
        let text = text.to_ascii_uppercase();
        let (date, time) = text.split_once('T').unwrap_or((&text, ""));
        for (count, unit) in parts(date)? {
            let count = number(count)?;
            match unit {
                'Y' => period.months = period.months.checked_add(count.checked_mul(12)?)?,
                'M' => period.months = period.months.checked_add(count)?,
                'W' => period.days += u64::from(count) * 7,
                'D' => period.days += u64::from(count),
                _ => return None,
            }
        }
        for (count, unit) in parts(time)? {
            let (whole, fraction) = count.split_once(['.', ',']).unwrap_or((count, ""));
            let whole = i64::from(number(whole)?);
            let length = match unit {
                'H' => TimeDelta::try_hours(whole)?,
                'M' => TimeDelta::try_minutes(whole)?,
                'S' => TimeDelta::try_seconds(whole)? + TimeDelta::milliseconds(thousandths(fraction)?),
                _ => return None,
            };
            if unit != 'S' && !fraction.is_empty() {
                return None;
            }
            period.time = period.time.checked_add(&length)?;
        }
        (!date.is_empty() || !time.is_empty()).then_some(period)
    }

    fn after(&self, ms: i64) -> Option<i64> {
        let time = moment(ms)?.checked_add_months(Months::new(self.months))?;
        let time = time.checked_add_days(Days::new(self.days))?;
        Some(time.checked_add_signed(self.time)?.and_utc().timestamp_millis())
    }

    fn before(&self, ms: i64) -> Option<i64> {
        let time = moment(ms)?.checked_sub_months(Months::new(self.months))?;
        let time = time.checked_sub_days(Days::new(self.days))?;
        Some(
            time.checked_add_signed(self.time.neg())?
                .and_utc()
                .timestamp_millis(),
        )
    }
}

fn moment(ms: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_millis(ms).map(|time| time.naive_utc())
}

/// The first three digits after a point, as a number of thousandths.
fn thousandths(fraction: &str) -> Option<i64> {
    if fraction.is_empty() {
        return Some(0);
    }
    number(fraction.get(..fraction.len().min(9))?)?;
    number(&format!("{fraction:0<3}")[..3]).map(i64::from)
}

/// Numbers with the letters behind them.
fn parts(mut text: &str) -> Option<Vec<(&str, char)>> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let at = text.find(|letter: char| letter.is_ascii_uppercase())?;
        parts.push((&text[..at], char::from(*text.as_bytes().get(at)?)));
        text = &text[at + 1..];
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_intervals() {
        for (text, expected) in [
            ("2024/2025", "2024-01-01T00:00:00.000Z/2025-01-01T00:00:00.000Z"),
            (
                "2024-01_2024-02",
                "2024-01-01T00:00:00.000Z/2024-02-01T00:00:00.000Z",
            ),
            (
                "2024-01-01/P1D",
                "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z",
            ),
            (
                "P1M1DT1H/2024-03-02",
                "2024-01-31T23:00:00.000Z/2024-03-02T00:00:00.000Z",
            ),
            (
                "2024-01-01T05/pt90.5s",
                "2024-01-01T05:00:00.000Z/2024-01-01T05:01:30.500Z",
            ),
            (
                "2024-01-01T00+01:00/2024-01-01T12:30Z",
                "2023-12-31T23:00:00.000Z/2024-01-01T12:30:00.000Z",
            ),
            (
                "2024-W01/2024-W01-3",
                "2024-01-01T00:00:00.000Z/2024-01-03T00:00:00.000Z",
            ),
            (
                "2024-032/2024-02-02T",
                "2024-02-01T00:00:00.000Z/2024-02-02T00:00:00.000Z",
            ),
            (
                "-146136543-09-08T08:23:32.096Z/146140482-04-24T15:36:27.903Z",
                "-146136543-09-08T08:23:32.096Z/146140482-04-24T15:36:27.903Z",
            ),
        ] {
            assert_eq!(
                parse(text).map(|interval| interval.to_string()).as_deref(),
                Some(expected),
                "{text}"
            );
        }
        for text in [
            "2024",
            "P1D/P1D",
            "2025/2024",
            "2024-13/2025",
            "2024-01-01/P",
            "2024-01-01/P1X",
            "x/y",
            "2024-01-01T25/2025",
            "",
            "2024-01-01/ä",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
