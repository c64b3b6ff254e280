//! Arrow values as Druid's JSON and CSV.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, ListArray, TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;
use serde_json::{Number, Value};
use trilith_proto::column::{ColumnType, of_field};
use trilith_proto::interval::iso;

/// How values look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Times as ISO text, arrays as JSON text when `stringify`.
    Sql { stringify: bool },
    /// As a task report has them: times as milliseconds.
    Report,
}

/// Rows of a batch.
pub(crate) fn rows(batch: &RecordBatch, style: Style) -> Vec<Vec<Value>> {
    let columns: Vec<Vec<Value>> = batch
        .columns()
        .iter()
        .zip(batch.schema().fields())
        .map(|(column, field)| {
            let json = matches!(of_field(field), ColumnType::Complex(name) if name == "json");
            (0..batch.num_rows())
                .map(|row| top(column, row, style, json))
                .collect()
        })
        .collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column[row].clone()).collect())
        .collect()
}

fn top(column: &ArrayRef, row: usize, style: Style, json: bool) -> Value {
    let value = value(column, row, style);
    match (&value, style) {
        // A multi-value string is a list in JSON.
        (Value::String(text), _) if json && style == Style::Report => {
            serde_json::from_str(text).unwrap_or(value)
        }
        (Value::Array(_), Style::Sql { stringify: true } | Style::Report) => Value::String(value.to_string()),
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
                Some(values) if style == Style::Report => Value::from(values.value(row)),
                Some(values) => Value::String(iso(values.value(row))),
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
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
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

/// A double; what JSON has no number for is text.
fn double(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::String("NaN".to_owned()),
        None if value > 0.0 => Value::String("Infinity".to_owned()),
        None => Value::String("-Infinity".to_owned()),
    }
}

/// A cell of CSV: quoted where it must be; a null is empty.
pub(crate) fn csv(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}
