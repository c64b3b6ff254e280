//! The store on disk.

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError};
use trilith_proto::interval::Interval;
use trilith_segment::SegmentRecord;

use crate::error::MetadataError;
use crate::mark::Selection;
use crate::records::{Publish, TaskFilter, TaskPage, TaskRecord, TaskState, decode, encode, other_run, page};
use crate::store::MetadataStore;
use crate::view::{SegmentIndex, SegmentView, SegmentViews, UsedSegment};

/// Bytes of pages that sled keeps in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// Trees of sled: `tasks`, `reports`, `segments` and `unused` (key: datasource, a zero byte, segment id), and
/// `checkpoints` of running tasks (key: task, a zero byte, stage).
pub struct SledStore {
    db: sled::Db,
    tasks: sled::Tree,
    reports: sled::Tree,
    segments: sled::Tree,
    checkpoints: sled::Tree,
    /// Segments that were put aside.
    unused: sled::Tree,
    /// What `segments` holds, decoded.
    index: SegmentIndex,
    /// Held from deciding on a change until it is committed and in the index.
    publishing: Mutex<()>,
    /// A task whose end is committed, but not yet on disk and in the index: until then it is as it was.
    ending: RwLock<Option<TaskRecord>>,
}

impl SledStore {
    /// Opens or creates a store in a directory.
    pub fn open(directory: &Path) -> Result<SledStore, MetadataError> {
        let db = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE_BYTES)
            .open()?;
        let (tasks, reports, segments, unused) = (
            db.open_tree("tasks")?,
            db.open_tree("reports")?,
            db.open_tree("segments")?,
            db.open_tree("unused")?,
        );
        let checkpoints = db.open_tree("checkpoints")?;
        let mut used = Vec::new();
        for entry in segments.iter() {
            let (key, bytes) = entry?;
            used.push(UsedSegment::new(decode(&text(&key), &bytes)?));
        }
        // A process that was killed while it ended a task may have left some.
        for key in checkpoints.iter().keys() {
            let key = key?;
            let task = text(key.split(|byte| *byte == 0).next().unwrap_or_default());
            let known = tasks.get(&task)?;
            let known = known
                .map(|bytes| decode::<TaskRecord>(&task, &bytes))
                .transpose()?;
            if known.is_none_or(|known| known.state != TaskState::Running) {
                checkpoints.remove(key)?;
            }
        }
        Ok(SledStore {
            db,
            tasks,
            reports,
            segments,
            checkpoints,
            unused,
            index: SegmentIndex::new(used),
            publishing: Mutex::new(()),
            ending: RwLock::new(None),
        })
    }
}

fn segment_key(datasource: &str, id: &str) -> Vec<u8> {
    [datasource.as_bytes(), &[0], id.as_bytes()].concat()
}

fn checkpoints_prefix(task: &str) -> Vec<u8> {
    [task.as_bytes(), &[0]].concat()
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
        let found = self.tasks.get(id)?;
        // In this order: what is not ending any more by now has ended for everybody.
        if let Some(before) = self.ending.read().as_ref().filter(|task| task.id == id) {
            return Ok(Some(before.clone()));
        }
        found.map(|bytes| decode(id, &bytes)).transpose()
    }

    fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, MetadataError> {
        let mut tasks: Vec<TaskRecord> = Vec::new();
        for entry in self.tasks.iter() {
            let (key, bytes) = entry?;
            tasks.push(decode(&text(&key), &bytes)?);
        }
        if let Some(before) = self.ending.read().as_ref() {
            let ending = tasks.iter_mut().find(|task| task.id == before.id);
            if let Some(task) = ending {
                *task = before.clone();
            }
        }
        Ok(page(tasks, filter))
    }

    fn report(&self, id: &str) -> Result<Option<Vec<u8>>, MetadataError> {
        let found = self.reports.get(id)?;
        if self.ending.read().as_ref().is_some_and(|task| task.id == id) {
            return Ok(None);
        }
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    fn segments(&self, datasource: &str) -> Arc<SegmentView> {
        self.index.view(datasource)
    }

    fn all_segments(&self) -> SegmentViews {
        self.index.views()
    }

    fn rerun_task(&self, id: &str) -> Result<TaskRecord, MetadataError> {
        let known = self.tasks.get(id)?;
        let known = known.ok_or_else(|| MetadataError::NotFound(id.to_owned()))?;
        let mut task: TaskRecord = decode(id, &known)?;
        if task.state != TaskState::Running {
            return Err(MetadataError::Ended(id.to_owned()));
        }
        task.run += 1;
        let next = encode(id, &task)?;
        // Whoever ended it in between has won.
        self.tasks
            .compare_and_swap(id, Some(known), Some(next))?
            .map_err(|_changed| MetadataError::Ended(id.to_owned()))?;
        self.db.flush()?;
        Ok(task)
    }

    fn put_checkpoint(&self, task: &str, stage: u32, bytes: &[u8]) -> Result<(), MetadataError> {
        let mut key = checkpoints_prefix(task);
        key.extend(stage.to_be_bytes());
        self.checkpoints.insert(key, bytes)?;
        self.db.flush()?;
        Ok(())
    }

    fn checkpoints(&self, task: &str) -> Result<Vec<Vec<u8>>, MetadataError> {
        let found = self.checkpoints.scan_prefix(checkpoints_prefix(task)).values();
        found.map(|bytes| Ok(bytes?.to_vec())).collect()
    }

    fn publish(&self, publish: &Publish) -> Result<(), MetadataError> {
        let id = publish.task.id.as_str();
        let datasource = publish.task.datasource.as_str();
        let task = encode(id, &publish.task)?;
        let _alone = self.publishing.lock();
        let unused = self.unused(Some(datasource))?;
        let change = publish
            .change
            .resolve(datasource, &self.index.view(datasource), &unused)?;
        let mut added = Vec::with_capacity(change.added.len());
        for segment in &change.added {
            let bytes = encode(&segment.id, segment.record.as_ref())?;
            added.push((segment_key(datasource, &segment.id), bytes));
        }
        let removed: Vec<Vec<u8>> = change
            .removed
            .iter()
            .map(|segment| segment_key(datasource, segment))
            .collect();
        let known: Option<TaskRecord> = self.tasks.get(id)?.map(|bytes| decode(id, &bytes)).transpose()?;
        *self.ending.write() = known.filter(|task| task.state == TaskState::Running);
        let ended = self
            .commit(&publish.task, &task, &publish.report, &added, &removed)
            .map(|()| {
                // On disk before anybody sees it.
                let flushed = self.db.flush();
                match &flushed {
                    Ok(_) => self.index.publish(datasource, &change.added, &change.removed),
                    // A crash may still undo it: what was replaced keeps its files, until the next start knows.
                    Err(_) => self.index.change(datasource, &change.added, &change.removed),
                }
                flushed
            });
        *self.ending.write() = None;
        ended??;
        for key in self.checkpoints.scan_prefix(checkpoints_prefix(id)).keys() {
            self.checkpoints.remove(key?)?;
        }
        Ok(())
    }

    fn take_unread_files(&self) -> Vec<String> {
        self.index.take_unread()
    }

    fn mark_unused(&self, datasource: &str, selection: &Selection) -> Result<usize, MetadataError> {
        let _alone = self.publishing.lock();
        let moved = selection.of_used(&self.index.view(datasource));
        self.shift(datasource, &moved, &self.segments, &self.unused)?;
        let removed: Vec<String> = moved.into_iter().map(|segment| segment.id).collect();
        self.index.change(datasource, &[], &removed);
        Ok(removed.len())
    }

    fn mark_used(&self, datasource: &str, selection: &Selection) -> Result<usize, MetadataError> {
        let _alone = self.publishing.lock();
        let unused = self.unused(Some(datasource))?;
        let moved = selection.of_unused(unused, &self.index.view(datasource));
        self.shift(datasource, &moved, &self.unused, &self.segments)?;
        self.index.change(datasource, &moved, &[]);
        Ok(moved.len())
    }

    fn unused(&self, datasource: Option<&str>) -> Result<Vec<SegmentRecord>, MetadataError> {
        let prefix = datasource.map_or_else(Vec::new, |name| segment_key(name, ""));
        let mut records = Vec::new();
        for entry in self.unused.scan_prefix(prefix) {
            let (key, bytes) = entry?;
            records.push(decode(&text(&key), &bytes)?);
        }
        Ok(records)
    }

    fn forget_unused(
        &self,
        datasource: &str,
        interval: Interval,
    ) -> Result<Vec<SegmentRecord>, MetadataError> {
        let _alone = self.publishing.lock();
        let mut gone = self.unused(Some(datasource))?;
        gone.retain(|record| interval.contains(&record.interval));
        let mut batch = sled::Batch::default();
        for record in &gone {
            batch.remove(segment_key(datasource, &record.segment_id()));
        }
        self.unused.apply_batch(batch)?;
        self.db.flush()?;
        Ok(gone)
    }
}

impl SledStore {
    /// Moves segments from one tree to another, all or none, and onto the disk.
    fn shift(
        &self,
        datasource: &str,
        segments: &[UsedSegment],
        from: &sled::Tree,
        to: &sled::Tree,
    ) -> Result<(), MetadataError> {
        let mut moved = Vec::with_capacity(segments.len());
        for segment in segments {
            let bytes = encode(&segment.id, segment.record.as_ref())?;
            moved.push((segment_key(datasource, &segment.id), bytes));
        }
        let result = (from, to).transaction(|(from, to)| {
            for (key, bytes) in &moved {
                from.remove(key.as_slice())?;
                to.insert(key.as_slice(), bytes.as_slice())?;
            }
            Ok::<(), ConflictableTransactionError<MetadataError>>(())
        });
        result.map_err(|error| match error {
            TransactionError::Abort(error) => error,
            TransactionError::Storage(error) => error.into(),
        })?;
        self.db.flush()?;
        Ok(())
    }

    /// Ends a task in one transaction.
    fn commit(
        &self,
        ended: &TaskRecord,
        task: &[u8],
        report: &[u8],
        added: &[(Vec<u8>, Vec<u8>)],
        removed: &[Vec<u8>],
    ) -> Result<(), MetadataError> {
        let abort = |error: MetadataError| Err(ConflictableTransactionError::Abort(error));
        let id = ended.id.as_str();
        let result =
            (&self.tasks, &self.reports, &self.segments).transaction(|(tasks, reports, segments)| {
                let Some(known) = tasks.get(id)? else {
                    return abort(MetadataError::NotFound(id.to_owned()));
                };
                match decode::<TaskRecord>(id, &known) {
                    Ok(known) if known.state == TaskState::Running => {
                        if known.run != ended.run {
                            return abort(other_run(&known, ended.run));
                        }
                    }
                    Ok(_) => return abort(MetadataError::Ended(id.to_owned())),
                    Err(error) => return abort(error),
                }
                tasks.insert(id, task)?;
                reports.insert(id, report)?;
                for (key, bytes) in added {
                    if segments.get(key.as_slice())?.is_some() {
                        return abort(MetadataError::Conflict(text(key)));
                    }
                    segments.insert(key.as_slice(), bytes.as_slice())?;
                }
                for key in removed {
                    segments.remove(key.as_slice())?;
                }
                Ok(())
            });
        result.map_err(|error| match error {
            TransactionError::Abort(error) => error,
            TransactionError::Storage(error) => error.into(),
        })
    }
}
