//! Published segments as they were at one moment.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use trilith_proto::interval::Interval;
use trilith_segment::{SegmentRecord, visible};

/// A segment with its id, which is dear to make.
#[derive(Debug, Clone, PartialEq)]
pub struct UsedSegment {
    /// Druid's segment id.
    pub id: String,
    /// What is known of it.
    pub record: Arc<SegmentRecord>,
}

impl UsedSegment {
    /// A segment by its record.
    pub fn new(record: SegmentRecord) -> UsedSegment {
        UsedSegment {
            id: record.segment_id(),
            record: Arc::new(record),
        }
    }
}

impl Borrow<SegmentRecord> for UsedSegment {
    fn borrow(&self) -> &SegmentRecord {
        &self.record
    }
}

/// A segment of which something is visible.
#[derive(Debug, Clone, PartialEq)]
pub struct VisibleSegment {
    /// What is known of it.
    pub record: Arc<SegmentRecord>,
    /// The parts of its interval that are visible, in order of time.
    pub parts: Vec<Interval>,
}

/// The segments of one datasource. Never changes: whoever holds it sees one state of the datasource.
#[derive(Debug, Default)]
pub struct SegmentView {
    /// In order of their ids.
    used: Vec<UsedSegment>,
    visible: OnceLock<Visible>,
}

#[derive(Debug)]
struct Visible {
    /// In order of time and partition number.
    segments: Vec<VisibleSegment>,
    /// The latest end of the segments up to here.
    latest_end_ms: Vec<i64>,
}

impl SegmentView {
    /// A view of these segments.
    pub fn new(mut used: Vec<UsedSegment>) -> SegmentView {
        used.sort_by(|a, b| a.id.cmp(&b.id));
        SegmentView {
            used,
            visible: OnceLock::new(),
        }
    }

    /// Every used segment, in order of the ids.
    pub fn used(&self) -> &[UsedSegment] {
        &self.used
    }

    /// True when a segment with this id is used.
    pub fn contains(&self, id: &str) -> bool {
        self.used
            .binary_search_by(|segment| segment.id.as_str().cmp(id))
            .is_ok()
    }

    /// What queries see, in order of time and partition number. Found when it is first asked for.
    pub fn visible(&self) -> &[VisibleSegment] {
        &self.found().segments
    }

    /// Visible segments that overlap an interval, latest first.
    pub fn overlapping(&self, interval: Interval) -> impl Iterator<Item = &VisibleSegment> {
        let found = self.found();
        let end = found
            .segments
            .partition_point(|segment| segment.record.interval.start_ms < interval.end_ms);
        let reaching = found.segments[..end]
            .iter()
            .zip(&found.latest_end_ms[..end])
            .rev();
        reaching
            .take_while(move |(_, latest_end_ms)| **latest_end_ms > interval.start_ms)
            .map(|(segment, _)| segment)
            .filter(move |segment| segment.parts.iter().any(|part| part.overlaps(&interval)))
    }

    fn found(&self) -> &Visible {
        self.visible.get_or_init(|| {
            let segments: Vec<VisibleSegment> = visible(&self.used)
                .into_iter()
                .map(|(segment, parts)| VisibleSegment {
                    record: Arc::clone(&segment.record),
                    parts,
                })
                .collect();
            let latest_end_ms = segments
                .iter()
                .scan(i64::MIN, |latest, segment| {
                    *latest = segment.record.interval.end_ms.max(*latest);
                    Some(*latest)
                })
                .collect();
            Visible {
                segments,
                latest_end_ms,
            }
        })
    }

    /// The view after some segments came and others went.
    pub(crate) fn changed(&self, added: &[UsedSegment], removed: &[String]) -> SegmentView {
        let removed: HashSet<&str> = removed.iter().map(String::as_str).collect();
        let kept = self
            .used
            .iter()
            .filter(|segment| !removed.contains(segment.id.as_str()));
        SegmentView::new(kept.chain(added).cloned().collect())
    }
}

/// The views of all datasources at one moment, by name.
pub type SegmentViews = Arc<BTreeMap<String, Arc<SegmentView>>>;

/// The newest views. They follow what is committed, so that no reader has to decode records.
#[derive(Debug, Default)]
pub(crate) struct SegmentIndex {
    views: RwLock<SegmentViews>,
    /// Segments that were replaced, with their files, as long as somebody may read them.
    retired: Mutex<Vec<(Weak<SegmentRecord>, String)>>,
}

impl SegmentIndex {
    pub(crate) fn new(segments: Vec<UsedSegment>) -> SegmentIndex {
        let mut by_datasource: BTreeMap<String, Vec<UsedSegment>> = BTreeMap::new();
        for segment in segments {
            by_datasource
                .entry(segment.record.datasource.clone())
                .or_default()
                .push(segment);
        }
        let views = by_datasource
            .into_iter()
            .map(|(name, used)| (name, Arc::new(SegmentView::new(used))))
            .collect();
        SegmentIndex {
            views: RwLock::new(Arc::new(views)),
            retired: Mutex::default(),
        }
    }

    pub(crate) fn views(&self) -> SegmentViews {
        Arc::clone(&self.views.read())
    }

    pub(crate) fn view(&self, datasource: &str) -> Arc<SegmentView> {
        self.views.read().get(datasource).cloned().unwrap_or_default()
    }

    /// Makes what a job has published visible. Files of what it replaced can go when nobody reads them any more. Only
    /// one caller at a time.
    pub(crate) fn publish(&self, datasource: &str, added: &[UsedSegment], removed: &[String]) {
        let removed_ids: HashSet<&str> = removed.iter().map(String::as_str).collect();
        // A segment that got another place keeps its file.
        let kept: HashSet<&str> = added
            .iter()
            .filter_map(|segment| segment.record.path.as_deref())
            .collect();
        let view = self.view(datasource);
        let gone = view
            .used()
            .iter()
            .filter(|segment| removed_ids.contains(segment.id.as_str()));
        let retired = gone.filter_map(|segment| {
            let path = segment
                .record
                .path
                .as_ref()
                .filter(|path| !kept.contains(path.as_str()))?;
            Some((Arc::downgrade(&segment.record), path.clone()))
        });
        self.retired.lock().extend(retired);
        self.change(datasource, added, removed);
    }

    /// Files of replaced segments that no view holds any more. Says each once.
    pub(crate) fn take_unread(&self) -> Vec<String> {
        let mut retired = self.retired.lock();
        let (unread, read): (Vec<_>, Vec<_>) = retired
            .drain(..)
            .partition(|(record, _)| record.strong_count() == 0);
        *retired = read;
        unread.into_iter().map(|(_, path)| path).collect()
    }

    /// Makes a committed change visible. Only one caller at a time.
    pub(crate) fn change(&self, datasource: &str, added: &[UsedSegment], removed: &[String]) {
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let mut views = BTreeMap::clone(&self.views());
        let view = views.get(datasource).cloned().unwrap_or_default();
        views.insert(datasource.to_owned(), Arc::new(view.changed(added, removed)));
        *self.views.write() = Arc::new(views);
    }
}
