//! Multi-value strings: a VARCHAR that holds a JSON list of texts has several values; any other text is one.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, ListArray, ListBuilder, StringArray, StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::exec_err;
use datafusion::error::Result;

use crate::function::{Args, Function, returns_boolean, returns_long, returns_text};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("mv_to_array", (1, 1), returns_texts, mv_to_array),
        Function::new("array_to_mv", (1, 1), returns_text, array_to_mv),
        Function::new("mv_length", (1, 1), returns_long, mv_length),
        Function::new("mv_contains", (2, 2), returns_boolean, |args| compare(args, true)),
        Function::new("mv_overlap", (2, 2), returns_boolean, |args| compare(args, false)),
        Function::new("mv_offset", (2, 2), returns_text, |args| element(args, 0)),
        Function::new("mv_ordinal", (2, 2), returns_text, |args| element(args, 1)),
        Function::new("mv_to_string", (2, 2), returns_text, mv_to_string),
        Function::new("string_to_mv", (2, 2), returns_text, string_to_mv),
    ]
}

fn returns_texts(_: &[DataType]) -> Result<DataType> {
    Ok(DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))))
}

type Texts = Vec<Option<String>>;

/// Values of a multi-value string.
pub(crate) fn values(text: &str) -> Texts {
    if text.starts_with('[')
        && let Ok(items) = serde_json::from_str::<Texts>(text)
    {
        return items;
    }
    vec![Some(text.to_owned())]
}

/// Values as a multi-value string: none is NULL, one is plain.
fn joined(values: Texts) -> Option<String> {
    match values.as_slice() {
        [] => None,
        [one] => one.clone(),
        many => serde_json::to_string(many).ok(),
    }
}

/// An argument as lists: of an array, or of a multi-value string.
fn lists(args: &Args, index: usize) -> Result<Vec<Option<Texts>>> {
    let array = args.array(index)?;
    if !matches!(array.data_type(), DataType::List(_)) {
        return Ok(args.text(index)?.iter().map(|text| text.map(values)).collect());
    }
    let array = cast(&array, &returns_texts(&[])?)?;
    let Some(list) = array.as_any().downcast_ref::<ListArray>() else {
        return exec_err!(
            "argument {} of {} is no list",
            index + 1,
            args.name.to_uppercase()
        );
    };
    Ok(list
        .iter()
        .map(|items| {
            let items = items?;
            let texts = items.as_any().downcast_ref::<StringArray>()?;
            Some(texts.iter().map(|text| text.map(str::to_owned)).collect())
        })
        .collect())
}

fn mv_to_array(args: &Args) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for list in lists(args, 0)? {
        match list {
            Some(items) => builder.append_value(items),
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn array_to_mv(args: &Args) -> Result<ArrayRef> {
    let texts: StringArray = lists(args, 0)?.into_iter().map(|list| joined(list?)).collect();
    Ok(Arc::new(texts))
}

fn mv_length(args: &Args) -> Result<ArrayRef> {
    let lengths: Int64Array = lists(args, 0)?
        .into_iter()
        .map(|list| list.map(|list| list.len() as i64))
        .collect();
    Ok(Arc::new(lengths))
}

fn compare(args: &Args, all: bool) -> Result<ArrayRef> {
    let (left, right) = (lists(args, 0)?, lists(args, 1)?);
    let found: BooleanArray = left
        .into_iter()
        .zip(right)
        .map(|(left, right)| {
            let (left, right) = (left?, right?);
            let inside = |item: &Option<String>| left.contains(item);
            Some(if all {
                right.iter().all(inside)
            } else {
                right.iter().any(inside)
            })
        })
        .collect();
    Ok(Arc::new(found))
}

fn element(args: &Args, first: i64) -> Result<ArrayRef> {
    let places = args.long(1)?;
    let texts: StringArray = lists(args, 0)?
        .into_iter()
        .zip(places.iter())
        .map(|(list, place)| {
            let index = usize::try_from(place? - first).ok()?;
            list?.get(index).cloned().flatten()
        })
        .collect();
    Ok(Arc::new(texts))
}

fn mv_to_string(args: &Args) -> Result<ArrayRef> {
    let separators = args.text(1)?;
    let texts: StringArray = lists(args, 0)?
        .into_iter()
        .zip(separators.iter())
        .map(|(list, separator)| {
            let texts: Vec<String> = list?.into_iter().map(Option::unwrap_or_default).collect();
            Some(texts.join(separator?))
        })
        .collect();
    Ok(Arc::new(texts))
}

fn string_to_mv(args: &Args) -> Result<ArrayRef> {
    let separator = args.required(1)?;
    let texts: StringArray = args
        .text(0)?
        .iter()
        .map(|text| {
            joined(
                text?
                    .split(separator.as_str())
                    .map(|part| Some(part.to_owned()))
                    .collect(),
            )
        })
        .collect();
    Ok(Arc::new(texts))
}
