//! Time zones: names of the tz database and fixed offsets.

use chrono::{DateTime, FixedOffset, MappedLocalTime, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::{OffsetName, Tz};

/// A time zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Zone {
    Utc,
    Fixed(FixedOffset),
    Named(Tz),
}

/// Java's short names that the tz database does not have.
const JAVA_IDS: [(&str, &str); 24] = [
    ("ACT", "Australia/Darwin"),
    ("AET", "Australia/Sydney"),
    ("AGT", "America/Argentina/Buenos_Aires"),
    ("ART", "Africa/Cairo"),
    ("AST", "America/Anchorage"),
    ("BET", "America/Sao_Paulo"),
    ("BST", "Asia/Dhaka"),
    ("CAT", "Africa/Harare"),
    ("CNT", "America/St_Johns"),
    ("CST", "America/Chicago"),
    ("CTT", "Asia/Shanghai"),
    ("EAT", "Africa/Addis_Ababa"),
    ("IET", "America/Indiana/Indianapolis"),
    ("IST", "Asia/Kolkata"),
    ("JST", "Asia/Tokyo"),
    ("MIT", "Pacific/Apia"),
    ("NET", "Asia/Yerevan"),
    ("NST", "Pacific/Auckland"),
    ("PLT", "Asia/Karachi"),
    ("PNT", "America/Phoenix"),
    ("PRT", "America/Puerto_Rico"),
    ("PST", "America/Los_Angeles"),
    ("SST", "Pacific/Guadalcanal"),
    ("VST", "Asia/Ho_Chi_Minh"),
];

/// True if the text names a time zone.
pub fn is_time_zone(text: &str) -> bool {
    Zone::parse(text).is_some()
}

impl Zone {
    /// "UTC", "America/Los_Angeles", "+01:00".
    pub(crate) fn parse(text: &str) -> Option<Zone> {
        if matches!(text, "UTC" | "Z" | "Etc/UTC" | "GMT" | "+00:00") {
            return Some(Zone::Utc);
        }
        if let Some(offset) = parse_offset(text) {
            return Some(Zone::Fixed(offset));
        }
        if let Some(offset) = text.strip_prefix("GMT").and_then(parse_offset) {
            return Some(Zone::Fixed(offset));
        }
        let name = JAVA_IDS
            .iter()
            .find_map(|(id, name)| (*id == text).then_some(*name));
        name.unwrap_or(text).parse::<Tz>().ok().map(Zone::Named)
    }

    /// Wall-clock time of an instant.
    pub(crate) fn local(self, ms: i64) -> Option<NaiveDateTime> {
        let utc = DateTime::<Utc>::from_timestamp_millis(ms)?;
        Some(match self {
            Zone::Utc => utc.naive_utc(),
            Zone::Fixed(offset) => utc.with_timezone(&offset).naive_local(),
            Zone::Named(zone) => utc.with_timezone(&zone).naive_local(),
        })
    }

    /// Instant of a wall-clock time: the earlier of two, and after a gap when there is none.
    pub(crate) fn instant(self, local: NaiveDateTime) -> Option<i64> {
        match self {
            Zone::Utc => Some(local.and_utc().timestamp_millis()),
            Zone::Fixed(offset) => offset
                .from_local_datetime(&local)
                .single()
                .map(|time| time.timestamp_millis()),
            Zone::Named(zone) => match zone.from_local_datetime(&local) {
                MappedLocalTime::Single(time) | MappedLocalTime::Ambiguous(time, _) => {
                    Some(time.timestamp_millis())
                }
                MappedLocalTime::None => {
                    let later = local.checked_add_signed(TimeDelta::hours(1))?;
                    zone.from_local_datetime(&later)
                        .earliest()
                        .map(|time| time.timestamp_millis())
                }
            },
        }
    }

    /// Instant of a wall-clock time; none in a gap.
    pub(crate) fn existing_instant(self, local: NaiveDateTime) -> Option<i64> {
        let ms = self.instant(local)?;
        let to_ms = |time: NaiveDateTime| time.and_utc().timestamp_millis();
        (self.local(ms).map(to_ms) == Some(to_ms(local))).then_some(ms)
    }

    /// "America/Los_Angeles", "UTC", "+01:00".
    pub(crate) fn id(self) -> String {
        match self {
            Zone::Utc => "UTC".to_owned(),
            Zone::Fixed(offset) => offset.to_string(),
            Zone::Named(zone) => zone.name().to_owned(),
        }
    }

    /// "PST"; an offset where there is no name.
    pub(crate) fn abbreviation(self, ms: i64) -> String {
        match (self, DateTime::<Utc>::from_timestamp_millis(ms)) {
            (Zone::Named(zone), Some(utc)) => {
                let local = utc.with_timezone(&zone);
                match local.offset().abbreviation() {
                    Some(name) => name.to_owned(),
                    None => local.offset().fix().to_string(),
                }
            }
            _ => self.id(),
        }
    }

    /// Offset from UTC at an instant, in seconds.
    pub(crate) fn offset_seconds(self, ms: i64) -> i32 {
        match self {
            Zone::Utc => 0,
            Zone::Fixed(offset) => offset.local_minus_utc(),
            Zone::Named(zone) => DateTime::<Utc>::from_timestamp_millis(ms)
                .map_or(0, |utc| utc.with_timezone(&zone).offset().fix().local_minus_utc()),
        }
    }
}

/// "+01:00", "-0800", "+5".
pub(crate) fn parse_offset(text: &str) -> Option<FixedOffset> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if digits.len() == 4 => digits.split_at(2),
        None => (digits, "0"),
    };
    if hours.is_empty()
        || !hours
            .bytes()
            .chain(minutes.bytes())
            .all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    FixedOffset::east_opt(sign * seconds)
}
