//! Arrow values as Druid's JSON.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Float32Array, Float64Array, ListArray,
    TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, FixedOffset, TimeZone};
use chrono_tz::Tz;
use serde_json::{Map, Number, Value};
use trilith_proto::column::{ColumnType, is_date, of_field};
use trilith_proto::interval::iso;
use trilith_proto::timed;

use crate::json;

const DAY_MS: i64 = 86_400_000;

/// How values look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Times as ISO text of their zone, arrays as JSON text when `stringify`.
    Sql { stringify: bool, zone: Zone },
    /// As a task report has them: times as milliseconds of the clock of their zone, or, for dates, its days;
    /// arrays as above.
    Report { stringify: bool, zone: Zone, days: bool },
}

impl Style {
    /// As the interactive API writes them under a query context.
    pub(crate) fn sql(context: &Map<String, Value>) -> Style {
        Style::Sql {
            stringify: stringifies(context),
            zone: Zone::of(context),
        }
    }

    /// As task reports have them under a query context.
    pub(crate) fn report(context: &Map<String, Value>) -> Style {
        Style::Report {
            stringify: stringifies(context),
            zone: Zone::of(context),
            days: false,
        }
    }
}

fn stringifies(context: &Map<String, Value>) -> bool {
    match context.get("sqlStringifyArrays") {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => true,
    }
}

/// A time zone: `sqlTimeZone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Utc,
    Named(Tz),
    Fixed(FixedOffset),
}

impl Zone {
    fn of(context: &Map<String, Value>) -> Zone {
        let Some(name) = context.get("sqlTimeZone").and_then(Value::as_str) else {
            return Zone::Utc;
        };
        match (name.parse::<Tz>(), name.parse::<FixedOffset>()) {
            (Ok(Tz::UTC), _) => Zone::Utc,
            (Ok(zone), _) => Zone::Named(zone),
            (_, Ok(offset)) => Zone::Fixed(offset),
            // The server has refused it.
            _ => Zone::Utc,
        }
    }

    fn local(self, ms: i64) -> Option<DateTime<FixedOffset>> {
        let time = DateTime::from_timestamp_millis(ms)?;
        Some(match self {
            Zone::Utc => time.fixed_offset(),
            Zone::Named(zone) => time.with_timezone(&zone).fixed_offset(),
            Zone::Fixed(offset) => time.with_timezone(&offset),
        })
    }

    /// An instant as ISO text.
    fn text(self, ms: i64) -> String {
        match self.local(ms) {
            Some(time) if time.offset().local_minus_utc() != 0 => {
                time.format("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
            }
            _ => iso(ms),
        }
    }

    /// What the clock shows at an instant, as if it were UTC.
    fn shifted(self, ms: i64) -> i64 {
        let offset = self.local(ms).map_or(0, |time| time.offset().local_minus_utc());
        ms.saturating_add(i64::from(offset) * 1_000)
    }

    /// The instant at which a day begins.
    fn midnight(self, days: i32) -> i64 {
        let utc = i64::from(days) * DAY_MS;
        let Some(clock) = DateTime::from_timestamp_millis(utc).map(|time| time.naive_utc()) else {
            return utc;
        };
        let found = match self {
            Zone::Utc => None,
            Zone::Named(zone) => zone
                .from_local_datetime(&clock)
                .earliest()
                .map(|time| time.timestamp_millis()),
            Zone::Fixed(offset) => offset
                .from_local_datetime(&clock)
                .earliest()
                .map(|time| time.timestamp_millis()),
        };
        // A day whose midnight was skipped begins an hour later.
        found.unwrap_or(utc - (self.shifted(utc) - utc))
    }
}

/// Rows of a batch.
pub(crate) fn rows(batch: &RecordBatch, style: Style) -> Vec<Vec<Value>> {
    let columns: Vec<Vec<Value>> = batch
        .columns()
        .iter()
        .zip(batch.schema().fields())
        .map(|(column, field)| {
            let column_type = of_field(field);
            let is_json = holds_json(&column_type);
            let timed = timed::value_type(&column_type).is_some();
            let style = match (is_date(field), style) {
                (true, Style::Report { stringify, zone, .. }) => Style::Report {
                    stringify,
                    zone,
                    days: true,
                },
                _ => style,
            };
            (0..batch.num_rows())
                .map(|row| {
                    if timed {
                        pair(column, row, style)
                    } else {
                        top(column, row, style, is_json)
                    }
                })
                .collect()
        })
        .collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column[row].clone()).collect())
        .collect()
}

/// True for arrays whose items are texts of JSON.
fn holds_json(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::Array(item) => matches!(item.as_ref(), ColumnType::Complex(name) if name == "json"),
        _ => false,
    }
}

/// A value that a rollup keeps with its time: the JSON text of Druid's pair. What cannot be read shows its bytes.
fn pair(column: &ArrayRef, row: usize, style: Style) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    let Some((millis, value)) = timed::decode(column.as_binary::<i32>().value(row)) else {
        return value(column, row, style);
    };
    let value = match value {
        timed::Value::Null => Value::Null,
        timed::Value::Long(long) => Value::from(long),
        timed::Value::Double(double) => Value::from(double),
        timed::Value::Text(text) => Value::from(text),
    };
    Value::String(json::text(&serde_json::json!({"lhs": millis, "rhs": value})))
}

fn top(column: &ArrayRef, row: usize, style: Style, is_json: bool) -> Value {
    let value = match (is_json, value(column, row, style)) {
        (true, Value::Array(items)) => {
            let read = |item: Value| match &item {
                Value::String(text) => serde_json::from_str(text).unwrap_or(item),
                _ => item,
            };
            Value::Array(items.into_iter().map(read).collect())
        }
        (_, value) => value,
    };
    match (&value, style) {
        (Value::Array(_), Style::Sql { stringify: true, .. } | Style::Report { stringify: true, .. }) => {
            Value::String(json::text(&value))
        }
        _ => value,
    }
}

fn value(array: &ArrayRef, row: usize, style: Style) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Utf8 => Value::String(array.as_string::<i32>().value(row).to_owned()),
        DataType::Boolean => match array.as_any().downcast_ref::<BooleanArray>() {
            Some(values) => Value::Bool(values.value(row)),
            None => Value::Null,
        },
        DataType::Float64 => match array.as_any().downcast_ref::<Float64Array>() {
            Some(values) => double(values.value(row)),
            None => Value::Null,
        },
        DataType::Float32 => match array.as_any().downcast_ref::<Float32Array>() {
            Some(values) => double(values.value(row).to_string().parse().unwrap_or(f64::NAN)),
            None => Value::Null,
        },
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            match array.as_any().downcast_ref::<TimestampMillisecondArray>() {
                Some(values) => match style {
                    Style::Report { zone, days, .. } => {
                        let clock = zone.shifted(values.value(row));
                        Value::from(if days { clock.div_euclid(DAY_MS) } else { clock })
                    }
                    Style::Sql { zone, .. } => Value::String(zone.text(values.value(row))),
                },
                None => Value::Null,
            }
        }
        DataType::List(_) => match array.as_any().downcast_ref::<ListArray>() {
            Some(lists) => {
                let items = lists.value(row);
                Value::Array(
                    (0..items.len())
                        .map(|index| value(&items, index, style))
                        .collect(),
                )
            }
            None => Value::Null,
        },
        DataType::Date32 => match array.as_any().downcast_ref::<Date32Array>() {
            Some(days) => match style {
                Style::Report { .. } => Value::from(days.value(row)),
                Style::Sql { zone, .. } => Value::String(zone.text(zone.midnight(days.value(row)))),
            },
            None => Value::Null,
        },
        DataType::Timestamp(..) | DataType::Date64 => {
            let millis = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
            match cast(&array.slice(row, 1), &millis) {
                Ok(array) => value(&array, 0, style),
                Err(_) => Value::Null,
            }
        }
        DataType::Decimal128(..) | DataType::Decimal256(..) => {
            match cast(&array.slice(row, 1), &DataType::Float64) {
                Ok(array) => value(&array, 0, style),
                Err(_) => Value::Null,
            }
        }
        // A sketch: the JSON text of its base64 form.
        DataType::Binary => {
            let text = STANDARD.encode(array.as_binary::<i32>().value(row));
            Value::String(format!("\"{text}\""))
        }
        DataType::Int64 => Value::from(array.as_primitive::<arrow::datatypes::Int64Type>().value(row)),
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => match cast(&array.slice(row, 1), &DataType::Int64) {
            Ok(array) => value(&array, 0, style),
            Err(_) => Value::Null,
        },
        _ => match cast(&array.slice(row, 1), &DataType::Utf8) {
            Ok(array) => value(&array, 0, style),
            Err(_) => Value::Null,
        },
    }
}

/// About as many bytes as the JSON of a value has.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(size).sum(),
        _ => 8,
    }
}

/// A double; what JSON has no number for is text.
fn double(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::String("NaN".to_owned()),
        None if value > 0.0 => Value::String("Infinity".to_owned()),
        None => Value::String("-Infinity".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_of_zones() {
        let zone = |name: &str| Zone::of(json!({ "sqlTimeZone": name }).as_object().unwrap());
        let summer = 1_561_939_200_000; // 2019-07-01T00:00:00Z
        for (name, text, shift, midnight) in [
            ("UTC", "2019-07-01T00:00:00.000Z", 0, "2019-07-01T00:00:00.000Z"),
            (
                "America/Los_Angeles",
                "2019-06-30T17:00:00.000-07:00",
                -7,
                "2019-07-01T00:00:00.000-07:00",
            ),
            (
                "+05:30",
                "2019-07-01T05:30:00.000+05:30",
                5,
                "2019-07-01T00:00:00.000+05:30",
            ),
        ] {
            let zone = zone(name);
            assert_eq!(zone.text(summer), text);
            assert_eq!((zone.shifted(summer) - summer) / 3_600_000, shift);
            assert_eq!(zone.text(zone.midnight(18_078)), midnight);
        }
    }
}
