//! A store without a disk, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use trilith_proto::interval::Interval;
use trilith_segment::SegmentRecord;

use crate::error::MetadataError;
use crate::mark::Selection;
use crate::records::{Publish, TaskFilter, TaskPage, TaskRecord, TaskState, other_run, page};
use crate::store::MetadataStore;
use crate::view::{SegmentIndex, SegmentView, SegmentViews};

/// Forgets everything when it is dropped.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    segments: SegmentIndex,
}

#[derive(Default)]
struct Inner {
    tasks: BTreeMap<String, TaskRecord>,
    reports: BTreeMap<String, Vec<u8>>,
    checkpoints: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    /// Segments that were put aside, by datasource and id.
    unused: BTreeMap<(String, String), SegmentRecord>,
}

impl Inner {
    fn unused_of(&self, datasource: Option<&str>) -> Vec<SegmentRecord> {
        let wanted = |name: &str| datasource.is_none_or(|wanted| wanted == name);
        let unused = self.unused.iter().filter(|((name, _), _)| wanted(name));
        unused.map(|(_, record)| record.clone()).collect()
    }
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

    fn segments(&self, datasource: &str) -> Arc<SegmentView> {
        self.segments.view(datasource)
    }

    fn all_segments(&self) -> SegmentViews {
        self.segments.views()
    }

    fn rerun_task(&self, id: &str) -> Result<TaskRecord, MetadataError> {
        let mut inner = self.inner.lock();
        let task = inner.tasks.get_mut(id);
        let task = task.ok_or_else(|| MetadataError::NotFound(id.to_owned()))?;
        if task.state != TaskState::Running {
            return Err(MetadataError::Ended(id.to_owned()));
        }
        task.run += 1;
        Ok(task.clone())
    }

    fn put_checkpoint(&self, task: &str, stage: u32, bytes: &[u8]) -> Result<(), MetadataError> {
        let mut inner = self.inner.lock();
        let stages = inner.checkpoints.entry(task.to_owned()).or_default();
        stages.insert(stage, bytes.to_vec());
        Ok(())
    }

    fn checkpoints(&self, task: &str) -> Result<Vec<Vec<u8>>, MetadataError> {
        let inner = self.inner.lock();
        let stages = inner.checkpoints.get(task);
        Ok(stages
            .map(|stages| stages.values().cloned().collect())
            .unwrap_or_default())
    }

    fn publish(&self, publish: &Publish) -> Result<(), MetadataError> {
        let mut inner = self.inner.lock();
        let id = &publish.task.id;
        match inner.tasks.get(id) {
            None => return Err(MetadataError::NotFound(id.clone())),
            Some(task) if task.state != TaskState::Running => return Err(MetadataError::Ended(id.clone())),
            Some(task) if task.run != publish.task.run => return Err(other_run(task, publish.task.run)),
            Some(_) => {}
        }
        let datasource = publish.task.datasource.as_str();
        let change = publish.change.resolve(
            datasource,
            &self.segments.view(datasource),
            &inner.unused_of(Some(datasource)),
        )?;
        inner.tasks.insert(id.clone(), publish.task.clone());
        inner.reports.insert(id.clone(), publish.report.clone());
        inner.checkpoints.remove(id);
        self.segments.publish(datasource, &change.added, &change.removed);
        Ok(())
    }

    fn take_unread_files(&self) -> Vec<String> {
        self.segments.take_unread()
    }

    fn mark_unused(&self, datasource: &str, selection: &Selection) -> Result<usize, MetadataError> {
        let mut inner = self.inner.lock();
        let moved = selection.of_used(&self.segments.view(datasource));
        for segment in &moved {
            let key = (datasource.to_owned(), segment.id.clone());
            inner.unused.insert(key, segment.record.as_ref().clone());
        }
        let removed: Vec<String> = moved.into_iter().map(|segment| segment.id).collect();
        self.segments.change(datasource, &[], &removed);
        Ok(removed.len())
    }

    fn mark_used(&self, datasource: &str, selection: &Selection) -> Result<usize, MetadataError> {
        let mut inner = self.inner.lock();
        let unused = inner.unused_of(Some(datasource));
        let moved = selection.of_unused(unused, &self.segments.view(datasource));
        for segment in &moved {
            inner.unused.remove(&(datasource.to_owned(), segment.id.clone()));
        }
        self.segments.change(datasource, &moved, &[]);
        Ok(moved.len())
    }

    fn unused(&self, datasource: Option<&str>) -> Result<Vec<SegmentRecord>, MetadataError> {
        Ok(self.inner.lock().unused_of(datasource))
    }

    fn forget_unused(
        &self,
        datasource: &str,
        interval: Interval,
    ) -> Result<Vec<SegmentRecord>, MetadataError> {
        let mut inner = self.inner.lock();
        let mut gone = inner.unused_of(Some(datasource));
        gone.retain(|record| interval.contains(&record.interval));
        for record in &gone {
            inner.unused.remove(&(datasource.to_owned(), record.segment_id()));
        }
        Ok(gone)
    }
}
