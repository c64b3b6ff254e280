//! Segments that are put aside, so that no query sees them, and brought back.

use trilith_proto::interval::Interval;
use trilith_segment::SegmentRecord;

use crate::view::{SegmentView, UsedSegment};

/// Which segments of a datasource are meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// All.
    All,
    /// Those that lie inside an interval.
    Interval {
        /// The interval.
        interval: Interval,
        /// Only of these versions, if there are some.
        versions: Option<Vec<String>>,
    },
    /// Those with these ids.
    Ids(Vec<String>),
}

impl Selection {
    fn holds(&self, segment: &UsedSegment) -> bool {
        match self {
            Selection::All => true,
            Selection::Ids(ids) => ids.contains(&segment.id),
            Selection::Interval { interval, versions } => {
                let version = &segment.record.version;
                interval.contains(&segment.record.interval)
                    && versions
                        .as_ref()
                        .is_none_or(|versions| versions.contains(version))
            }
        }
    }

    /// Used segments to put aside.
    pub(crate) fn of_used(&self, current: &SegmentView) -> Vec<UsedSegment> {
        let meant = current.used().iter().filter(|segment| self.holds(segment));
        meant.cloned().collect()
    }

    /// Unused segments to bring back: never those that a newer one would hide.
    pub(crate) fn of_unused(&self, unused: Vec<SegmentRecord>, current: &SegmentView) -> Vec<UsedSegment> {
        let meant: Vec<UsedSegment> = unused
            .into_iter()
            .map(UsedSegment::new)
            .filter(|segment| self.holds(segment) && !current.contains(&segment.id))
            .collect();
        let after = current.changed(&meant, &[]);
        let hidden = |segment: &UsedSegment| {
            let record = &segment.record;
            after.overlapping(record.interval).any(|shown| {
                shown.record.version > record.version && shown.record.interval.contains(&record.interval)
            })
        };
        meant.into_iter().filter(|segment| !hidden(segment)).collect()
    }
}
