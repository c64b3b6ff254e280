//! INTERVAL literals.

use sqlparser::ast::{DateTimeField, Expr, Interval, Value};
use trilith_proto::error::ApiError;

use crate::error::validation;

/// How far an interval goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// By the calendar.
    Months(i64),
    /// Exactly.
    Millis(i64),
}

impl Step {
    /// -1, 0 or 1.
    pub(crate) fn signum(self) -> i64 {
        match self {
            Step::Months(amount) | Step::Millis(amount) => amount.signum(),
        }
    }
}

fn unit(field: &DateTimeField) -> Option<(bool, i64)> {
    let name = field.to_string().to_ascii_uppercase();
    Some(match name.trim_end_matches('S') {
        "SECOND" => (false, 1_000),
        "MINUTE" => (false, 60_000),
        "HOUR" => (false, 3_600_000),
        "DAY" => (false, 86_400_000),
        "WEEK" => (false, 7 * 86_400_000),
        "MONTH" => (true, 1),
        "QUARTER" => (true, 3),
        "YEAR" => (true, 12),
        _ => return None,
    })
}

/// Reads INTERVAL '1' DAY, INTERVAL '1-2' YEAR TO MONTH, INTERVAL '1 02:03:04.5' DAY TO SECOND.
pub(crate) fn read(interval: &Interval) -> Result<Step, ApiError> {
    let wrong = || validation(format!("Illegal interval literal [{interval}]"));
    let text = match interval.value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => text.clone(),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    let first = interval.leading_field.as_ref().and_then(unit).ok_or_else(wrong)?;
    let text = text.trim();
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let amount = amount(text, first, interval).ok_or_else(wrong)?;
    Ok(if first.0 {
        Step::Months(sign * amount)
    } else {
        Step::Millis(sign * amount)
    })
}

fn amount(text: &str, (calendar, length): (bool, i64), interval: &Interval) -> Option<i64> {
    if interval.last_field.is_none() {
        return scaled(text, length);
    }
    if calendar {
        let (years, months) = text.split_once('-')?;
        return years
            .parse::<i64>()
            .ok()?
            .checked_mul(12)?
            .checked_add(months.parse().ok()?);
    }
    // Units get smaller from part to part: days, hours, minutes, seconds.
    const LENGTHS: [i64; 4] = [86_400_000, 3_600_000, 60_000, 1_000];
    let start = LENGTHS.iter().position(|known| *known == length)?;
    text.split([' ', ':'])
        .zip(&LENGTHS[start..])
        .try_fold(0_i64, |sum, (part, length)| {
            sum.checked_add(scaled(part, *length)?)
        })
}

fn scaled(text: &str, length: i64) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(count) => count.checked_mul(length),
        Err(_) if length <= 1_000 => Some((text.parse::<f64>().ok()? * length as f64).round() as i64),
        Err(_) => None,
    }
}
