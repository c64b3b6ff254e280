//! Tombstones: what a REPLACE leaves where it put nothing.

use std::collections::BTreeSet;

use trilith_proto::interval::{ETERNITY, Granularity, Interval};

use crate::coverage::Coverage;

/// Chunks to cover with tombstones, at most `max`; none when there would be more.
///
/// `overwrite` minus `published`, as far as `used` intervals of segments are there, cut into chunks.
pub fn tombstone_intervals(
    overwrite: &[Interval],
    published: &Coverage,
    used: impl IntoIterator<Item = Interval>,
    granularity: Granularity,
    max: usize,
) -> Option<Vec<Interval>> {
    let dropped: Coverage = overwrite
        .iter()
        .flat_map(|interval| published.missing(*interval))
        .collect();
    let overlaps: BTreeSet<Interval> = used
        .into_iter()
        .flat_map(|interval| dropped.shared(interval))
        .collect();
    let mut chunks: BTreeSet<Interval> = BTreeSet::new();
    for overlap in overlaps {
        // An open end cannot be cut into chunks.
        let open = overlap.start_ms == ETERNITY.start_ms || overlap.end_ms == ETERNITY.end_ms;
        if open || granularity == Granularity::All {
            chunks.insert(overlap);
        } else {
            let mut start = granularity.bucket_start(overlap.start_ms);
            while start < overlap.end_ms && chunks.len() <= max {
                let bucket = granularity.bucket(start);
                chunks.extend(published.missing(bucket));
                start = bucket.end_ms;
            }
        }
        if chunks.len() > max {
            return None;
        }
    }
    Some(chunks.into_iter().collect())
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
        let used = [days(0, 1), days(1, 2), days(1, 2), days(5, 6)];
        let intervals = |overwrite, published: &[Interval], max| {
            let published = published.iter().copied().collect();
            tombstone_intervals(&[overwrite], &published, used, Granularity::Day, max)
        };
        assert_eq!(intervals(days(0, 5), &[days(1, 2)], 10), Some(vec![days(0, 1)]));
        assert_eq!(
            intervals(ETERNITY, &[], 10),
            Some(vec![days(0, 1), days(1, 2), days(5, 6)])
        );
        assert_eq!(intervals(ETERNITY, &[], 2), None);
    }
}
