//! Partition numbers for appended segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use trilith_proto::interval::Interval;
use trilith_segment::ShardSpec;

use crate::view::{SegmentView, VisibleSegment};

/// What an append gets for one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Version of the chunk.
    pub version: String,
    /// Number within it.
    pub shard_spec: ShardSpec,
}

/// The chunk overlaps segments of another granularity.
#[derive(Debug, thiserror::Error)]
#[error("time chunk {wanted} overlaps segments of another granularity")]
pub struct Covered {
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

/// (task, number) by datasource, then by interval and version.
type Pending = BTreeMap<String, BTreeMap<(Interval, String), Vec<(String, u32)>>>;

impl Allocator {
    /// Places for the segments of a job: as many per chunk as asked for, in the order of `chunks`.
    ///
    /// `current` gives the segments of the datasource. It is called while no other append can be given a place,
    /// so that what it returns holds for all of them: whoever publishes afterwards is still pending.
    /// `version` is for chunks that are empty; `joins_tombstones` says that an append to a chunk of tombstones
    /// takes their version, as it must when a running REPLACE is to find it below its own.
    pub fn allocate_all(
        &self,
        task: &str,
        datasource: &str,
        chunks: &[(Interval, usize)],
        version: &str,
        joins_tombstones: bool,
        current: impl FnOnce() -> Arc<SegmentView>,
    ) -> Result<Vec<Allocation>, Covered> {
        let mut pending = self.pending.lock();
        let current = current();
        let mut allocations = Vec::new();
        for (chunk, count) in chunks {
            let known = known_chunk(&pending, datasource, *chunk, &current, joins_tombstones)?;
            // Rows appended after a tombstone must not be hidden by it: the chunk gets a new version.
            let (chunk_version, core, next) = known.unwrap_or_else(|| (version.to_owned(), 0, 0));
            let numbers = pending
                .entry(datasource.to_owned())
                .or_default()
                .entry((*chunk, chunk_version.clone()))
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
        self.pending.lock().retain(|_, chunks| {
            chunks.retain(|_, numbers| {
                numbers.retain(|(owner, _)| owner != task);
                !numbers.is_empty()
            });
            !chunks.is_empty()
        });
    }
}

/// Version, core partitions and next number of a chunk that has rows, or will have some soon.
fn known_chunk(
    pending: &Pending,
    datasource: &str,
    chunk: Interval,
    current: &SegmentView,
    joins_tombstones: bool,
) -> Result<Option<(String, u32, u32)>, Covered> {
    let here: Vec<&VisibleSegment> = current.overlapping(chunk).collect();
    let opened: Vec<(Interval, &String)> = pending
        .get(datasource)
        .into_iter()
        .flat_map(|chunks| chunks.keys())
        .filter(|(interval, _)| interval.overlaps(&chunk))
        .map(|(interval, version)| (*interval, version))
        .collect();
    let intervals = here.iter().map(|segment| segment.record.interval);
    let mut intervals = intervals.chain(opened.iter().map(|(interval, _)| *interval));
    if let Some(other) = intervals.find(|interval| *interval != chunk) {
        let allocated = other.contains(&chunk).then_some(other);
        return Err(Covered {
            wanted: chunk,
            allocated,
        });
    }
    let behind = |segment: &&VisibleSegment| {
        let record = &segment.record;
        let numbers = here.iter().map(|segment| segment.record.partition_number());
        let next = numbers.max().map_or(0, |last| last + 1);
        (record.version.clone(), record.shard_spec.core_partitions(), next)
    };
    let joined = here
        .iter()
        .find(|segment| joins_tombstones || !segment.record.is_tombstone());
    if let Some(place) = joined.map(behind) {
        return Ok(Some(place));
    }
    let newest_tombstone = here.iter().map(|segment| &segment.record.version).max();
    let opened = opened.into_iter().map(|(_, version)| version).max();
    Ok(opened
        .filter(|version| newest_tombstone.is_none_or(|tombstone| *version > tombstone))
        .map(|v| (v.clone(), 0, 0)))
}
