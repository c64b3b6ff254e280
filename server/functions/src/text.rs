//! Any value as text.

use std::io;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, GenericListArray, StringArray,
    StringBuilder, TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use base64::Engine as _;
use datafusion::common::exec_err;
use datafusion::error::Result;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use trilith_proto::java;
use trilith_proto::multi_value;

use crate::function::time_type;
use crate::pattern::Pattern;
use crate::zone::Zone;

/// Text as it is, numbers as Java prints them, times as SQL does, lists as JSON, bytes as base64.
pub(crate) fn of(array: &ArrayRef) -> Result<StringArray> {
    match array.data_type() {
        DataType::Float32 | DataType::Float64 => {
            // Druid's expressions see a FLOAT as the DOUBLE that it is exactly.
            let doubles = cast(array, &DataType::Float64)?;
            let doubles = typed::<Float64Array>(&doubles)?;
            let mut builder = StringBuilder::with_capacity(doubles.len(), doubles.len() * 8);
            for value in doubles {
                builder.append_option(value.map(java::double));
            }
            Ok(builder.finish())
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let date = !matches!(array.data_type(), DataType::Timestamp(..));
            let shape = if date { "yyyy-MM-dd" } else { "yyyy-MM-dd HH:mm:ss" };
            let pattern = Pattern::parse(shape);
            let times = cast(array, &time_type())?;
            Ok(typed::<TimestampMillisecondArray>(&times)?
                .iter()
                .map(|ms| pattern.as_ref()?.format(ms?, Zone::Utc))
                .collect())
        }
        DataType::Boolean => {
            let booleans = typed::<BooleanArray>(array)?;
            Ok(booleans
                .iter()
                .map(|value| value.map(|value| if value { "true" } else { "false" }))
                .collect())
        }
        DataType::List(_) => {
            let list: &GenericListArray<i32> = array.as_list();
            list.iter()
                .map(|items| {
                    items
                        .map(|items| json_items(&items).map(|items| json_text(&Value::Array(items))))
                        .transpose()
                })
                .collect()
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast(array, &DataType::Binary)?;
            Ok(typed::<BinaryArray>(&bytes)?
                .iter()
                .map(|bytes| bytes.map(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes)))
                .collect())
        }
        DataType::Utf8 => Ok(typed::<StringArray>(array)?.clone()),
        _ => {
            let texts = cast(array, &DataType::Utf8)?;
            Ok(typed::<StringArray>(&texts)?.clone())
        }
    }
}

/// The elements of an array as JSON values; texts are not parsed.
pub(crate) fn json_items(items: &ArrayRef) -> Result<Vec<Value>> {
    match items.data_type() {
        DataType::Null => Ok(vec![Value::Null; items.len()]),
        DataType::List(_) => {
            let list: &GenericListArray<i32> = items.as_list();
            list.iter()
                .map(|inner| match inner {
                    Some(inner) => Ok(Value::Array(json_items(&inner)?)),
                    None => Ok(Value::Null),
                })
                .collect()
        }
        // 1 and 0.
        DataType::Boolean => Ok(items
            .as_boolean()
            .iter()
            .map(|value| value.map_or(Value::Null, |value| u8::from(value).into()))
            .collect()),
        DataType::Float32 | DataType::Float64 => {
            let doubles = cast(items, &DataType::Float64)?;
            Ok(typed::<Float64Array>(&doubles)?
                .iter()
                .map(|value| value.map_or(Value::Null, json_double))
                .collect())
        }
        data_type if data_type.is_integer() || data_type.is_temporal() => Ok(crate::number::longs(items)?
            .iter()
            .map(|value| value.map_or(Value::Null, Value::from))
            .collect()),
        _ => Ok(of(items)?
            .iter()
            .map(|value| value.map_or(Value::Null, json_of_text))
            .collect()),
    }
}

/// A text as JSON; several values are a list.
pub(crate) fn json_of_text(text: &str) -> Value {
    match multi_value::split(text) {
        Some(values) => Value::from(values),
        None => Value::String(text.to_owned()),
    }
}

/// A double as JSON; what JSON does not have is text.
pub(crate) fn json_double(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => Value::String(java::double(value)),
    }
}

/// Doubles as Java prints them.
struct JavaDoubles;

impl Formatter for JavaDoubles {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(java::double(value).as_bytes())
    }
}

/// JSON as text, with doubles as Java prints them.
pub fn json_text(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(128);
    let mut serializer = Serializer::with_formatter(&mut bytes, JavaDoubles);
    let text = value
        .serialize(&mut serializer)
        .ok()
        .and_then(|()| String::from_utf8(bytes).ok());
    text.unwrap_or_else(|| value.to_string())
}

fn typed<T: Array + 'static>(array: &ArrayRef) -> Result<&T> {
    match array.as_any().downcast_ref::<T>() {
        Some(typed) => Ok(typed),
        None => exec_err!("a value cannot be read as text"),
    }
}

/// Length of a text in UTF-16 units.
pub(crate) fn units(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.encode_utf16().count()
    }
}

/// The part of a text from one UTF-16 unit to another. Half a surrogate pair becomes U+FFFD, as it cannot be
/// stored.
pub(crate) fn slice(text: &str, from: usize, to: usize) -> std::borrow::Cow<'_, str> {
    if text.is_ascii() {
        return text[from.min(text.len())..to.min(text.len())].into();
    }
    let units: Vec<u16> = text
        .encode_utf16()
        .skip(from)
        .take(to.saturating_sub(from))
        .collect();
    String::from_utf16_lossy(&units).into()
}

/// UTF-16 index of a byte index.
pub(crate) fn unit_index(text: &str, byte: usize) -> usize {
    text.get(..byte).map_or(0, units)
}
