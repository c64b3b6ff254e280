//! Column builders with Druid's conversion rules: what does not convert becomes null, never an error.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Builder, Float64Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow::datatypes::TimestampMillisecondType;
use serde_json::Value as Json;
use trilith_proto::column::ColumnType;
use trilith_proto::multi_value;

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
    Texts(ListBuilder<StringBuilder>),
    Longs(ListBuilder<Int64Builder>),
    Doubles(ListBuilder<Float64Builder>),
    Floats(ListBuilder<Float32Builder>),
}

/// The `__time` of a record cannot be read.
pub(crate) struct BadTime(pub String);

/// A text holds byte 0, which strings must not have.
pub(crate) struct NullByte {
    pub value: String,
    /// Where in the text, in bytes.
    pub position: usize,
}

impl Column {
    pub(crate) fn new(name: &str, column_type: &ColumnType, remove_null_bytes: bool) -> Column {
        let builder = match column_type {
            ColumnType::Long if name == "__time" => Builder::Time(Int64Builder::new()),
            ColumnType::Long => Builder::Long(Int64Builder::new()),
            ColumnType::Double => Builder::Double(Float64Builder::new()),
            ColumnType::Float => Builder::Float(Float32Builder::new()),
            ColumnType::Complex(_) => Builder::Json(StringBuilder::new()),
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

    /// Checks what can make a whole record fail, before any column of it is written.
    pub(crate) fn check(&self, value: Value<'_>) -> Result<(), BadTime> {
        if let Builder::Time(_) = self.builder {
            return time_ms(value).map(|_| ());
        }
        Ok(())
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
            // Checked before.
            Builder::Time(builder) => builder.append_value(time_ms(value).unwrap_or(0)),
            Builder::Json(builder) => match json_text(value) {
                Some(text) => {
                    builder.append_value(clean(text, self.remove_null_bytes)?);
                }
                None => builder.append_null(),
            },
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

/// Small enough to be printed as it stands.
fn is_plain_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit()) && digits != "0" || number == "0"
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
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).unwrap_or(0xfffd);
                out.push(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

fn text_of(value: Value<'_>, remove_null_bytes: bool) -> Result<Option<String>, NullByte> {
    let text = match value {
        Value::Null => None,
        Value::Text(text) => Some(text.to_owned()),
        Value::Escaped(raw) => Some(unescape(raw)),
        Value::Number(number) => Some(number_text(number)),
        Value::Bool(value) => Some(value.to_string()),
        Value::Nested(raw) => match serde_json::from_str::<Json>(raw) {
            Ok(Json::Array(items)) => return multiple(&items, remove_null_bytes),
            Ok(other) => Some(other.to_string()),
            Err(_) => Some(raw.to_owned()),
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
    Ok(match texts.as_slice() {
        [] => None,
        values => multi_value::joined(values),
    })
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
        Value::Number(raw) | Value::Nested(raw) => match serde_json::from_str::<Json>(raw).ok()? {
            // What is no scalar cannot be an element.
            Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => None,
            Json::Array(items) => Some(items),
            Json::Object(_) => None,
            scalar => Some(vec![scalar]),
        },
    }
}

fn json_text(value: Value<'_>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Text(text) | Value::Bytes(text) => Some(Json::String(text.to_owned()).to_string()),
        Value::Escaped(raw) => Some(Json::String(unescape(raw)).to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(raw) | Value::Nested(raw) => {
            Some(serde_json::from_str::<Json>(raw).map_or_else(|_| raw.to_owned(), |json| json.to_string()))
        }
    }
}

/// Integers of 64 bits as they are, other numbers as Java prints a double.
fn number_text(number: &str) -> String {
    match number.parse::<i64>() {
        Ok(integer) => integer.to_string(),
        Err(_) => number
            .parse::<f64>()
            .map_or_else(|_| number.to_owned(), java_double),
    }
}

/// Java's `Double.toString`.
pub(crate) fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        let text = format!("{value}");
        return if text.contains('.') {
            text
        } else {
            format!("{text}.0")
        };
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => text,
    }
}

fn parse_long(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, bytes),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let mut value: i64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

fn cleaned_number(text: &str) -> String {
    let text: String = text.trim().chars().filter(|c| *c != ',').collect();
    match text.strip_prefix('+') {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}

/// Rust's parser also reads "inf" and "nan" in any case; Java reads only its own spellings.
fn parse_double(text: &str) -> Option<f64> {
    let first = text.trim_start_matches(['-', '+']).bytes().next()?;
    match first {
        b'0'..=b'9' | b'.' => text.parse().ok(),
        _ => match text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
    }
}

fn long_of(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Null | Value::Nested(_) | Value::Bytes(_) => None,
        Value::Bool(value) => Some(i64::from(value)),
        Value::Number(number) => parse_long(number.as_bytes())
            .or_else(|| number.parse::<i64>().ok())
            .or_else(|| number.parse::<f64>().ok().map(|value| value as i64)),
        Value::Text(text) => parse_long(text.as_bytes()).or_else(|| {
            let text = cleaned_number(text);
            text.parse::<i64>()
                .ok()
                .or_else(|| parse_double(&text).filter(|v| !v.is_nan()).map(|v| v as i64))
        }),
        Value::Escaped(raw) => long_of(Value::Text(&unescape(raw))),
    }
}

fn double_of(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Null | Value::Nested(_) | Value::Bytes(_) => None,
        Value::Bool(value) => Some(f64::from(u8::from(value))),
        Value::Number(number) => number.parse().ok(),
        Value::Text(text) => parse_double(&cleaned_number(text)),
        Value::Escaped(raw) => double_of(Value::Text(&unescape(raw))),
    }
}

/// Format `auto`: digits are milliseconds, anything else is ISO-8601; missing is 0.
fn time_ms(value: Value<'_>) -> Result<i64, BadTime> {
    let parse = |text: &str| {
        text.parse::<i64>()
            .ok()
            .or_else(|| trilith_proto::interval::parse_instant(text))
            .ok_or_else(|| BadTime(text.to_owned()))
    };
    match value {
        Value::Null => Ok(0),
        Value::Number(number) => long_of(value).ok_or_else(|| BadTime(number.to_owned())),
        Value::Text(text) => parse(text.trim()),
        Value::Escaped(raw) => parse(unescape(raw).trim()),
        Value::Bool(value) => Err(BadTime(value.to_string())),
        Value::Nested(raw) | Value::Bytes(raw) => Err(BadTime(raw.to_owned())),
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
