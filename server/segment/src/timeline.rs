//! What a query sees: for each instant, the newest complete version.

use std::collections::{BTreeMap, BTreeSet};

use trilith_proto::interval::Interval;

use crate::record::SegmentRecord;

/// Visible segments, each with its visible parts, in order of time and partition number.
///
/// Of two versions the higher hides the lower wherever it covers it; a version of a chunk counts only
/// when all its core partitions are there.
pub fn visible(records: &[SegmentRecord]) -> Vec<(&SegmentRecord, Vec<Interval>)> {
    let mut chunks: BTreeMap<(std::cmp::Reverse<&str>, Interval), Vec<&SegmentRecord>> = BTreeMap::new();
    for record in records {
        chunks
            .entry((std::cmp::Reverse(record.version.as_str()), record.interval))
            .or_default()
            .push(record);
    }
    let mut covered: Vec<Interval> = Vec::new();
    let mut seen = Vec::new();
    // Newest first: what is not yet covered is visible.
    let mut same_version: Vec<Interval> = Vec::new();
    let mut version: Option<&str> = None;
    for ((std::cmp::Reverse(chunk_version), interval), segments) in chunks {
        if version != Some(chunk_version) {
            covered.append(&mut same_version);
            version = Some(chunk_version);
        }
        if !complete(&segments) {
            continue;
        }
        let parts = subtract(interval, &covered);
        same_version.push(interval);
        if parts.is_empty() {
            continue;
        }
        for segment in segments {
            seen.push((segment, parts.clone()));
        }
    }
    seen.sort_by(|(a, _), (b, _)| {
        (a.interval.start_ms, a.interval.end_ms, a.partition_number()).cmp(&(
            b.interval.start_ms,
            b.interval.end_ms,
            b.partition_number(),
        ))
    });
    seen
}

fn complete(segments: &[&SegmentRecord]) -> bool {
    let numbers: BTreeSet<u32> = segments
        .iter()
        .map(|segment| segment.partition_number())
        .collect();
    let core = segments
        .iter()
        .map(|segment| segment.shard_spec.core_partitions())
        .max()
        .unwrap_or(0);
    (0..core).all(|number| numbers.contains(&number))
}

/// The parts of an interval that none of the others covers, in order of time.
pub fn subtract(interval: Interval, others: &[Interval]) -> Vec<Interval> {
    let mut parts = vec![interval];
    for other in others {
        parts = parts
            .into_iter()
            .flat_map(|part| {
                if !part.overlaps(other) {
                    return vec![part];
                }
                let before = Interval {
                    start_ms: part.start_ms,
                    end_ms: other.start_ms,
                };
                let after = Interval {
                    start_ms: other.end_ms,
                    end_ms: part.end_ms,
                };
                [before, after]
                    .into_iter()
                    .filter(|part| part.start_ms < part.end_ms)
                    .collect()
            })
            .collect();
    }
    parts.sort_by_key(|part| part.start_ms);
    parts
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
