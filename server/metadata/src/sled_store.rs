//! The store on disk.

use std::path::Path;

use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError};
use trilith_segment::SegmentRecord;

use crate::error::MetadataError;
use crate::records::{Publish, TaskFilter, TaskPage, TaskRecord, TaskState, decode, encode, page};
use crate::store::MetadataStore;

/// Bytes of pages that sled keeps in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Trees of sled: `tasks`, `reports` and `segments` (key: datasource, a zero byte, segment id).
pub struct SledStore {
    db: sled::Db,
    tasks: sled::Tree,
    reports: sled::Tree,
    segments: sled::Tree,
}

impl SledStore {
    /// Opens or creates a store in a directory.
    pub fn open(directory: &Path) -> Result<SledStore, MetadataError> {
        let db = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE_BYTES)
            .open()?;
        let (tasks, reports, segments) = (
            db.open_tree("tasks")?,
            db.open_tree("reports")?,
            db.open_tree("segments")?,
        );
        Ok(SledStore {
            db,
            tasks,
            reports,
            segments,
        })
    }
}

fn segment_key(datasource: &str, id: &str) -> Vec<u8> {
    [datasource.as_bytes(), &[0], id.as_bytes()].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl MetadataStore for SledStore {
    fn put_task(&self, task: &TaskRecord) -> Result<(), MetadataError> {
        let bytes = encode(&task.id, task)?;
        let added = self
            .tasks
            .compare_and_swap(&task.id, None::<&[u8]>, Some(bytes))?;
        if added.is_err() {
            return Err(MetadataError::AlreadyExists(task.id.clone()));
        }
        self.db.flush()?;
        Ok(())
    }

    fn task(&self, id: &str) -> Result<Option<TaskRecord>, MetadataError> {
        self.tasks.get(id)?.map(|bytes| decode(id, &bytes)).transpose()
    }

    fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, MetadataError> {
        let mut tasks = Vec::new();
        for entry in self.tasks.iter() {
            let (key, bytes) = entry?;
            tasks.push(decode(&text(&key), &bytes)?);
        }
        Ok(page(tasks, filter))
    }

    fn report(&self, id: &str) -> Result<Option<Vec<u8>>, MetadataError> {
        Ok(self.reports.get(id)?.map(|bytes| bytes.to_vec()))
    }

    fn used_segments(&self, datasource: Option<&str>) -> Result<Vec<SegmentRecord>, MetadataError> {
        let prefix = datasource.map(|name| segment_key(name, "")).unwrap_or_default();
        let mut segments = Vec::new();
        for entry in self.segments.scan_prefix(prefix) {
            let (key, bytes) = entry?;
            segments.push(decode(&text(&key), &bytes)?);
        }
        Ok(segments)
    }

    fn publish(&self, publish: &Publish) -> Result<(), MetadataError> {
        let id = publish.task.id.as_str();
        let task = encode(id, &publish.task)?;
        let mut added = Vec::with_capacity(publish.segments.len());
        for segment in &publish.segments {
            let segment_id = segment.segment_id();
            let bytes = encode(&segment_id, segment)?;
            added.push((segment_key(&segment.datasource, &segment_id), bytes));
        }
        let removed: Vec<Vec<u8>> = publish
            .unused
            .iter()
            .map(|segment| segment_key(&publish.task.datasource, segment))
            .collect();
        let abort = |error: MetadataError| Err(ConflictableTransactionError::Abort(error));
        let result =
            (&self.tasks, &self.reports, &self.segments).transaction(|(tasks, reports, segments)| {
                let Some(known) = tasks.get(id)? else {
                    return abort(MetadataError::NotFound(id.to_owned()));
                };
                match decode::<TaskRecord>(id, &known) {
                    Ok(known) if known.state == TaskState::Running => {}
                    Ok(_) => return abort(MetadataError::Ended(id.to_owned())),
                    Err(error) => return abort(error),
                }
                tasks.insert(id, task.as_slice())?;
                reports.insert(id, publish.report.as_slice())?;
                for (key, bytes) in &added {
                    if segments.get(key.as_slice())?.is_some() {
                        return abort(MetadataError::Conflict(text(key)));
                    }
                    segments.insert(key.as_slice(), bytes.as_slice())?;
                }
                for key in &removed {
                    segments.remove(key.as_slice())?;
                }
                Ok(())
            });
        match result {
            Ok(()) => {}
            Err(TransactionError::Abort(error)) => return Err(error),
            Err(TransactionError::Storage(error)) => return Err(error.into()),
        }
        self.db.flush()?;
        Ok(())
    }
}
