//! A value and its time: how rollups keep EARLIEST and LATEST, so that they can be combined again.

use arrow::datatypes::DataType;

use crate::column::ColumnType;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL at that time.
    Null,
    /// A BIGINT, or the milliseconds of a time.
    Long(i64),
    /// A DOUBLE or a FLOAT.
    Double(f64),
    /// A VARCHAR.
    Text(&'a str),
}

const NULL: u8 = 0;
const LONG: u8 = 1;
const DOUBLE: u8 = 2;
const TEXT: u8 = 3;

/// Druid's name for the pair of a time and a value of this type.
pub fn complex_name(value: &DataType) -> &'static str {
    match value {
        DataType::Float32 => "serializablePairLongFloat",
        DataType::Float64 | DataType::Decimal128(..) => "serializablePairLongDouble",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "serializablePairLongString",
        _ => "serializablePairLongLong",
    }
}

/// Type of the values in a column of pairs; none if it holds something else.
pub fn value_type(column: &ColumnType) -> Option<DataType> {
    let ColumnType::Complex(name) = column else {
        return None;
    };
    Some(match name.as_str() {
        "serializablePairLongLong" => DataType::Int64,
        "serializablePairLongFloat" => DataType::Float32,
        "serializablePairLongDouble" => DataType::Float64,
        "serializablePairLongString" => DataType::Utf8,
        _ => return None,
    })
}

/// The stored form: eight bytes of milliseconds, one for the kind of the value, the value; big-endian.
pub fn encode(millis: i64, value: Value<'_>) -> Vec<u8> {
    let mut bytes = millis.to_be_bytes().to_vec();
    match value {
        Value::Null => bytes.push(NULL),
        Value::Long(long) => {
            bytes.push(LONG);
            bytes.extend(long.to_be_bytes());
        }
        Value::Double(double) => {
            bytes.push(DOUBLE);
            bytes.extend(double.to_be_bytes());
        }
        Value::Text(text) => {
            bytes.push(TEXT);
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// Milliseconds and value of a stored form; none if it is damaged.
pub fn decode(bytes: &[u8]) -> Option<(i64, Value<'_>)> {
    let (millis, rest) = bytes.split_first_chunk::<8>()?;
    let (kind, rest) = rest.split_first()?;
    let value = match *kind {
        NULL => Value::Null,
        LONG => Value::Long(i64::from_be_bytes(rest.try_into().ok()?)),
        DOUBLE => Value::Double(f64::from_be_bytes(rest.try_into().ok()?)),
        TEXT => Value::Text(std::str::from_utf8(rest).ok()?),
        _ => return None,
    };
    Some((i64::from_be_bytes(*millis), value))
}
