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
        chunks.entry((std::cmp::Reverse(record.version.as_str()), record.interval)).or_default().push(record);
    }
    let mut covered = Coverage::default();
    let mut seen = Vec::new();
    // Newest first: what is not yet covered is visible.
    let mut same_version: Vec<Interval> = Vec::new();
    let mut version: Option<&str> = None;
    for ((std::cmp::Reverse(chunk_version), interval), segments) in chunks {
        if version != Some(chunk_version) {
            same_version.drain(..).for_each(|interval| covered.add(interval));
            version = Some(chunk_version);
        }
        if !complete(&segments) {
            continue;
        }
        let parts = covered.uncovered(interval);
        same_version.push(interval);
        if parts.is_empty() {
            continue;
        }
        for segment in segments {
            seen.push((segment, parts.clone()));
        }
    }
    seen.sort_by(|(a, _), (b, _)| {
        (a.interval.start_ms, a.interval.end_ms, a.partition_number())
            .cmp(&(b.interval.start_ms, b.interval.end_ms, b.partition_number()))
    });
    seen
}

fn complete(segments: &[&SegmentRecord]) -> bool {
    let numbers: BTreeSet<u32> = segments.iter().map(|segment| segment.partition_number()).collect();
    let core = segments.iter().map(|segment| segment.shard_spec.core_partitions()).max().unwrap_or(0);
    (0..core).all(|number| numbers.contains(&number))
}

/// Time that is covered, as disjoint intervals: start to end.
#[derive(Default)]
struct Coverage(BTreeMap<i64, i64>);

impl Coverage {
    /// Starts of the intervals that share an instant with `interval` or touch it.
    fn touching(&self, interval: Interval) -> impl Iterator<Item = (i64, i64)> + '_ {
        let first = self.0.range(..=interval.start_ms).next_back().map_or(interval.start_ms, |found| *found.0);
        self.0
            .range(first..=interval.end_ms)
            .map(|(start, end)| (*start, *end))
            .filter(move |(_, end)| *end >= interval.start_ms)
    }

    fn add(&mut self, interval: Interval) {
        let touching: Vec<(i64, i64)> = self.touching(interval).collect();
        let mut whole = interval;
        for (start, end) in touching {
            self.0.remove(&start);
            whole = Interval { start_ms: whole.start_ms.min(start), end_ms: whole.end_ms.max(end) };
        }
        self.0.insert(whole.start_ms, whole.end_ms);
    }

    /// The parts of an interval that are not covered, in order of time.
    fn uncovered(&self, interval: Interval) -> Vec<Interval> {
        let mut parts = Vec::new();
        let mut from = interval.start_ms;
        for (start, end) in self.touching(interval) {
            if from < start.min(interval.end_ms) {
                parts.push(Interval { start_ms: from, end_ms: start.min(interval.end_ms) });
            }
            from = from.max(end);
        }
        if from < interval.end_ms {
            parts.push(Interval { start_ms: from, end_ms: interval.end_ms });
        }
        parts
    }
}

/// The parts of an interval that none of the others covers, in order of time.
pub fn subtract(interval: Interval, others: &[Interval]) -> Vec<Interval> {
    let mut covered = Coverage::default();
    others.iter().filter(|other| !other.is_empty()).for_each(|other| covered.add(*other));
    covered.uncovered(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard_spec::ShardSpec;

    fn segment(start: i64, end: i64, version: &str, number: u32, core: u32) -> SegmentRecord {
        SegmentRecord {
            shard_spec: ShardSpec::Numbered { partition_num: number, partitions: core },
            row_count: 1,
            ..SegmentRecord::tombstone("t", Interval { start_ms: start, end_ms: end }, version, 0)
        }
    }

    fn shown(records: &[SegmentRecord]) -> Vec<(String, u32, Vec<(i64, i64)>)> {
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
    fn subtracts_what_overlaps_touches_and_repeats() {
        let span = |start_ms, end_ms| Interval { start_ms, end_ms };
        let others = [span(5, 10), span(8, 12), span(12, 14), span(-5, 0), span(20, 30), span(25, 26)];
        assert_eq!(subtract(span(0, 25), &others), [span(0, 5), span(14, 20)]);
        assert_eq!(subtract(span(6, 13), &others), []);
        assert_eq!(subtract(span(14, 20), &others), [span(14, 20)]);
        assert_eq!(subtract(span(0, 5), &[]), [span(0, 5)]);
    }

    /// Against the definition, instant by instant, on many small histories.
    #[test]
    fn shows_the_newest_complete_version_of_every_instant() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..500 {
            let records: Vec<SegmentRecord> = (0..random(8))
                .flat_map(|version| {
                    let start = random(10) as i64;
                    let end = start + 1 + random(6) as i64;
                    let (core, there) = (random(3) as u32, 1 + random(2) as u32);
                    (0..there).map(move |number| segment(start, end, &version.to_string(), number, core))
                })
                .collect();
            let shown = visible(&records);
            for ms in 0..20 {
                let newest = records
                    .iter()
                    .filter(|record| record.interval.contains_ms(ms))
                    .filter(|record| {
                        let core = record.shard_spec.core_partitions();
                        let there = records.iter().filter(|other| other.version == record.version).count();
                        there >= core as usize
                    })
                    .map(|record| record.version.as_str())
                    .max();
                let expected = records
                    .iter()
                    .filter(|record| Some(record.version.as_str()) == newest && record.interval.contains_ms(ms))
                    .count();
                let seen: Vec<_> = shown
                    .iter()
                    .filter(|(_, parts)| parts.iter().any(|part| part.contains_ms(ms)))
                    .collect();
                assert_eq!(seen.len(), expected, "{records:?} at {ms}");
                assert!(seen.iter().all(|(record, _)| Some(record.version.as_str()) == newest));
            }
        }
    }

    #[test]
    fn an_incomplete_version_is_invisible() {
        let records = [segment(0, 10, "1", 0, 1), segment(0, 10, "2", 0, 2)];
        assert_eq!(shown(&records), [("1".to_owned(), 0, vec![(0, 10)])]);
    }

    #[test]
    fn appended_partitions_show_with_their_chunk() {
        let records = [segment(0, 10, "1", 0, 1), segment(0, 10, "1", 1, 1), segment(0, 10, "1", 2, 1)];
        assert_eq!(shown(&records).len(), 3);
    }

    #[test]
    fn a_tombstone_hides_what_was_there() {
        let interval = Interval { start_ms: 0, end_ms: 10 };
        let records = [segment(0, 10, "1", 0, 1), SegmentRecord::tombstone("t", interval, "2", 0)];
        let shown = visible(&records);
        assert_eq!(shown.len(), 1);
        assert!(shown[0].0.is_tombstone());
    }
}
