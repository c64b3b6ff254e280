//! Samples of sort keys, and the boundaries that are cut from them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::keys::{first_of_equals, row};

/// Keys that one work order reports, over all buckets.
pub(crate) const KEYS_PER_ORDER: usize = 16_384;
/// Fewest keys that a bucket may keep.
const KEYS_PER_BUCKET_MIN: usize = 16;
/// Bytes of keys that one work order reports.
const KEY_BYTES_PER_ORDER: usize = 2 * 1024 * 1024;
/// Rounds in which `MaxCount` may widen its partitions.
const MAX_COUNT_ROUNDS: u32 = 500;
const MAX_COUNT_GROWTH: f64 = 1.05;

/// What is known of the keys of one time chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketStatistics {
    /// Start of the chunk, milliseconds since the epoch; 0 without chunks.
    pub bucket_ms: i64,
    /// Exact.
    pub rows: u64,
    /// Exact: 1 for a usual row, more for a wide one.
    pub weight: u64,
    /// Keys in ascending order, each with the weight of the rows from it up to the next one. Every row is a key
    /// of its own when there are few.
    #[serde(with = "key_list")]
    pub keys: Vec<(Bytes, u64)>,
}

/// Rows of one partition: those of a time chunk with start <= key < end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// Start of the chunk, milliseconds since the epoch; 0 without chunks.
    pub bucket_ms: i64,
    /// First key; none means from the first row of the chunk.
    #[serde(with = "optional_key")]
    pub start: Option<Bytes>,
    /// First key of the next partition; none means to the last row of the chunk.
    #[serde(with = "optional_key")]
    pub end: Option<Bytes>,
}

/// How large partitions should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutTarget {
    /// Weight of a partition. Equal rows may be cut apart.
    TargetSize(u64),
    /// Number of partitions; more only if there are more time chunks. Equal rows stay together, because a
    /// group must be in one partition.
    MaxCount(u32),
}

/// Joins the statistics of several work orders, in ascending order of chunks.
pub fn merge_statistics(parts: impl IntoIterator<Item = BucketStatistics>) -> Vec<BucketStatistics> {
    let mut merged: BTreeMap<i64, BucketStatistics> = BTreeMap::new();
    for part in parts {
        match merged.entry(part.bucket_ms) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(part);
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let all = entry.get_mut();
                all.rows += part.rows;
                all.weight += part.weight;
                all.keys.extend(part.keys);
            }
        }
    }
    let mut merged: Vec<_> = merged.into_values().collect();
    for bucket in &mut merged {
        // Stable, and fast on keys that consist of sorted pieces.
        bucket.keys.sort_by(|left, right| left.0.cmp(&right.0));
    }
    merged
}

/// Thins keys out until they fit into a report.
pub(crate) fn shrink(buckets: &mut [BucketStatistics]) {
    let most = (KEYS_PER_ORDER / buckets.len().max(1)).max(KEYS_PER_BUCKET_MIN);
    for bucket in buckets.iter_mut() {
        while bucket.keys.len() > most {
            halve(&mut bucket.keys);
        }
    }
    loop {
        let bytes: usize = buckets
            .iter()
            .flat_map(|bucket| &bucket.keys)
            .map(|key| key.0.len())
            .sum();
        let widest = buckets.iter_mut().max_by_key(|bucket| bucket.keys.len());
        match widest {
            Some(bucket) if bytes > KEY_BYTES_PER_ORDER && bucket.keys.len() > 1 => halve(&mut bucket.keys),
            _ => break,
        }
    }
}

fn halve(keys: &mut Vec<(Bytes, u64)>) {
    let kept = keys
        .chunks(2)
        .filter_map(|pair| {
            let weight = pair.iter().map(|key| key.1).sum();
            pair.first().map(|first| (first.0.clone(), weight))
        })
        .collect();
    *keys = kept;
}

/// How many partitions a size asks for. Cuts may be fewer where only samples of the keys are known.
pub fn wanted_partitions(merged: &[BucketStatistics], target: CutTarget) -> u64 {
    match target {
        CutTarget::TargetSize(size) => merged
            .iter()
            .map(|bucket| bucket.weight.div_ceil(size.max(1)).min(bucket.rows))
            .sum(),
        CutTarget::MaxCount(_) => 0,
    }
}

/// Cuts merged statistics into partitions. Ranges of a chunk abut and cover it; no partition is empty, and there
/// is always at least one.
pub fn cut_boundaries(merged: &[BucketStatistics], target: CutTarget) -> Vec<PartitionRange> {
    let ranges = match target {
        CutTarget::TargetSize(size) => cut_all(merged, size, false),
        CutTarget::MaxCount(count) => {
            let total: u64 = merged.iter().map(|bucket| bucket.weight).sum();
            let mut size = total.div_ceil(u64::from(count.max(1))).max(1);
            let mut ranges = cut_all(merged, size, true);
            for _ in 0..MAX_COUNT_ROUNDS {
                if ranges.len() <= count as usize || ranges.len() <= merged.len() {
                    break;
                }
                size = ((size as f64 * MAX_COUNT_GROWTH).ceil() as u64).max(size + 1);
                ranges = cut_all(merged, size, true);
            }
            ranges
        }
    };
    if ranges.is_empty() {
        let bucket_ms = merged.first().map_or(0, |bucket| bucket.bucket_ms);
        return vec![PartitionRange {
            bucket_ms,
            start: None,
            end: None,
        }];
    }
    ranges
}

fn cut_all(merged: &[BucketStatistics], size: u64, whole_rows: bool) -> Vec<PartitionRange> {
    let mut ranges = Vec::new();
    for bucket in merged.iter().filter(|bucket| bucket.rows > 0) {
        let mut start = None;
        for index in cut_positions(bucket, size.max(1), whole_rows) {
            let key = bucket.keys.get(index).map(|key| &key.0);
            let end = key.map(|key| {
                if whole_rows {
                    first_of_equals(key)
                } else {
                    key.clone()
                }
            });
            ranges.push(PartitionRange {
                bucket_ms: bucket.bucket_ms,
                start,
                end: end.clone(),
            });
            start = end;
        }
        ranges.push(PartitionRange {
            bucket_ms: bucket.bucket_ms,
            start,
            end: None,
        });
    }
    ranges
}

/// Positions of the keys that start a partition, the first partition left out.
fn cut_positions(bucket: &BucketStatistics, size: u64, whole_rows: bool) -> Vec<usize> {
    let count = u128::from(bucket.weight.div_ceil(size));
    let weight = u128::from(bucket.weight);
    let mut cuts: Vec<usize> = Vec::new();
    let mut seen: u128 = 0;
    let mut part: u128 = 1;
    for (index, key) in bucket.keys.iter().enumerate() {
        seen += u128::from(key.1);
        let previous = index.checked_sub(1).and_then(|index| bucket.keys.get(index));
        if whole_rows && previous.is_some_and(|previous| row(&previous.0) == row(&key.0)) {
            continue;
        }
        // One cut at a key, and none at the first: every partition has rows.
        if part < count && index > 0 && seen * count >= part * weight {
            cuts.push(index);
            // A heavy key may have used up the weight of several parts.
            let before = seen - u128::from(key.1);
            part = (part + 1).max(before * count / weight.max(1) + 1);
        }
    }
    cuts
}

mod key_list {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(keys: &[(Bytes, u64)], serializer: S) -> Result<S::Ok, S::Error> {
        let keys: Vec<(String, u64)> = keys
            .iter()
            .map(|(key, weight)| (STANDARD.encode(key), *weight))
            .collect();
        keys.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Bytes, u64)>, D::Error> {
        let keys = Vec::<(String, u64)>::deserialize(deserializer)?;
        keys.into_iter()
            .map(|(key, weight)| Ok((STANDARD.decode(key).map_err(D::Error::custom)?.into(), weight)))
            .collect()
    }
}

mod optional_key {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(key: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
        key.as_ref().map(|key| STANDARD.encode(key)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        let key = Option::<String>::deserialize(deserializer)?;
        key.map(|key| STANDARD.decode(key).map(Bytes::from).map_err(D::Error::custom))
            .transpose()
    }
}
