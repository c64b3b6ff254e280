//! What a query sees: for each instant, the newest complete version.

use std::borrow::Borrow;

use trilith_proto::interval::Interval;

use crate::coverage::Coverage;
use crate::record::SegmentRecord;

/// Visible segments, each with its visible parts, in order of time and partition number.
///
/// Of two versions the higher hides the lower wherever it covers it; a version of a chunk counts only
/// when all its core partitions are there. Takes n log n steps for n segments.
pub fn visible<R: Borrow<SegmentRecord>>(records: &[R]) -> Vec<(&R, Vec<Interval>)> {
    let mut order: Vec<&R> = records.iter().collect();
    order.sort_by(|a, b| {
        let (a, b) = ((*a).borrow(), (*b).borrow());
        let chunk = (&b.version, a.interval).cmp(&(&a.version, b.interval));
        chunk.then_with(|| a.partition_number().cmp(&b.partition_number()))
    });
    let mut covered = Coverage::default();
    let mut seen = Vec::new();
    // Newest first: what is not yet covered is visible.
    for version in order.chunk_by(|a, b| (*a).borrow().version == (*b).borrow().version) {
        let mut shown = Vec::new();
        for chunk in version.chunk_by(|a, b| (*a).borrow().interval == (*b).borrow().interval) {
            let Some(interval) = complete(chunk) else {
                continue;
            };
            shown.push(interval);
            let parts = covered.missing(interval);
            if !parts.is_empty() {
                seen.extend(chunk.iter().map(|segment| (*segment, parts.clone())));
            }
        }
        // Chunks of one version do not hide each other.
        for interval in shown {
            covered.add(interval);
        }
    }
    seen.sort_by_key(|(segment, _)| {
        let segment: &SegmentRecord = (*segment).borrow();
        (segment.interval, segment.partition_number())
    });
    seen
}

/// The interval of a chunk, in the order of partition numbers, if none of its core partitions is missing.
fn complete<R: Borrow<SegmentRecord>>(chunk: &[&R]) -> Option<Interval> {
    let mut missing_from = 0;
    let mut core = 0;
    for segment in chunk {
        let segment: &SegmentRecord = (*segment).borrow();
        if segment.partition_number() == missing_from {
            missing_from += 1;
        }
        core = core.max(segment.shard_spec.core_partitions());
    }
    let first: &SegmentRecord = (*chunk.first()?).borrow();
    (missing_from >= core).then_some(first.interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard_spec::ShardSpec;

    fn segment(start: i64, end: i64, version: &str, number: u32, core: u32) -> SegmentRecord {
        SegmentRecord {
            shard_spec: ShardSpec::Numbered {
                partition_num: number,
                partitions: core,
            },
            row_count: 1,
            ..SegmentRecord::tombstone(
                "t",
                Interval {
                    start_ms: start,
                    end_ms: end,
                },
                version,
                0,
            )
        }
    }

    type Shown = (String, u32, Vec<(i64, i64)>);

    fn shown(records: &[SegmentRecord]) -> Vec<Shown> {
        visible(records)
            .into_iter()
            .map(|(record, parts)| {
                let parts = parts.iter().map(|part| (part.start_ms, part.end_ms)).collect();
                (record.version.clone(), record.partition_number(), parts)
            })
            .collect()
    }

    #[test]
    fn newer_versions_hide_older_ones_where_they_cover_them() {
        let records = [segment(0, 30, "1", 0, 1), segment(10, 20, "2", 0, 1)];
        let expected = [
            ("1".to_owned(), 0, vec![(0, 10), (20, 30)]),
            ("2".to_owned(), 0, vec![(10, 20)]),
        ];
        assert_eq!(shown(&records), expected);
    }

    #[test]
    fn an_incomplete_version_is_invisible() {
        let records = [segment(0, 10, "1", 0, 1), segment(0, 10, "2", 0, 2)];
        assert_eq!(shown(&records), [("1".to_owned(), 0, vec![(0, 10)])]);
    }

    #[test]
    fn appended_partitions_show_with_their_chunk() {
        let records = [
            segment(0, 10, "1", 0, 1),
            segment(0, 10, "1", 1, 1),
            segment(0, 10, "1", 2, 1),
        ];
        assert_eq!(shown(&records).len(), 3);
    }

    #[test]
    fn a_tombstone_hides_what_was_there() {
        let interval = Interval {
            start_ms: 0,
            end_ms: 10,
        };
        let records = [
            segment(0, 10, "1", 0, 1),
            SegmentRecord::tombstone("t", interval, "2", 0),
        ];
        let shown = visible(&records);
        assert_eq!(shown.len(), 1);
        assert!(shown[0].0.is_tombstone());
    }
}
