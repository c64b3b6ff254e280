//! Takes the rows of one work order.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use trilith_proto::fault::Fault;
use trilith_proto::id::WorkOrderId;

use crate::disk::OrderDisk;
use crate::error::ExchangeError;
use crate::hash::HashDivider;
use crate::keys::{KeyBucket, KeyCodec};
use crate::memory::{HeldMemory, value_bytes};
use crate::output::{Content, StageOutput};
use crate::pieces::{self, Pieces};
use crate::registry::Shared;
use crate::run::{RUN_BATCH_ROWS, Run};
use crate::shuffle::Shuffle;
use crate::sizes;
use crate::sorter::{ClosedRun, RunBuilder, SORT_BYTES_PER_ROW};
use crate::statistics::{self, BucketStatistics, PartitionRange};

/// Time chunks that one work order may touch.
const BUCKETS_MAX: usize = 5_000;
/// Rows that a limited sort collects before it throws the rest away, at least.
const LIMITED_ROWS_MIN: usize = 65_536;

/// What the writer of an output learned.
#[derive(Debug, Clone, Default)]
pub struct OutputSummary {
    /// Statistics by time chunk, ascending; empty unless the shuffle gathers them.
    pub buckets: Vec<BucketStatistics>,
    /// Some row has a key column with several values.
    pub has_multiple_values: bool,
    /// Rows by partition; empty until boundaries are set, if the shuffle gathers statistics.
    pub partition_rows: Vec<u64>,
    /// Bytes of all values.
    pub bytes: u64,
    /// Batches kept.
    pub frames: u64,
}

/// Takes the rows of one work order. Calls block while they sort and write to disk, so they belong on a thread for
/// blocking work. Dropped before `finish`, all rows are gone.
pub struct OutputWriter {
    shared: Arc<Shared>,
    id: WorkOrderId,
    schema: SchemaRef,
    shuffle: Shuffle,
    max_frame_bytes: u64,
    memory: HeldMemory,
    disk: Arc<OrderDisk>,
    rows: Rows,
    bytes: u64,
    spill_minimum: usize,
}

enum Rows {
    Unsorted {
        partitions: Vec<Pieces>,
        divider: Option<HashDivider>,
        divider_held: usize,
    },
    Sorted(Box<SortedRows>),
}

struct SortedRows {
    codec: KeyCodec,
    builder: RunBuilder,
    /// Runs with the memory that they hold.
    runs: Vec<(Run, usize)>,
    statistics: Vec<BucketStatistics>,
    gathers: bool,
    limit: Option<usize>,
    buckets: BTreeSet<i64>,
    next_ordinal: u64,
    has_multiple_values: bool,
}

impl OutputWriter {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: WorkOrderId,
        schema: SchemaRef,
        shuffle: Shuffle,
        max_frame_bytes: u64,
    ) -> Result<OutputWriter, ExchangeError> {
        let rows = match &shuffle {
            Shuffle::Mix => Rows::unsorted(1, None),
            Shuffle::None => Rows::unsorted(0, None),
            Shuffle::Hash {
                columns,
                partitions,
                keys,
            } => {
                check_columns(columns, &schema)?;
                let partitions = (*partitions).max(1) as usize;
                if keys.is_empty() {
                    Rows::unsorted(partitions, Some(HashDivider::new(columns.clone(), partitions)))
                } else {
                    let columns = columns.clone();
                    let bucket = KeyBucket::Hash { columns, partitions };
                    let codec = KeyCodec::new(&schema, keys, Some(bucket))?;
                    Rows::Sorted(Box::new(SortedRows::new(codec, false, None)))
                }
            }
            Shuffle::Sort {
                keys,
                bucket,
                statistics,
                limit,
            } => {
                // Without boundaries, chunks would only get between the reader and the keys.
                let bucket = bucket.filter(|_| *statistics);
                let limit = limit.filter(|_| !*statistics);
                let codec = KeyCodec::new(&schema, keys, bucket.map(KeyBucket::Time))?;
                let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
                Rows::Sorted(Box::new(SortedRows::new(codec, *statistics, limit)))
            }
        };
        let memory = shared.hold_memory(&id);
        let disk = shared.disk.order(&id);
        let spill_minimum = shared.spill_minimum();
        Ok(OutputWriter {
            shared,
            id,
            schema,
            shuffle,
            max_frame_bytes,
            memory,
            disk,
            rows,
            bytes: 0,
            spill_minimum,
        })
    }

    /// Adds rows. `partition` counts only under `Shuffle::None`. Fails with `InsertTimeNull`, `TooManyBuckets` and
    /// `RowTooLarge`.
    pub fn write(&mut self, partition: u32, batch: RecordBatch) -> Result<(), ExchangeError> {
        let mut start = 0;
        while start < batch.num_rows() {
            let rows = RUN_BATCH_ROWS.min(batch.num_rows() - start);
            let part = if rows == batch.num_rows() {
                batch.clone()
            } else {
                batch.slice(start, rows)
            };
            start += rows;
            self.write_part(partition as usize, part)?;
        }
        Ok(())
    }

    fn write_part(&mut self, partition: usize, batch: RecordBatch) -> Result<(), ExchangeError> {
        let sizes = sizes::measure(&batch)?;
        if sizes.largest > self.max_frame_bytes {
            return Err(Fault::row_too_large(self.max_frame_bytes).into());
        }
        let bytes = value_bytes(&batch);
        self.bytes += bytes as u64;
        let to_hold = pieces::bytes_to_hold(&batch);
        match &mut self.rows {
            Rows::Unsorted { .. } => {
                self.reserve(to_hold)?;
                self.write_unsorted(partition, batch, bytes, to_hold)
            }
            Rows::Sorted(sorted) => {
                let keys = sorted.codec.encode(&batch)?;
                sorted.note(&batch, &keys)?;
                let to_hold = to_hold + keys.size() + batch.num_rows() * SORT_BYTES_PER_ROW;
                self.reserve(to_hold)?;
                if let Rows::Sorted(sorted) = &mut self.rows {
                    let base = sorted.next_ordinal;
                    sorted.next_ordinal += batch.num_rows() as u64;
                    sorted.builder.push(batch, keys, base, sizes.weights, bytes);
                    sorted.builder.held += to_hold;
                    if sorted.is_wasteful() {
                        sorted.throw_away(&self.memory)?;
                    } else if sorted.builder.is_full() {
                        sorted.close_run();
                    }
                }
                Ok(())
            }
        }
    }

    fn write_unsorted(
        &mut self,
        partition: usize,
        batch: RecordBatch,
        bytes: usize,
        to_hold: usize,
    ) -> Result<(), ExchangeError> {
        let Rows::Unsorted {
            partitions,
            divider,
            divider_held,
        } = &mut self.rows
        else {
            return Ok(());
        };
        match divider {
            Some(divider) => {
                divider.push(batch, bytes)?;
                *divider_held += to_hold;
                if divider.is_full() {
                    flush(divider, divider_held, partitions, &self.memory)?;
                }
                Ok(())
            }
            None => {
                let partition = if self.shuffle == Shuffle::None {
                    partition
                } else {
                    0
                };
                if partitions.len() <= partition {
                    partitions.resize_with(partition + 1, Pieces::default);
                }
                match partitions.get_mut(partition) {
                    Some(pieces) => pieces.push(batch, bytes, to_hold),
                    None => Ok(()),
                }
            }
        }
    }

    /// Makes room, by spilling what is held if there is no other way.
    fn reserve(&mut self, bytes: usize) -> Result<(), ExchangeError> {
        if self.memory.try_grow(bytes) {
            return Ok(());
        }
        match &mut self.rows {
            Rows::Unsorted {
                partitions,
                divider,
                divider_held,
            } => {
                let held: usize = partitions.iter().map(Pieces::held).sum::<usize>() + *divider_held;
                if held >= self.spill_minimum {
                    if let Some(divider) = divider {
                        flush(divider, divider_held, partitions, &self.memory)?;
                    }
                    pieces::spill(partitions, &self.schema, &self.disk, &self.memory)?;
                }
            }
            Rows::Sorted(sorted) => {
                let held = sorted.builder.held + sorted.runs.iter().map(|run| run.1).sum::<usize>();
                if held >= self.spill_minimum {
                    sorted.close_run();
                    sorted.spill(&self.schema, &self.disk, &self.memory)?;
                }
            }
        }
        if !self.memory.try_grow(bytes) {
            // Less than the minimum is held: work goes on with little rather than not at all.
            self.memory.grow(bytes);
        }
        Ok(())
    }

    /// Ends the output and makes it readable.
    pub fn finish(self) -> Result<OutputSummary, ExchangeError> {
        let OutputWriter {
            shared,
            id,
            schema,
            shuffle,
            memory,
            rows,
            bytes,
            ..
        } = self;
        let mut summary = OutputSummary {
            bytes,
            ..OutputSummary::default()
        };
        let content = match rows {
            Rows::Unsorted {
                mut partitions,
                mut divider,
                mut divider_held,
            } => {
                if let Some(divider) = &mut divider {
                    flush(divider, &mut divider_held, &mut partitions, &memory)?;
                }
                for partition in &mut partitions {
                    partition.finish()?;
                }
                Content::Pieces(partitions)
            }
            Rows::Sorted(mut sorted) => {
                sorted.finish(&memory)?;
                summary.has_multiple_values = sorted.has_multiple_values;
                summary.buckets = statistics::merge_statistics(sorted.statistics);
                statistics::shrink(&mut summary.buckets);
                let runs = sorted.runs.into_iter().map(|(run, _)| Arc::new(run)).collect();
                let cut_later = sorted.gathers || matches!(shuffle, Shuffle::Hash { .. });
                Content::sorted(runs, sorted.codec, cut_later)
            }
        };
        let hashed = match &shuffle {
            Shuffle::Hash { partitions, keys, .. } if !keys.is_empty() => Some(*partitions),
            _ => None,
        };
        let output = Arc::new(StageOutput::new(id, schema, shuffle, content, memory));
        if let Some(partitions) = hashed {
            output.set_boundaries(&hash_ranges(partitions))?;
        }
        summary.partition_rows = output
            .partitions()
            .iter()
            .map(|partition| partition.rows)
            .collect();
        summary.frames = output.frames();
        shared.publish(output)?;
        Ok(summary)
    }
}

impl Rows {
    fn unsorted(partitions: usize, divider: Option<HashDivider>) -> Rows {
        let mut pieces = Vec::new();
        pieces.resize_with(partitions, Pieces::default);
        Rows::Unsorted {
            partitions: pieces,
            divider,
            divider_held: 0,
        }
    }
}

/// Partitions by hash as ranges of sorted rows: each is a chunk of its own.
fn hash_ranges(partitions: u32) -> Vec<PartitionRange> {
    (0..partitions.max(1))
        .map(|partition| PartitionRange {
            bucket_ms: i64::from(partition),
            start: None,
            end: None,
        })
        .collect()
}

fn check_columns(columns: &[usize], schema: &SchemaRef) -> Result<(), ExchangeError> {
    match columns.iter().find(|column| **column >= schema.fields().len()) {
        Some(column) => Err(ExchangeError::BadKeyColumn { column: *column }),
        None => Ok(()),
    }
}

fn flush(
    divider: &mut HashDivider,
    divider_held: &mut usize,
    partitions: &mut [Pieces],
    memory: &HeldMemory,
) -> Result<(), ExchangeError> {
    for (partition, batch) in divider.flush()? {
        if let Some(pieces) = partitions.get_mut(partition) {
            let held = pieces::bytes_to_hold(&batch);
            memory.grow(held);
            let bytes = value_bytes(&batch);
            pieces.push(batch, bytes, held)?;
        }
    }
    memory.shrink(std::mem::take(divider_held));
    Ok(())
}

impl SortedRows {
    fn new(codec: KeyCodec, gathers: bool, limit: Option<usize>) -> SortedRows {
        SortedRows {
            codec,
            builder: RunBuilder::default(),
            runs: Vec::new(),
            statistics: Vec::new(),
            gathers,
            limit,
            buckets: BTreeSet::new(),
            next_ordinal: 0,
            has_multiple_values: false,
        }
    }

    /// Remembers what the summary tells of the keys.
    fn note(&mut self, batch: &RecordBatch, keys: &crate::keys::BatchKeys) -> Result<(), ExchangeError> {
        if !self.has_multiple_values {
            let mut columns = self.codec.key_columns().iter();
            self.has_multiple_values =
                columns.any(|column| sizes::has_multiple_values(batch.column(*column)));
        }
        let mut last = None;
        let chunks = keys.buckets().filter(|_| self.gathers);
        for bucket in chunks.unwrap_or(&[]) {
            if last != Some(*bucket) {
                last = Some(*bucket);
                self.buckets.insert(*bucket);
                if self.buckets.len() > BUCKETS_MAX {
                    return Err(Fault::too_many_buckets(BUCKETS_MAX as u64).into());
                }
            }
        }
        Ok(())
    }

    fn is_wasteful(&self) -> bool {
        self.limit
            .is_some_and(|limit| self.builder.rows() >= limit.saturating_mul(4).max(LIMITED_ROWS_MIN))
    }

    fn throw_away(&mut self, memory: &HeldMemory) -> Result<(), ExchangeError> {
        if let Some(limit) = self.limit {
            let builder = std::mem::take(&mut self.builder);
            let before = builder.held;
            let (mut builder, held) = builder.keep_first(limit, &self.codec)?;
            builder.held = held;
            memory.grow(held);
            memory.shrink(before);
            self.builder = builder;
        }
        Ok(())
    }

    fn close_run(&mut self) {
        if self.builder.rows() == 0 {
            return;
        }
        let ClosedRun {
            mut run,
            statistics,
            held,
        } = std::mem::take(&mut self.builder).close(self.gathers);
        if let Some(limit) = self.limit {
            run.order.truncate(limit);
        }
        self.statistics.extend(statistics);
        self.runs.push((Run::Memory(run), held));
    }

    fn spill(
        &mut self,
        schema: &SchemaRef,
        disk: &Arc<OrderDisk>,
        memory: &HeldMemory,
    ) -> Result<(), ExchangeError> {
        for (run, held) in &mut self.runs {
            if let Run::Memory(rows) = run {
                *run = Run::Spilled(rows.spill(schema, disk)?);
                memory.shrink(std::mem::take(held));
            }
        }
        Ok(())
    }

    fn finish(&mut self, memory: &HeldMemory) -> Result<(), ExchangeError> {
        if self.limit.is_some_and(|limit| self.builder.rows() > limit) {
            self.throw_away(memory)?;
        }
        self.close_run();
        Ok(())
    }
}
