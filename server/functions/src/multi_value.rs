//! Functions of multi-value strings. An array counts as the values of one.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Datum, Int64Array, ListArray, ListBuilder, StringArray,
    StringBuilder,
};
use arrow::compute::kernels::cmp;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::error::{DataFusionError, Result};
use trilith_proto::fault::Fault;

use crate::array::{lists_of, parts, range, sliced};
use crate::function::{Args, Function, is_text, list_of, returns_boolean, returns_text, returns_texts};
use crate::multiple::{self, Texts, joined};
use crate::regexp;
use crate::string::{integers, returns_integer};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("mv_to_array", (1, 1), returns_texts, mv_to_array),
        Function::new("array_to_mv", (1, 1), returns_text, |args| {
            each(args, 0, |_, items| Some(items))
        }),
        Function::new("string_to_mv", (2, 2), returns_text, string_to_mv).check(regexp::check),
        Function::new("mv_to_string", (2, 2), returns_text, crate::array::to_string),
        Function::new("mv_filter_only", (2, 2), returns_text, |args| filter(args, true)),
        Function::new("mv_filter_none", (2, 2), returns_text, |args| filter(args, false)),
        Function::new("mv_filter_regex", (2, 2), returns_text, filter_regex)
            .literals(&[1])
            .check(regexp::check),
        Function::new("mv_filter_prefix", (2, 2), returns_text, filter_prefix).literals(&[1]),
        Function::new("mv_length", (1, 1), returns_integer, |args| {
            Ok(integers(
                values(args, 0)?
                    .into_iter()
                    .map(|items| items.map(|items| items.len())),
            ))
        }),
        Function::new("mv_offset", (2, 2), returns_text, |args| element(args, 0)),
        Function::new("mv_ordinal", (2, 2), returns_text, |args| element(args, 1)),
        Function::new("mv_offset_of", (2, 2), returns_integer, |args| place(args, 0)),
        Function::new("mv_ordinal_of", (2, 2), returns_integer, |args| place(args, 1)),
        Function::new("mv_contains", (2, 2), returns_boolean, contains),
        Function::new("mv_overlap", (2, 2), returns_boolean, overlap),
        Function::new("mv_prepend", (2, 2), returns_text, |args| {
            let added = args.text(0)?;
            each(args, 1, |row, mut items| {
                items.insert(0, added.is_valid(row).then(|| added.value(row).to_owned()));
                Some(items)
            })
        }),
        Function::new("mv_append", (2, 2), returns_text, |args| {
            let added = args.text(1)?;
            each(args, 0, |row, mut items| {
                items.push(added.is_valid(row).then(|| added.value(row).to_owned()));
                Some(items)
            })
        }),
        Function::new("mv_concat", (2, 2), returns_text, |args| {
            let added = values(args, 1)?;
            each(args, 0, |row, mut items| {
                items.extend(added[row].iter().flatten().cloned());
                Some(items)
            })
        }),
        Function::new("mv_slice", (2, 3), returns_text, slice),
        // For GROUP BY and comparisons, which work value by value.
        Function::new("druid_mv_values", (1, 1), returns_texts, |args| {
            Ok(Arc::new(multiple::lists(&args.text(0)?)?))
        }),
        Function::new("druid_mv_single", (1, 1), returns_text, single),
        // COALESCE of texts, value by value.
        Function::new("druid_coalesce", (1, usize::MAX), returns_text, coalesce).maps(),
        Function::new("druid_mv_equal", (2, 2), returns_boolean, |args| {
            compare(args, cmp::eq)
        })
        .maps(),
        Function::new("druid_mv_less", (2, 2), returns_boolean, |args| {
            compare(args, cmp::lt)
        })
        .maps(),
        Function::new("druid_mv_less_equal", (2, 2), returns_boolean, |args| {
            compare(args, cmp::lt_eq)
        })
        .maps(),
        Function::new("druid_mv_greater", (2, 2), returns_boolean, |args| {
            compare(args, cmp::gt)
        })
        .maps(),
        Function::new("druid_mv_greater_equal", (2, 2), returns_boolean, |args| {
            compare(args, cmp::gt_eq)
        })
        .maps(),
        Function::new("druid_mv_between", (3, 3), returns_boolean, |args| {
            let text = args.text(0)?;
            let above = cmp::gt_eq(&text, &args.text(1)?)?;
            let below = cmp::lt_eq(&text, &args.text(2)?)?;
            Ok(Arc::new(arrow::compute::and_kleene(&above, &below)?))
        })
        .maps(),
        Function::new("druid_mv_in", (2, 2), returns_boolean, within).maps(),
        Function::new("druid_mv_like", (2, 2), returns_boolean, |args| {
            Ok(Arc::new(arrow::compute::like(&args.text(0)?, &args.text(1)?)?))
        })
        .maps(),
    ]
}

type Comparison = fn(&dyn Datum, &dyn Datum) -> std::result::Result<BooleanArray, ArrowError>;

fn compare(args: &Args, holds: Comparison) -> Result<ArrayRef> {
    let (left, right) = (args.text(0)?, args.text(1)?);
    Ok(Arc::new(holds(&left, &right)?))
}

/// The first of the texts of each row that is not NULL.
fn coalesce(args: &Args) -> Result<ArrayRef> {
    let columns = (0..args.len())
        .map(|index| args.text(index))
        .collect::<Result<Vec<_>>>()?;
    let texts: StringArray = (0..args.rows)
        .map(|row| {
            let first = columns.iter().find(|column| column.is_valid(row));
            first.map(|column| column.value(row).to_owned())
        })
        .collect();
    Ok(Arc::new(texts))
}

/// Whether each text is in the list of a literal.
fn within(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let listed = values(args, 1)?.into_iter().next().flatten().unwrap_or_default();
    let unknown = listed.contains(&None);
    let listed: HashSet<&str> = listed.iter().flatten().map(String::as_str).collect();
    let found: BooleanArray = texts
        .iter()
        .map(|text| {
            let found = listed.contains(text?);
            (found || !unknown).then_some(found)
        })
        .collect();
    Ok(Arc::new(found))
}

/// The text itself; a row of several values is an error.
fn single(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    if multiple::any_multiple(&texts) {
        let name = args.fields.first().map_or("", |field| field.name());
        let fault = Fault::unexpected_multi_value(name);
        return Err(DataFusionError::External(Box::new(fault)));
    }
    Ok(Arc::new(texts))
}

/// An argument as lists of texts.
fn lists(args: &Args, index: usize) -> Result<ListArray> {
    lists_of(args, index, &DataType::Utf8)
}

/// Values of each row of an argument; none for NULL.
fn values(args: &Args, index: usize) -> Result<Vec<Option<Texts>>> {
    if is_text(&args.data_type(index)) {
        return Ok(args
            .text(index)?
            .iter()
            .map(|text| text.map(multiple::values))
            .collect());
    }
    let list = lists(args, index)?;
    let texts: &StringArray = list.values().as_string();
    let value = |index: usize| texts.is_valid(index).then(|| texts.value(index).to_owned());
    Ok((0..list.len())
        .map(|row| list.is_valid(row).then(|| range(&list, row).map(value).collect()))
        .collect())
}

/// Values, with one NULL in the place of nothing.
fn harmonised(args: &Args, index: usize) -> Result<Vec<Texts>> {
    Ok(values(args, index)?
        .into_iter()
        .map(|items| match items {
            Some(items) if !items.is_empty() => items,
            _ => vec![None],
        })
        .collect())
}

/// Changes the values of each row; what has none left is NULL.
fn each(args: &Args, index: usize, change: impl Fn(usize, Texts) -> Option<Texts>) -> Result<ArrayRef> {
    let mut builder = StringBuilder::new();
    for (row, items) in values(args, index)?.into_iter().enumerate() {
        let changed = items.and_then(|items| change(row, items));
        builder.append_option(changed.and_then(|items| joined(&items)));
    }
    Ok(Arc::new(builder.finish()))
}

fn mv_to_array(args: &Args) -> Result<ArrayRef> {
    let list = lists(args, 0)?;
    debug_assert_eq!(list.data_type(), &list_of(DataType::Utf8));
    if !is_text(&args.data_type(0)) {
        return Ok(Arc::new(list));
    }
    let mut builder = ListBuilder::new(StringBuilder::new());
    for items in values(args, 0)? {
        match items {
            Some(items) => builder.append_value(items),
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn string_to_mv(args: &Args) -> Result<ArrayRef> {
    let texts: StringArray = parts(args)?
        .into_iter()
        .map(|parts| joined(&parts?.into_iter().map(Some).collect::<Texts>()))
        .collect();
    Ok(Arc::new(texts))
}

fn filter(args: &Args, keep: bool) -> Result<ArrayRef> {
    let listed = values(args, 1)?;
    each(args, 0, |row, mut items| {
        let Some(listed) = &listed[row] else {
            return if keep { None } else { Some(items) };
        };
        items.retain(|item| listed.contains(item) == keep);
        Some(items)
    })
}

fn filter_regex(args: &Args) -> Result<ArrayRef> {
    let pattern = args.required(1)?;
    let regex = regexp::compile(&pattern).or_else(|why| args.wrong(why))?;
    let mut builder = StringBuilder::new();
    for items in values(args, 0)? {
        let mut kept = Vec::new();
        for item in items.into_iter().flatten().flatten() {
            if regex.matches(&item).or_else(|why| args.wrong(why))? {
                kept.push(Some(item));
            }
        }
        builder.append_option(joined(&kept));
    }
    Ok(Arc::new(builder.finish()))
}

fn filter_prefix(args: &Args) -> Result<ArrayRef> {
    let Some(prefix) = args.literal(1)? else {
        return Ok(Arc::new(StringArray::new_null(args.rows)));
    };
    each(args, 0, |_, mut items| {
        items.retain(|item| item.as_ref().is_some_and(|text| text.starts_with(&prefix)));
        Some(items)
    })
}

fn element(args: &Args, first: i64) -> Result<ArrayRef> {
    let places = args.long(1)?;
    let texts: StringArray = values(args, 0)?
        .into_iter()
        .zip(places.iter())
        .map(|(items, place)| {
            let index = usize::try_from(place?.checked_sub(first)?).ok()?;
            items?.get(index).cloned().flatten()
        })
        .collect();
    Ok(Arc::new(texts))
}

fn place(args: &Args, first: usize) -> Result<ArrayRef> {
    let wanted = args.text(1)?;
    Ok(integers(values(args, 0)?.into_iter().enumerate().map(
        |(row, items)| {
            let wanted = wanted.is_valid(row).then(|| wanted.value(row));
            let found = items?.iter().position(|item| item.as_deref() == wanted)?;
            Some(found + first)
        },
    )))
}

fn contains(args: &Args) -> Result<ArrayRef> {
    let (left, right) = (harmonised(args, 0)?, values(args, 1)?);
    let found: BooleanArray = left
        .iter()
        .zip(&right)
        .map(|(left, right)| {
            Some(match right {
                None => left.contains(&None),
                Some(right) => right.iter().all(|item| left.contains(item)),
            })
        })
        .collect();
    Ok(Arc::new(found))
}

fn overlap(args: &Args) -> Result<ArrayRef> {
    let (left, right) = (harmonised(args, 0)?, values(args, 1)?);
    let found: BooleanArray = left
        .iter()
        .zip(&right)
        .map(|(left, right)| {
            let Some(right) = right else {
                return Some(left.contains(&None));
            };
            let found = left.iter().any(|item| right.contains(item));
            // NULL among the values might be anything that is looked for.
            let unknown = !right.is_empty() && !right.contains(&None) && left.contains(&None);
            (found || !unknown).then_some(found)
        })
        .collect();
    Ok(Arc::new(found))
}

fn slice(args: &Args) -> Result<ArrayRef> {
    let starts = args.long(1)?;
    let ends: Option<Int64Array> = (args.len() > 2).then(|| args.long(2)).transpose()?;
    each(args, 0, |row, items| {
        let missing = starts.is_null(row) || ends.as_ref().is_some_and(|ends| ends.is_null(row));
        if missing {
            return None;
        }
        let end = ends.as_ref().map(|ends| ends.value(row));
        let picks = sliced(items.len(), starts.value(row), end)?;
        Some(
            picks
                .into_iter()
                .map(|pick| items.get(pick?).cloned().flatten())
                .collect(),
        )
    })
}
