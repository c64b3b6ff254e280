//! Column builders with Druid's conversion rules: what does not convert becomes null, never an error.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Float32Builder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
};
use arrow::datatypes::TimestampMillisecondType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;
use trilith_functions::json_text;
use trilith_proto::column::ColumnType;
use trilith_proto::multi_value;

use crate::json_value;
use crate::number::{double_of_text, is_plain_integer, long_of_number, long_of_text, number_text};
use crate::time::{TIME_FIELD, time_ms};

/// A value as it stands in a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// Missing, null, or an empty cell.
    Null,
    /// Text without escapes.
    Text(&'a str),
    /// The inside of a JSON string with escapes.
    Escaped(&'a str),
    /// A JSON number.
    Number(&'a str),
    /// true or false.
    Bool(bool),
    /// A JSON object or array.
    Nested(&'a str),
    /// Bytes, as base64.
    Bytes(&'a str),
}

/// Builds one column.
pub(crate) struct Column {
    builder: Builder,
    remove_null_bytes: bool,
}

enum Builder {
    Text(StringBuilder),
    Long(Int64Builder),
    Double(Float64Builder),
    Float(Float32Builder),
    /// Milliseconds from a `__time` field.
    Time(Int64Builder),
    Json(StringBuilder),
    /// Sketches.
    Bytes(BinaryBuilder),
    Texts(ListBuilder<StringBuilder>),
    Longs(ListBuilder<Int64Builder>),
    Doubles(ListBuilder<Float64Builder>),
    Floats(ListBuilder<Float32Builder>),
}

/// A text holds byte 0, which strings must not have.
pub(crate) struct NullByte {
    pub value: String,
    /// Where in the text, in bytes.
    pub position: usize,
}

impl Column {
    pub(crate) fn new(name: &str, column_type: &ColumnType, remove_null_bytes: bool) -> Column {
        let builder = match column_type {
            ColumnType::Long if name == TIME_FIELD => Builder::Time(Int64Builder::new()),
            ColumnType::Long => Builder::Long(Int64Builder::new()),
            ColumnType::Double => Builder::Double(Float64Builder::new()),
            ColumnType::Float => Builder::Float(Float32Builder::new()),
            ColumnType::Complex(kind) if kind == "json" => Builder::Json(StringBuilder::new()),
            ColumnType::Complex(_) => Builder::Bytes(BinaryBuilder::new()),
            ColumnType::Array(item) => match **item {
                ColumnType::Long => Builder::Longs(ListBuilder::new(Int64Builder::new())),
                ColumnType::Double => Builder::Doubles(ListBuilder::new(Float64Builder::new())),
                ColumnType::Float => Builder::Floats(ListBuilder::new(Float32Builder::new())),
                _ => Builder::Texts(ListBuilder::new(StringBuilder::new())),
            },
            ColumnType::String => Builder::Text(StringBuilder::new()),
        };
        Column {
            builder,
            remove_null_bytes,
        }
    }

    /// Adds a value. False: there was one, and it or a part of it became null, since it does not convert.
    pub(crate) fn push(&mut self, value: Value<'_>) -> Result<bool, NullByte> {
        let mut converted = true;
        match &mut self.builder {
            Builder::Text(builder) => match value {
                Value::Null => builder.append_null(),
                Value::Text(text) if !has_null_byte(text) => builder.append_value(text),
                Value::Number(number) if is_plain_integer(number) => builder.append_value(number),
                other => builder.append_option(text_of(other, self.remove_null_bytes)?),
            },
            Builder::Long(builder) => {
                let long = long_of(value);
                converted = long.is_some() || value == Value::Null;
                builder.append_option(long);
            }
            Builder::Double(builder) => {
                let double = double_of(value);
                converted = double.is_some() || value == Value::Null;
                builder.append_option(double);
            }
            Builder::Float(builder) => {
                let double = double_of(value);
                converted = double.is_some() || value == Value::Null;
                builder.append_option(double.map(|value| value as f32));
            }
            // Checked before any column of the record is written.
            Builder::Time(builder) => builder.append_value(time_ms(value).unwrap_or(0)),
            Builder::Json(builder) => match json_of(value) {
                Some(text) => {
                    builder.append_value(clean(text, self.remove_null_bytes)?);
                }
                None => builder.append_null(),
            },
            Builder::Bytes(builder) => {
                let bytes = bytes_of(value);
                converted = bytes.is_some() || value == Value::Null;
                builder.append_option(bytes);
            }
            Builder::Texts(builder) => match elements(value) {
                Some(items) => {
                    for item in items {
                        match json_element_text(&item) {
                            Some(text) => {
                                builder
                                    .values()
                                    .append_value(clean(text, self.remove_null_bytes)?);
                            }
                            None => builder.values().append_null(),
                        }
                    }
                    builder.append(true);
                }
                None => {
                    converted = value == Value::Null;
                    builder.append(false);
                }
            },
            Builder::Longs(builder) => {
                converted = push_list(builder, value, |values, item| {
                    let long = json_element_long(item);
                    values.append_option(long);
                    long.is_some()
                });
            }
            Builder::Doubles(builder) => {
                converted = push_list(builder, value, |values, item| {
                    let double = json_element_double(item);
                    values.append_option(double);
                    double.is_some()
                });
            }
            Builder::Floats(builder) => {
                converted = push_list(builder, value, |values, item| {
                    let double = json_element_double(item);
                    values.append_option(double.map(|value| value as f32));
                    double.is_some()
                });
            }
        }
        Ok(converted)
    }

    /// The column so far; the builder starts anew.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Text(builder) | Builder::Json(builder) => Arc::new(builder.finish()),
            Builder::Long(builder) => Arc::new(builder.finish()),
            Builder::Time(builder) => {
                let times = builder.finish().reinterpret_cast::<TimestampMillisecondType>();
                Arc::new(times.with_timezone("UTC"))
            }
            Builder::Bytes(builder) => Arc::new(builder.finish()),
            Builder::Double(builder) => Arc::new(builder.finish()),
            Builder::Float(builder) => Arc::new(builder.finish()),
            Builder::Texts(builder) => Arc::new(builder.finish()),
            Builder::Longs(builder) => Arc::new(builder.finish()),
            Builder::Doubles(builder) => Arc::new(builder.finish()),
            Builder::Floats(builder) => Arc::new(builder.finish()),
        }
    }
}

/// False if something that is not null became null. `append` says whether an element did not.
fn push_list<B: arrow::array::ArrayBuilder>(
    builder: &mut ListBuilder<B>,
    value: Value<'_>,
    append: impl Fn(&mut B, &Json) -> bool,
) -> bool {
    match elements(value) {
        Some(items) => {
            let mut converted = true;
            for item in &items {
                converted &= append(builder.values(), item) || item.is_null();
            }
            builder.append(true);
            converted
        }
        None => {
            builder.append(false);
            value == Value::Null
        }
    }
}

fn has_null_byte(text: &str) -> bool {
    memchr::memchr(0, text.as_bytes()).is_some()
}

/// Text without byte 0; an error if it has one and must not lose it.
fn clean(text: String, remove: bool) -> Result<String, NullByte> {
    match memchr::memchr(0, text.as_bytes()) {
        None => Ok(text),
        Some(_) if remove => Ok(text.replace('\0', "")),
        Some(position) => Err(NullByte {
            value: text,
            position,
        }),
    }
}

/// The text of a JSON string that has escapes. Lone surrogates are replaced.
pub(crate) fn unescape(raw: &str) -> String {
    match serde_json::from_str::<String>(&format!("\"{raw}\"")) {
        Ok(text) => text,
        Err(_) => unescape_leniently(raw),
    }
}

fn unescape_leniently(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let unit = code_unit(&mut chars);
                // The second half of a pair, if it follows the first.
                let mut after = chars.clone();
                let pair = match (after.next(), after.next()) {
                    (Some('\\'), Some('u')) => {
                        let low = code_unit(&mut after);
                        char::decode_utf16([unit, low]).next().and_then(Result::ok)
                    }
                    _ => None,
                };
                match pair.filter(|c| c.len_utf16() == 2) {
                    Some(pair) => {
                        out.push(pair);
                        chars = after;
                    }
                    None => out.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)),
                }
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// The four hexadecimal digits of `\u`.
fn code_unit(chars: &mut std::str::Chars<'_>) -> u16 {
    let digits: String = chars.by_ref().take(4).collect();
    u16::from_str_radix(&digits, 16).unwrap_or(0xfffd)
}

fn text_of(value: Value<'_>, remove_null_bytes: bool) -> Result<Option<String>, NullByte> {
    let text = match value {
        Value::Null => None,
        Value::Text(text) => Some(text.to_owned()),
        Value::Escaped(raw) => Some(unescape(raw)),
        Value::Number(number) => Some(number_text(number)),
        Value::Bool(value) => Some(value.to_string()),
        Value::Nested(raw) => match json_value::read(raw) {
            Some(Json::Array(items)) => return multiple(&items, remove_null_bytes),
            Some(other) => Some(other.to_string()),
            None => Some(raw.to_owned()),
        },
        Value::Bytes(text) => Some(text.to_owned()),
    };
    text.map(|text| clean(text, remove_null_bytes)).transpose()
}

/// A list as a multi-value string: one element is plain, none is null.
fn multiple(items: &[Json], remove_null_bytes: bool) -> Result<Option<String>, NullByte> {
    let texts = items.iter().map(|item| {
        let text = json_element_text(item).map(|text| clean(text, remove_null_bytes));
        text.transpose()
    });
    let texts = texts.collect::<Result<Vec<_>, NullByte>>()?;
    Ok(multi_value::joined(&texts))
}

fn json_element_text(item: &Json) -> Option<String> {
    match item {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number_text(&number.to_string())),
        other => Some(java_text(other)),
    }
}

/// What Java prints of a list, a map or what is in them.
fn java_text(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(value) => value.to_string(),
        Json::String(text) => text.clone(),
        Json::Number(number) => number_text(&number.to_string()),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(java_text).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(map) => {
            let entries: Vec<String> = map
                .iter()
                .map(|(name, value)| format!("{name}={}", java_text(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn json_element_long(item: &Json) -> Option<i64> {
    match item {
        Json::Bool(value) => Some(i64::from(*value)),
        Json::String(text) => long_of(Value::Text(text)),
        Json::Number(number) => long_of(Value::Number(&number.to_string())),
        _ => None,
    }
}

fn json_element_double(item: &Json) -> Option<f64> {
    match item {
        Json::Bool(value) => Some(f64::from(u8::from(*value))),
        Json::String(text) => double_of(Value::Text(text)),
        Json::Number(number) => number.as_f64(),
        _ => None,
    }
}

/// Elements of an array; a scalar is an array of one.
fn elements(value: Value<'_>) -> Option<Vec<Json>> {
    match value {
        Value::Null => None,
        Value::Text(text) | Value::Bytes(text) => Some(vec![Json::String(text.to_owned())]),
        Value::Escaped(raw) => Some(vec![Json::String(unescape(raw))]),
        Value::Bool(value) => Some(vec![Json::Bool(value)]),
        Value::Number(raw) | Value::Nested(raw) => match json_value::read(raw)? {
            // What is no scalar cannot be an element.
            Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => None,
            Json::Array(items) => Some(items),
            Json::Object(_) => None,
            scalar => Some(vec![scalar]),
        },
    }
}

fn json_of(value: Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Text(text) | Value::Bytes(text) => Some(Json::String(text.to_owned()).to_string()),
        Value::Escaped(raw) => Some(Json::String(unescape(raw)).to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(raw) | Value::Nested(raw) => {
            Some(json_value::read(raw).map_or_else(|| raw.to_owned(), |json| json_text(&json)))
        }
    }
}

/// The bytes that a text is base64 of.
fn bytes_of(value: Value<'_>) -> Option<Vec<u8>> {
    let decode = |text: &str| BASE64.decode(text).ok();
    match value {
        Value::Text(text) | Value::Bytes(text) => decode(text),
        Value::Escaped(raw) => decode(&unescape(raw)),
        Value::Null | Value::Number(_) | Value::Bool(_) | Value::Nested(_) => None,
    }
}

fn long_of(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Null | Value::Nested(_) | Value::Bytes(_) => None,
        Value::Bool(value) => Some(i64::from(value)),
        Value::Number(number) => long_of_number(number),
        Value::Text(text) => long_of_text(text),
        Value::Escaped(raw) => long_of_text(&unescape(raw)),
    }
}

fn double_of(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Null | Value::Nested(_) | Value::Bytes(_) => None,
        Value::Bool(value) => Some(f64::from(u8::from(value))),
        Value::Number(number) => number.parse().ok(),
        Value::Text(text) => double_of_text(text),
        Value::Escaped(raw) => double_of_text(&unescape(raw)),
    }
}

impl Value<'_> {
    /// As a message quotes it.
    pub(crate) fn shown(self) -> String {
        match self {
            Value::Null => "null".to_owned(),
            Value::Escaped(raw) => unescape(raw),
            Value::Bool(value) => value.to_string(),
            Value::Text(text) | Value::Number(text) | Value::Nested(text) | Value::Bytes(text) => {
                text.to_owned()
            }
        }
    }
}
