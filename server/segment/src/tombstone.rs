//! Tombstones: what a REPLACE leaves where it put nothing.

use std::collections::BTreeSet;

use trilith_proto::interval::{ETERNITY, Granularity, Interval};

use crate::record::SegmentRecord;
use crate::timeline::subtract;

/// Chunks to cover with tombstones, at most `max`; none when there would be more.
///
/// `overwrite` minus `published`, as far as `used` segments are there, cut into chunks.
pub fn tombstone_intervals(
    overwrite: &[Interval],
    published: &[Interval],
    used: &[SegmentRecord],
    granularity: Granularity,
    max: usize,
) -> Option<Vec<Interval>> {
    let mut chunks: BTreeSet<Interval> = BTreeSet::new();
    for drop in overwrite
        .iter()
        .flat_map(|interval| subtract(*interval, published))
    {
        for record in used {
            let Some(overlap) = record.interval.intersect(&drop) else {
                continue;
            };
            if overlap == ETERNITY || granularity == Granularity::All {
                chunks.insert(overlap);
                continue;
            }
            // An open end cannot be cut into chunks.
            if overlap.start_ms == ETERNITY.start_ms || overlap.end_ms == ETERNITY.end_ms {
                chunks.insert(overlap);
                continue;
            }
            let mut start = granularity.bucket_start(overlap.start_ms);
            while start < overlap.end_ms {
                let bucket = granularity.bucket(start);
                chunks.extend(subtract(bucket, published));
                start = bucket.end_ms;
                if chunks.len() > max {
                    return None;
                }
            }
        }
    }
    (chunks.len() <= max).then(|| chunks.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn days(start: i64, end: i64) -> Interval {
        Interval {
            start_ms: start * DAY,
            end_ms: end * DAY,
        }
    }

    #[test]
    fn covers_old_data_that_nothing_replaces() {
        let used = [
            SegmentRecord::tombstone("t", days(0, 1), "1", 0),
            SegmentRecord::tombstone("t", days(1, 2), "1", 0),
            SegmentRecord::tombstone("t", days(5, 6), "1", 0),
        ];
        let chunks = tombstone_intervals(&[days(0, 5)], &[days(1, 2)], &used, Granularity::Day, 10);
        assert_eq!(chunks, Some(vec![days(0, 1)]));
        let all = tombstone_intervals(&[ETERNITY], &[], &used, Granularity::Day, 10);
        assert_eq!(all, Some(vec![days(0, 1), days(1, 2), days(5, 6)]));
        assert_eq!(
            tombstone_intervals(&[ETERNITY], &[], &used, Granularity::Day, 2),
            None
        );
    }
}
