//! Collects rows into a run, sorts it, and samples its keys.

use arrow::array::RecordBatch;
use datafusion::common::HashMap;

use crate::error::ExchangeError;
use crate::keys::{BatchKeys, KeyCodec};
use crate::run::{Code, MemoryRun, RUN_BATCH_ROWS, RUN_BATCHES};
use crate::spill::BLOCK_ROWS;
use crate::statistics::{BucketStatistics, KEYS_PER_ORDER};

/// Values of a run whose keys have at most this many different values are grouped, not compared.
const DISTINCT_KEYS: usize = 8_192;
/// Bytes that sorting takes for each row, the order included.
pub(crate) const SORT_BYTES_PER_ROW: usize = 24;
/// Bytes of a run, about. Larger runs do not sort faster.
const RUN_BYTES: usize = 512 * 1024 * 1024;

/// A run that grows.
#[derive(Default)]
pub(crate) struct RunBuilder {
    batches: Vec<RecordBatch>,
    keys: Vec<BatchKeys>,
    bases: Vec<u64>,
    weights: Vec<Option<Vec<u32>>>,
    rows: usize,
    bytes: usize,
    /// Memory that the builder's owner reserved for it.
    pub held: usize,
}

/// A finished run, with what is needed to account for it.
pub(crate) struct ClosedRun {
    pub run: MemoryRun,
    pub statistics: Vec<BucketStatistics>,
    pub held: usize,
}

impl RunBuilder {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn is_full(&self) -> bool {
        self.batches.len() >= RUN_BATCHES || self.bytes >= RUN_BYTES
    }

    /// Adds a batch of at most `RUN_BATCH_ROWS` rows.
    pub fn push(
        &mut self,
        batch: RecordBatch,
        keys: BatchKeys,
        base: u64,
        weights: Option<Vec<u32>>,
        bytes: usize,
    ) {
        debug_assert!(batch.num_rows() <= RUN_BATCH_ROWS);
        self.rows += batch.num_rows();
        self.bytes += bytes;
        self.batches.push(batch);
        self.keys.push(keys);
        self.bases.push(base);
        self.weights.push(weights);
    }

    /// Sorts the rows and samples their keys.
    pub fn close(self, statistics: bool) -> ClosedRun {
        let order = sort(&self.keys, &self.batches);
        let run = MemoryRun {
            batches: self.batches,
            keys: self.keys,
            bases: self.bases,
            order,
            bytes: self.bytes,
        };
        let statistics = if statistics {
            sample(&run, &self.weights)
        } else {
            Vec::new()
        };
        ClosedRun {
            run,
            statistics,
            held: self.held,
        }
    }

    /// Keeps only the first rows of the order. Returns how much memory they hold.
    pub fn keep_first(self, limit: usize, codec: &KeyCodec) -> Result<(RunBuilder, usize), ExchangeError> {
        let mut run = self.close(false).run;
        let all = run.order.len().max(1);
        run.order.truncate(limit);
        let mut kept = RunBuilder::default();
        let mut start = 0;
        let mut held = 0;
        while start < run.order.len() {
            let end = (start + BLOCK_ROWS).min(run.order.len());
            let batch = run.gather(start..end)?;
            let keys = codec.encode(&batch)?;
            held += crate::memory::kept_bytes(&batch) + keys.size() + batch.num_rows() * SORT_BYTES_PER_ROW;
            let bytes = run.bytes / all * batch.num_rows();
            kept.push(batch, keys, start as u64, None, bytes);
            start = end;
        }
        Ok((kept, held))
    }
}

/// The order of all rows: by bucket, key, arrival.
fn sort(keys: &[BatchKeys], batches: &[RecordBatch]) -> Vec<Code> {
    let buckets = bucket_ranks(keys);
    let bucket_count = buckets.as_ref().map_or(1, |buckets| buckets.count);
    let groups = key_ranks(keys, batches, bucket_count);
    let key_groups = groups.as_ref().map_or(1, |groups| groups.count);
    // Counting sort by (bucket, key); it keeps the order of arrival.
    let mut starts = vec![0_usize; bucket_count * key_groups + 1];
    let group_of = |position: usize| {
        let bucket = buckets.as_ref().map_or(0, |ranks| ranks.at(position));
        let key = groups.as_ref().map_or(0, |ranks| ranks.at(position));
        bucket * key_groups + key
    };
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    for position in 0..rows {
        if let Some(count) = starts.get_mut(group_of(position) + 1) {
            *count += 1;
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let bounds = starts.clone();
    let mut order = vec![Code::new(0, 0); rows];
    let mut position = 0;
    for (batch, rows) in batches.iter().map(RecordBatch::num_rows).enumerate() {
        for row in 0..rows {
            if let Some(next) = starts.get_mut(group_of(position)) {
                if let Some(slot) = order.get_mut(*next) {
                    *slot = Code::new(batch, row);
                }
                *next += 1;
            }
            position += 1;
        }
    }
    if groups.is_none() && keys.iter().any(BatchKeys::has_rows) {
        for bound in bounds.windows(2) {
            if let [start, end] = bound
                && let Some(part) = order.get_mut(*start..*end)
            {
                sort_by_key(part, keys);
            }
        }
    }
    order
}

/// Small number for each row; numbers compare as what they stand for.
struct Ranks {
    by_position: Vec<u32>,
    count: usize,
}

impl Ranks {
    fn at(&self, position: usize) -> usize {
        self.by_position.get(position).map_or(0, |rank| *rank as usize)
    }
}

fn bucket_ranks(keys: &[BatchKeys]) -> Option<Ranks> {
    let all = || keys.iter().filter_map(BatchKeys::buckets).flatten();
    let mut distinct: Vec<i64> = Vec::new();
    let mut last = None;
    for bucket in all() {
        if last != Some(*bucket) {
            last = Some(*bucket);
            if let Err(place) = distinct.binary_search(bucket) {
                distinct.insert(place, *bucket);
            }
        }
    }
    if distinct.len() < 2 {
        return None;
    }
    let mut last = (i64::MIN, u32::MAX);
    let rank = |bucket: &i64| {
        if last.0 != *bucket || last.1 == u32::MAX {
            last = (*bucket, distinct.partition_point(|other| other < bucket) as u32);
        }
        last.1
    };
    Some(Ranks {
        by_position: all().map(rank).collect(),
        count: distinct.len(),
    })
}

/// None when there are no keys or too many different ones.
fn key_ranks(keys: &[BatchKeys], batches: &[RecordBatch], bucket_count: usize) -> Option<Ranks> {
    if !keys.iter().any(BatchKeys::has_rows) {
        return None;
    }
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let most = DISTINCT_KEYS.min(rows / 4 / bucket_count + 1);
    let mut ids: HashMap<&[u8], u32> = HashMap::new();
    let mut by_position = Vec::with_capacity(rows);
    for (keys, rows) in keys.iter().zip(batches.iter().map(RecordBatch::num_rows)) {
        for row in 0..rows {
            let next = ids.len() as u32;
            let id = *ids.entry(keys.row(row)).or_insert(next);
            if id as usize >= most {
                return None;
            }
            by_position.push(id);
        }
    }
    let mut sorted: Vec<(&[u8], u32)> = ids.into_iter().collect();
    sorted.sort_unstable();
    let mut ranks = vec![0_u32; sorted.len()];
    for (rank, (_, id)) in sorted.iter().enumerate() {
        if let Some(slot) = ranks.get_mut(*id as usize) {
            *slot = rank as u32;
        }
    }
    for id in &mut by_position {
        *id = ranks.get(*id as usize).copied().unwrap_or(0);
    }
    Some(Ranks {
        by_position,
        count: sorted.len(),
    })
}

fn sort_by_key(order: &mut [Code], keys: &[BatchKeys]) {
    let bytes = |code: Code| {
        keys.get(code.batch())
            .map_or(&[][..], |keys| keys.row(code.row()))
    };
    let mut entries: Vec<(u64, Code)> = order.iter().map(|code| (prefix(bytes(*code)), *code)).collect();
    entries.sort_unstable_by(|left, right| {
        left.0
            .cmp(&right.0)
            .then_with(|| bytes(left.1).cmp(bytes(right.1)))
            .then_with(|| left.1.cmp(&right.1))
    });
    for (slot, (_, code)) in order.iter_mut().zip(entries) {
        *slot = code;
    }
}

/// First bytes of a key, as a number that compares like them.
fn prefix(bytes: &[u8]) -> u64 {
    match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => {
            let mut chunk = [0_u8; 8];
            chunk.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
            u64::from_be_bytes(chunk)
        }
    }
}

/// Keys at even distances in every bucket of a sorted run.
fn sample(run: &MemoryRun, weights: &[Option<Vec<u32>>]) -> Vec<BucketStatistics> {
    let weight = |code: Code| {
        let weights = weights.get(code.batch()).and_then(Option::as_ref);
        weights
            .and_then(|weights| weights.get(code.row()))
            .map_or(1, |weight| u64::from(*weight))
    };
    let bucket = |code: &Code| {
        run.keys
            .get(code.batch())
            .map_or(0, |keys| keys.bucket(code.row()))
    };
    let parts: Vec<&[Code]> = run
        .order
        .chunk_by(|left, right| bucket(left) == bucket(right))
        .collect();
    let keys_per_bucket = (KEYS_PER_ORDER / parts.len().max(1)).max(1);
    let sample_bucket = |part: &[Code]| {
        let step = part.len().div_ceil(keys_per_bucket).max(1);
        let keys: Vec<_> = part
            .chunks(step)
            .filter_map(|chunk| {
                let key = run.key(*chunk.first()?)?;
                Some((
                    key.to_bytes(),
                    chunk.iter().map(|code| weight(*code)).sum::<u64>(),
                ))
            })
            .collect();
        BucketStatistics {
            bucket_ms: part.first().map_or(0, bucket),
            rows: part.len() as u64,
            weight: keys.iter().map(|key| key.1).sum(),
            keys,
        }
    };
    parts.into_iter().map(sample_bucket).collect()
}
