//! Times as ISO-8601 and SQL write them.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use crate::zone::Zone;

const HOUR_MS: i64 = 3_600_000;

/// Milliseconds of a text; a wall-clock time that a zone skips is taken for one after the gap.
pub(crate) fn parse_in(text: &str, zone: Zone) -> Option<i64> {
    fast_iso(text.as_bytes(), zone).or_else(|| {
        let (local, own) = read(text)?;
        own.unwrap_or(zone).instant(local)
    })
}

/// The same, but a wall-clock time that a zone skips is none.
pub(super) fn parse_strictly(text: &str, zone: Zone) -> Option<i64> {
    fast_iso(text.as_bytes(), zone).or_else(|| {
        let (local, own) = read(text)?;
        own.unwrap_or(zone).existing_instant(local)
    })
}

/// `yyyy-MM-dd[T ]HH:mm:ss[.SSS][Z]`, the usual shape.
fn fast_iso(bytes: &[u8], zone: Zone) -> Option<i64> {
    let (stamp, utc) = match bytes.split_last() {
        Some((b'Z', rest)) => (rest, true),
        _ => (bytes, zone == Zone::Utc),
    };
    if !utc || !(stamp.len() == 19 || stamp.len() == 23) {
        return None;
    }
    let digit = |index: usize| {
        let value = stamp[index].wrapping_sub(b'0');
        (value <= 9).then_some(i64::from(value))
    };
    let two = |index: usize| Some(digit(index)? * 10 + digit(index + 1)?);
    let separators = stamp[4] == b'-'
        && stamp[7] == b'-'
        && (stamp[10] == b'T' || stamp[10] == b' ')
        && stamp[13] == b':'
        && stamp[16] == b':';
    if !separators {
        return None;
    }
    let year = two(0)? * 100 + two(2)?;
    let (month, day, hour, minute, second) = (two(5)?, two(8)?, two(11)?, two(14)?, two(17)?);
    let millis = if stamp.len() == 23 {
        if stamp[19] != b'.' {
            return None;
        }
        digit(20)? * 100 + two(21)?
    } else {
        0
    };
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let days = days_from_civil(year, month, day);
    Some(days * 86_400_000 + hour * 3_600_000 + minute * 60_000 + second * 1_000 + millis)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch of a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// What is left of a text.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn take(&mut self, either: &[char]) -> bool {
        match self.0.strip_prefix(either) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// One digit to `most`, as a number.
    fn number(&mut self, most: usize) -> Option<u32> {
        let count = self.0.bytes().take(most).take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at(count);
        let number = digits.parse().ok()?;
        self.0 = rest;
        Some(number)
    }

    /// The digits behind a decimal point as a part of a unit; none if there is no point.
    fn fraction(&mut self, unit_ms: i64) -> Option<Option<i64>> {
        if !self.take(&['.', ',']) {
            return Some(None);
        }
        let before = self.0.len();
        let number = i64::from(self.number(9)?);
        let count = u32::try_from(before - self.0.len()).ok()?;
        Some(Some(number * unit_ms / 10_i64.pow(count)))
    }
}

/// A date, then `T` or a space, a time and an offset, where all but the year may be left out.
fn read(text: &str) -> Option<(NaiveDateTime, Option<Zone>)> {
    let mut rest = Rest(text);
    let date = date(&mut rest)?;
    let (mut millis, mut zone) = (0, None);
    if rest.take(&['T', 't', ' ']) {
        millis = time(&mut rest)?;
        zone = offset(&mut rest)?;
    }
    if !rest.0.is_empty() {
        return None;
    }
    let local = date
        .and_time(NaiveTime::MIN)
        .checked_add_signed(TimeDelta::milliseconds(millis))?;
    Some((local, zone))
}

/// `2000`, `2000-2`, `2000-2-3`, `2000-034` (a day of the year) or `2000-W05-4`.
fn date(rest: &mut Rest<'_>) -> Option<NaiveDate> {
    let negative = rest.0.starts_with('-');
    rest.take(&['-', '+']);
    let year = i32::try_from(rest.number(9)?).ok()?;
    let year = if negative { -year } else { year };
    if !rest.take(&['-']) {
        return NaiveDate::from_ymd_opt(year, 1, 1);
    }
    if rest.take(&['W']) {
        let week = rest.number(2)?;
        let day = if rest.take(&['-']) { rest.number(1)? } else { 1 };
        let day = u8::try_from(day.checked_sub(1)?).ok()?;
        return NaiveDate::from_isoywd_opt(year, week, chrono::Weekday::try_from(day).ok()?);
    }
    let digits = rest.0.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 3 {
        return NaiveDate::from_yo_opt(year, rest.number(3)?);
    }
    let month = rest.number(2)?;
    let day = if rest.take(&['-']) { rest.number(2)? } else { 1 };
    NaiveDate::from_ymd_opt(year, month, day)
}

/// Milliseconds of the day; the last unit may have a fraction. Nothing is midnight.
fn time(rest: &mut Rest<'_>) -> Option<i64> {
    if !rest.0.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(0);
    }
    let mut millis = 0;
    for (unit_ms, limit) in [(HOUR_MS, 24), (60_000, 60), (1_000, 60)] {
        let number = rest.number(2).filter(|number| *number < limit)?;
        millis += i64::from(number) * unit_ms;
        if let Some(fraction) = rest.fraction(unit_ms)? {
            return Some(millis + fraction);
        }
        if unit_ms == 1_000 || !rest.take(&[':']) {
            break;
        }
    }
    Some(millis)
}

/// `Z`, or an offset whose hours have two digits; none if there is neither.
fn offset(rest: &mut Rest<'_>) -> Option<Option<Zone>> {
    if rest.take(&['Z', 'z']) {
        return Some(Some(Zone::Utc));
    }
    if !rest.0.starts_with(['+', '-']) {
        return Some(None);
    }
    let text = std::mem::take(&mut rest.0);
    let hours = text.bytes().skip(1).take_while(u8::is_ascii_digit).count();
    match crate::zone::parse_offset(text) {
        Some(offset) if hours >= 2 => Some(Some(Zone::Fixed(offset))),
        _ => None,
    }
}
