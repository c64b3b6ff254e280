//! JSON functions on COMPLEX<json>, which is JSON text.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use serde_json::Value;

use crate::function::{Args, Function, returns_text};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("json_value", (2, 2), returns_text, json_value),
        Function::new("json_query", (2, 2), returns_text, json_query),
        Function::new("parse_json", (1, 1), returns_text, parse_json),
        Function::new("try_parse_json", (1, 1), returns_text, try_parse_json),
        Function::new("to_json_string", (1, 1), returns_text, to_json_string),
    ]
}

/// Steps of a path such as `$.a.b[0]['c d']`.
fn path(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(after.get(..end).filter(|step| !step.is_empty())?.to_owned());
            rest = &after[end..];
        } else {
            let after = rest.strip_prefix('[')?;
            let end = after.find(']')?;
            steps.push(after[..end].trim_matches(['\'', '"']).to_owned());
            rest = &after[end + 1..];
        }
    }
    Some(steps)
}

fn follow<'v>(value: &'v Value, steps: &[String]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match value {
        Value::Object(map) => map.get(step),
        Value::Array(items) => {
            let index: i64 = step.parse().ok()?;
            let index = if index < 0 {
                index + items.len() as i64
            } else {
                index
            };
            items.get(usize::try_from(index).ok()?)
        }
        _ => None,
    })
}

fn at_path(args: &Args, take: fn(&Value) -> Option<String>) -> Result<ArrayRef> {
    let text = args.required(1)?;
    let Some(steps) = path(&text) else {
        return exec_err!("[{text}] is not a JSON path");
    };
    let found: StringArray = args
        .text(0)?
        .iter()
        .map(|text| {
            let value: Value = serde_json::from_str(text?).ok()?;
            take(follow(&value, &steps)?)
        })
        .collect();
    Ok(Arc::new(found))
}

fn json_value(args: &Args) -> Result<ArrayRef> {
    at_path(args, |value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    })
}

fn json_query(args: &Args) -> Result<ArrayRef> {
    at_path(args, |value| Some(value.to_string()))
}

fn parse_json(args: &Args) -> Result<ArrayRef> {
    let mut out: Vec<Option<String>> = Vec::with_capacity(args.rows);
    for text in args.text(0)?.iter() {
        out.push(match text {
            None => None,
            Some(text) => match serde_json::from_str::<Value>(text) {
                Ok(value) => Some(value.to_string()),
                Err(error) => return exec_err!("PARSE_JSON cannot read [{text}]: {error}"),
            },
        });
    }
    Ok(Arc::new(StringArray::from(out)))
}

fn try_parse_json(args: &Args) -> Result<ArrayRef> {
    let out: StringArray = args
        .text(0)?
        .iter()
        .map(|text| {
            serde_json::from_str::<Value>(text?)
                .ok()
                .map(|value| value.to_string())
        })
        .collect();
    Ok(Arc::new(out))
}

fn to_json_string(args: &Args) -> Result<ArrayRef> {
    if args.data_type(0) == DataType::Utf8 {
        // A text may be JSON already (COMPLEX<json>); a plain text is quoted.
        let out: StringArray = args
            .text(0)?
            .iter()
            .map(|text| {
                let text = text?;
                let value =
                    serde_json::from_str::<Value>(text).unwrap_or_else(|_| Value::String(text.to_owned()));
                Some(value.to_string())
            })
            .collect();
        return Ok(Arc::new(out));
    }
    let out: StringArray = args.text(0)?.iter().map(|text| text.map(str::to_owned)).collect();
    Ok(Arc::new(out))
}
