//! A store without a disk, for tests.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use trilith_segment::SegmentRecord;

use crate::error::MetadataError;
use crate::records::{Publish, TaskFilter, TaskPage, TaskRecord, TaskState, page};
use crate::store::MetadataStore;

/// Forgets everything when it is dropped.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<String, TaskRecord>,
    reports: BTreeMap<String, Vec<u8>>,
    segments: BTreeMap<String, SegmentRecord>,
}

impl MetadataStore for MemoryStore {
    fn put_task(&self, task: &TaskRecord) -> Result<(), MetadataError> {
        let mut inner = self.inner.lock();
        if inner.tasks.contains_key(&task.id) {
            return Err(MetadataError::AlreadyExists(task.id.clone()));
        }
        inner.tasks.insert(task.id.clone(), task.clone());
        Ok(())
    }

    fn task(&self, id: &str) -> Result<Option<TaskRecord>, MetadataError> {
        Ok(self.inner.lock().tasks.get(id).cloned())
    }

    fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, MetadataError> {
        Ok(page(self.inner.lock().tasks.values().cloned().collect(), filter))
    }

    fn report(&self, id: &str) -> Result<Option<Vec<u8>>, MetadataError> {
        Ok(self.inner.lock().reports.get(id).cloned())
    }

    fn used_segments(&self, datasource: Option<&str>) -> Result<Vec<SegmentRecord>, MetadataError> {
        let inner = self.inner.lock();
        let wanted = |record: &&SegmentRecord| datasource.is_none_or(|name| name == record.datasource);
        Ok(inner.segments.values().filter(wanted).cloned().collect())
    }

    fn publish(&self, publish: &Publish) -> Result<(), MetadataError> {
        let mut inner = self.inner.lock();
        let id = &publish.task.id;
        match inner.tasks.get(id) {
            None => return Err(MetadataError::NotFound(id.clone())),
            Some(task) if task.state != TaskState::Running => return Err(MetadataError::Ended(id.clone())),
            Some(_) => {}
        }
        let conflict = publish.segments.iter().map(SegmentRecord::segment_id);
        if let Some(segment) = conflict
            .into_iter()
            .find(|segment| inner.segments.contains_key(segment))
        {
            return Err(MetadataError::Conflict(segment));
        }
        inner.tasks.insert(id.clone(), publish.task.clone());
        inner.reports.insert(id.clone(), publish.report.clone());
        for segment in &publish.segments {
            inner.segments.insert(segment.segment_id(), segment.clone());
        }
        for id in &publish.unused {
            inner.segments.remove(id);
        }
        Ok(())
    }
}
