//! What every metadata store does. Calls block; callers on an async thread use `spawn_blocking`.

use trilith_segment::SegmentRecord;

use crate::error::MetadataError;
use crate::records::{Publish, TaskFilter, TaskPage, TaskRecord};

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

    /// Used segments of one datasource or of all.
    fn used_segments(&self, datasource: Option<&str>) -> Result<Vec<SegmentRecord>, MetadataError>;

    /// Ends a running task: its record, its report and its segments, all or nothing.
    /// Fails with `NotFound` or `Ended` when the task does not run.
    fn publish(&self, publish: &Publish) -> Result<(), MetadataError>;
}
