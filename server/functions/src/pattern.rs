//! Joda's date patterns.

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use crate::zone::{Zone, parse_offset};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// A run of one letter, or text that stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Field(char, usize),
    Text(String),
}

/// A parsed pattern.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    /// Reads a pattern; none if a letter means nothing.
    pub(crate) fn parse(pattern: &str) -> Option<Pattern> {
        let mut parts: Vec<Part> = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            if c == '\'' {
                let mut text = String::new();
                if chars.peek() == Some(&'\'') {
                    chars.next();
                    text.push('\'');
                } else {
                    while let Some(c) = chars.next() {
                        if c == '\'' {
                            if chars.peek() != Some(&'\'') {
                                break;
                            }
                            chars.next();
                        }
                        text.push(c);
                    }
                }
                parts.push(Part::Text(text));
            } else if c.is_ascii_alphabetic() {
                if !"yYuMdHhkKmsSEeaZzDwxCG".contains(c) {
                    return None;
                }
                match parts.last_mut() {
                    Some(Part::Field(last, count)) if *last == c => *count += 1,
                    _ => parts.push(Part::Field(c, 1)),
                }
            } else {
                parts.push(Part::Text(c.to_string()));
            }
        }
        Some(Pattern { parts })
    }

    /// An instant in a zone as text.
    pub(crate) fn format(&self, ms: i64, zone: Zone) -> Option<String> {
        use std::fmt::Write as _;
        let local = zone.local(ms)?;
        let mut out = String::new();
        for part in &self.parts {
            let (letter, width) = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Field(letter, width) => (*letter, *width),
            };
            let number = match letter {
                'y' | 'Y' | 'u' if width == 2 => local.year().rem_euclid(100),
                'y' | 'Y' | 'u' => local.year(),
                'x' => local.iso_week().year(),
                'C' => local.year() / 100,
                'M' if width >= 3 => {
                    let name = MONTHS[local.month0() as usize];
                    out.push_str(if width == 3 { &name[..3] } else { name });
                    continue;
                }
                'M' => local.month() as i32,
                'd' => local.day() as i32,
                'D' => local.ordinal() as i32,
                'w' => local.iso_week().week() as i32,
                'e' => local.weekday().number_from_monday() as i32,
                'E' => {
                    let name = DAYS[local.weekday().num_days_from_monday() as usize];
                    out.push_str(if width <= 3 { &name[..3] } else { name });
                    continue;
                }
                'H' => local.hour() as i32,
                'k' => {
                    if local.hour() == 0 {
                        24
                    } else {
                        local.hour() as i32
                    }
                }
                'h' => {
                    if local.hour().is_multiple_of(12) {
                        12
                    } else {
                        (local.hour() % 12) as i32
                    }
                }
                'K' => (local.hour() % 12) as i32,
                'm' => local.minute() as i32,
                's' => local.second() as i32,
                'S' => {
                    let digits = format!("{:03}000000", local.and_utc().timestamp_subsec_millis());
                    out.push_str(digits.get(..width.min(9)).unwrap_or(&digits));
                    continue;
                }
                'a' => {
                    out.push_str(if local.hour() < 12 { "AM" } else { "PM" });
                    continue;
                }
                'G' => {
                    out.push_str(if local.year() > 0 { "AD" } else { "BC" });
                    continue;
                }
                'z' => {
                    out.push_str(&zone.abbreviation(ms));
                    continue;
                }
                'Z' if width >= 3 => {
                    out.push_str(&zone.id());
                    continue;
                }
                _ => {
                    offset(&mut out, zone, ms, width);
                    continue;
                }
            };
            if number < 0 {
                out.push('-');
            }
            let _infallible = write!(out, "{:0width$}", number.unsigned_abs());
        }
        Some(out)
    }

    /// Text as an instant; what the text does not say comes from the epoch, the zone from `zone`.
    pub(crate) fn read(&self, text: &str, zone: Zone) -> Option<i64> {
        let mut rest = text;
        let mut fields = Fields::default();
        for (index, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(expected) => rest = rest.strip_prefix(expected.as_str())?,
                Part::Field(letter, width) => {
                    // Digits of the next field follow at once: this one has exactly its width.
                    let adjacent = matches!(self.parts.get(index + 1), Some(Part::Field(next, count)) if is_number(*next, *count));
                    rest = fields.read(*letter, *width, adjacent, rest)?;
                }
            }
        }
        if !rest.is_empty() {
            return None;
        }
        fields.instant(zone)
    }
}

fn is_number(letter: char, width: usize) -> bool {
    let name = letter == 'M' && width >= 3;
    !name && !matches!(letter, 'E' | 'a' | 'Z' | 'z' | 'G')
}

fn offset(out: &mut String, zone: Zone, ms: i64, width: usize) {
    use std::fmt::Write as _;
    let seconds = zone.offset_seconds(ms);
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    let colon = if width == 1 { "" } else { ":" };
    let _infallible = write!(out, "{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60);
}

#[derive(Default)]
struct Fields {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    ordinal: Option<u32>,
    week_year: Option<i32>,
    week: Option<u32>,
    week_day: Option<u32>,
    hour: u32,
    half: Option<(u32, bool)>,
    half_hour: Option<u32>,
    minute: u32,
    second: u32,
    millis: u32,
    zone: Option<Zone>,
}

impl Fields {
    fn read<'t>(&mut self, letter: char, width: usize, adjacent: bool, text: &'t str) -> Option<&'t str> {
        match letter {
            'M' if width >= 3 => {
                let (index, length) = name(text, &MONTHS)?;
                self.month = Some(index as u32 + 1);
                return text.get(length..);
            }
            'E' => return text.get(name(text, &DAYS)?.1..),
            'a' => {
                let half = text.get(..2)?.to_ascii_uppercase();
                self.half = Some((
                    0,
                    match half.as_str() {
                        "AM" => false,
                        "PM" => true,
                        _ => return None,
                    },
                ));
                return text.get(2..);
            }
            'Z' | 'z' => {
                if let Some(rest) = text.strip_prefix('Z') {
                    self.zone = Some(Zone::Utc);
                    return Some(rest);
                }
                let end = text
                    .find(|c: char| !(c.is_alphanumeric() || "+-:/_".contains(c)))
                    .unwrap_or(text.len());
                let (zone, rest) = text.split_at(end);
                self.zone = Some(match parse_offset(zone) {
                    Some(offset) => Zone::Fixed(offset),
                    None => Zone::parse(zone)?,
                });
                return Some(rest);
            }
            'S' => {
                let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
                let end = if adjacent { end.min(width) } else { end };
                let digits = text.get(..end).filter(|digits| !digits.is_empty())?;
                let padded = format!("{digits:0<3}");
                self.millis = padded.get(..3)?.parse().ok()?;
                return text.get(end..);
            }
            'G' => return text.get(2..),
            _ => {}
        }
        let negative = matches!(letter, 'y' | 'Y' | 'u' | 'x') && text.starts_with('-');
        let start = usize::from(negative);
        let most = if adjacent { width } else { 9 };
        let length = text
            .get(start..)?
            .bytes()
            .take(most)
            .take_while(u8::is_ascii_digit)
            .count();
        let number: u32 = text
            .get(start..start + length)
            .filter(|digits| !digits.is_empty())?
            .parse()
            .ok()?;
        match letter {
            'y' | 'Y' | 'u' | 'x' => {
                let year = i32::try_from(number).ok()?;
                // Two digits mean the hundred years around now, as Joda's pivot does.
                let year = if width == 2 && length == 2 {
                    2000 + year - if year > 55 { 100 } else { 0 }
                } else {
                    year
                };
                let year = if negative { -year } else { year };
                match letter {
                    'x' => self.week_year = Some(year),
                    _ => self.year = Some(year),
                }
            }
            'w' => self.week = Some(number),
            'e' => self.week_day = Some(number),
            'M' => self.month = Some(number),
            'd' => self.day = Some(number),
            'D' => self.ordinal = Some(number),
            'H' => self.hour = number,
            'k' => self.hour = number % 24,
            'h' | 'K' => self.half_hour = Some(number % 12),
            'm' => self.minute = number,
            's' => self.second = number,
            _ => {}
        }
        text.get(start + length..)
    }

    fn instant(&self, zone: Zone) -> Option<i64> {
        let year = self.year.unwrap_or(1970);
        let date = match self.ordinal {
            Some(ordinal) => NaiveDate::from_yo_opt(year, ordinal)?,
            None => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1))?,
        };
        let date = match (self.week_year, self.week) {
            (None, None) => date,
            (week_year, week) => {
                let day = u8::try_from(self.week_day.unwrap_or(1).checked_sub(1)?).ok()?;
                let week_year = week_year.unwrap_or_else(|| date.iso_week().year());
                NaiveDate::from_isoywd_opt(
                    week_year,
                    week.unwrap_or(1),
                    chrono::Weekday::try_from(day).ok()?,
                )?
            }
        };
        let hour = match (self.half_hour, self.half) {
            (Some(hour), Some((_, true))) => hour + 12,
            (Some(hour), _) => hour,
            (None, _) => self.hour,
        };
        let time = NaiveTime::from_hms_opt(hour, self.minute, self.second)?;
        let local: NaiveDateTime = date
            .and_time(time)
            .checked_add_signed(TimeDelta::milliseconds(self.millis.into()))?;
        self.zone.unwrap_or(zone).existing_instant(local)
    }
}

/// A full or three-letter name at the start of a text: its index and length.
fn name(text: &str, names: &[&str]) -> Option<(usize, usize)> {
    let starts = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    names.iter().enumerate().find_map(|(index, name)| {
        if starts(name) {
            Some((index, name.len()))
        } else {
            starts(&name[..3]).then_some((index, 3))
        }
    })
}
