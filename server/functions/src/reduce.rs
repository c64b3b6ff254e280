//! GREATEST and LEAST, which pass over NULLs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, StringArray, new_null_array};
use arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::error::Result;

use crate::function::{Args, Function, is_text, time_type, times};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("greatest", (0, usize::MAX), returns_reduced, |args| {
            reduce(args, true)
        })
        .chooses(),
        Function::new("least", (0, usize::MAX), returns_reduced, |args| {
            reduce(args, false)
        })
        .chooses(),
    ]
}

fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Null
    )
}

fn returns_reduced(types: &[DataType]) -> Result<DataType> {
    for (place, data_type) in types.iter().enumerate() {
        let kind = match data_type {
            DataType::List(_) => "ARRAY",
            DataType::Binary => "OTHER",
            _ => continue,
        };
        return plan_err!("Argument {place} has invalid type: {kind}");
    }
    let some = |is: fn(&DataType) -> bool| types.iter().any(is);
    Ok(if types.iter().all(|data_type| *data_type == DataType::Null) {
        DataType::Null
    } else if some(is_text) {
        DataType::Utf8
    } else if some(DataType::is_floating) {
        DataType::Float64
    } else if types.iter().all(is_time) {
        time_type()
    } else {
        DataType::Int64
    })
}

/// The best of each row's values.
fn best<T: Copy>(
    rows: usize,
    value: impl Fn(usize, usize) -> Option<T>,
    columns: usize,
    better: impl Fn(T, T) -> bool,
) -> Vec<Option<T>> {
    (0..rows)
        .map(|row| {
            (0..columns)
                .filter_map(|column| value(column, row))
                .reduce(|best, next| if better(next, best) { next } else { best })
        })
        .collect()
}

fn reduce(args: &Args, greatest: bool) -> Result<ArrayRef> {
    let types: Vec<DataType> = (0..args.len()).map(|index| args.data_type(index)).collect();
    let (rows, count) = (args.rows, args.len());
    match returns_reduced(&types)? {
        DataType::Null => Ok(new_null_array(&DataType::Null, rows)),
        DataType::Utf8 => {
            let columns = (0..count)
                .map(|index| args.text(index))
                .collect::<Result<Vec<_>>>()?;
            let value =
                |column: usize, row: usize| columns[column].is_valid(row).then(|| columns[column].value(row));
            let texts = best(rows, value, count, |a, b| if greatest { a > b } else { a < b });
            Ok(Arc::new(StringArray::from(texts)))
        }
        DataType::Float64 => {
            let columns = (0..count)
                .map(|index| args.double(index))
                .collect::<Result<Vec<_>>>()?;
            let value =
                |column: usize, row: usize| columns[column].is_valid(row).then(|| columns[column].value(row));
            // NaN is both the greatest and the least.
            let doubles = best(rows, value, count, |a, b| {
                a.is_nan() || (a.total_cmp(&b).is_gt() == greatest && a != b && !b.is_nan())
            });
            Ok(Arc::new(Float64Array::from(doubles)))
        }
        other => {
            let columns = (0..count)
                .map(|index| args.long(index))
                .collect::<Result<Vec<_>>>()?;
            let value =
                |column: usize, row: usize| columns[column].is_valid(row).then(|| columns[column].value(row));
            let longs = best(rows, value, count, |a, b| if greatest { a > b } else { a < b });
            if other == DataType::Int64 {
                return Ok(Arc::new(Int64Array::from(longs)));
            }
            Ok(times(longs.into_iter()))
        }
    }
}
