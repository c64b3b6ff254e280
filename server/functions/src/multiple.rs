//! Functions of multi-value strings work on each of their values.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray, StringBuilder, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
pub(crate) use trilith_proto::multi_value::{Texts, any_multiple, is_multiple, joined, split};

use crate::function::{Args, is_text};
use crate::text;

/// Values of a text: its own, or itself.
pub(crate) fn values(text: &str) -> Texts {
    split(text).unwrap_or_else(|| vec![Some(text.to_owned())])
}

/// The values of each row as a list; NULL is a list of one NULL. Rows of one value are not copied.
pub(crate) fn lists(texts: &StringArray) -> Result<ListArray> {
    let field = Arc::new(Field::new("item", DataType::Utf8, true));
    if !any_multiple(texts) {
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(1, texts.len()));
        return Ok(ListArray::try_new(field, offsets, Arc::new(texts.clone()), None)?);
    }
    let mut builder = StringBuilder::new();
    let mut lengths = Vec::with_capacity(texts.len());
    for text in texts {
        match text.and_then(split) {
            Some(items) => {
                lengths.push(items.len().max(1));
                for item in &items {
                    builder.append_option(item.as_deref());
                }
                // A row without values is grouped under NULL.
                if items.is_empty() {
                    builder.append_null();
                }
            }
            None => {
                lengths.push(1);
                builder.append_option(text);
            }
        }
    }
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(ListArray::try_new(
        field,
        offsets,
        Arc::new(builder.finish()),
        None,
    )?)
}

/// Runs a function on each value of multi-value strings. None if there are none.
///
/// A text result is again multi-value, a truth is that of any value, another result that of the first value.
pub(crate) fn mapped(args: &Args, body: fn(&Args) -> Result<ArrayRef>) -> Result<Option<ArrayRef>> {
    let mut texts: Vec<Option<StringArray>> = Vec::with_capacity(args.len());
    let mut any = false;
    for (index, value) in args.values.iter().enumerate() {
        let text = is_text(&value.data_type()) && !args.is_json(index);
        let multiple = match value {
            _ if !text => None,
            ColumnarValue::Scalar(scalar) => crate::function::scalar_text(scalar)
                .filter(|text| is_multiple(text))
                .map(|_| args.text(index))
                .transpose()?,
            ColumnarValue::Array(_) => Some(args.text(index)?).filter(any_multiple),
        };
        any |= multiple.is_some();
        texts.push(multiple);
    }
    if !any {
        return Ok(None);
    }
    let spread = Spread::new(args, &texts);
    let rows = UInt64Array::from(spread.rows.clone());
    let mut values = Vec::with_capacity(args.len());
    for (index, value) in args.values.iter().enumerate() {
        values.push(match (&spread.columns[index], value) {
            (Some(column), _) => ColumnarValue::Array(Arc::new(StringArray::from_iter(column.iter()))),
            (None, ColumnarValue::Array(array)) => ColumnarValue::Array(take(array, &rows, None)?),
            (None, scalar) => scalar.clone(),
        });
    }
    let result = body(&Args {
        name: args.name,
        values,
        fields: args.fields.clone(),
        rows: spread.rows.len(),
    })?;
    spread.collapse(&result).map(Some)
}

/// Rows spread over the values of their multi-value strings.
struct Spread {
    /// Row of each value.
    rows: Vec<u64>,
    /// How many values a row became; none for a row of plain values.
    counts: Vec<Option<usize>>,
    columns: Vec<Option<Texts>>,
}

impl Spread {
    fn new(args: &Args, texts: &[Option<StringArray>]) -> Spread {
        let mut spread = Spread {
            rows: Vec::with_capacity(args.rows),
            counts: Vec::with_capacity(args.rows),
            columns: texts
                .iter()
                .map(|text| text.as_ref().map(|_| Texts::new()))
                .collect(),
        };
        for row in 0..args.rows {
            spread.row(row, texts);
        }
        spread
    }

    fn row(&mut self, row: usize, texts: &[Option<StringArray>]) {
        // Equal lists come from the same column and are walked together; others make all pairs.
        let mut walks: Vec<(&str, Texts)> = Vec::new();
        let mut walk_of: Vec<Option<usize>> = vec![None; texts.len()];
        for (index, text) in texts.iter().enumerate() {
            let Some(text) = text
                .as_ref()
                .filter(|text| text.is_valid(row))
                .map(|text| text.value(row))
            else {
                continue;
            };
            let known = walks.iter().position(|(walked, _)| *walked == text);
            walk_of[index] = match (known, split(text)) {
                (Some(known), _) => Some(known),
                (None, Some(items)) => {
                    walks.push((text, items));
                    Some(walks.len() - 1)
                }
                (None, None) => None,
            };
        }
        let count = walks.iter().map(|(_, items)| items.len()).product::<usize>();
        self.counts.push((!walks.is_empty()).then_some(count));
        for step in 0..count {
            self.rows.push(row as u64);
            for (index, text) in texts.iter().enumerate() {
                let (Some(column), Some(text)) = (&mut self.columns[index], text) else {
                    continue;
                };
                column.push(match walk_of[index] {
                    None => text.is_valid(row).then(|| text.value(row).to_owned()),
                    Some(walk) => {
                        let inner: usize = walks[walk + 1..].iter().map(|(_, items)| items.len()).product();
                        let items = &walks[walk].1;
                        items[step / inner % items.len()].clone()
                    }
                });
            }
        }
    }

    fn collapse(&self, result: &ArrayRef) -> Result<ArrayRef> {
        let mut at = 0;
        match result.data_type() {
            DataType::Utf8 => {
                let texts = text::of(result)?;
                let mut builder = StringBuilder::new();
                for count in &self.counts {
                    let value = |index: usize| texts.is_valid(index).then(|| texts.value(index).to_owned());
                    match count {
                        None => builder.append_option(value(at)),
                        Some(count) => {
                            let values: Texts = (at..at + count).map(value).collect();
                            builder.append_option(joined(&values));
                        }
                    }
                    at += count.unwrap_or(1);
                }
                Ok(Arc::new(builder.finish()))
            }
            DataType::Boolean => {
                let truths = result.as_boolean();
                let mut out = Vec::with_capacity(self.counts.len());
                for count in &self.counts {
                    let count = count.unwrap_or(1);
                    let values =
                        || (at..at + count).map(|index| truths.is_valid(index).then(|| truths.value(index)));
                    out.push(if values().any(|value| value == Some(true)) {
                        Some(true)
                    } else if values().any(|value| value.is_none()) {
                        None
                    } else {
                        Some(false)
                    });
                    at += count;
                }
                Ok(Arc::new(BooleanArray::from(out)))
            }
            _ => {
                let mut first = Vec::with_capacity(self.counts.len());
                for count in &self.counts {
                    let count = count.unwrap_or(1);
                    first.push((count > 0).then_some(at as u64));
                    at += count;
                }
                Ok(take(result, &UInt64Array::from(first), None)?)
            }
        }
    }
}

/// Validity of rows, to build lists with.
pub(crate) fn validity(rows: impl Iterator<Item = bool>) -> Option<NullBuffer> {
    Some(NullBuffer::from_iter(rows))
}
