//! Re-sorts rows that are all in the memory of this process: indices are sorted, rows are copied once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{interleave, interleave_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimeUnit, TimestampMillisecondType};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::HashMap;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::stream::{self, BoxStream, StreamExt};

use crate::error::ExchangeError;
use crate::memory::value_bytes;
use crate::output::{Content, StageOutput};
use crate::run::Run;
use crate::shuffle::SortKey;

/// Rows of an output batch, at most.
const BATCH_ROWS: usize = 16_384;
/// Bytes of an output batch, about.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Rows whose keys are copied together at a time.
const KEY_ROWS: usize = 65_536;
/// Different values of a column that still get a number each.
const DISTINCT_VALUES: usize = 65_536;
/// Memory for each row while indices are sorted.
pub(crate) const BYTES_PER_ROW: usize = 64;

/// Rows in memory: batches, and (batch, row) of all that are wanted.
pub(crate) struct Gathered {
    batches: Vec<RecordBatch>,
    positions: Vec<(u32, u32)>,
}

impl Gathered {
    /// Rows of a partition of all outputs, unless some are on disk.
    pub fn collect(outputs: &[Arc<StageOutput>], partition: u32) -> Result<Option<Gathered>, ExchangeError> {
        let mut gathered = Gathered {
            batches: Vec::new(),
            positions: Vec::new(),
        };
        for output in outputs {
            let complete = match output.content() {
                Content::Runs { runs, .. } => {
                    let ranges = output.ranges(partition)?;
                    runs.iter().zip(ranges).all(|(run, range)| {
                        range.is_empty() || gathered.add_run(run, range.start as usize..range.end as usize)
                    })
                }
                Content::Pieces(partitions) => match partitions.get(partition as usize) {
                    Some(pieces) => match pieces.in_memory() {
                        Some(batches) => {
                            batches.into_iter().for_each(|batch| gathered.add_batch(batch));
                            true
                        }
                        None => false,
                    },
                    None => false,
                },
            };
            if !complete {
                return Ok(None);
            }
        }
        // Positions are packed with an index of 32 bits.
        let few = u32::try_from(gathered.positions.len()).is_ok();
        Ok(few.then_some(gathered))
    }

    pub fn rows(&self) -> usize {
        self.positions.len()
    }

    fn add_run(&mut self, run: &Run, range: std::ops::Range<usize>) -> bool {
        let Run::Memory(run) = run else { return false };
        let first = self.batches.len() as u32;
        self.batches.extend(run.batches.iter().cloned());
        let codes = run.order.get(range).unwrap_or(&[]);
        self.positions.extend(
            codes
                .iter()
                .map(|code| (first + code.batch() as u32, code.row() as u32)),
        );
        true
    }

    fn add_batch(&mut self, batch: RecordBatch) {
        let number = self.batches.len() as u32;
        self.positions
            .extend((0..batch.num_rows() as u32).map(|row| (number, row)));
        self.batches.push(batch);
    }

    /// All rows, sorted by `keys`; rows that tie stay in the order of the outputs. The sorting is done when the
    /// first batch is asked for.
    pub fn sorted(
        self,
        schema: SchemaRef,
        keys: Vec<SortKey>,
        memory: MemoryReservation,
    ) -> BoxStream<'static, Result<RecordBatch, ExchangeError>> {
        let bytes: usize = self.batches.iter().map(value_bytes).sum();
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        let row_bytes = bytes.div_ceil(rows.max(1)).max(1);
        let state = Emit {
            batch_rows: (BATCH_BYTES / row_bytes).clamp(1, BATCH_ROWS),
            gathered: self,
            schema,
            keys,
            order: None,
            next: 0,
            _memory: memory,
        };
        stream::try_unfold(state, |mut state| async move {
            let batch = state.next_batch()?;
            Ok(batch.map(|batch| (batch, state)))
        })
        .boxed()
    }

    fn order(&self, schema: &SchemaRef, keys: &[SortKey]) -> Result<Vec<u32>, ExchangeError> {
        let mut packed = Packed::new(self.rows());
        let mut rest: Vec<(SortField, ArrayParts)> = Vec::new();
        for key in keys {
            let field = schema
                .fields()
                .get(key.column)
                .ok_or(ExchangeError::BadKeyColumn { column: key.column })?;
            let parts = self.column(key.column)?;
            let numbers = if rest.is_empty() { rank(&parts, key)? } else { None };
            match numbers {
                Some(numbers) if packed.fits(&numbers) => packed.append(&numbers),
                _ => rest.push((
                    SortField::new_with_options(field.data_type().clone(), key.options()),
                    parts,
                )),
            }
        }
        let rows = if rest.is_empty() {
            None
        } else {
            Some(encode(rest)?)
        };
        Ok(packed.sort(rows.as_ref()))
    }

    /// Values of a column at all positions, in parts.
    fn column(&self, column: usize) -> Result<ArrayParts, ExchangeError> {
        let arrays: Vec<&dyn Array> = self
            .batches
            .iter()
            .map(|batch| batch.column(column).as_ref())
            .collect();
        self.positions
            .chunks(KEY_ROWS)
            .map(|chunk| {
                let indices: Vec<(usize, usize)> = chunk
                    .iter()
                    .map(|(batch, row)| (*batch as usize, *row as usize))
                    .collect();
                Ok(interleave(&arrays, &indices)?)
            })
            .collect()
    }
}

type ArrayParts = Vec<ArrayRef>;

struct Emit {
    gathered: Gathered,
    schema: SchemaRef,
    keys: Vec<SortKey>,
    order: Option<Vec<u32>>,
    batch_rows: usize,
    next: usize,
    _memory: MemoryReservation,
}

impl Emit {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ExchangeError> {
        let order = match self.order.take() {
            Some(order) => order,
            None => self.gathered.order(&self.schema, &self.keys)?,
        };
        let end = (self.next + self.batch_rows).min(order.len());
        let indices: Vec<(usize, usize)> = order
            .get(self.next..end)
            .unwrap_or(&[])
            .iter()
            .filter_map(|index| self.gathered.positions.get(*index as usize))
            .map(|(batch, row)| (*batch as usize, *row as usize))
            .collect();
        self.next = end;
        self.order = Some(order);
        if indices.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.gathered.batches.iter().collect();
        Ok(Some(interleave_record_batch(&batches, &indices)?))
    }
}

/// Numbers that compare like the values of a column, each less than 2^bits.
struct Numbers {
    values: Vec<u64>,
    bits: u32,
}

fn rank(parts: &[ArrayRef], key: &SortKey) -> Result<Option<Numbers>, ExchangeError> {
    match parts.first().map(|part| part.data_type()) {
        Some(DataType::Int64 | DataType::Timestamp(TimeUnit::Millisecond, _)) => {
            Ok(rank_integers(parts, key))
        }
        Some(_) => rank_distinct(parts, key),
        None => Ok(Some(Numbers {
            values: Vec::new(),
            bits: 0,
        })),
    }
}

fn rank_integers(parts: &[ArrayRef], key: &SortKey) -> Option<Numbers> {
    let mut least = i64::MAX;
    let mut most = i64::MIN;
    for part in parts {
        let values = integers(part);
        for (row, value) in values.iter().enumerate() {
            if part.is_valid(row) {
                least = least.min(*value);
                most = most.max(*value);
            }
        }
    }
    if least > most {
        // Nulls only.
        return Some(Numbers {
            values: vec![0; parts.iter().map(|part| part.len()).sum()],
            bits: 0,
        });
    }
    // Room for nulls below and above.
    let span = most.abs_diff(least).checked_add(2)?;
    let mut values = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        let own = integers(part);
        values.extend(own.iter().enumerate().map(|(row, value)| {
            match (part.is_valid(row), key.nulls_first) {
                (true, _) if key.descending => most.abs_diff(*value) + 1,
                (true, _) => value.abs_diff(least) + 1,
                (false, true) => 0,
                (false, false) => span,
            }
        }));
    }
    Some(Numbers {
        values,
        bits: u64::BITS - span.leading_zeros(),
    })
}

fn integers(array: &ArrayRef) -> &[i64] {
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().values(),
        _ => array.as_primitive::<TimestampMillisecondType>().values(),
    }
}

/// None when there are too many different values.
fn rank_distinct(parts: &[ArrayRef], key: &SortKey) -> Result<Option<Numbers>, ExchangeError> {
    let Some(first) = parts.first() else {
        return Ok(None);
    };
    let converter = RowConverter::new(vec![SortField::new_with_options(
        first.data_type().clone(),
        key.options(),
    )])?;
    let most = DISTINCT_VALUES.min(parts.iter().map(|part| part.len()).sum::<usize>() / 4 + 1);
    let mut ids: HashMap<Box<[u8]>, u64> = HashMap::new();
    let mut values = Vec::new();
    for part in parts {
        let rows = converter.convert_columns(std::slice::from_ref(part))?;
        for row in &rows {
            let bytes = row.data();
            let id = match ids.get(bytes) {
                Some(id) => *id,
                None if ids.len() >= most => return Ok(None),
                None => {
                    let id = ids.len() as u64;
                    ids.insert(bytes.into(), id);
                    id
                }
            };
            values.push(id);
        }
    }
    let mut sorted: Vec<(&[u8], u64)> = ids.iter().map(|(bytes, id)| (&**bytes, *id)).collect();
    sorted.sort_unstable();
    let mut ranks = vec![0_u64; sorted.len()];
    for (rank, (_, id)) in sorted.iter().enumerate() {
        if let Some(slot) = ranks.get_mut(*id as usize) {
            *slot = rank as u64;
        }
    }
    for value in &mut values {
        *value = ranks.get(*value as usize).copied().unwrap_or(0);
    }
    let bits = u64::BITS - (ranks.len() as u64).leading_zeros();
    Ok(Some(Numbers { values, bits }))
}

fn encode(columns: Vec<(SortField, ArrayParts)>) -> Result<Rows, ExchangeError> {
    let (fields, parts): (Vec<SortField>, Vec<ArrayParts>) = columns.into_iter().unzip();
    let converter = RowConverter::new(fields)?;
    let mut rows = converter.empty_rows(0, 0);
    for part in 0..parts.first().map_or(0, Vec::len) {
        let columns: Vec<ArrayRef> = parts
            .iter()
            .filter_map(|column| column.get(part).cloned())
            .collect();
        converter.append(&mut rows, &columns)?;
    }
    Ok(rows)
}

/// Leading sort columns and the index of each row, in one number.
struct Packed {
    entries: Vec<u128>,
    bits: u32,
    index_bits: u32,
}

impl Packed {
    fn new(rows: usize) -> Packed {
        let index_bits = u64::BITS - (rows as u64).leading_zeros();
        Packed {
            entries: vec![0; rows],
            bits: 0,
            index_bits,
        }
    }

    fn fits(&self, numbers: &Numbers) -> bool {
        self.bits + numbers.bits + self.index_bits <= u128::BITS
    }

    fn append(&mut self, numbers: &Numbers) {
        self.bits += numbers.bits;
        for (entry, value) in self.entries.iter_mut().zip(&numbers.values) {
            *entry = (*entry << numbers.bits) | u128::from(*value);
        }
    }

    /// Indices in order. `rest` decides between rows with the same number, then the index does.
    fn sort(mut self, rest: Option<&Rows>) -> Vec<u32> {
        let index_bits = self.index_bits;
        for (index, entry) in self.entries.iter_mut().enumerate() {
            *entry = (*entry << index_bits) | index as u128;
        }
        let mask = (1_u128 << index_bits) - 1;
        if let Some(rows) = rest {
            self.entries.sort_unstable_by(|left, right| {
                let (left_index, right_index) = ((left & mask) as usize, (right & mask) as usize);
                (left >> index_bits)
                    .cmp(&(right >> index_bits))
                    .then_with(|| rows.row(left_index).cmp(&rows.row(right_index)))
                    .then(left_index.cmp(&right_index))
            });
        } else if self.bits + index_bits <= u64::BITS {
            let mut entries: Vec<u64> = self.entries.iter().map(|entry| *entry as u64).collect();
            entries.sort_unstable();
            return entries
                .into_iter()
                .map(|entry| (u128::from(entry) & mask) as u32)
                .collect();
        } else {
            self.entries.sort_unstable();
        }
        self.entries
            .into_iter()
            .map(|entry| (entry & mask) as u32)
            .collect()
    }
}
