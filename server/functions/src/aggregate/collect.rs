//! ARRAY_AGG, ARRAY_CONCAT_AGG and STRING_AGG: values in the order of their rows, or each once and sorted.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, new_empty_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{SortOptions, concat, filter, is_not_null};
use arrow::datatypes::{DataType, Field};
use arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::{Aggregate, Call};
use crate::array::{converted, item_type};
use crate::function::{cannot_apply, is_text, list_of};
use crate::{multiple, text};

/// Bytes of the values that are collected when the call does not say.
const SIZE_BYTES: i64 = 1_024;

/// Those of DISTINCT have names of their own: the optimiser would make a GROUP BY of it, which forgets the order and
/// does not know that arrays are taken apart.
pub(super) fn functions() -> Vec<Aggregate> {
    let array = |name, make| {
        Aggregate::new(
            name,
            (1, 2),
            |types| Ok(list_of(collected(&types[0]))),
            |types| vec![list_of(collected(&types[0]))],
            make,
        )
    };
    let concatenated = |name, make| {
        Aggregate::new(
            name,
            (1, 2),
            returns_concatenated,
            |types| vec![list_of(item_type(&types[0]))],
            make,
        )
    };
    let text = |name, make| {
        Aggregate::new(
            name,
            (2, 3),
            |_| Ok(DataType::Utf8),
            |_| vec![list_of(DataType::Utf8)],
            make,
        )
    };
    vec![
        array("array_agg", |call| make(call, Shape::Array, false)),
        array("druid_array_agg_distinct", |call| make(call, Shape::Array, true)),
        concatenated("array_concat_agg", |call| make(call, Shape::Concatenated, false)),
        concatenated("druid_array_concat_agg_distinct", |call| {
            make(call, Shape::Concatenated, true)
        }),
        text("string_agg", |call| make(call, Shape::Text, false)).alias(&["listagg"]),
        text("druid_string_agg_distinct", |call| make(call, Shape::Text, true)),
    ]
}

/// Arrays hold truths as 1 and 0.
fn collected(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Boolean => DataType::Int64,
        other => other.clone(),
    }
}

fn returns_concatenated(types: &[DataType]) -> Result<DataType> {
    match &types[0] {
        DataType::List(_) | DataType::Null => {}
        data_type if is_text(data_type) => {}
        _ => {
            let forms = "ARRAY_CONCAT_AGG(<ARRAY>, [<maxSizeBytes>])";
            return cannot_apply("array_concat_agg", types, &[], forms);
        }
    }
    Ok(list_of(item_type(&types[0])))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Array,
    Concatenated,
    Text,
}

fn make(call: &Call<'_>, shape: Shape, distinct: bool) -> Result<Box<dyn Accumulator>> {
    let place = if shape == Shape::Text { 2 } else { 1 };
    let bytes = call.number(place, SIZE_BYTES)?;
    let item = match shape {
        Shape::Array => collected(&call.data_type(0)),
        Shape::Concatenated => item_type(&call.data_type(0)),
        Shape::Text => DataType::Utf8,
    };
    let separator = match (shape, call.literal_if(shape == Shape::Text, 1)?) {
        (Shape::Text, Some(scalar)) => crate::function::scalar_text(&scalar).unwrap_or_default(),
        _ => String::new(),
    };
    let distinct = if distinct || call.is_distinct() {
        let options = SortOptions::default();
        let field = SortField::new_with_options(item.clone(), options);
        Some(Distinct {
            converter: RowConverter::new(vec![field])?,
            rows: BTreeSet::new(),
        })
    } else {
        None
    };
    Ok(Box::new(Collected {
        name: call.name,
        shape,
        item,
        separator,
        most: usize::try_from(bytes).unwrap_or(0),
        bytes: 0,
        parts: Vec::new(),
        distinct,
        any: false,
    }))
}

#[derive(Debug)]
struct Distinct {
    converter: RowConverter,
    rows: BTreeSet<OwnedRow>,
}

#[derive(Debug)]
struct Collected {
    name: &'static str,
    shape: Shape,
    item: DataType,
    separator: String,
    most: usize,
    bytes: usize,
    parts: Vec<ArrayRef>,
    distinct: Option<Distinct>,
    /// There was a row.
    any: bool,
}

/// Bytes that values take, as Druid writes them.
fn payload(values: &ArrayRef) -> usize {
    match values.data_type() {
        DataType::Utf8 => {
            let texts = values.as_string::<i32>();
            texts.iter().map(|text| 4 + text.map_or(0, str::len)).sum()
        }
        DataType::List(_) => {
            let list = values.as_list::<i32>();
            list.iter()
                .map(|items| 5 + items.map_or(0, |items| payload(&items)))
                .sum()
        }
        _ => values.len() * 9,
    }
}

impl Collected {
    fn add(&mut self, values: ArrayRef) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        match &mut self.distinct {
            None => {
                self.bytes += payload(&values);
                self.parts.push(compact(&values)?);
            }
            Some(distinct) => {
                let rows = distinct.converter.convert_columns(&[Arc::clone(&values)])?;
                for (index, row) in rows.iter().enumerate() {
                    if distinct.rows.insert(row.owned()) {
                        self.bytes += payload(&values.slice(index, 1));
                    }
                }
            }
        }
        if self.bytes > self.most {
            return exec_err!(
                "Unable to aggregate with [{}]: the values need [{}] bytes, more than its limit of [{}]; give a higher limit as the last argument",
                self.name.to_uppercase(),
                self.bytes,
                self.most
            );
        }
        // Many small parts would cost more than one.
        if self.parts.len() > 1_024 {
            let all = self.values()?;
            self.parts = vec![all];
        }
        Ok(())
    }

    fn values(&self) -> Result<ArrayRef> {
        if let Some(distinct) = &self.distinct {
            let rows = distinct.rows.iter().map(OwnedRow::row);
            let columns = distinct.converter.convert_rows(rows)?;
            return Ok(columns
                .into_iter()
                .next()
                .unwrap_or_else(|| new_empty_array(&self.item)));
        }
        if self.parts.is_empty() {
            return Ok(new_empty_array(&self.item));
        }
        let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
        Ok(concat(&parts)?)
    }

    fn list(&self) -> Result<ScalarValue> {
        if !self.any {
            return ScalarValue::try_from(&list_of(self.item.clone()));
        }
        let values = self.values()?;
        let field = Arc::new(Field::new("item", self.item.clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let list = ListArray::try_new(field, offsets, values, None)?;
        Ok(ScalarValue::List(Arc::new(list)))
    }
}

/// A copy that does not keep the whole batch alive.
fn compact(values: &ArrayRef) -> Result<ArrayRef> {
    let indices = arrow::array::UInt64Array::from_iter_values(0..values.len() as u64);
    Ok(arrow::compute::take(values, &indices, None)?)
}

/// Values of texts, several of a multi-value string.
fn split(values: &ArrayRef) -> Result<ArrayRef> {
    if !is_text(values.data_type()) {
        return Ok(Arc::clone(values));
    }
    let list = multiple::lists(&text::of(values)?)?;
    Ok(Arc::clone(list.values()))
}

impl Accumulator for Collected {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = &values[0];
        match self.shape {
            Shape::Array => {
                self.any |= !values.is_empty();
                self.add(converted(&split(values)?, &self.item)?)
            }
            Shape::Text => {
                let texts: ArrayRef = Arc::new(text::of(&split(values)?)?);
                let texts = filter(&texts, &is_not_null(&texts)?)?;
                self.any |= !texts.is_empty();
                self.add(texts)
            }
            Shape::Concatenated => {
                if is_text(values.data_type()) {
                    let list = multiple::lists(&text::of(values)?)?;
                    self.any |= !values.is_empty();
                    return self.add(Arc::clone(list.values()));
                }
                for items in values
                    .as_list_opt::<i32>()
                    .iter()
                    .flat_map(|list| list.iter())
                    .flatten()
                {
                    self.any = true;
                    self.add(items)?;
                }
                Ok(())
            }
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for items in states[0].as_list::<i32>().iter().flatten() {
            self.any = true;
            self.add(items)?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.list()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.shape != Shape::Text {
            return self.list();
        }
        if !self.any {
            return Ok(ScalarValue::Utf8(None));
        }
        let values = self.values()?;
        let texts: Vec<&str> = values.as_string::<i32>().iter().flatten().collect();
        Ok(ScalarValue::Utf8(Some(texts.join(&self.separator))))
    }

    fn size(&self) -> usize {
        let parts: usize = self.parts.iter().map(|part| part.get_array_memory_size()).sum();
        let distinct = self.distinct.as_ref().map_or(0, |distinct| {
            distinct
                .rows
                .iter()
                .map(|row| row.as_ref().len() + 48)
                .sum::<usize>()
                + distinct.converter.size()
        });
        size_of_val(self) + parts + distinct
    }
}
