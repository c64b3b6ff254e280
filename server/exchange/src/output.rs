//! The finished output of one work order.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use trilith_proto::id::WorkOrderId;

use crate::error::ExchangeError;
use crate::keys::{Key, KeyCodec};
use crate::memory::HeldMemory;
use crate::merge;
use crate::pieces::Pieces;
use crate::run::Run;
use crate::shuffle::Shuffle;
use crate::statistics::PartitionRange;

/// Size of a partition of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionSize {
    /// Rows.
    pub rows: u64,
    /// Bytes of the values; of a cut, sorted output the share by rows.
    pub bytes: u64,
    /// Batches.
    pub frames: u64,
}

/// The finished output of one work order. Its memory and files are freed when the last reader drops it.
pub struct StageOutput {
    id: WorkOrderId,
    schema: SchemaRef,
    shuffle: Shuffle,
    content: Content,
    _memory: HeldMemory,
}

pub(crate) enum Content {
    Pieces(Vec<Pieces>),
    Runs {
        runs: Vec<Arc<Run>>,
        codec: KeyCodec,
        /// By partition, rows of each run.
        cuts: OnceLock<Vec<Vec<Range<u64>>>>,
    },
}

/// Which order a reader wants of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputOrder {
    /// Run after run.
    Kept,
    /// By the shuffle's keys.
    Keys,
}

impl Content {
    pub fn sorted(runs: Vec<Arc<Run>>, codec: KeyCodec, cut_later: bool) -> Content {
        let cuts = OnceLock::new();
        if !cut_later {
            let whole = runs.iter().map(|run| 0..run.rows()).collect();
            // A new lock is empty.
            let _empty = cuts.set(vec![whole]);
        }
        Content::Runs { runs, codec, cuts }
    }
}

impl StageOutput {
    pub(crate) fn new(
        id: WorkOrderId,
        schema: SchemaRef,
        shuffle: Shuffle,
        content: Content,
        memory: HeldMemory,
    ) -> StageOutput {
        StageOutput {
            id,
            schema,
            shuffle,
            content,
            _memory: memory,
        }
    }

    /// Whose output.
    pub fn id(&self) -> &WorkOrderId {
        &self.id
    }

    /// Schema of all batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How the rows are divided.
    pub fn shuffle(&self) -> &Shuffle {
        &self.shuffle
    }

    /// Sizes of all partitions; empty while boundaries are missing.
    pub fn partitions(&self) -> Vec<PartitionSize> {
        match &self.content {
            Content::Pieces(partitions) => partitions
                .iter()
                .map(|pieces| PartitionSize {
                    rows: pieces.rows,
                    bytes: pieces.bytes,
                    frames: pieces.frames,
                })
                .collect(),
            Content::Runs { runs, cuts, .. } => {
                let cuts = cuts.get().map_or(&[][..], Vec::as_slice);
                cuts.iter().map(|ranges| sorted_size(runs, ranges)).collect()
            }
        }
    }

    /// Runs that were sorted one by one; none if the output is not sorted.
    pub fn sorted_runs(&self) -> Option<usize> {
        match &self.content {
            Content::Pieces(_) => None,
            Content::Runs { runs, .. } => Some(runs.len()),
        }
    }

    /// Batches of all partitions.
    pub fn frames(&self) -> u64 {
        match &self.content {
            Content::Pieces(partitions) => partitions.iter().map(|pieces| pieces.frames).sum(),
            Content::Runs { runs, .. } => runs.iter().map(|run| run.frames(&(0..run.rows()))).sum(),
        }
    }

    /// Bytes of its files.
    pub fn disk_bytes(&self) -> u64 {
        match &self.content {
            Content::Pieces(partitions) => {
                let mut files: Vec<_> = partitions.iter().flat_map(Pieces::files).collect();
                files.sort_by_key(Arc::as_ptr);
                files.dedup_by_key(|file| Arc::as_ptr(file));
                files.iter().map(|file| file.bytes()).sum()
            }
            Content::Runs { runs, .. } => runs.iter().map(|run| run.disk_bytes()).sum(),
        }
    }

    /// Cuts sorted output. Returns the rows of each partition. The first call counts, later ones change nothing.
    /// May read from disk.
    pub fn set_boundaries(&self, ranges: &[PartitionRange]) -> Result<Vec<u64>, ExchangeError> {
        if let Content::Runs { runs, codec, cuts } = &self.content
            && cuts.get().is_none()
        {
            let mut by_partition = vec![Vec::with_capacity(runs.len()); ranges.len()];
            for run in runs {
                for (partition, range) in by_partition.iter_mut().zip(cut_run(run, codec, ranges)?) {
                    partition.push(range);
                }
            }
            let all: u64 = runs.iter().map(|run| run.rows()).sum();
            let taken: u64 = by_partition
                .iter()
                .flatten()
                .map(|range| range.end - range.start)
                .sum();
            if taken != all {
                return Err(ExchangeError::RowsOutside {
                    id: self.id.clone(),
                    rows: all.abs_diff(taken),
                });
            }
            // Whoever came first has cut at the same places.
            let _already_set = cuts.set(by_partition);
        }
        Ok(self.partitions().iter().map(|partition| partition.rows).collect())
    }

    /// Rows of one partition, without the first `skip`.
    pub(crate) fn stream(
        &self,
        partition: u32,
        order: OutputOrder,
        skip: u64,
    ) -> Result<BoxStream<'static, Result<RecordBatch, ExchangeError>>, ExchangeError> {
        match &self.content {
            Content::Pieces(partitions) => match partitions.get(partition as usize) {
                Some(pieces) => Ok(pieces.stream(skip)),
                // A processor without rows made no partition.
                None if self.shuffle == Shuffle::None => Ok(stream::empty().boxed()),
                None => Err(self.no_partition(partition, partitions.len())),
            },
            Content::Runs { runs, .. } => {
                let ranges = self.ranges(partition)?;
                let parts = runs.iter().zip(ranges).filter(|(_, range)| !range.is_empty());
                let merged = order == OutputOrder::Keys && parts.clone().count() > 1;
                if merged {
                    let streams = parts.map(|(run, range)| run.stream(range.clone())).collect();
                    let rows = merge::merge(streams, &self.schema, self.shuffle.keys())?;
                    return Ok(skip_rows(rows, skip));
                }
                let mut skip = skip;
                let mut streams = Vec::new();
                for (run, range) in parts {
                    let skipped = skip.min(range.end - range.start);
                    skip -= skipped;
                    streams.push(run.stream(range.start + skipped..range.end));
                }
                Ok(stream::iter(streams).flatten().boxed())
            }
        }
    }

    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Rows of each run that belong to a partition of sorted output.
    pub(crate) fn ranges(&self, partition: u32) -> Result<&[Range<u64>], ExchangeError> {
        let Content::Runs { cuts, .. } = &self.content else {
            return Ok(&[]);
        };
        let cuts = cuts
            .get()
            .ok_or_else(|| ExchangeError::NoBoundaries { id: self.id.clone() })?;
        match cuts.get(partition as usize) {
            Some(ranges) => Ok(ranges),
            None => Err(self.no_partition(partition, cuts.len())),
        }
    }

    pub(crate) fn no_partition(&self, partition: u32, count: usize) -> ExchangeError {
        ExchangeError::NoPartition {
            id: self.id.clone(),
            partition,
            count,
        }
    }
}

fn sorted_size(runs: &[Arc<Run>], ranges: &[Range<u64>]) -> PartitionSize {
    let mut size = PartitionSize::default();
    for (run, range) in runs.iter().zip(ranges) {
        let rows = range.end - range.start;
        size.rows += rows;
        size.bytes += (u128::from(run.bytes()) * u128::from(rows) / u128::from(run.rows().max(1))) as u64;
        size.frames += run.frames(range);
    }
    size
}

/// Drops the first rows of a stream.
pub(crate) fn skip_rows(
    rows: BoxStream<'static, Result<RecordBatch, ExchangeError>>,
    skip: u64,
) -> BoxStream<'static, Result<RecordBatch, ExchangeError>> {
    if skip == 0 {
        return rows;
    }
    let mut left = skip;
    rows.filter_map(move |batch| {
        let kept = match batch {
            Ok(batch) => {
                let skipped = left.min(batch.num_rows() as u64) as usize;
                left -= skipped as u64;
                (skipped < batch.num_rows()).then(|| Ok(batch.slice(skipped, batch.num_rows() - skipped)))
            }
            Err(error) => Some(Err(error)),
        };
        std::future::ready(kept)
    })
    .boxed()
}

/// Rows of a run in each range.
fn cut_run(run: &Run, codec: &KeyCodec, ranges: &[PartitionRange]) -> Result<Vec<Range<u64>>, ExchangeError> {
    fn key(bucket_ms: i64, bytes: &Bytes) -> Result<Key<'_>, ExchangeError> {
        Key::parse(bucket_ms, bytes)
    }
    let mut keys = Vec::with_capacity(ranges.len() * 2);
    for range in ranges {
        let least = Key {
            bucket_ms: range.bucket_ms,
            row: &[],
            ordinal: 0,
        };
        keys.push(
            range
                .start
                .as_ref()
                .map_or(Ok(least), |start| key(range.bucket_ms, start))?,
        );
        let next = range.bucket_ms.checked_add(1);
        let after = next.map(|bucket_ms| Key {
            bucket_ms,
            row: &[],
            ordinal: 0,
        });
        match (&range.end, after) {
            (Some(end), _) => keys.push(key(range.bucket_ms, end)?),
            (None, Some(after)) => keys.push(after),
            (None, None) => keys.push(least),
        }
    }
    let positions = run.positions(&keys, codec)?;
    let to_range = |(range, pair): (&PartitionRange, &[u64])| {
        let (start, mut end) = match pair {
            [start, end] => (*start, *end),
            _ => (0, 0),
        };
        if range.end.is_none() && range.bucket_ms == i64::MAX {
            end = run.rows();
        }
        start..end.max(start)
    };
    Ok(ranges.iter().zip(positions.chunks(2)).map(to_range).collect())
}
