//! Sizes and weights of rows.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};
use arrow::error::ArrowError;
use trilith_proto::multi_value;

/// A value of this many bytes adds 1 to the weight of its row.
const VALUE_BYTES_PER_WEIGHT: u32 = 1_000;
/// A row of this many bytes adds 1 to its weight.
const ROW_BYTES_PER_WEIGHT: u32 = 2_000;

/// Values of a batch, about.
const BATCH_VALUES: usize = 256 * 1024;
/// Rows of a batch, at most.
pub(crate) const BATCH_ROWS: usize = 8_192;
/// Rows of a batch, at least.
const BATCH_ROWS_MIN: usize = 64;

/// Rows of a batch of so many columns.
pub fn batch_rows(columns: usize) -> usize {
    (BATCH_VALUES / columns.max(1)).clamp(BATCH_ROWS_MIN, BATCH_ROWS)
}

/// What a batch says about the sizes of its rows.
pub(crate) struct RowSizes {
    /// Bytes of the largest row.
    pub largest: u64,
    /// Weight of each row; none when all are 1.
    pub weights: Option<Vec<u32>>,
}

/// Measures all rows of a batch.
pub(crate) fn measure(batch: &RecordBatch) -> Result<RowSizes, ArrowError> {
    let rows = batch.num_rows();
    let mut total = vec![0_u32; rows];
    let mut widest = vec![0_u32; rows];
    let mut fixed = 0_u32;
    for column in batch.columns() {
        match fixed_width(column.data_type()) {
            Some(width) => fixed += width,
            None => {
                let bytes = variable_bytes(column)?;
                for ((total, widest), bytes) in total.iter_mut().zip(&mut widest).zip(bytes) {
                    *total = total.saturating_add(bytes);
                    *widest = (*widest).max(bytes);
                }
            }
        }
    }
    let largest = total.iter().copied().max().unwrap_or(0).saturating_add(fixed);
    let widest_of_all = widest.iter().copied().max().unwrap_or(0);
    let plain = largest < ROW_BYTES_PER_WEIGHT && widest_of_all < VALUE_BYTES_PER_WEIGHT;
    let weights = (!plain).then(|| {
        let weigh = |(total, widest): (&u32, &u32)| {
            1 + (widest / VALUE_BYTES_PER_WEIGHT).max(total.saturating_add(fixed) / ROW_BYTES_PER_WEIGHT)
        };
        total.iter().zip(&widest).map(weigh).collect()
    });
    Ok(RowSizes {
        largest: u64::from(largest),
        weights,
    })
}

fn fixed_width(data_type: &DataType) -> Option<u32> {
    match data_type {
        DataType::Null => Some(0),
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(width) => u32::try_from(*width).ok(),
        other => other
            .primitive_width()
            .and_then(|width| u32::try_from(width).ok()),
    }
}

fn variable_bytes(array: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
    let bytes = match array.data_type() {
        DataType::Utf8 => lengths(array.as_string::<i32>().offsets()),
        DataType::LargeUtf8 => lengths(array.as_string::<i64>().offsets()),
        DataType::Binary => lengths(array.as_binary::<i32>().offsets()),
        DataType::LargeBinary => lengths(array.as_binary::<i64>().offsets()),
        DataType::Utf8View => array.as_string_view().lengths().collect(),
        DataType::BinaryView => array.as_binary_view().lengths().collect(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            sums(list.offsets(), &nested_bytes(list.values())?)
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            sums(list.offsets(), &nested_bytes(list.values())?)
        }
        DataType::Struct(_) => {
            let mut total = vec![0_u32; array.len()];
            for column in array.as_struct().columns() {
                for (total, bytes) in total.iter_mut().zip(nested_bytes(column)?) {
                    *total = total.saturating_add(bytes);
                }
            }
            total
        }
        _ => {
            let bytes = array.to_data().get_slice_memory_size()?;
            let each = bytes.div_ceil(array.len().max(1));
            vec![u32::try_from(each).unwrap_or(u32::MAX); array.len()]
        }
    };
    Ok(bytes)
}

fn nested_bytes(array: &ArrayRef) -> Result<Vec<u32>, ArrowError> {
    match fixed_width(array.data_type()) {
        Some(width) => Ok(vec![width; array.len()]),
        None => variable_bytes(array),
    }
}

fn lengths<O: ArrowNativeType>(offsets: &OffsetBuffer<O>) -> Vec<u32> {
    let offsets: &[O] = offsets;
    offsets
        .windows(2)
        .map(|pair| match pair {
            [start, end] => (end.as_usize() - start.as_usize()) as u32,
            _ => 0,
        })
        .collect()
}

fn sums<O: ArrowNativeType>(offsets: &OffsetBuffer<O>, values: &[u32]) -> Vec<u32> {
    let offsets: &[O] = offsets;
    let range = |pair: &[O]| match pair {
        [start, end] => values.get(start.as_usize()..end.as_usize()).map_or(0, |values| {
            values.iter().fold(0_u32, |sum, value| sum.saturating_add(*value))
        }),
        _ => 0,
    };
    offsets.windows(2).map(range).collect()
}

/// Whether a column has a row with more than one value: a list, or a multi-value string.
pub(crate) fn has_multiple_values(array: &ArrayRef) -> bool {
    fn any_longer<O: ArrowNativeType>(offsets: &OffsetBuffer<O>, nulls: Option<&NullBuffer>) -> bool {
        lengths(offsets)
            .iter()
            .enumerate()
            .any(|(row, length)| *length > 1 && nulls.is_none_or(|nulls| nulls.is_valid(row)))
    }
    match array.data_type() {
        DataType::List(_) => any_longer(array.as_list::<i32>().offsets(), array.nulls()),
        DataType::LargeList(_) => any_longer(array.as_list::<i64>().offsets(), array.nulls()),
        DataType::Utf8 => multi_value::any_multiple(array.as_string::<i32>()),
        _ => false,
    }
}
