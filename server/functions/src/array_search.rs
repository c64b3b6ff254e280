//! Functions that look for values in arrays.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;

use crate::array::{Comparable, converted, is_list, item_type, lists_of, range};
use crate::function::{Args, Call, Function, returns_boolean};
use crate::number;
use crate::string::{integers, returns_integer};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("array_contains", (2, 2), returns_boolean, contains),
        Function::new("array_overlap", (2, 2), returns_boolean, overlap),
        Function::new("scalar_in_array", (2, 2), returns_boolean, scalar_in).check(check_scalar),
        Function::new("array_offset_of", (2, 2), returns_integer, |args| place(args, 0)),
        Function::new("array_ordinal_of", (2, 2), returns_integer, |args| place(args, 1)),
    ]
}

fn check_scalar(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    match call.types.first() {
        Some(data_type) if is_list(data_type) => {
            call.cannot_apply(literals, "SCALAR_IN_ARRAY(<expr>, <array>)")
        }
        _ => Ok(()),
    }
}

/// A scalar argument as the element type, and whether it does not convert although it is there.
fn needle(args: &Args, index: usize, item: &DataType) -> Result<(ArrayRef, Vec<bool>)> {
    let array = args.array(index)?;
    let needle = converted(&array, item)?;
    let lost = (0..args.rows)
        .map(|row| array.is_valid(row) && *array.data_type() != DataType::Null && needle.is_null(row))
        .collect();
    Ok((needle, lost))
}

fn comparable_item(array: &DataType, other: &DataType) -> DataType {
    match item_type(array) {
        DataType::Null => item_type(other),
        item => item,
    }
}

fn contains(args: &Args) -> Result<ArrayRef> {
    let item = comparable_item(&args.data_type(0), &args.data_type(1));
    let list = lists_of(args, 0, &item)?;
    let found: BooleanArray = if is_list(&args.data_type(1)) {
        let other = lists_of(args, 1, &item)?;
        let elements = Comparable::new(list.values(), other.values())?;
        (0..args.rows)
            .map(|row| {
                list.is_valid(row).then(|| {
                    other.is_valid(row)
                        && range(&other, row).all(|right| elements.find(range(&list, row), right).is_some())
                })
            })
            .collect()
    } else {
        let (needle, lost) = needle(args, 1, &item)?;
        let elements = Comparable::new(list.values(), &needle)?;
        (0..args.rows)
            .map(|row| {
                list.is_valid(row)
                    .then(|| !lost[row] && elements.find(range(&list, row), row).is_some())
            })
            .collect()
    };
    Ok(Arc::new(found))
}

fn overlap(args: &Args) -> Result<ArrayRef> {
    let item = comparable_item(&args.data_type(0), &args.data_type(1));
    let (list, other) = (lists_of(args, 0, &item)?, lists_of(args, 1, &item)?);
    let elements = Comparable::new(list.values(), other.values())?;
    let found: BooleanArray = (0..args.rows)
        .map(|row| {
            list.is_valid(row).then(|| {
                other.is_valid(row)
                    && range(&other, row).any(|right| elements.find(range(&list, row), right).is_some())
            })
        })
        .collect();
    Ok(Arc::new(found))
}

fn scalar_in(args: &Args) -> Result<ArrayRef> {
    let item = comparable_item(&args.data_type(1), &args.data_type(0));
    let list = lists_of(args, 1, &item)?;
    let (needle, mut lost) = needle(args, 0, &item)?;
    if item == DataType::Int64 {
        // A number that is not whole is in no array of integers.
        let (exact, whole) = (number::doubles(&args.array(0)?)?, number::doubles(&needle)?);
        for (row, lost) in lost.iter_mut().enumerate() {
            *lost |= exact.is_valid(row) && exact.value(row) != whole.value(row);
        }
    }
    let elements = Comparable::new(list.values(), &needle)?;
    let found: BooleanArray = (0..args.rows)
        .map(|row| {
            if list.is_null(row) {
                return None;
            }
            let found = !lost[row] && elements.find(range(&list, row), row).is_some();
            // NULL is in an array that holds NULL, and unknown otherwise.
            (found || lost[row] || needle.is_valid(row)).then_some(found)
        })
        .collect();
    Ok(Arc::new(found))
}

fn place(args: &Args, first: usize) -> Result<ArrayRef> {
    let item = comparable_item(&args.data_type(0), &args.data_type(1));
    let list = lists_of(args, 0, &item)?;
    let (needle, lost) = needle(args, 1, &item)?;
    let elements = Comparable::new(list.values(), &needle)?;
    Ok(integers((0..args.rows).map(|row| {
        if list.is_null(row) || lost[row] {
            return None;
        }
        let range = range(&list, row);
        let start = range.start;
        elements.find(range, row).map(|found| found - start + first)
    })))
}
