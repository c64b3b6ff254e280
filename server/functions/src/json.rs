//! JSON functions. COMPLEX<json> is JSON text in a field that says so.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder,
};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use serde_json::{Map, Value};
use trilith_proto::column::{self, ColumnType};

use crate::cast::{parse_double, parse_long};
use crate::function::{
    Args, Call, Function, list_of, returns_boolean, returns_double, returns_long, returns_text,
    returns_texts, scalar_text,
};
use crate::json_path::{self, Step};
use crate::text::{self, json_text};

pub(crate) fn functions() -> Vec<Function> {
    let at = |name, types, body| Function::new(name, (2, 2), types, body).check(check_path);
    vec![
        at("json_value", returns_text, |args| values(args, text_of)).alias(&["json_value_any"]),
        at("druid_json_value_varchar", returns_text, |args| {
            values(args, text_of)
        }),
        at("druid_json_value_bigint", returns_long, |args| {
            numbers::<Int64Array, _>(args, long_of)
        }),
        at("druid_json_value_double", returns_double, |args| {
            numbers::<Float64Array, _>(args, double_of)
        }),
        at("druid_json_value_boolean", returns_boolean, |args| {
            numbers::<BooleanArray, _>(args, boolean_of)
        }),
        at("druid_json_value_varchar_array", returns_texts, |args| {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for items in arrays(args)? {
                builder.append_option(items.map(|items| items.iter().map(text_of).collect::<Vec<_>>()));
            }
            Ok(Arc::new(builder.finish()))
        }),
        at(
            "druid_json_value_bigint_array",
            |_| Ok(list_of(DataType::Int64)),
            |args| {
                let mut builder = ListBuilder::new(arrow::array::Int64Builder::new());
                for items in arrays(args)? {
                    builder.append_option(items.map(|items| items.iter().map(long_of).collect::<Vec<_>>()));
                }
                Ok(Arc::new(builder.finish()))
            },
        ),
        at(
            "druid_json_value_double_array",
            |_| Ok(list_of(DataType::Float64)),
            |args| {
                let mut builder = ListBuilder::new(arrow::array::Float64Builder::new());
                for items in arrays(args)? {
                    builder.append_option(items.map(|items| items.iter().map(double_of).collect::<Vec<_>>()));
                }
                Ok(Arc::new(builder.finish()))
            },
        ),
        at("json_query", returns_text, |args| values(args, text_unless_null)).complex("json"),
        at("json_query_array", returns_texts, json_query_array).complex("ARRAY<COMPLEX<json>>"),
        at("json_keys", returns_texts, json_keys),
        Function::new("json_paths", (1, 1), returns_texts, json_paths),
        Function::new("json_object", (0, usize::MAX), returns_text, json_object)
            .complex("json")
            .check(check_pairs),
        Function::new("json_merge", (2, usize::MAX), returns_text, json_merge).complex("json"),
        Function::new("parse_json", (1, 1), returns_text, parse_json)
            .complex("json")
            .check(check_text),
        Function::new("try_parse_json", (1, 1), returns_text, try_parse_json).complex("json"),
        Function::new("to_json_string", (1, 1), returns_text, to_json_string),
        // An item of an array of JSON.
        Function::new("druid_json_item", (1, 1), returns_text, |args| {
            Ok(Arc::new(args.text(0)?))
        })
        .complex("json"),
    ]
}

/// A wrong path is found while the call is planned.
fn check_path(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match literals.get(1).copied().flatten().and_then(scalar_text) {
        Some(path) => match json_path::parse(&path) {
            Ok(_) => Ok(()),
            Err(why) => call.wrong(why),
        },
        None => Ok(()),
    }
}

/// Values of an argument: JSON is read, other types are values themselves.
fn documents(args: &Args, index: usize) -> Result<Vec<Option<Value>>> {
    let array = args.array(index)?;
    if matches!(array.data_type(), DataType::Utf8) {
        let texts = args.text(index)?;
        let json = args.is_json(index);
        return Ok(texts
            .iter()
            .map(|text| {
                text.map(|text| match serde_json::from_str(text) {
                    Ok(value) => value,
                    Err(_) if json => Value::Null,
                    Err(_) => text::json_of_text(text),
                })
            })
            .collect());
    }
    native(args, index)
}

/// The JSON that a text is.
fn parsed(value: Value) -> Value {
    match &value {
        Value::String(text) => serde_json::from_str(text).unwrap_or(value),
        _ => value,
    }
}

/// Values of an argument as JSON: only COMPLEX<json> is read.
fn native(args: &Args, index: usize) -> Result<Vec<Option<Value>>> {
    let array = args.array(index)?;
    if args.is_json(index) {
        return documents(args, index);
    }
    let holds_json = args.fields.get(index).is_some_and(|field| {
        let kind = ColumnType::Complex("json".to_owned());
        column::of_field(field) == ColumnType::Array(Box::new(kind))
    });
    let read = |value: Value| match value {
        Value::Array(items) if holds_json => Value::Array(items.into_iter().map(parsed).collect()),
        other => other,
    };
    let items = text::json_items(&array)?;
    Ok(items
        .into_iter()
        .enumerate()
        .map(|(row, value)| (array.is_valid(row) && !value.is_null()).then(|| read(value)))
        .collect())
}

/// Where to look.
enum Paths {
    /// At one place in all rows; none if it is NULL.
    One(Option<Vec<Step>>),
    /// In each row at a place of its own.
    Each(Vec<Option<Vec<Step>>>),
}

impl Paths {
    fn of(args: &Args) -> Result<Paths> {
        let read = |path: &str| json_path::parse(path).or_else(|why| args.wrong(why));
        if let Some(ColumnarValue::Array(_)) = args.values.get(1) {
            let paths = args.text(1)?;
            let steps = paths.iter().map(|path| path.map(read).transpose());
            return Ok(Paths::Each(steps.collect::<Result<_>>()?));
        }
        Ok(Paths::One(args.literal(1)?.as_deref().map(read).transpose()?))
    }

    fn steps(&self, row: usize) -> Option<&[Step]> {
        match self {
            Paths::One(steps) => steps.as_deref(),
            Paths::Each(rows) => rows.get(row)?.as_deref(),
        }
    }
}

/// What is at the path in each row.
fn found<T>(args: &Args, take: impl Fn(&Value) -> Option<T>) -> Result<Vec<Option<T>>> {
    let paths = Paths::of(args)?;
    let array = args.array(0)?;
    if matches!(array.data_type(), DataType::Utf8) {
        // One document at a time.
        return Ok(args
            .text(0)?
            .iter()
            .enumerate()
            .map(|(row, text)| {
                let steps = paths.steps(row)?;
                let document: Value = serde_json::from_str(text?).ok()?;
                take(json_path::follow(&document, steps)?)
            })
            .collect());
    }
    Ok(documents(args, 0)?
        .iter()
        .enumerate()
        .map(|(row, document)| take(json_path::follow(document.as_ref()?, paths.steps(row)?)?))
        .collect())
}

fn values(args: &Args, take: fn(&Value) -> Option<String>) -> Result<ArrayRef> {
    let texts: StringArray = found(args, take)?.into_iter().collect();
    Ok(Arc::new(texts))
}

fn numbers<A, T>(args: &Args, take: fn(&Value) -> Option<T>) -> Result<ArrayRef>
where
    A: Array + FromIterator<Option<T>> + 'static,
{
    let numbers: A = found(args, take)?.into_iter().collect();
    Ok(Arc::new(numbers))
}

fn is_primitive(value: &Value) -> bool {
    !matches!(value, Value::Object(_) | Value::Array(_))
}

/// The only element of an array, or the value itself.
fn only(value: &Value) -> &Value {
    match value {
        Value::Array(items) if items.len() == 1 => &items[0],
        other => other,
    }
}

fn text_of(value: &Value) -> Option<String> {
    match only(value) {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(match number.as_i64() {
            Some(long) => long.to_string(),
            None => number
                .as_f64()
                .map_or_else(|| number.to_string(), trilith_proto::java::double),
        }),
        _ => None,
    }
}

fn long_of(value: &Value) -> Option<i64> {
    match only(value) {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|double| double as i64)),
        Value::String(text) => parse_long(text),
        Value::Bool(value) => Some((*value).into()),
        _ => None,
    }
}

fn double_of(value: &Value) -> Option<f64> {
    match only(value) {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => parse_double(text),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}

fn boolean_of(value: &Value) -> Option<bool> {
    match only(value) {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => number.as_f64().map(|double| double > 0.0),
        Value::String(text) => Some(text.eq_ignore_ascii_case("true")),
        _ => None,
    }
}

/// Arrays of primitive values at the path; a primitive value is an array of one.
fn arrays(args: &Args) -> Result<Vec<Option<Vec<Value>>>> {
    found(args, |value| match value {
        Value::Array(items) if items.iter().all(is_primitive) => Some(items.clone()),
        Value::Array(_) | Value::Object(_) | Value::Null => None,
        scalar => Some(vec![scalar.clone()]),
    })
}

fn json_query_array(args: &Args) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    let rows = found(args, |value| match value {
        Value::Null => None,
        Value::Array(items) => Some(items.clone()),
        other => Some(vec![other.clone()]),
    })?;
    for items in rows {
        builder.append_option(items.map(|items| items.iter().map(text_unless_null).collect::<Vec<_>>()));
    }
    Ok(Arc::new(builder.finish()))
}

fn json_keys(args: &Args) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    let rows = found(args, |value| match value {
        Value::Object(map) => Some(map.keys().cloned().map(Some).collect::<Vec<_>>()),
        Value::Array(items) => Some((0..items.len()).map(|index| Some(index.to_string())).collect()),
        _ => None,
    })?;
    for keys in rows {
        builder.append_option(keys);
    }
    Ok(Arc::new(builder.finish()))
}

fn json_paths(args: &Args) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for document in documents(args, 0)? {
        match document {
            // NULL is a leaf, at the root.
            None => builder.append_value([Some("$")]),
            Some(document) => {
                let mut paths = Vec::new();
                json_path::leaves(&document, &mut "$".to_owned(), &mut paths);
                builder.append_value(paths.into_iter().map(Some));
            }
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn check_pairs(call: &Call<'_>, _: &[Option<&ScalarValue>]) -> Result<()> {
    match call.types.len().is_multiple_of(2) {
        true => Ok(()),
        false => call.wrong("must have an even number of arguments"),
    }
}

fn json_object(args: &Args) -> Result<ArrayRef> {
    let keys = (0..args.len())
        .step_by(2)
        .map(|index| args.text(index))
        .collect::<Result<Vec<_>>>()?;
    let mut columns = (1..args.len())
        .step_by(2)
        .map(|index| native(args, index))
        .collect::<Result<Vec<_>>>()?;
    let mut builder = StringBuilder::new();
    for row in 0..args.rows {
        let mut object = Map::new();
        for (key, column) in keys.iter().zip(&mut columns) {
            if key.is_null(row) {
                return args.wrong("field name must be a STRING");
            }
            object.insert(
                key.value(row).to_owned(),
                column[row].take().unwrap_or(Value::Null),
            );
        }
        builder.append_value(json_text(&Value::Object(object)));
    }
    Ok(Arc::new(builder.finish()))
}

fn json_merge(args: &Args) -> Result<ArrayRef> {
    let mut columns = Vec::with_capacity(args.len());
    for index in 0..args.len() {
        let mut column = Vec::with_capacity(args.rows);
        for text in &args.text(index)? {
            let value = match text.map(|text| (text, serde_json::from_str::<Value>(text))) {
                None => None,
                Some((_, Ok(value @ (Value::Object(_) | Value::Array(_))))) => Some(value),
                Some((_, Ok(Value::Null))) => None,
                Some((text, _)) => return args.wrong(format!("bad string input [{text}]")),
            };
            column.push(value);
        }
        columns.push(column);
    }
    let mut builder = StringBuilder::new();
    for row in 0..args.rows {
        let mut merged: Option<Value> = None;
        let mut missing = false;
        for (place, column) in columns.iter_mut().enumerate() {
            match (&mut merged, column[row].take()) {
                (_, None) => missing = true,
                (None, Some(value)) => merged = Some(value),
                (Some(Value::Object(all)), Some(Value::Object(more))) => all.extend(more),
                (Some(Value::Array(all)), Some(Value::Array(more))) => all.extend(more),
                (Some(Value::Object(_)), Some(other)) => {
                    return args.wrong(format!(
                        "bad input[{other}] in position[{place}], expected object but got array"
                    ));
                }
                (Some(_), Some(other)) => {
                    return args.wrong(format!(
                        "bad input[{other}] in position[{place}], expected array but got object"
                    ));
                }
            }
        }
        builder.append_option(merged.filter(|_| !missing).map(|value| json_text(&value)));
    }
    Ok(Arc::new(builder.finish()))
}

fn check_text(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match call.types {
        [DataType::Utf8 | DataType::Null] => Ok(()),
        _ => call.cannot_apply(literals, "PARSE_JSON(<CHARACTER>)"),
    }
}

/// JSON null is NULL.
fn parse_json(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut builder = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
    for text in &texts {
        let Some(text) = text else {
            builder.append_null();
            continue;
        };
        let value: Value = serde_json::from_str(text).map_err(|_| {
            DataFusionError::Execution(format!("Function[PARSE_JSON] bad string input [{text}]"))
        })?;
        builder.append_option(text_unless_null(&value));
    }
    Ok(Arc::new(builder.finish()))
}

fn text_unless_null(value: &Value) -> Option<String> {
    (!value.is_null()).then(|| json_text(value))
}

fn try_parse_json(args: &Args) -> Result<ArrayRef> {
    if !matches!(args.data_type(0), DataType::Utf8) {
        return Ok(Arc::new(StringArray::new_null(args.rows)));
    }
    let texts: StringArray = args
        .text(0)?
        .iter()
        .map(|text| text_unless_null(&serde_json::from_str(text?).ok()?))
        .collect();
    Ok(Arc::new(texts))
}

fn to_json_string(args: &Args) -> Result<ArrayRef> {
    let texts: StringArray = native(args, 0)?
        .into_iter()
        .map(|value| value.map(|value| json_text(&value)))
        .collect();
    Ok(Arc::new(texts))
}
