//! What a job changes among the segments of its datasource, decided when it is committed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use trilith_proto::interval::{Granularity, Interval};
use trilith_segment::{Coverage, SegmentRecord, ShardSpec, tombstone_intervals};

use crate::error::MetadataError;
use crate::locks::PublishPermit;
use crate::view::{SegmentView, UsedSegment};

/// Segments that become visible, with the locks that allow it.
#[derive(Debug, Clone, Default)]
pub enum Change {
    /// Nothing changes: a failure, a SELECT, an INSERT of no rows.
    #[default]
    None,
    /// Segments join what is visible.
    Append(Append),
    /// Segments take the place of what was there.
    Replace(Replace),
}

/// Segments of an INSERT.
#[derive(Debug, Clone)]
pub struct Append {
    /// Locks on their time chunks.
    pub permit: PublishPermit,
    /// With the places that they were given. A chunk that was replaced meanwhile gives them new ones.
    pub segments: Vec<SegmentRecord>,
}

/// Segments of a REPLACE.
#[derive(Debug, Clone)]
pub struct Replace {
    /// Locks on all that is overwritten.
    pub permit: PublishPermit,
    /// New segments.
    pub segments: Vec<SegmentRecord>,
    /// What is overwritten.
    pub overwrite: Vec<Interval>,
    /// Chunks of the tombstones.
    pub granularity: Granularity,
    /// Version of the lock.
    pub version: String,
    /// The datasource as the REPLACE found it when it had its locks. What was appended since stays.
    pub base: Arc<SegmentView>,
    /// More tombstones are an error.
    pub tombstones_max: usize,
    /// Milliseconds since the epoch, for the tombstones.
    pub created_ms: i64,
}

/// What a change comes to.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// New records.
    pub added: Vec<UsedSegment>,
    /// Ids of records of which nothing is visible any more.
    pub removed: Vec<String>,
}

impl Change {
    /// Files of the new segments.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let segments = match self {
            Change::None => &[],
            Change::Append(append) => append.segments.as_slice(),
            Change::Replace(replace) => replace.segments.as_slice(),
        };
        segments.iter().filter_map(|segment| segment.path.as_deref())
    }

    /// Segments, tombstones among them, that it adds as things are now; none if it adds nothing.
    pub fn added_count(&self, datasource: &str, current: &SegmentView) -> Option<usize> {
        let resolved = self.resolve(datasource, current, &[]).ok()?;
        Some(resolved.added.len()).filter(|count| *count > 0)
    }

    /// Decides against the segments as they are now: nothing may change them before this is committed. The places of
    /// `unused` segments stay theirs.
    pub(crate) fn resolve(
        &self,
        datasource: &str,
        current: &SegmentView,
        unused: &[SegmentRecord],
    ) -> Result<Resolved, MetadataError> {
        let (permit, segments) = match self {
            Change::None => return Ok(Resolved::default()),
            Change::Append(append) => (&append.permit, &append.segments),
            Change::Replace(replace) => (&replace.permit, &replace.segments),
        };
        let unlocked = segments.iter().find(|segment| {
            segment.datasource != datasource || !permit.covers(datasource, &segment.interval)
        });
        if let Some(segment) = unlocked {
            return Err(MetadataError::NotLocked(segment.segment_id()));
        }
        match self {
            Change::None => Ok(Resolved::default()),
            Change::Append(append) => Ok(append.resolve(current, unused)),
            Change::Replace(replace) => replace.resolve(datasource, current),
        }
    }
}

/// Partition numbers of the chunks of every version.
#[derive(Default)]
struct Places<'a> {
    chunks: HashMap<(Interval, &'a str), Place>,
}

#[derive(Default)]
struct Place {
    numbers: BTreeSet<u32>,
    core: u32,
}

impl<'a> Places<'a> {
    fn of(records: impl IntoIterator<Item = &'a SegmentRecord>) -> Places<'a> {
        let mut places = Places::default();
        for record in records {
            let place = places.occupy(record);
            place.core = place.core.max(record.shard_spec.core_partitions());
        }
        places
    }

    /// Takes the place of a segment that was put aside; nobody waits for it as a part of its chunk.
    fn occupy(&mut self, record: &'a SegmentRecord) -> &mut Place {
        let chunk = (record.interval, record.version.as_str());
        let place = self.chunks.entry(chunk).or_default();
        place.numbers.insert(record.partition_number());
        place
    }

    /// A place in a chunk, behind all that are taken, if the wanted one is.
    fn take(&mut self, interval: Interval, version: &'a str, wanted: Option<u32>) -> (u32, u32) {
        let place = self.chunks.entry((interval, version)).or_default();
        let behind = place.numbers.last().map_or(0, |last| last + 1);
        let number = wanted
            .filter(|number| !place.numbers.contains(number))
            .unwrap_or(behind);
        place.numbers.insert(number);
        (number, place.core)
    }
}

fn placed(record: &SegmentRecord, version: &str, (number, core): (u32, u32)) -> UsedSegment {
    UsedSegment::new(SegmentRecord {
        version: version.to_owned(),
        shard_spec: ShardSpec::Numbered {
            partition_num: number,
            partitions: core,
        },
        ..record.clone()
    })
}

impl Append {
    fn resolve(&self, current: &SegmentView, unused: &[SegmentRecord]) -> Resolved {
        let used = current.used().iter().map(|segment| segment.record.as_ref());
        let mut places = Places::of(used);
        for record in unused {
            places.occupy(record);
        }
        let mut added = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let own = segment.version.as_str();
            let there = current
                .overlapping(segment.interval)
                .map(|shown| shown.record.version.as_str());
            // Replaced since the place was given: rows under the old version would be hidden.
            let (version, wanted) = match there.max().filter(|newest| *newest > own) {
                Some(newest) => (newest, None),
                None => (own, Some(segment.partition_number())),
            };
            let place = places.take(segment.interval, version, wanted);
            added.push(placed(segment, version, place));
        }
        Resolved {
            added,
            removed: Vec::new(),
        }
    }
}

impl Replace {
    fn resolve(&self, datasource: &str, current: &SegmentView) -> Result<Resolved, MetadataError> {
        let published: Coverage = self.segments.iter().map(|segment| segment.interval).collect();
        let tombstones = tombstone_intervals(
            &self.overwrite,
            &published,
            self.base.used().iter().map(|segment| segment.record.interval),
            self.granularity,
            self.tombstones_max,
        )
        .ok_or(MetadataError::TooManyTombstones(self.tombstones_max))?;
        let tombstones = tombstones
            .into_iter()
            .map(|interval| SegmentRecord::tombstone(datasource, interval, &self.version, self.created_ms));
        let new: Vec<SegmentRecord> = self.segments.iter().cloned().chain(tombstones).collect();
        let mut places = Places::of(&new);
        let mut added = Vec::new();
        for segment in self.appended(current) {
            let place = places.take(segment.interval, &self.version, None);
            added.push(placed(segment, &self.version, place));
        }
        added.extend(new.into_iter().map(UsedSegment::new));
        let taken = added.iter().find(|segment| current.contains(&segment.id));
        if let Some(segment) = taken {
            return Err(MetadataError::Conflict(segment.id.clone()));
        }
        let after = current.changed(&added, &[]);
        let visible: HashSet<*const SegmentRecord> = after
            .visible()
            .iter()
            .map(|segment| Arc::as_ptr(&segment.record))
            .collect();
        let hidden = |segment: &&UsedSegment| !visible.contains(&Arc::as_ptr(&segment.record));
        let removed = current.used().iter().filter(hidden);
        Ok(Resolved {
            removed: removed.map(|segment| segment.id.clone()).collect(),
            added,
        })
    }

    /// Segments that came into the overwritten intervals after the REPLACE had its locks.
    fn appended<'a>(&'a self, current: &'a SegmentView) -> impl Iterator<Item = &'a SegmentRecord> {
        let inside = |record: &SegmentRecord| {
            let mut overwrite = self.overwrite.iter();
            overwrite.any(|interval| interval.contains(&record.interval))
        };
        current
            .used()
            .iter()
            .filter(|segment| !self.base.contains(&segment.id))
            .map(|segment| segment.record.as_ref())
            .filter(move |record| !record.is_tombstone() && inside(record))
    }
}
