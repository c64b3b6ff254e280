//! Rows of a partition in the order of arrival, in memory or on disk.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream, StreamExt};

use crate::disk::OrderDisk;
use crate::error::ExchangeError;
use crate::memory::{HeldMemory, kept_bytes, value_bytes};
use crate::spill::{self, SpillFile, block_rows};

/// Batches with fewer rows are joined.
const SMALL_BATCH_ROWS: usize = 1_024;
/// Rows of joined batches.
const JOINED_ROWS: usize = 8_192;

/// Some rows of a partition.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    Memory(RecordBatch),
    Spilled { file: Arc<SpillFile>, rows: Range<u64> },
}

/// Rows of a partition.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub pieces: Vec<Piece>,
    small: Vec<RecordBatch>,
    small_rows: usize,
    pub rows: u64,
    pub bytes: u64,
    pub frames: u64,
    /// Memory reserved for the rows that are in memory.
    held: usize,
}

impl Pieces {
    pub fn push(&mut self, batch: RecordBatch, bytes: usize, held: usize) -> Result<(), ExchangeError> {
        self.rows += batch.num_rows() as u64;
        self.bytes += bytes as u64;
        self.held += held;
        if batch.num_rows() >= SMALL_BATCH_ROWS {
            self.join()?;
            self.add(batch);
        } else {
            self.small_rows += batch.num_rows();
            self.small.push(batch);
            if self.small_rows >= JOINED_ROWS {
                self.join()?;
            }
        }
        Ok(())
    }

    fn add(&mut self, batch: RecordBatch) {
        self.frames += 1;
        self.pieces.push(Piece::Memory(batch));
    }

    fn join(&mut self) -> Result<(), ExchangeError> {
        self.small_rows = 0;
        match self.small.as_slice() {
            [] => {}
            [only] => {
                let only = only.clone();
                self.small.clear();
                self.add(only);
            }
            [first, ..] => {
                let joined = concat_batches(&first.schema(), &self.small)?;
                self.small.clear();
                self.add(joined);
            }
        }
        Ok(())
    }

    /// To be called once, after the last row.
    pub fn finish(&mut self) -> Result<(), ExchangeError> {
        self.join()?;
        self.pieces.shrink_to_fit();
        Ok(())
    }

    /// Memory that spilling would free.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Rows in order.
    pub fn stream(&self, skip: u64) -> BoxStream<'static, Result<RecordBatch, ExchangeError>> {
        let mut skip = skip;
        let mut streams = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let rows = piece.rows();
            let skipped = skip.min(rows);
            skip -= skipped;
            if skipped < rows {
                streams.push(piece.stream(skipped));
            }
        }
        stream::iter(streams).flatten().boxed()
    }

    pub fn files(&self) -> impl Iterator<Item = Arc<SpillFile>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Memory(_) => None,
            Piece::Spilled { file, .. } => Some(Arc::clone(file)),
        })
    }

    /// All batches, unless some are on disk.
    pub fn in_memory(&self) -> Option<Vec<RecordBatch>> {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Memory(batch) => Some(batch.clone()),
                Piece::Spilled { .. } => None,
            })
            .collect()
    }
}

impl Piece {
    fn rows(&self) -> u64 {
        match self {
            Piece::Memory(batch) => batch.num_rows() as u64,
            Piece::Spilled { rows, .. } => rows.end - rows.start,
        }
    }

    fn stream(&self, skip: u64) -> BoxStream<'static, Result<RecordBatch, ExchangeError>> {
        match self {
            Piece::Memory(batch) => {
                let skip = skip as usize;
                let rest = batch.slice(skip, batch.num_rows() - skip);
                stream::iter([Ok(rest)]).boxed()
            }
            Piece::Spilled { file, rows } => file.stream(rows.start + skip..rows.end),
        }
    }
}

/// Moves all rows in memory to one file. Blocks the thread.
pub(crate) fn spill(
    partitions: &mut [Pieces],
    schema: &SchemaRef,
    disk: &Arc<OrderDisk>,
    memory: &HeldMemory,
) -> Result<(), ExchangeError> {
    let mut writer = spill::create(disk, schema)?;
    let mut written = 0;
    let mut ranges = Vec::with_capacity(partitions.len());
    for partition in partitions.iter_mut() {
        partition.join()?;
        let start = written;
        for piece in &partition.pieces {
            if let Piece::Memory(batch) = piece {
                write_blocks(batch, &mut writer)?;
                written += batch.num_rows() as u64;
            }
        }
        ranges.push(start..written);
    }
    let file = Arc::new(writer.finish()?);
    for (partition, rows) in partitions.iter_mut().zip(ranges) {
        // Rows in memory are always younger than those on disk.
        partition
            .pieces
            .retain(|piece| matches!(piece, Piece::Spilled { .. }));
        if !rows.is_empty() {
            partition.pieces.push(Piece::Spilled {
                file: Arc::clone(&file),
                rows,
            });
        }
        memory.shrink(std::mem::take(&mut partition.held));
    }
    Ok(())
}

fn write_blocks(batch: &RecordBatch, writer: &mut crate::spill::SpillWriter) -> Result<(), ExchangeError> {
    let step = block_rows(batch.num_rows(), value_bytes(batch));
    let mut start = 0;
    while start < batch.num_rows() {
        let rows = step.min(batch.num_rows() - start);
        writer.write(&batch.slice(start, rows))?;
        start += rows;
    }
    Ok(())
}

/// Bytes to reserve for a batch.
pub(crate) fn bytes_to_hold(batch: &RecordBatch) -> usize {
    kept_bytes(batch)
}
