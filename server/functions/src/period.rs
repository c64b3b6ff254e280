//! ISO periods: flooring, ceiling and shifting by them.

use chrono::{Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};

use crate::zone::Zone;

/// Monday, 1969-12-29: weeks are counted from it.
const WEEK_ORIGIN_DAYS: i64 = -3;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// An ISO period such as P1DT2H.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    months: i64,
    days: i64,
    weeks: bool,
    millis: i64,
    /// Its time is written in hours alone.
    hours: bool,
}

impl Period {
    /// Reads an ISO period; none if it is malformed or empty.
    pub(crate) fn parse(text: &str) -> Option<Period> {
        let rest = text.trim().strip_prefix(['P', 'p'])?;
        let (dates, times) = match rest.split_once(['T', 't']) {
            Some((dates, times)) => (dates, times),
            None => (rest, ""),
        };
        let mut period = Period {
            months: 0,
            days: 0,
            weeks: false,
            millis: 0,
            hours: false,
        };
        let mut any = false;
        for (amount, unit) in parts(dates)? {
            let amount = amount as i64;
            match unit.to_ascii_uppercase() {
                'Y' => period.months += amount * 12,
                'M' => period.months += amount,
                'W' => {
                    period.days += amount * 7;
                    period.weeks = true;
                }
                'D' => period.days += amount,
                _ => return None,
            }
            any = true;
        }
        let times = parts(times)?;
        period.hours = !times.is_empty() && times.iter().all(|(_, unit)| unit.eq_ignore_ascii_case(&'H'));
        for (amount, unit) in times {
            let scale = match unit.to_ascii_uppercase() {
                'H' => 3_600_000.0,
                'M' => 60_000.0,
                'S' => 1_000.0,
                _ => return None,
            };
            period.millis += (amount * scale).round() as i64;
            any = true;
        }
        any.then_some(period)
    }

    /// True if time can be cut into such periods.
    pub(crate) fn makes_buckets(self) -> bool {
        let parts = [self.months, self.days, self.millis];
        parts.iter().all(|part| *part >= 0) && parts.iter().any(|part| *part > 0)
    }

    /// True if it has months or years.
    pub(crate) fn has_months(self) -> bool {
        self.months != 0
    }

    /// Length if it does not depend on the calendar of the zone.
    fn fixed_ms(self, zone: Zone) -> Option<i64> {
        let calendar = self.months != 0 || (self.days != 0 && zone != Zone::Utc);
        (!calendar)
            .then(|| self.days * DAY_MS + self.millis)
            .filter(|length| *length > 0)
    }

    /// The same as a fixed number of milliseconds in UTC from the epoch (from a Monday for weeks): the
    /// length and the origin.
    pub(crate) fn plain_utc(self, zone: Zone) -> Option<(i64, i64)> {
        if zone != Zone::Utc {
            return None;
        }
        let origin = if self.weeks && self.days % 7 == 0 && self.millis == 0 {
            WEEK_ORIGIN_DAYS * DAY_MS
        } else {
            0
        };
        self.fixed_ms(zone).map(|length| (length, origin))
    }

    /// Start of the bucket that holds an instant.
    pub(crate) fn floor(self, ms: i64, zone: Zone, origin: Option<i64>) -> Option<i64> {
        if !self.makes_buckets() {
            return None;
        }
        if let (Some(origin), Some(length)) = (origin, self.fixed_ms(zone)) {
            return Some(origin + (ms - origin).div_euclid(length) * length);
        }
        if let Some((length, start)) = self.plain_utc(zone) {
            return Some(start + (ms - start).div_euclid(length) * length);
        }
        let local = zone.local(ms)?;
        if self.months > 0 && self.days == 0 && self.millis == 0 {
            let base = match origin {
                Some(origin) => zone.local(origin)?,
                None => NaiveDate::from_ymd_opt(1970, 1, 1)?.and_time(NaiveTime::MIN),
            };
            let index = |time: NaiveDateTime| i64::from(time.year()) * 12 + i64::from(time.month0());
            let mut months = (index(local) - index(base)).div_euclid(self.months) * self.months;
            let mut start = add_months(base, months)?;
            if start > local {
                months -= self.months;
                start = add_months(base, months)?;
            }
            return zone.instant(start);
        }
        if self.days > 0 && self.months == 0 && self.millis == 0 {
            let base = match origin {
                Some(origin) => zone.local(origin)?,
                None => {
                    let days = if self.weeks && self.days % 7 == 0 {
                        WEEK_ORIGIN_DAYS
                    } else {
                        0
                    };
                    NaiveDate::from_ymd_opt(1970, 1, 1)?
                        .checked_add_signed(TimeDelta::days(days))?
                        .and_time(NaiveTime::MIN)
                }
            };
            let step = self.days * DAY_MS;
            let since = (local - base).num_milliseconds().div_euclid(step) * step;
            return zone.instant(base.checked_add_signed(TimeDelta::milliseconds(since))?);
        }
        if self.months == 0 && self.days == 0 && self.millis > 0 {
            return self.floor_time(ms, zone);
        }
        // A mixed period is counted from the origin.
        let start = origin.unwrap_or(0);
        let mut at = start;
        let forward = ms >= start;
        loop {
            let next = self.shift(at, if forward { 1 } else { -1 }, zone)?;
            if forward && next > ms {
                return Some(at);
            }
            if !forward && next <= ms {
                return Some(next);
            }
            if next == at {
                return None;
            }
            at = next;
        }
    }

    /// Floor by hours or less. One unit is counted on the clock of the zone, so that half-hour zones keep their
    /// hours; several are counted exactly from its first midnight of 1970.
    fn floor_time(self, ms: i64, zone: Zone) -> Option<i64> {
        let on_clock = |ms: i64, unit: i64| {
            let offset = i64::from(zone.offset_seconds(ms)) * 1_000;
            (ms + offset).div_euclid(unit) * unit - offset
        };
        if matches!(self.millis, 1 | 1_000 | 60_000) || (self.hours && self.millis == HOUR_MS) {
            return Some(on_clock(ms, self.millis));
        }
        let origin = zone.instant(NaiveDate::from_ymd_opt(1970, 1, 1)?.and_time(NaiveTime::MIN))?;
        let start = origin + (ms - origin).div_euclid(self.millis) * self.millis;
        // East of Greenwich a bucket of hours starts with an hour of the clock.
        Some(if self.hours && origin < 0 {
            on_clock(start, HOUR_MS)
        } else {
            start
        })
    }

    /// Start of the next bucket, or the instant itself when a bucket starts there.
    pub(crate) fn ceil(self, ms: i64, zone: Zone, origin: Option<i64>) -> Option<i64> {
        let floor = self.floor(ms, zone, origin)?;
        if floor == ms {
            Some(ms)
        } else {
            self.shift(floor, 1, zone)
        }
    }

    /// `step` periods later.
    pub(crate) fn shift(self, ms: i64, step: i64, zone: Zone) -> Option<i64> {
        let mut at = ms;
        if self.months != 0 || self.days != 0 {
            let local = add_months(zone.local(ms)?, self.months.checked_mul(step)?)?;
            let local = local.checked_add_signed(TimeDelta::try_days(self.days.checked_mul(step)?)?)?;
            at = zone.instant(local)?;
        }
        at.checked_add(self.millis.checked_mul(step)?)
    }
}

fn add_months(time: NaiveDateTime, months: i64) -> Option<NaiveDateTime> {
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    if months >= 0 {
        time.checked_add_months(count)
    } else {
        time.checked_sub_months(count)
    }
}

fn parts(text: &str) -> Option<Vec<(f64, char)>> {
    let mut parts = Vec::new();
    let mut number = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' || (c == '-' && number.is_empty()) {
            number.push(c);
        } else {
            parts.push((number.parse().ok()?, c));
            number.clear();
        }
    }
    number.is_empty().then_some(parts)
}
