//! Sorted rows, in memory or on disk.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use futures::stream::{self, BoxStream, StreamExt};

use crate::disk::OrderDisk;
use crate::error::ExchangeError;
use crate::keys::{BatchKeys, Key, KeyCodec};
use crate::spill::{self, BlockReader, SpillFile, block_rows};

/// Rows of a batch of a run, at most: positions are 16 bits of batch and 16 bits of row.
pub(crate) const RUN_BATCH_ROWS: usize = 1 << 16;
/// Batches of a run, at most.
pub(crate) const RUN_BATCHES: usize = 1 << 16;
const ORDINAL_COLUMN: &str = "__ordinal";

/// Sorted rows.
#[derive(Debug)]
pub(crate) enum Run {
    Memory(MemoryRun),
    Spilled(SpilledRun),
}

/// One row of a run in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Code(pub u32);

impl Code {
    pub fn new(batch: usize, row: usize) -> Code {
        Code(((batch as u32) << 16) | row as u32)
    }

    pub fn batch(self) -> usize {
        (self.0 >> 16) as usize
    }

    pub fn row(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Rows as they came, and their sorted order.
#[derive(Debug)]
pub(crate) struct MemoryRun {
    pub batches: Vec<RecordBatch>,
    pub keys: Vec<BatchKeys>,
    /// Ordinal of the first row of each batch.
    pub bases: Vec<u64>,
    pub order: Vec<Code>,
    /// Bytes of the values.
    pub bytes: usize,
}

impl MemoryRun {
    pub fn key(&self, code: Code) -> Option<Key<'_>> {
        let keys = self.keys.get(code.batch())?;
        let base = self.bases.get(code.batch())?;
        Some(keys.key(code.row(), base + code.row() as u64))
    }

    fn ordinal(&self, code: Code) -> u64 {
        self.bases.get(code.batch()).copied().unwrap_or(0) + code.row() as u64
    }

    /// Rows before the key.
    pub fn position(&self, key: Key<'_>) -> u64 {
        self.order
            .partition_point(|code| self.key(*code).is_some_and(|own| own < key)) as u64
    }

    /// Copies rows of the sorted order together.
    pub fn gather(&self, range: Range<usize>) -> Result<RecordBatch, ExchangeError> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let codes = self.order.get(range).unwrap_or(&[]);
        let indices: Vec<(usize, usize)> = codes.iter().map(|code| (code.batch(), code.row())).collect();
        Ok(interleave_record_batch(&batches, &indices)?)
    }

    pub fn block_rows(&self) -> usize {
        block_rows(self.order.len(), self.bytes)
    }

    /// Writes the run to disk.
    pub fn spill(&self, schema: &SchemaRef, disk: &Arc<OrderDisk>) -> Result<SpilledRun, ExchangeError> {
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(ORDINAL_COLUMN, DataType::UInt64, false)));
        let with_ordinal = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        let mut writer = spill::create(disk, &with_ordinal)?;
        let mut first_keys = Vec::new();
        let step = self.block_rows();
        let mut start = 0;
        while start < self.order.len() {
            let end = (start + step).min(self.order.len());
            let codes = self.order.get(start..end).unwrap_or(&[]);
            let rows = self.gather(start..end)?;
            let mut columns = rows.columns().to_vec();
            columns.push(Arc::new(
                codes
                    .iter()
                    .map(|code| Some(self.ordinal(*code)))
                    .collect::<UInt64Array>(),
            ));
            writer.write(&RecordBatch::try_new(Arc::clone(&with_ordinal), columns)?)?;
            if let Some(key) = codes.first().and_then(|code| self.key(*code)) {
                first_keys.push((key.bucket_ms, key.row.into(), key.ordinal));
            }
            start = end;
        }
        Ok(SpilledRun {
            file: Arc::new(writer.finish()?),
            first_keys,
            bytes: self.bytes,
        })
    }
}

/// A run on disk, with the first key of every block.
#[derive(Debug)]
pub(crate) struct SpilledRun {
    pub file: Arc<SpillFile>,
    first_keys: Vec<(i64, Box<[u8]>, u64)>,
    /// Bytes of the values.
    bytes: usize,
}

impl SpilledRun {
    /// Rows before the key. May read one block.
    pub fn position(
        &self,
        key: Key<'_>,
        codec: &KeyCodec,
        block_cache: &mut BlockCache,
    ) -> Result<u64, ExchangeError> {
        let blocks = self.first_keys.partition_point(|(bucket_ms, row, ordinal)| {
            Key {
                bucket_ms: *bucket_ms,
                row,
                ordinal: *ordinal,
            } < key
        });
        let Some(block) = blocks.checked_sub(1) else {
            return Ok(0);
        };
        let keys = block_cache.keys(self, block, codec)?;
        let before = keys.position(key);
        Ok(self.file.block_start(block) + before as u64)
    }

    fn stream(&self, range: Range<u64>) -> BoxStream<'static, Result<RecordBatch, ExchangeError>> {
        self.file
            .stream(range)
            .map(|batch| without_ordinal(batch?))
            .boxed()
    }
}

fn without_ordinal(batch: RecordBatch) -> Result<RecordBatch, ExchangeError> {
    let columns: Vec<usize> = (0..batch.num_columns().saturating_sub(1)).collect();
    Ok(batch.project(&columns)?)
}

/// Keys of the block read last: neighbouring boundaries often lie in one block.
#[derive(Default)]
pub(crate) struct BlockCache {
    reader: Option<BlockReader>,
    keys: Option<(usize, BlockKeys)>,
}

struct BlockKeys {
    keys: BatchKeys,
    ordinals: Vec<u64>,
}

impl BlockKeys {
    fn position(&self, key: Key<'_>) -> usize {
        let (mut low, mut high) = (0, self.ordinals.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let ordinal = self.ordinals.get(middle).copied().unwrap_or(u64::MAX);
            if self.keys.key(middle, ordinal) < key {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}

impl BlockCache {
    fn keys(
        &mut self,
        run: &SpilledRun,
        block: usize,
        codec: &KeyCodec,
    ) -> Result<&BlockKeys, ExchangeError> {
        if self.keys.as_ref().is_none_or(|(cached, _)| *cached != block) {
            let mut reader = match self.reader.take() {
                Some(reader) => reader,
                None => run.file.open()?,
            };
            let batch = reader.read(block)?;
            self.reader = Some(reader);
            let column: &ArrayRef = batch.column(batch.num_columns() - 1);
            let ordinals = column.as_primitive::<UInt64Type>().values().to_vec();
            self.keys = Some((
                block,
                BlockKeys {
                    keys: codec.encode(&batch)?,
                    ordinals,
                },
            ));
        }
        match &self.keys {
            Some((_, keys)) => Ok(keys),
            None => Err(ExchangeError::Stopped),
        }
    }
}

impl Run {
    pub fn rows(&self) -> u64 {
        match self {
            Run::Memory(run) => run.order.len() as u64,
            Run::Spilled(run) => run.file.rows(),
        }
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> u64 {
        match self {
            Run::Memory(run) => run.bytes as u64,
            Run::Spilled(run) => run.bytes as u64,
        }
    }

    /// Size of its file.
    pub fn disk_bytes(&self) -> u64 {
        match self {
            Run::Memory(_) => 0,
            Run::Spilled(run) => run.file.bytes(),
        }
    }

    /// Batches in which the rows of a range are read.
    pub fn frames(&self, range: &Range<u64>) -> u64 {
        match self {
            Run::Memory(run) => (range.end - range.start).div_ceil(run.block_rows() as u64),
            Run::Spilled(run) => run.file.blocks_in(range) as u64,
        }
    }

    /// Rows before each of some keys. May read the disk.
    pub fn positions(&self, keys: &[Key<'_>], codec: &KeyCodec) -> Result<Vec<u64>, ExchangeError> {
        let mut cache = BlockCache::default();
        keys.iter()
            .map(|key| match self {
                Run::Memory(run) => Ok(run.position(*key)),
                Run::Spilled(run) => run.position(*key, codec, &mut cache),
            })
            .collect()
    }

    /// Rows of a range, in order.
    pub fn stream(
        self: &Arc<Self>,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<RecordBatch, ExchangeError>> {
        match self.as_ref() {
            Run::Spilled(run) => run.stream(range),
            Run::Memory(_) => {
                let run = Arc::clone(self);
                stream::try_unfold(range, move |range| {
                    let run = Arc::clone(&run);
                    async move { run.next_in_memory(range) }
                })
                .boxed()
            }
        }
    }

    fn next_in_memory(&self, range: Range<u64>) -> Result<Option<(RecordBatch, Range<u64>)>, ExchangeError> {
        match self {
            Run::Memory(run) if range.start < range.end => {
                let end = (range.start + run.block_rows() as u64).min(range.end);
                let batch = run.gather(range.start as usize..end as usize)?;
                Ok(Some((batch, end..range.end)))
            }
            _ => Ok(None),
        }
    }
}
