//! Time functions. Periods, units, patterns and zones are literals.

mod iso;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, TimestampMillisecondArray};
use chrono::{Datelike, Timelike};
use datafusion::common::{ScalarValue, exec_err, plan_err};
use datafusion::error::Result;

use crate::function::{
    Args, Call, Function, returns_boolean, returns_long, returns_text, returns_time, scalar_text, times,
};
use crate::pattern::Pattern;
use crate::period::Period;
use crate::zone::Zone;

pub(crate) use iso::parse_in;

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("time_floor", (2, 4), returns_time, |args| bucket(args, false))
            .literals(&[1, 3])
            .check(check_bucket),
        Function::new("time_ceil", (2, 4), returns_time, |args| bucket(args, true))
            .literals(&[1, 3])
            .check(check_bucket),
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
            (3, 4),
            crate::string::returns_integer,
            difference,
        )
        .literals(&[0, 3]),
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
    if !period.makes_buckets() {
        return args.wrong("cannot make buckets of a zero or negative period");
    }
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

/// Buckets need a period that is longer than nothing.
fn check_bucket(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literal(literals, 1) {
        Some(text) if Period::parse(&text).is_some_and(|period| !period.makes_buckets()) => plan_err!(
            "Invalid period['{text}'] specified for expression[{}]; a zero or negative period makes no buckets",
            call.name
        ),
        _ => check_period(call, literals),
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
    // Days and weeks are so many hours; only months follow the calendar.
    let zone = if period.has_months() {
        zone(args, 3)?
    } else {
        Zone::Utc
    };
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
    let zone = zone(args, 3)?;
    let (from, to) = (args.time(1)?, args.time(2)?);
    let result: Int32Array = from
        .iter()
        .zip(to.iter())
        .map(|(from, to)| {
            let (from, to) = (from?, to?);
            let difference = if length > 0 {
                to.wrapping_sub(from) / length
            } else {
                months_between(from, to, zone)? / months_per
            };
            Some(difference as i32)
        })
        .collect();
    Ok(Arc::new(result))
}

/// Whole months from one instant to another on the calendar of a zone.
fn months_between(from: i64, to: i64, zone: Zone) -> Option<i64> {
    if to < from {
        return months_between(to, from, zone).map(|months| -months);
    }
    let (start, end) = (zone.local(from)?, zone.local(to)?);
    let months =
        i64::from(end.year() - start.year()) * 12 + i64::from(end.month()) - i64::from(start.month());
    // The last day of a month stands for the days that it does not have.
    let last = end.date().checked_add_days(chrono::Days::new(1))?.month() != end.month();
    let start_day = if last {
        start.day().min(end.day())
    } else {
        start.day()
    };
    let short = (end.day(), end.time()) < (start_day, start.time());
    Some(if short { months - 1 } else { months })
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
        None => Ok(times(texts.iter().map(|text| iso::parse_strictly(text?, zone)))),
        Some(pattern) => match Pattern::parse(&pattern) {
            Some(pattern) => Ok(times(texts.iter().map(|text| pattern.read(text?, zone)))),
            None => exec_err!("[{pattern}] is not a date pattern"),
        },
    }
}

/// From then on a year has more than four digits.
const YEAR_10000_MS: i64 = 253_402_300_800_000;

/// Times as ISO-8601 writes them.
struct IsoFormat {
    zone: Zone,
    utc: Pattern,
    offset: Pattern,
}

impl IsoFormat {
    fn new(zone: Zone) -> Option<IsoFormat> {
        Some(IsoFormat {
            zone,
            utc: Pattern::parse("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")?,
            offset: Pattern::parse("yyyy-MM-dd'T'HH:mm:ss.SSSZZ")?,
        })
    }

    fn text(&self, ms: i64) -> Option<String> {
        if self.zone == Zone::Utc && ms < YEAR_10000_MS {
            return Some(trilith_proto::interval::iso(ms));
        }
        let pattern = match self.zone.offset_seconds(ms) {
            0 => &self.utc,
            _ => &self.offset,
        };
        pattern
            .format(ms, self.zone)
            .or_else(|| (self.zone == Zone::Utc).then(|| trilith_proto::interval::iso(ms)))
    }
}

fn format(args: &Args) -> Result<ArrayRef> {
    let zone = zone(args, 2)?;
    let values = args.time(0)?;
    let texts: StringArray = match args.literal(1)? {
        None => {
            let format = IsoFormat::new(zone);
            let text = |ms| format.as_ref()?.text(ms);
            values.iter().map(|ms| text(ms?)).collect()
        }
        Some(pattern) => match Pattern::parse(&pattern) {
            Some(pattern) => values.iter().map(|ms| pattern.format(ms?, zone)).collect(),
            None => return exec_err!("[{pattern}] is not a date pattern"),
        },
    };
    Ok(Arc::new(texts))
}

/// "start/end", where one of both may be a period; the end is not before the start.
fn interval(text: &str, zone: Zone) -> Option<(i64, i64)> {
    let (start, end) = text.split_once('/')?;
    let interval = match (Period::parse(start), Period::parse(end)) {
        (None, None) => (parse_in(start, zone)?, parse_in(end, zone)?),
        (None, Some(period)) => {
            let start = parse_in(start, zone)?;
            (start, period.shift(start, 1, zone)?)
        }
        (Some(period), None) => {
            let end = parse_in(end, zone)?;
            (period.shift(end, -1, zone)?, end)
        }
        (Some(_), Some(_)) => return None,
    };
    Some(interval).filter(|(start, end)| start <= end)
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
