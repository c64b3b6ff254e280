//! Arrow IPC files, compressed with LZ4, that hold what memory has no room for.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use datafusion::common::runtime::SpawnedTask;
use futures::stream::{self, BoxStream, StreamExt};

use crate::disk::{OrderDisk, Place, TemporaryFile};
use crate::error::ExchangeError;

/// Bytes of rows in one block of a file.
pub(crate) const BLOCK_BYTES: usize = 1024 * 1024;
/// Rows in one block of a file.
pub(crate) const BLOCK_ROWS: usize = 8_192;
/// Starts a file for one work order.
pub(crate) fn create(disk: &Arc<OrderDisk>, schema: &SchemaRef) -> Result<SpillWriter, ExchangeError> {
    let file = disk.create()?;
    let place = Arc::clone(&file.place);
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let writer = FileWriter::try_new_with_options(BufWriter::with_capacity(1 << 20, file), schema, options)?;
    Ok(SpillWriter {
        writer,
        place,
        starts: vec![0],
    })
}

/// A file that is being written. Dropped before `finish`, it is gone.
pub(crate) struct SpillWriter {
    writer: FileWriter<BufWriter<TemporaryFile>>,
    place: Arc<Place>,
    starts: Vec<u64>,
}

impl SpillWriter {
    /// Appends one block.
    pub fn write(&mut self, block: &RecordBatch) -> Result<(), ExchangeError> {
        let rows = self.starts.last().copied().unwrap_or(0);
        self.writer.write(block)?;
        self.starts.push(rows + block.num_rows() as u64);
        Ok(())
    }

    pub fn finish(mut self) -> Result<SpillFile, ExchangeError> {
        self.writer.finish()?;
        // What is buffered is written here.
        let file = self.writer.into_inner()?.into_inner();
        drop(file.map_err(|error| self.place.error("write")(error.into_error()))?);
        Ok(SpillFile {
            place: self.place,
            starts: self.starts,
        })
    }
}

/// A finished file; removed when dropped.
#[derive(Debug)]
pub(crate) struct SpillFile {
    place: Arc<Place>,
    /// Rows before each block, and all rows.
    starts: Vec<u64>,
}

impl SpillFile {
    pub fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    pub fn bytes(&self) -> u64 {
        self.place.bytes()
    }

    pub fn blocks(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Blocks with rows of a range.
    pub fn blocks_in(&self, range: &Range<u64>) -> usize {
        if range.is_empty() {
            return 0;
        }
        let first = self.starts.partition_point(|start| *start <= range.start);
        let last = self.starts.partition_point(|start| *start < range.end);
        last + 1 - first
    }

    /// Rows before a block.
    pub fn block_start(&self, block: usize) -> u64 {
        self.starts.get(block).copied().unwrap_or_else(|| self.rows())
    }

    /// Opens the file for reading blocks in any order. Blocks the thread.
    pub fn open(&self) -> Result<BlockReader, ExchangeError> {
        let file = File::open(&self.place.path).map_err(self.place.error("open"))?;
        let reader = FileReader::try_new(BufReader::with_capacity(1 << 18, file), None)?;
        Ok(BlockReader { reader })
    }

    /// Rows of a range, block by block. Each block is read on a thread for blocking work.
    pub fn stream(
        self: &Arc<Self>,
        range: Range<u64>,
    ) -> BoxStream<'static, Result<RecordBatch, ExchangeError>> {
        let first = self
            .starts
            .partition_point(|start| *start <= range.start)
            .saturating_sub(1);
        let state = Cursor {
            file: Arc::clone(self),
            reader: None,
            block: first,
            range,
        };
        stream::try_unfold(state, |mut cursor| async move {
            if cursor.block >= cursor.file.blocks()
                || cursor.file.block_start(cursor.block) >= cursor.range.end
            {
                return Ok(None);
            }
            let task = SpawnedTask::spawn_blocking(move || {
                let batch = cursor.next()?;
                Ok::<_, ExchangeError>((batch, cursor))
            });
            task.join()
                .await
                .map_err(|_stopped| ExchangeError::Stopped)?
                .map(Some)
        })
        .boxed()
    }
}

/// Reads blocks of one file.
pub(crate) struct BlockReader {
    reader: FileReader<BufReader<File>>,
}

impl BlockReader {
    pub fn read(&mut self, block: usize) -> Result<RecordBatch, ExchangeError> {
        self.reader.set_index(block)?;
        match self.reader.next() {
            Some(batch) => Ok(batch?),
            None => Err(ArrowError::IpcError(format!("block {block} is missing")).into()),
        }
    }
}

struct Cursor {
    file: Arc<SpillFile>,
    reader: Option<BlockReader>,
    block: usize,
    range: Range<u64>,
}

impl Cursor {
    fn next(&mut self) -> Result<RecordBatch, ExchangeError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.file.open()?,
        };
        let batch = reader.read(self.block)?;
        self.reader = Some(reader);
        let start = self.file.block_start(self.block);
        self.block += 1;
        let from = self.range.start.saturating_sub(start) as usize;
        let to = (self.range.end - start).min(batch.num_rows() as u64) as usize;
        Ok(batch.slice(from, to.saturating_sub(from)))
    }
}

/// Rows of a block when `rows` rows have `bytes` bytes.
pub(crate) fn block_rows(rows: usize, bytes: usize) -> usize {
    let row_bytes = bytes.div_ceil(rows.max(1)).max(1);
    (BLOCK_BYTES / row_bytes).clamp(1, BLOCK_ROWS)
}
