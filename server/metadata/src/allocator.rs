//! Partition numbers for appended segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use trilith_proto::interval::Interval;
use trilith_segment::{SegmentRecord, ShardSpec, visible};

/// What an append gets for one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Version of the chunk.
    pub version: String,
    /// Number within it.
    pub shard_spec: ShardSpec,
}

/// Why an append gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("time chunk {wanted} is covered by segments of another granularity")]
pub struct AllocationError {
    /// What was asked for.
    pub wanted: Interval,
    /// The coarser chunk that is there; none when it is finer.
    pub allocated: Option<Interval>,
}

/// Hands out partition numbers; those of unpublished segments are remembered until released.
#[derive(Clone, Default)]
pub struct Allocator {
    pending: Arc<Mutex<Pending>>,
}

/// By datasource, interval and version: (task, number).
type Pending = BTreeMap<(String, Interval, String), Vec<(String, u32)>>;

impl Allocator {
    /// A place for one segment in a chunk. `used`: the segments of the datasource; `version`: for a
    /// chunk that is empty.
    pub fn allocate(
        &self,
        task: &str,
        datasource: &str,
        chunk: Interval,
        used: &[SegmentRecord],
        version: &str,
    ) -> Result<Allocation, AllocationError> {
        let shown: Vec<&SegmentRecord> = visible(used)
            .into_iter()
            .filter(|(_, parts)| parts.iter().any(|part| part.overlaps(&chunk)))
            .map(|(record, _)| record)
            .collect();
        if let Some(other) = shown.iter().find(|record| record.interval != chunk) {
            let allocated = other.interval.contains(&chunk).then_some(other.interval);
            return Err(AllocationError { wanted: chunk, allocated });
        }
        let mut pending = self.pending.lock();
        // Tombstones keep their version: rows appended after one must not be hidden by it.
        let known = shown.iter().find(|record| !record.is_tombstone()).or(shown.first());
        let (version, core, mut next) = match known {
            Some(record) if record.is_tombstone() => (version.to_owned(), 0, 0),
            Some(record) => {
                let last = shown.iter().map(|record| record.partition_number()).max().unwrap_or(0);
                (record.version.clone(), record.shard_spec.core_partitions(), last + 1)
            }
            None => {
                // A concurrent append may have opened the chunk already.
                let opened = pending
                    .iter()
                    .find(|((name, interval, _), _)| name == datasource && *interval == chunk)
                    .map(|((_, _, version), _)| version.clone());
                (opened.unwrap_or_else(|| version.to_owned()), 0, 0)
            }
        };
        let numbers = pending.entry((datasource.to_owned(), chunk, version.clone())).or_default();
        next = next.max(numbers.iter().map(|(_, number)| number + 1).max().unwrap_or(0));
        numbers.push((task.to_owned(), next));
        let shard_spec = ShardSpec::Numbered { partition_num: next, partitions: core };
        Ok(Allocation { version, shard_spec })
    }

    /// Forgets what a task was given: it has published, or never will.
    pub fn release(&self, task: &str) {
        self.pending.lock().retain(|_, numbers| {
            numbers.retain(|(owner, _)| owner != task);
            !numbers.is_empty()
        });
    }
}
