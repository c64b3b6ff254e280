//! What every metadata store does. Calls block; callers on an async thread use `spawn_blocking`.

use std::sync::Arc;

use trilith_proto::interval::Interval;
use trilith_segment::SegmentRecord;

use crate::error::MetadataError;
use crate::mark::Selection;
use crate::records::{Publish, TaskFilter, TaskPage, TaskRecord};
use crate::view::{SegmentView, SegmentViews};

/// Tasks, reports and segments. Whatever returned `Ok` survives a crash.
pub trait MetadataStore: Send + Sync {
    /// Adds a task. Fails with `AlreadyExists` when the id is taken.
    fn put_task(&self, task: &TaskRecord) -> Result<(), MetadataError>;

    /// A task by id.
    fn task(&self, id: &str) -> Result<Option<TaskRecord>, MetadataError>;

    /// Tasks, newest first.
    fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, MetadataError>;

    /// The final report of a task.
    fn report(&self, id: &str) -> Result<Option<Vec<u8>>, MetadataError>;

    /// The segments of one datasource as they are now. Does not block.
    fn segments(&self, datasource: &str) -> Arc<SegmentView>;

    /// The segments of all datasources at one moment. Does not block.
    fn all_segments(&self) -> SegmentViews;

    /// Takes a running task up again: its next run begins, and earlier runs cannot end it any more.
    /// Fails with `NotFound` or `Ended` when the task does not run.
    fn rerun_task(&self, id: &str) -> Result<TaskRecord, MetadataError>;

    /// Notes how far a stage of a running task is, in place of what was noted before, for
    /// whoever runs the task again. Gone when the task ends.
    fn put_checkpoint(&self, task: &str, stage: u32, bytes: &[u8]) -> Result<(), MetadataError>;

    /// What was noted of a task, by stage.
    fn checkpoints(&self, task: &str) -> Result<Vec<Vec<u8>>, MetadataError>;

    /// Ends a running task: its record, its report and its segments, all or nothing.
    /// Fails with `NotFound` or `Ended` when the task does not run, with `OtherRun` for an earlier run of it, and with
    /// `NotLocked` when its locks do not cover its segments. Where appended segments stand is decided here, against
    /// what is there by then.
    fn publish(&self, publish: &Publish) -> Result<(), MetadataError>;

    /// Files of segments that a REPLACE took the place of, and that no view holds any more. Says each once; what is
    /// forgotten here goes when the process starts again.
    fn take_unread_files(&self) -> Vec<String>;

    /// Puts used segments of a datasource aside. Returns how many.
    fn mark_unused(&self, datasource: &str, selection: &Selection) -> Result<usize, MetadataError>;

    /// Brings unused segments of a datasource back, but none that a newer one would hide. Returns how many.
    fn mark_used(&self, datasource: &str, selection: &Selection) -> Result<usize, MetadataError>;

    /// Segments of a datasource, or of all, that were put aside, in order of their ids.
    fn unused(&self, datasource: Option<&str>) -> Result<Vec<SegmentRecord>, MetadataError>;

    /// Forgets the unused segments of a datasource inside an interval. Returns them: their files are nobody's now.
    fn forget_unused(
        &self,
        datasource: &str,
        interval: Interval,
    ) -> Result<Vec<SegmentRecord>, MetadataError>;
}
