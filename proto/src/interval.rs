//! Time chunks: half-open intervals of milliseconds in UTC, and the granularities that cut them.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// First and last instant that Druid knows.
const ETERNITY_START_MS: i64 = i64::MIN / 2;
const ETERNITY_END_MS: i64 = i64::MAX / 2;
const ETERNITY_START: &str = "-146136543-09-08T08:23:32.096Z";
const ETERNITY_END: &str = "146140482-04-24T15:36:27.903Z";

/// `[start_ms, end_ms)`, milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Interval {
    /// First instant inside.
    pub start_ms: i64,
    /// First instant after.
    pub end_ms: i64,
}

/// All of time.
pub const ETERNITY: Interval = Interval {
    start_ms: ETERNITY_START_MS,
    end_ms: ETERNITY_END_MS,
};

impl Interval {
    /// All of time.
    pub const ETERNITY: Interval = ETERNITY;

    /// `[start_ms, end_ms)`.
    pub fn new(start_ms: i64, end_ms: i64) -> Interval {
        Interval { start_ms, end_ms }
    }

    /// True when nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.start_ms >= self.end_ms
    }

    /// True when `other` lies inside.
    pub fn contains(&self, other: &Interval) -> bool {
        self.start_ms <= other.start_ms && other.end_ms <= self.end_ms
    }

    /// True when the instant lies inside.
    pub fn contains_ms(&self, ms: i64) -> bool {
        self.start_ms <= ms && ms < self.end_ms
    }

    /// True when both share an instant.
    pub fn overlaps(&self, other: &Interval) -> bool {
        self.start_ms < other.end_ms && other.start_ms < self.end_ms
    }

    /// The shared part, if any.
    pub fn intersect(&self, other: &Interval) -> Option<Interval> {
        let shared = Interval::new(self.start_ms.max(other.start_ms), self.end_ms.min(other.end_ms));
        (!shared.is_empty()).then_some(shared)
    }

    /// Reads "start/end".
    pub fn parse(text: &str) -> Option<Interval> {
        let (start, end) = text.split_once('/')?;
        let interval = Interval::new(parse_instant(start)?, parse_instant(end)?);
        (interval.start_ms <= interval.end_ms).then_some(interval)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", iso(self.start_ms), iso(self.end_ms))
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> String {
        interval.to_string()
    }
}

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Interval::parse(&text).ok_or_else(|| format!("not an interval: [{text}]"))
    }
}

/// "2000-01-01T00:00:00.000Z"; the ends of eternity as Druid writes them.
pub fn iso(ms: i64) -> String {
    if ms <= ETERNITY_START_MS {
        return ETERNITY_START.to_owned();
    }
    if ms >= ETERNITY_END_MS {
        return ETERNITY_END.to_owned();
    }
    match Utc.timestamp_millis_opt(ms).single() {
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => ms.to_string(),
    }
}

/// True for an instant that [`iso`] can write as a date, and so can that of every chunk it may be in.
pub fn has_date(ms: i64) -> bool {
    // The years 200,000 before and after the epoch.
    (-6_300_000_000_000_000..=6_300_000_000_000_000).contains(&ms)
}

/// Reads an ISO instant or date (UTC when it has no offset), or an end of eternity.
pub fn parse_instant(text: &str) -> Option<i64> {
    if text == ETERNITY_START {
        return Some(ETERNITY_START_MS);
    }
    if text == ETERNITY_END {
        return Some(ETERNITY_END_MS);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let plain = text.strip_suffix('Z').unwrap_or(text);
    for pattern in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(plain, pattern) {
            return Some(time.and_utc().timestamp_millis());
        }
    }
    let date = NaiveDate::parse_from_str(plain, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

/// How PARTITIONED BY cuts time; always UTC, no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Granularity {
    Second,
    Minute,
    FiveMinute,
    TenMinute,
    FifteenMinute,
    ThirtyMinute,
    Hour,
    SixHour,
    EightHour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    All,
}

/// (granularity, name, period)
const GRANULARITIES: [(Granularity, &str, &str); 14] = [
    (Granularity::Second, "SECOND", "PT1S"),
    (Granularity::Minute, "MINUTE", "PT1M"),
    (Granularity::FiveMinute, "FIVE_MINUTE", "PT5M"),
    (Granularity::TenMinute, "TEN_MINUTE", "PT10M"),
    (Granularity::FifteenMinute, "FIFTEEN_MINUTE", "PT15M"),
    (Granularity::ThirtyMinute, "THIRTY_MINUTE", "PT30M"),
    (Granularity::Hour, "HOUR", "PT1H"),
    (Granularity::SixHour, "SIX_HOUR", "PT6H"),
    (Granularity::EightHour, "EIGHT_HOUR", "PT8H"),
    (Granularity::Day, "DAY", "P1D"),
    (Granularity::Week, "WEEK", "P1W"),
    (Granularity::Month, "MONTH", "P1M"),
    (Granularity::Quarter, "QUARTER", "P3M"),
    (Granularity::Year, "YEAR", "P1Y"),
];

impl Granularity {
    /// Reads "DAY", "five_minute", "ALL", …
    pub fn from_name(name: &str) -> Option<Granularity> {
        if name.eq_ignore_ascii_case("ALL") {
            return Some(Granularity::All);
        }
        GRANULARITIES
            .iter()
            .find(|(_, text, _)| text.eq_ignore_ascii_case(name))
            .map(|found| found.0)
    }

    /// The granularity that has this interval as one bucket, the finest first.
    pub fn of(interval: &Interval) -> Option<Granularity> {
        if *interval == ETERNITY {
            return Some(Granularity::All);
        }
        let all = GRANULARITIES.iter().map(|found| found.0);
        let mut all = all.filter(|granularity| granularity.bucket(interval.start_ms) == *interval);
        all.next()
    }

    /// Reads "P1D", "PT1H", … ("P7D" is a week).
    pub fn from_period(period: &str) -> Option<Granularity> {
        if period.eq_ignore_ascii_case("P7D") {
            return Some(Granularity::Week);
        }
        GRANULARITIES
            .iter()
            .find(|(_, _, text)| text.eq_ignore_ascii_case(period))
            .map(|found| found.0)
    }

    /// "DAY", …, "ALL".
    pub fn name(self) -> &'static str {
        GRANULARITIES
            .iter()
            .find(|found| found.0 == self)
            .map_or("ALL", |found| found.1)
    }

    /// "P1D", …; ALL has none and gives "".
    pub fn period(self) -> &'static str {
        GRANULARITIES
            .iter()
            .find(|found| found.0 == self)
            .map_or("", |found| found.2)
    }

    /// Druid's JSON: "DAY", or {"type":"all"}.
    pub fn to_json(self) -> serde_json::Value {
        match self {
            Granularity::All => serde_json::json!({"type": "all"}),
            other => serde_json::Value::from(other.name()),
        }
    }

    fn fixed_ms(self) -> Option<i64> {
        Some(match self {
            Granularity::Second => 1_000,
            Granularity::Minute => MINUTE_MS,
            Granularity::FiveMinute => 5 * MINUTE_MS,
            Granularity::TenMinute => 10 * MINUTE_MS,
            Granularity::FifteenMinute => 15 * MINUTE_MS,
            Granularity::ThirtyMinute => 30 * MINUTE_MS,
            Granularity::Hour => HOUR_MS,
            Granularity::SixHour => 6 * HOUR_MS,
            Granularity::EightHour => 8 * HOUR_MS,
            Granularity::Day => DAY_MS,
            Granularity::Week => 7 * DAY_MS,
            _ => return None,
        })
    }

    /// Start of the bucket of an instant; 0 for ALL.
    pub fn bucket_start(self, ms: i64) -> i64 {
        if self == Granularity::All {
            return 0;
        }
        self.bucket(ms).start_ms
    }

    /// The bucket of an instant; eternity for ALL.
    pub fn bucket(self, ms: i64) -> Interval {
        if let Some(length) = self.fixed_ms() {
            // The epoch was a Thursday; weeks start on Monday.
            let shift = if self == Granularity::Week { 3 * DAY_MS } else { 0 };
            let start = (ms + shift).div_euclid(length) * length - shift;
            return Interval::new(start, start + length);
        }
        let months = match self {
            Granularity::Month => 1,
            Granularity::Quarter => 3,
            Granularity::Year => 12,
            _ => return ETERNITY,
        };
        let date = NaiveDate::from_ymd_opt(1970, 1, 1)
            .and_then(|epoch| epoch.checked_add_signed(chrono::TimeDelta::try_days(ms.div_euclid(DAY_MS))?));
        let Some(date) = date else { return ETERNITY };
        let month = date.year() as i64 * 12 + date.month0() as i64;
        let first = month.div_euclid(months) * months;
        match (month_start_ms(first), month_start_ms(first + months)) {
            (Some(start), Some(end)) => Interval::new(start, end),
            _ => ETERNITY,
        }
    }

    /// True when start and end are bucket starts (for ALL: when it is eternity).
    pub fn is_aligned(self, interval: &Interval) -> bool {
        if self == Granularity::All {
            return *interval == ETERNITY;
        }
        let aligned =
            |ms: i64| ms <= ETERNITY_START_MS || ms >= ETERNITY_END_MS || self.bucket_start(ms) == ms;
        aligned(interval.start_ms) && aligned(interval.end_ms)
    }
}

fn month_start_ms(month: i64) -> Option<i64> {
    let year = i32::try_from(month.div_euclid(12)).ok()?;
    let date = NaiveDate::from_ymd_opt(year, month.rem_euclid(12) as u32 + 1, 1)?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        parse_instant(text).unwrap()
    }

    #[test]
    fn buckets() {
        let cases = [
            (
                Granularity::Week,
                "2024-01-03T05:00:00Z",
                "2024-01-01",
                "2024-01-08",
            ),
            (
                Granularity::Week,
                "1969-12-31T23:00:00Z",
                "1969-12-29",
                "1970-01-05",
            ),
            (
                Granularity::Month,
                "2024-02-29T23:59:59.999Z",
                "2024-02-01",
                "2024-03-01",
            ),
            (Granularity::Quarter, "1969-05-05", "1969-04-01", "1969-07-01"),
            (Granularity::Year, "1969-05-05", "1969-01-01", "1970-01-01"),
            (
                Granularity::Day,
                "1969-12-31T23:59:59.999Z",
                "1969-12-31",
                "1970-01-01",
            ),
        ];
        for (granularity, at, start, end) in cases {
            let bucket = granularity.bucket(ms(at));
            assert_eq!(bucket, Interval::new(ms(start), ms(end)), "{granularity:?} {at}");
            assert!(granularity.is_aligned(&bucket));
        }
        let eight = Granularity::EightHour.bucket(ms("2024-01-01T17:00:00Z"));
        assert_eq!(
            eight.to_string(),
            "2024-01-01T16:00:00.000Z/2024-01-02T00:00:00.000Z"
        );
        assert_eq!(Granularity::All.bucket_start(ms("2024-01-01")), 0);
        assert_eq!(Granularity::All.bucket(5), ETERNITY);
        assert!(!Granularity::Day.is_aligned(&Interval::new(ms("2024-01-01T12:00:00Z"), ms("2024-01-02"))));
        assert!(Granularity::Day.is_aligned(&Interval::new(ETERNITY.start_ms, ms("2024-01-02"))));
    }

    #[test]
    fn texts_round_trip() {
        assert_eq!(
            ETERNITY.to_string(),
            "-146136543-09-08T08:23:32.096Z/146140482-04-24T15:36:27.903Z"
        );
        for interval in [
            ETERNITY,
            Interval::new(ms("2000-01-01"), ms("2000-01-02T03:04:05.678Z")),
        ] {
            assert_eq!(Interval::parse(&interval.to_string()), Some(interval));
        }
        for granularity in GRANULARITIES {
            assert_eq!(Granularity::from_name(granularity.1), Some(granularity.0));
            assert_eq!(Granularity::from_period(granularity.2), Some(granularity.0));
        }
        assert_eq!(Granularity::from_period("P2D"), None);
    }
}
