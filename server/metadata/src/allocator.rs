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
#[derive(Debug, thiserror::Error)]
pub enum AllocationError<E> {
    /// The chunk overlaps segments of another granularity.
    #[error("time chunk {wanted} overlaps segments of another granularity")]
    Covered {
        /// What was asked for.
        wanted: Interval,
        /// The coarser chunk that is there; none when it is finer.
        allocated: Option<Interval>,
    },
    /// The segments of the datasource cannot be read.
    #[error("segments cannot be read")]
    Used(E),
}

/// Hands out partition numbers; those of unpublished segments are remembered until released.
#[derive(Clone, Default)]
pub struct Allocator {
    pending: Arc<Mutex<Pending>>,
}

/// By datasource, interval and version: (task, number).
type Pending = BTreeMap<(String, Interval, String), Vec<(String, u32)>>;

impl Allocator {
    /// Places for the segments of a job: as many per chunk as asked for, in the order of `chunks`.
    ///
    /// `load_used` reads the segments of the datasource. It is called while no other append can be given a
    /// place, so that what it returns holds for all of them: whoever publishes afterwards is still pending.
    /// `version` is for chunks that are empty. Blocking.
    pub fn allocate_all<E>(
        &self,
        task: &str,
        datasource: &str,
        chunks: &[(Interval, usize)],
        version: &str,
        load_used: impl FnOnce() -> Result<Vec<SegmentRecord>, E>,
    ) -> Result<Vec<Allocation>, AllocationError<E>> {
        let mut pending = self.pending.lock();
        let used = load_used().map_err(AllocationError::Used)?;
        let shown: Vec<&SegmentRecord> = visible(&used).into_iter().map(|(record, _)| record).collect();
        let mut allocations = Vec::new();
        for (chunk, count) in chunks {
            let known = known_chunk(&pending, datasource, *chunk, &shown)?;
            // Rows appended after a tombstone must not be hidden by it: the chunk gets a new version.
            let (chunk_version, core, next) = known.unwrap_or_else(|| (version.to_owned(), 0, 0));
            let numbers = pending
                .entry((datasource.to_owned(), *chunk, chunk_version.clone()))
                .or_default();
            let given = numbers.iter().map(|(_, number)| number + 1).max().unwrap_or(0);
            for number in (next.max(given)..).take(*count) {
                numbers.push((task.to_owned(), number));
                let shard_spec = ShardSpec::Numbered {
                    partition_num: number,
                    partitions: core,
                };
                allocations.push(Allocation {
                    version: chunk_version.clone(),
                    shard_spec,
                });
            }
        }
        Ok(allocations)
    }

    /// Forgets what a task was given: it has published, or never will.
    pub fn release(&self, task: &str) {
        self.pending.lock().retain(|_, numbers| {
            numbers.retain(|(owner, _)| owner != task);
            !numbers.is_empty()
        });
    }
}

/// Version, core partitions and next number of a chunk that has rows, or will have some soon.
fn known_chunk<E>(
    pending: &Pending,
    datasource: &str,
    chunk: Interval,
    shown: &[&SegmentRecord],
) -> Result<Option<(String, u32, u32)>, AllocationError<E>> {
    let here: Vec<&&SegmentRecord> = shown
        .iter()
        .filter(|record| record.interval.overlaps(&chunk))
        .collect();
    let opened: Vec<(&Interval, &String)> = pending
        .keys()
        .filter(|(name, interval, _)| name == datasource && interval.overlaps(&chunk))
        .map(|(_, interval, version)| (interval, version))
        .collect();
    let intervals = here
        .iter()
        .map(|record| record.interval)
        .chain(opened.iter().map(|(interval, _)| **interval));
    if let Some(other) = intervals.into_iter().find(|interval| *interval != chunk) {
        let allocated = other.contains(&chunk).then_some(other);
        return Err(AllocationError::Covered {
            wanted: chunk,
            allocated,
        });
    }
    let rows: Vec<&&&SegmentRecord> = here.iter().filter(|record| !record.is_tombstone()).collect();
    if let Some(record) = rows.first() {
        let last = rows
            .iter()
            .map(|record| record.partition_number())
            .max()
            .unwrap_or(0);
        return Ok(Some((
            record.version.clone(),
            record.shard_spec.core_partitions(),
            last + 1,
        )));
    }
    let newest_tombstone = here.iter().map(|record| &record.version).max();
    let opened = opened.into_iter().map(|(_, version)| version).max();
    Ok(opened
        .filter(|version| newest_tombstone.is_none_or(|tombstone| *version > tombstone))
        .map(|v| (v.clone(), 0, 0)))
}
