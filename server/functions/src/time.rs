//! Time functions. Periods, units, patterns and zones are literals.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMillisecondArray};
use chrono::{Datelike, NaiveDate, Timelike};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;

use crate::function::{
    Args, Call, Function, returns_boolean, returns_long, returns_text, returns_time, scalar_text, times,
};
use crate::pattern::Pattern;
use crate::period::Period;
use crate::zone::Zone;

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("time_floor", (2, 4), returns_time, |args| bucket(args, false))
            .literals(&[1, 3])
            .check(check_period),
        Function::new("time_ceil", (2, 4), returns_time, |args| bucket(args, true))
            .literals(&[1, 3])
            .check(check_period),
        Function::new("date_trunc", (2, 3), returns_time, truncate)
            .literals(&[0, 2])
            .check(check_truncation),
        Function::new("time_shift", (3, 4), returns_time, shift)
            .literals(&[1, 3])
            .check(check_period),
        Function::new("druid_shift_date", (3, 4), returns_time, shift)
            .literals(&[1, 3])
            .check(check_period)
            .keeps_date(),
        Function::new("time_extract", (2, 3), returns_long, extract)
            .literals(&[1, 2])
            .check(check_unit),
        Function::new("time_parse", (1, 3), returns_time, parse)
            .literals(&[1, 2])
            .check(check_pattern)
            .maps(),
        Function::new("time_format", (1, 3), returns_text, format)
            .literals(&[1, 2])
            .check(check_pattern),
        Function::new(
            "timestampdiff",
            (3, 3),
            crate::string::returns_integer,
            difference,
        )
        .literals(&[0]),
        Function::new("timestampadd", (3, 4), returns_time, add).literals(&[0, 3]),
        Function::new("millis_to_timestamp", (1, 1), returns_time, |args| {
            Ok(Arc::new(args.time(0)?))
        }),
        Function::new("timestamp_to_millis", (1, 1), returns_long, |args| {
            let millis: Int64Array = args.time(0)?.reinterpret_cast();
            Ok(Arc::new(millis))
        }),
        Function::new("time_in_interval", (2, 3), returns_boolean, in_interval)
            .literals(&[1, 2])
            .check(check_interval),
    ]
}

fn zone(args: &Args, index: usize) -> Result<Zone> {
    match args.literal(index)? {
        None => Ok(Zone::Utc),
        Some(text) => match Zone::parse(&text) {
            Some(zone) => Ok(zone),
            None => exec_err!("[{text}] is not a time zone"),
        },
    }
}

fn period(args: &Args, index: usize) -> Result<Period> {
    let text = args.required(index)?;
    match Period::parse(&text) {
        Some(period) => Ok(period),
        None => exec_err!("[{text}] is not an ISO period such as 'PT1H'"),
    }
}

fn bucket(args: &Args, ceils: bool) -> Result<ArrayRef> {
    let (period, zone) = (period(args, 1)?, zone(args, 3)?);
    let origin = match args.literal(2) {
        Ok(None) => None,
        _ => args.time(2)?.iter().next().flatten(),
    };
    let values = args.time(0)?;
    if !ceils {
        return floored(&values, period, zone, origin);
    }
    Ok(times(
        values
            .iter()
            .map(|ms| ms.and_then(|ms| period.ceil(ms, zone, origin))),
    ))
}

fn floored(
    values: &TimestampMillisecondArray,
    period: Period,
    zone: Zone,
    origin: Option<i64>,
) -> Result<ArrayRef> {
    if let (Some((length, start)), None) = (period.plain_utc(zone), origin) {
        let floored = values.unary::<_, arrow::datatypes::TimestampMillisecondType>(|ms| {
            start + (ms - start).div_euclid(length) * length
        });
        return Ok(Arc::new(floored.with_timezone("UTC")));
    }
    Ok(times(
        values
            .iter()
            .map(|ms| ms.and_then(|ms| period.floor(ms, zone, origin))),
    ))
}

fn shift(args: &Args) -> Result<ArrayRef> {
    let (period, zone) = (period(args, 1)?, zone(args, 3)?);
    let steps = args.long(2)?;
    let shifted = args.time(0)?;
    Ok(times(
        shifted
            .iter()
            .zip(steps.iter())
            .map(|(ms, step)| period.shift(ms?, step?, zone)),
    ))
}

fn literal(literals: &[Option<&ScalarValue>], index: usize) -> Option<String> {
    literals.get(index).copied().flatten().and_then(scalar_text)
}

fn check_zone(call: &Call<'_>, literals: &[Option<&ScalarValue>], index: usize) -> Result<()> {
    match literal(literals, index) {
        Some(zone) if Zone::parse(&zone).is_none() => call.wrong(format!("[{zone}] is not a time zone")),
        _ => Ok(()),
    }
}

fn check_period(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literal(literals, 1) {
        Some(period) if Period::parse(&period).is_none() => {
            plan_err!(
                "Invalid period['{period}'] specified for expression[{}]; it is not an ISO period such as 'PT1H'",
                call.name
            )
        }
        _ => check_zone(call, literals, 3),
    }
}

fn check_pattern(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literal(literals, 1) {
        Some(pattern) if Pattern::parse(&pattern).is_none() => {
            call.wrong(format!("[{pattern}] is not a date pattern"))
        }
        _ => check_zone(call, literals, 2),
    }
}

fn check_unit(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literal(literals, 1) {
        Some(unit) if field(&unit.to_ascii_uppercase()).is_none() => {
            call.wrong(format!("[{unit}] is not a unit of time"))
        }
        _ => check_zone(call, literals, 2),
    }
}

fn truncation(unit: &str) -> Option<Period> {
    Period::parse(match unit.to_ascii_lowercase().as_str() {
        "microseconds" | "milliseconds" => "PT0.001S",
        "second" => "PT1S",
        "minute" => "PT1M",
        "hour" => "PT1H",
        "day" => "P1D",
        "week" => "P1W",
        "month" => "P1M",
        "quarter" => "P3M",
        "year" => "P1Y",
        "decade" => "P10Y",
        "century" => "P100Y",
        "millennium" => "P1000Y",
        _ => return None,
    })
}

fn check_truncation(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literal(literals, 0) {
        Some(unit) if truncation(&unit).is_none() => {
            plan_err!("Operator[DATE_TRUNC] cannot truncate to[{unit}]")
        }
        _ => check_zone(call, literals, 2),
    }
}

fn truncate(args: &Args) -> Result<ArrayRef> {
    let unit = args.required(0)?;
    let Some(period) = truncation(&unit) else {
        return args.wrong(format!("cannot truncate to [{unit}]"));
    };
    floored(&args.time(1)?, period, zone(args, 2)?, None)
}

fn unit_period(unit: &str) -> Option<Period> {
    Period::parse(match unit.trim_end_matches('S') {
        "SECOND" => "PT1S",
        "MINUTE" => "PT1M",
        "HOUR" => "PT1H",
        "DAY" => "P1D",
        "WEEK" => "P1W",
        "MONTH" => "P1M",
        "QUARTER" => "P3M",
        "YEAR" => "P1Y",
        _ => return None,
    })
}

fn add(args: &Args) -> Result<ArrayRef> {
    let unit = args.required(0)?.to_ascii_uppercase();
    let Some(period) = unit_period(&unit) else {
        return exec_err!("[{unit}] is not a unit of TIMESTAMPADD");
    };
    let zone = zone(args, 3)?;
    let steps = args.long(1)?;
    let values = args.time(2)?;
    Ok(times(
        values
            .iter()
            .zip(steps.iter())
            .map(|(ms, step)| period.shift(ms?, step?, zone)),
    ))
}

fn difference(args: &Args) -> Result<ArrayRef> {
    let unit = args.required(0)?.to_ascii_uppercase();
    let length = match unit.trim_end_matches('S') {
        "SECOND" => 1_000,
        "MINUTE" => 60_000,
        "HOUR" => 3_600_000,
        "DAY" => 86_400_000,
        "WEEK" => 7 * 86_400_000,
        "MONTH" | "QUARTER" | "YEAR" => 0,
        _ => return exec_err!("[{unit}] is not a unit of TIMESTAMPDIFF"),
    };
    let months_per = match unit.trim_end_matches('S') {
        "QUARTER" => 3,
        "YEAR" => 12,
        _ => 1,
    };
    let (from, to) = (args.time(1)?, args.time(2)?);
    let result: Int32Array = from
        .iter()
        .zip(to.iter())
        .map(|(from, to)| {
            let (from, to) = (from?, to?);
            let difference = if length > 0 {
                (to - from) / length
            } else {
                months_between(from, to)? / months_per
            };
            Some(difference as i32)
        })
        .collect();
    Ok(Arc::new(result))
}

/// Whole months from one instant to another.
fn months_between(from: i64, to: i64) -> Option<i64> {
    let (start, end) = (Zone::Utc.local(from)?, Zone::Utc.local(to)?);
    let index = |time: &chrono::NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
    let inside = |time: &chrono::NaiveDateTime| (time.day(), time.time());
    let months = index(&end) - index(&start);
    Some(match months {
        m if m > 0 && inside(&end) < inside(&start) => m - 1,
        m if m < 0 && inside(&end) > inside(&start) => m + 1,
        m => m,
    })
}

type Field = fn(&chrono::NaiveDateTime) -> i64;

/// What a unit takes from a local time.
fn field(unit: &str) -> Option<Field> {
    Some(match unit {
        "EPOCH" => |time| time.and_utc().timestamp(),
        "MICROSECOND" | "MICROSECONDS" => |time| i64::from(time.and_utc().timestamp_subsec_micros()),
        "MILLISECOND" | "MILLISECONDS" => |time| i64::from(time.and_utc().timestamp_subsec_millis()),
        "SECOND" => |time| i64::from(time.second()),
        "MINUTE" => |time| i64::from(time.minute()),
        "HOUR" => |time| i64::from(time.hour()),
        "DAY" => |time| i64::from(time.day()),
        // Both from Monday.
        "DOW" | "ISODOW" => |time| i64::from(time.weekday().number_from_monday()),
        "DOY" => |time| i64::from(time.ordinal()),
        "WEEK" => |time| i64::from(time.iso_week().week()),
        "MONTH" => |time| i64::from(time.month()),
        "QUARTER" => |time| i64::from(time.month0() / 3 + 1),
        "YEAR" | "ISOYEAR" => |time| i64::from(time.year()),
        "DECADE" => |time| i64::from(time.year()) / 10,
        "CENTURY" => |time| (i64::from(time.year()) + 99).div_euclid(100),
        "MILLENNIUM" => |time| (i64::from(time.year()) + 999).div_euclid(1_000),
        _ => return None,
    })
}

fn extract(args: &Args) -> Result<ArrayRef> {
    let unit = args
        .literal(1)?
        .unwrap_or_else(|| "EPOCH".to_owned())
        .to_ascii_uppercase();
    let zone = zone(args, 2)?;
    let Some(field) = field(&unit) else {
        return args.wrong(format!("[{unit}] is not a unit of time"));
    };
    let epoch = unit == "EPOCH";
    let values = args.time(0)?;
    let result: Int64Array = values
        .iter()
        .map(|ms| {
            let ms = ms?;
            if epoch {
                Some(ms / 1_000)
            } else {
                zone.local(ms).map(|time| field(&time))
            }
        })
        .collect();
    Ok(Arc::new(result))
}

fn parse(args: &Args) -> Result<ArrayRef> {
    let zone = zone(args, 2)?;
    let texts = args.text(0)?;
    match args.literal(1)? {
        None => Ok(times(texts.iter().map(|text| parse_in(text?, zone)))),
        Some(pattern) => match Pattern::parse(&pattern) {
            Some(pattern) => Ok(times(texts.iter().map(|text| pattern.read(text?, zone)))),
            None => exec_err!("[{pattern}] is not a date pattern"),
        },
    }
}

fn format(args: &Args) -> Result<ArrayRef> {
    let zone = zone(args, 2)?;
    let pattern = args
        .literal(1)?
        .unwrap_or_else(|| "yyyy-MM-dd'T'HH:mm:ss.SSSZZ".to_owned());
    let iso = args.literal(1)?.is_none() && zone == Zone::Utc;
    let Some(pattern) = Pattern::parse(&pattern) else {
        return exec_err!("[{pattern}] is not a date pattern");
    };
    let values = args.time(0)?;
    let result: StringArray = values
        .iter()
        .map(|ms| match ms {
            Some(ms) if iso => Some(trilith_proto::interval::iso(ms)),
            Some(ms) => pattern.format(ms, zone),
            None => None,
        })
        .collect();
    Ok(Arc::new(result))
}

/// "start/end", where one of both may be a period.
fn interval(text: &str, zone: Zone) -> Option<(i64, i64)> {
    let (start, end) = text.split_once('/')?;
    match (Period::parse(start), Period::parse(end)) {
        (None, None) => Some((parse_in(start, zone)?, parse_in(end, zone)?)),
        (None, Some(period)) => {
            let start = parse_in(start, zone)?;
            Some((start, period.shift(start, 1, zone)?))
        }
        (Some(period), None) => {
            let end = parse_in(end, zone)?;
            Some((period.shift(end, -1, zone)?, end))
        }
        (Some(_), Some(_)) => None,
    }
}

fn check_interval(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literal(literals, 1) {
        Some(text) if interval(&text, Zone::Utc).is_none() => {
            plan_err!(
                "Function '{}' second argument is not a valid ISO8601 interval: [{text}]",
                call.name.to_uppercase()
            )
        }
        _ => check_zone(call, literals, 2),
    }
}

fn in_interval(args: &Args) -> Result<ArrayRef> {
    let text = args.required(1)?;
    let Some((start, end)) = interval(&text, zone(args, 2)?) else {
        return args.wrong(format!("[{text}] is not an ISO interval"));
    };
    let values = args.time(0)?;
    let result: BooleanArray = values
        .iter()
        .map(|ms| ms.map(|ms| start <= ms && ms < end))
        .collect();
    Ok(Arc::new(result))
}

/// Start and end of an ISO interval ("a/b", "a/P1D") in milliseconds; `zone` counts for instants that name none.
pub fn parse_interval(text: &str, zone: &str) -> Option<(i64, i64)> {
    interval(text, Zone::parse(zone)?)
}

/// Start and end, in milliseconds, of the bucket of an instant that TIME_FLOOR makes without an origin.
pub fn time_bucket(ms: i64, period: &str, zone: &str) -> Option<(i64, i64)> {
    let (period, zone) = (Period::parse(period)?, Zone::parse(zone)?);
    let start = period.floor(ms, zone, None)?;
    Some((start, period.ceil(start.checked_add(1)?, zone, None)?))
}

/// Milliseconds of an ISO or SQL timestamp; `zone` counts when the text names none. None if it is neither.
pub fn parse_timestamp(text: &str, zone: &str) -> Option<i64> {
    parse_in(text, Zone::parse(zone)?)
}

/// What is said of a constant that is to be a TIMESTAMP and is none.
pub fn illegal_timestamp(text: &str) -> String {
    format!("Illegal TIMESTAMP constant [CAST('{text}'):TIMESTAMP(3) NOT NULL]")
}

pub(crate) fn parse_in(text: &str, zone: Zone) -> Option<i64> {
    fast_iso(text.as_bytes(), zone).or_else(|| slow(text, zone))
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

/// Any ISO-8601 date or date-time, with a space or T between.
fn slow(text: &str, zone: Zone) -> Option<i64> {
    const SHAPES: &[&str] = &[
        "yyyy-MM-dd'T'HH:mm:ss.SSS",
        "yyyy-MM-dd'T'HH:mm:ss",
        "yyyy-MM-dd'T'HH:mm",
        "yyyy-MM-dd'T'HH",
        "yyyy-MM-dd'T'",
        "yyyy-MM-dd",
        "yyyy-MM",
        "yyyy",
    ];
    if text.is_empty() || !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return None;
    }
    let mut text = text.to_owned();
    if text.as_bytes().get(10) == Some(&b' ') {
        text.replace_range(10..11, "T");
    }
    let time = text.find('T');
    let offset = time.and_then(|time| text[time..].find(['Z', '+', '-']).map(|index| time + index));
    let (stamp, zone) = match offset {
        Some(index) => {
            let zone = match &text[index..] {
                "Z" => Zone::Utc,
                offset => Zone::Fixed(crate::zone::parse_offset(offset)?),
            };
            (text[..index].to_owned(), zone)
        }
        None => (text, zone),
    };
    let stamp = calendar(&stamp)?;
    SHAPES
        .iter()
        .find_map(|shape| Pattern::parse(shape)?.read(&stamp, zone))
}

/// Week dates (2000-W05-3) and ordinal dates (2000-060) as dates of the calendar; other text as it is.
fn calendar(stamp: &str) -> Option<String> {
    let (date, time) = match stamp.find('T') {
        Some(index) => stamp.split_at(index),
        None => (stamp, ""),
    };
    let found = if let Some((year, week)) = date.split_once("-W") {
        let (week, day) = week.split_once('-').unwrap_or((week, "1"));
        let day = day.parse::<u8>().ok()?.checked_sub(1).filter(|day| *day < 7)?;
        let day = chrono::Weekday::try_from(day).ok()?;
        NaiveDate::from_isoywd_opt(year.parse().ok()?, week.parse().ok()?, day)?
    } else {
        match date.rsplit_once('-') {
            Some((year, day)) if day.len() == 3 && year.len() == 4 => {
                NaiveDate::from_yo_opt(year.parse().ok()?, day.parse().ok()?)?
            }
            _ => return Some(stamp.to_owned()),
        }
    };
    Some(format!("{}{time}", found.format("%Y-%m-%d")))
}
