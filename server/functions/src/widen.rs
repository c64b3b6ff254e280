//! Columns whose type differs from segment to segment, under the type that holds the values of all.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use serde_json::Value;
use trilith_proto::column::{self, ColumnType};

use crate::function::is_text;
use crate::{multiple, number, text};

/// The values of a column, stored as `from`, as `to` has them: numbers become larger numbers or texts, scalars arrays
/// of one, and all of them JSON. What `to` cannot hold is NULL.
pub fn widened(values: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    let (stored, wanted) = (column::of_field(from), column::of_field(to));
    if stored == wanted {
        return Ok(match values.data_type() == to.data_type() {
            true => Arc::clone(values),
            false => cast(values, to.data_type())?,
        });
    }
    match (&stored, &wanted) {
        (ColumnType::Complex(_), _) => Ok(new_null_array(to.data_type(), values.len())),
        (_, ColumnType::Complex(kind)) if kind == "json" => json(values),
        (_, ColumnType::Complex(_)) => Ok(new_null_array(to.data_type(), values.len())),
        (_, ColumnType::Array(_)) => list(values, to.data_type()),
        _ => scalar(values, to.data_type()),
    }
}

fn scalar(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if matches!(values.data_type(), DataType::List(_)) {
        return Ok(new_null_array(to, values.len()));
    }
    Ok(match to {
        DataType::Utf8 => Arc::new(text::of(values)?),
        DataType::Float64 if values.data_type() == &DataType::Float32 => cast(values, to)?,
        DataType::Float64 => Arc::new(number::doubles(values)?),
        DataType::Float32 => cast(&number::doubles(values)?, to)?,
        DataType::Int64 => Arc::new(number::longs(values)?),
        _ => cast(values, to)?,
    })
}

fn list(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let DataType::List(item) = to else {
        return Ok(new_null_array(to, values.len()));
    };
    let lists: ListArray = match values.data_type() {
        DataType::List(_) => values.as_list::<i32>().clone(),
        data_type if is_text(data_type) => {
            let (field, offsets, items, _) = multiple::lists(&text::of(values)?)?.into_parts();
            ListArray::try_new(field, offsets, items, values.nulls().cloned())?
        }
        data_type => ListArray::try_new(
            Arc::new(Field::new_list_field(data_type.clone(), true)),
            OffsetBuffer::from_lengths(std::iter::repeat_n(1, values.len())),
            Arc::clone(values),
            values.nulls().cloned(),
        )?,
    };
    let (_, offsets, items, nulls) = lists.into_parts();
    let items = scalar(&items, item.data_type())?;
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(item),
        offsets,
        items,
        nulls,
    )?))
}

fn json(values: &ArrayRef) -> Result<ArrayRef> {
    let shown: Vec<Value> = match values.data_type() {
        data_type if is_text(data_type) => {
            let texts = text::of(values)?;
            let several = |text: &str| {
                let items = multiple::split(text)?;
                Some(Value::Array(
                    items
                        .into_iter()
                        .map(|item| item.map_or(Value::Null, Value::from))
                        .collect(),
                ))
            };
            let value = |text: Option<&str>| match text {
                Some(text) => several(text).unwrap_or_else(|| Value::from(text)),
                None => Value::Null,
            };
            texts.iter().map(value).collect()
        }
        _ => text::json_items(values)?,
    };
    let texts = shown.iter().map(|value| match value {
        Value::Null => None,
        value => Some(value.to_string()),
    });
    Ok(Arc::new(texts.collect::<StringArray>()))
}
