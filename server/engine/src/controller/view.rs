//! Published segments, for those who list them.

use std::sync::Arc;

use trilith_proto::column::ColumnType;
use trilith_segment::SegmentRecord;

use super::Controller;
use super::catalog::Snapshot;

/// One consistent view of what is published.
pub struct DatasourceView {
    snapshot: Snapshot,
}

impl DatasourceView {
    /// The view as of now. Blocking.
    pub fn new(controller: &Arc<Controller>) -> DatasourceView {
        DatasourceView {
            snapshot: Snapshot::new(controller),
        }
    }

    /// Names, sorted.
    pub fn datasources(&self) -> Vec<String> {
        self.snapshot.datasources()
    }

    /// Used segments of a datasource, and whether any part of each is visible.
    pub fn segments(&self, datasource: &str) -> Vec<(Arc<SegmentRecord>, bool)> {
        self.snapshot.segments(datasource)
    }

    /// Columns of a datasource, `__time` first; none if there is no such datasource.
    pub fn columns(&self, datasource: &str) -> Option<Vec<(String, ColumnType)>> {
        self.snapshot.columns(datasource)
    }
}
