//! Arrays. A VARCHAR counts as the array of its values.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, ListBuilder, StringArray, StringBuilder, UInt64Array,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::error::Result;
use trilith_proto::column::{self, ColumnType};

use crate::function::{Args, Function, is_text, list_of, returns_double, returns_text, returns_texts};
use crate::string::{integers, returns_integer};
use crate::{multiple, number, regexp, text};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("array_length", (1, 1), returns_integer, |args| {
            let list = lists(args, 0)?;
            Ok(integers(
                (0..args.rows).map(|row| list.is_valid(row).then(|| length(&list, row))),
            ))
        }),
        Function::new("array_offset", (2, 2), returns_item, |args| element(args, 0)).kind(item_kind),
        Function::new("array_ordinal", (2, 2), returns_item, |args| element(args, 1)).kind(item_kind),
        Function::new(
            "array_prepend",
            (2, 2),
            |types| returns_grown(types, 1, 0),
            |args| grow(args, 1, 0, true),
        )
        .kind(|fields| array_kind(fields, 1)),
        Function::new(
            "array_append",
            (2, 2),
            |types| returns_grown(types, 0, 1),
            |args| grow(args, 0, 1, false),
        )
        .kind(|fields| array_kind(fields, 0)),
        Function::new("array_concat", (2, 2), returns_concatenated, concatenate)
            .kind(|fields| array_kind(fields, 0)),
        Function::new("array_slice", (2, 3), returns_list, slice).kind(|fields| array_kind(fields, 0)),
        Function::new("array_to_string", (2, 2), returns_text, to_string),
        Function::new("string_to_array", (2, 2), returns_texts, string_to_array).check(regexp::check),
        Function::new("array_quantile", (2, 2), returns_double, quantile).literals(&[1]),
    ]
}

/// Element type of an array, or of the array that a scalar stands for.
pub(crate) fn item_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().clone()
        }
        data_type if is_text(data_type) => DataType::Utf8,
        other => other.clone(),
    }
}

/// The kind of an argument that is an array of COMPLEX.
fn array_kind(fields: &[FieldRef], index: usize) -> Option<ColumnType> {
    match column::of_field(fields.get(index)?) {
        ColumnType::Array(item) if matches!(*item, ColumnType::Complex(_)) => Some(ColumnType::Array(item)),
        _ => None,
    }
}

/// The kind of the items of the first argument, if they are COMPLEX.
fn item_kind(fields: &[FieldRef]) -> Option<ColumnType> {
    match array_kind(fields, 0)? {
        ColumnType::Array(item) => Some(*item),
        _ => None,
    }
}

fn returns_item(types: &[DataType]) -> Result<DataType> {
    Ok(types.first().map_or(DataType::Null, item_type))
}

fn returns_list(types: &[DataType]) -> Result<DataType> {
    Ok(list_of(returns_item(types)?))
}

fn grown_item(array: &DataType, scalar: &DataType) -> DataType {
    match item_type(array) {
        DataType::Null => scalar.clone(),
        item => item,
    }
}

fn returns_grown(types: &[DataType], array: usize, scalar: usize) -> Result<DataType> {
    Ok(list_of(grown_item(&types[array], &types[scalar])))
}

fn returns_concatenated(types: &[DataType]) -> Result<DataType> {
    Ok(list_of(grown_item(&types[0], &item_type(&types[1]))))
}

/// Values as another type, by the rules of CAST: what does not convert is NULL.
pub(crate) fn converted(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if values.data_type() == to {
        return Ok(Arc::clone(values));
    }
    if *values.data_type() == DataType::Null {
        return Ok(new_null_array(to, values.len()));
    }
    Ok(match to {
        DataType::Utf8 => Arc::new(text::of(values)?),
        DataType::Int64 => Arc::new(number::longs(values)?),
        DataType::Float64 => Arc::new(number::doubles(values)?),
        DataType::Float32 => cast(&number::doubles(values)?, to)?,
        _ => cast(values, to)?,
    })
}

/// An argument as arrays of its own element type.
pub(crate) fn lists(args: &Args, index: usize) -> Result<ListArray> {
    lists_of(args, index, &item_type(&args.data_type(index)))
}

/// An argument as arrays of an element type. A text is the array of its values, another scalar an array of one.
pub(crate) fn lists_of(args: &Args, index: usize, item: &DataType) -> Result<ListArray> {
    let array = args.array(index)?;
    let list = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().clone(),
        DataType::LargeList(of) | DataType::FixedSizeList(of, _) => {
            cast(&array, &list_of(of.data_type().clone()))?
                .as_list::<i32>()
                .clone()
        }
        DataType::Null => {
            return Ok(new_null_array(&list_of(item.clone()), array.len())
                .as_list::<i32>()
                .clone());
        }
        data_type if is_text(data_type) => {
            let texts = text::of(&array)?;
            let list = multiple::lists(&texts)?;
            let (field, offsets, values, _) = list.into_parts();
            ListArray::try_new(field, offsets, values, texts.nulls().cloned())?
        }
        data_type => {
            let field = Arc::new(Field::new("item", data_type.clone(), true));
            let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(1, array.len()));
            ListArray::try_new(field, offsets, Arc::clone(&array), array.nulls().cloned())?
        }
    };
    if list.value_type() == *item {
        return Ok(list);
    }
    let (_, offsets, values, nulls) = list.into_parts();
    let field = Arc::new(Field::new("item", item.clone(), true));
    Ok(ListArray::try_new(
        field,
        offsets,
        converted(&values, item)?,
        nulls,
    )?)
}

pub(crate) fn length(list: &ListArray, row: usize) -> usize {
    range(list, row).len()
}

/// Where the elements of a row are.
pub(crate) fn range(list: &ListArray, row: usize) -> std::ops::Range<usize> {
    let offsets = list.value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

/// Elements of two columns that can be compared byte by byte.
pub(crate) struct Comparable {
    left: Rows,
    right: Rows,
}

impl Comparable {
    pub(crate) fn new(left: &ArrayRef, right: &ArrayRef) -> Result<Comparable> {
        let converter = RowConverter::new(vec![SortField::new(left.data_type().clone())])?;
        Ok(Comparable {
            left: converter.convert_columns(&[Arc::clone(left)])?,
            right: converter.convert_columns(&[Arc::clone(right)])?,
        })
    }

    pub(crate) fn equal(&self, left: usize, right: usize) -> bool {
        self.left.row(left) == self.right.row(right)
    }

    /// First of the left elements that equals one on the right.
    pub(crate) fn find(&self, mut lefts: std::ops::Range<usize>, right: usize) -> Option<usize> {
        lefts.find(|left| self.equal(*left, right))
    }
}

pub(crate) fn is_list(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
    )
}

fn element(args: &Args, first: i64) -> Result<ArrayRef> {
    let (list, places) = (lists(args, 0)?, args.long(1)?);
    let picks: UInt64Array = places
        .iter()
        .enumerate()
        .map(|(row, place)| {
            let index = usize::try_from(place?.checked_sub(first)?).ok()?;
            let range = range(&list, row);
            (list.is_valid(row) && index < range.len()).then(|| (range.start + index) as u64)
        })
        .collect();
    Ok(take(list.values(), &picks, None)?)
}

/// Builds arrays of picked elements of one pool; a pick of none is NULL, a row of none is a NULL array.
pub(crate) fn picked(pool: &ArrayRef, rows: Vec<Option<Vec<Option<u64>>>>) -> Result<ArrayRef> {
    let lengths: Vec<usize> = rows.iter().map(|row| row.as_ref().map_or(0, Vec::len)).collect();
    let nulls = multiple::validity(rows.iter().map(Option::is_some));
    let picks: UInt64Array = rows.into_iter().flatten().flatten().collect();
    let values = take(pool, &picks, None)?;
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(
        field,
        OffsetBuffer::from_lengths(lengths),
        values,
        nulls,
    )?))
}

fn indices(range: std::ops::Range<usize>) -> impl Iterator<Item = Option<u64>> {
    range.map(|index| Some(index as u64))
}

fn grow(args: &Args, array: usize, scalar: usize, front: bool) -> Result<ArrayRef> {
    let item = grown_item(&args.data_type(array), &args.data_type(scalar));
    let list = lists_of(args, array, &item)?;
    let added = converted(&args.array(scalar)?, &item)?;
    let pool = concat(&[list.values().as_ref(), added.as_ref()])?;
    let base = list.values().len();
    let rows = (0..args.rows)
        .map(|row| {
            list.is_valid(row).then(|| {
                let own = Some((base + row) as u64);
                let items = indices(range(&list, row));
                if front {
                    std::iter::once(own).chain(items).collect()
                } else {
                    items.chain(std::iter::once(own)).collect()
                }
            })
        })
        .collect();
    picked(&pool, rows)
}

fn concatenate(args: &Args) -> Result<ArrayRef> {
    let item = grown_item(&args.data_type(0), &item_type(&args.data_type(1)));
    let (left, right) = (lists_of(args, 0, &item)?, lists_of(args, 1, &item)?);
    let pool = concat(&[left.values().as_ref(), right.values().as_ref()])?;
    let base = left.values().len();
    let rows = (0..args.rows)
        .map(|row| {
            (left.is_valid(row) && right.is_valid(row)).then(|| {
                let added = range(&right, row);
                indices(range(&left, row))
                    .chain(indices(added.start + base..added.end + base))
                    .collect()
            })
        })
        .collect();
    picked(&pool, rows)
}

/// Elements that a slice of a row picks; beyond the end they are NULL. None if the slice is not there.
pub(crate) fn sliced(length: usize, from: i64, to: Option<i64>) -> Option<Vec<Option<usize>>> {
    let to = to.unwrap_or(length as i64);
    if from < 0 || from > length as i64 || from > to {
        return None;
    }
    // Nobody needs an array padded beyond this.
    let to = to.min(length as i64 + 1_000_000) as usize;
    Some(
        (from as usize..to)
            .map(|index| (index < length).then_some(index))
            .collect(),
    )
}

fn slice(args: &Args) -> Result<ArrayRef> {
    let (list, starts) = (lists(args, 0)?, args.long(1)?);
    let ends = (args.len() > 2).then(|| args.long(2)).transpose()?;
    let rows = (0..args.rows)
        .map(|row| {
            if list.is_null(row) || starts.is_null(row) || ends.as_ref().is_some_and(|ends| ends.is_null(row))
            {
                return None;
            }
            let range = range(&list, row);
            let end = ends.as_ref().map(|ends| ends.value(row));
            let items = sliced(range.len(), starts.value(row), end)?;
            let absolute = |index: usize| (range.start + index) as u64;
            Some(items.into_iter().map(|index| index.map(absolute)).collect())
        })
        .collect();
    picked(list.values(), rows)
}

/// Elements joined by a delimiter, times as milliseconds; an array of one NULL is NULL.
pub(crate) fn to_string(args: &Args) -> Result<ArrayRef> {
    let (field, offsets, mut items, nulls) = lists(args, 0)?.into_parts();
    if field.data_type().is_temporal() {
        items = Arc::new(number::longs(&items)?);
    }
    let field = Arc::new(Field::new("item", DataType::Utf8, true));
    let list = ListArray::try_new(field, offsets, converted(&items, &DataType::Utf8)?, nulls)?;
    let texts: &StringArray = list.values().as_string();
    let delimiters = args.text(1)?;
    let mut builder = StringBuilder::new();
    for row in 0..args.rows {
        let range = range(&list, row);
        let only_null = range.len() == 1 && texts.is_null(range.start);
        if list.is_null(row) || only_null {
            builder.append_null();
            continue;
        }
        let delimiter = if delimiters.is_valid(row) {
            delimiters.value(row)
        } else {
            ""
        };
        let mut out = String::new();
        for (place, index) in range.enumerate() {
            if place > 0 {
                out.push_str(delimiter);
            }
            out.push_str(if texts.is_valid(index) {
                texts.value(index)
            } else {
                "null"
            });
        }
        builder.append_value(out);
    }
    Ok(Arc::new(builder.finish()))
}

/// Parts of each text between matches of a pattern, which may be another in each row.
pub(crate) fn parts(args: &Args) -> Result<Vec<Option<Vec<String>>>> {
    let (texts, patterns) = (args.text(0)?, args.text(1)?);
    let mut compiled: Option<(&str, regexp::JavaPattern)> = None;
    let mut rows = Vec::with_capacity(args.rows);
    for (text, pattern) in texts.iter().zip(&patterns) {
        let pattern = pattern.unwrap_or_default();
        if compiled.as_ref().is_none_or(|(last, _)| *last != pattern) {
            let regex = regexp::compile(pattern).or_else(|why| args.wrong(why))?;
            compiled = Some((pattern, regex));
        }
        let regex = compiled.as_ref().map(|(_, regex)| regex);
        rows.push(match text.zip(regex) {
            Some((text, regex)) => Some(regex.split(text).or_else(|why| args.wrong(why))?),
            None => None,
        });
    }
    Ok(rows)
}

fn string_to_array(args: &Args) -> Result<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for parts in parts(args)? {
        match parts {
            Some(parts) => builder.append_value(parts.into_iter().map(Some)),
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn quantile(args: &Args) -> Result<ArrayRef> {
    if matches!(item_type(&args.data_type(0)), DataType::Utf8) {
        return Ok(Arc::new(Float64Array::new_null(args.rows)));
    }
    let list = lists_of(args, 0, &DataType::Float64)?;
    let ranks = args.double(1)?;
    let values = list.values().as_primitive::<arrow::datatypes::Float64Type>();
    let result: Float64Array = (0..args.rows)
        .map(|row| {
            if list.is_null(row) || ranks.is_null(row) {
                return None;
            }
            let mut items: Vec<f64> = range(&list, row)
                .filter(|index| values.is_valid(*index))
                .map(|index| values.value(index))
                .collect();
            items.sort_by(f64::total_cmp);
            interpolated(&items, ranks.value(row))
        })
        .collect();
    Ok(Arc::new(result))
}

/// Linear between the two nearest of sorted values. None of nothing.
fn interpolated(sorted: &[f64], rank: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    if !(0.0..=1.0).contains(&rank) {
        return Some(f64::NAN);
    }
    let index = rank * last as f64;
    let below = (index as usize).min(last);
    let above = (below + 1).min(last);
    let step = index - below as f64;
    Some(if step == 0.0 {
        sorted[below]
    } else {
        sorted[below] + step * (sorted[above] - sorted[below])
    })
}
