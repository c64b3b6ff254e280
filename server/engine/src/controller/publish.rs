//! Locks, allocation, publishing: what makes the rows of a job visible, all at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use trilith_metadata::{
    ActiveLock, Allocation, Append, Change, LockKind, LockOwner, LockRequest, MetadataError, PendingLock,
    Publish, Replace, TaskRecord, TaskState,
};
use trilith_proto::fault::Fault;
use trilith_proto::id::{PartitionNumber, StageNumber};
use trilith_proto::interval::{ETERNITY, Granularity, Interval, iso};
use trilith_proto::pb::task as pb;
use trilith_segment::{SegmentRecord, ShardSpec, file_path, sync_ancestors};
use trilith_sql::{Ingest, QueryContext};

use super::Controller;
use super::catalog::same_columns;
use super::job::{Job, now_ms};
use super::pool::ProcessId;
use crate::ingest::{self, Shards};
use crate::kernel::Outcome;
use crate::stage::OutputShuffle;
use crate::worker::SegmentTarget;
use crate::{limits, report};

/// Ten years: far enough, and no clock overflows.
const WAIT_MAX_MS: u64 = 10 * 365 * 86_400_000;

/// Errors of the metadata store, as faults.
pub(crate) fn store_fault(error: MetadataError) -> Fault {
    match error {
        MetadataError::NotLocked(_) => Fault::insert_lock_preempted(),
        MetadataError::TooManyTombstones(max) => Fault::too_many_buckets(max as u64),
        other => Fault::unknown(other.to_string()),
    }
}

/// Why a job was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Nothing was committed, and never will be.
    #[error("{0}")]
    Refused(Fault),
    /// The task has ended: this was tried before, or somebody else recorded its end.
    #[error("{0}")]
    Ended(Fault),
    /// The transaction may have been committed.
    #[error("{0}")]
    Unknown(Fault),
}

impl From<Fault> for PublishError {
    fn from(fault: Fault) -> PublishError {
        PublishError::Refused(fault)
    }
}

impl From<MetadataError> for PublishError {
    fn from(error: MetadataError) -> PublishError {
        match error {
            MetadataError::Ended(_) => PublishError::Ended(store_fault(error)),
            MetadataError::Store(_) => PublishError::Unknown(store_fault(error)),
            _ => PublishError::Refused(store_fault(error)),
        }
    }
}

impl Controller {
    /// Locks that tasks hold now, one for each interval.
    pub fn active_locks(&self) -> Vec<ActiveLock> {
        self.locks.active()
    }

    /// Takes a place in the queue for the locks of a REPLACE, on all that it overwrites. An INSERT locks its
    /// chunks when it knows them.
    pub(crate) fn request_locks(&self, job: &Job) -> Option<PendingLock> {
        let ingest = job.ingest()?;
        let intervals = ingest.overwrite.clone()?;
        let kind = if ingest.concurrent {
            LockKind::Replace
        } else {
            LockKind::Exclusive
        };
        Some(self.request(job, ingest, intervals, kind))
    }

    fn request(&self, job: &Job, ingest: &Ingest, intervals: Vec<Interval>, kind: LockKind) -> PendingLock {
        let owner = LockOwner {
            task: job.id.to_string(),
            priority: job.planned.context.priority(),
            revoked: job.revoked.clone(),
        };
        let wanted = LockRequest {
            datasource: ingest.datasource.clone(),
            intervals,
            kind,
        };
        self.locks.request(&owner, wanted)
    }

    /// Waits for locks, if there are any to wait for, and keeps what the job is going to read.
    pub(crate) async fn lock(&self, job: &Job, locks: Option<PendingLock>) -> Result<(), Fault> {
        if job.graph.needs_durable_storage() {
            self.worker_config.exchange.durable().map_err(Fault::from)?;
        }
        if job.ingest().is_some() {
            ingest::check_columns(&job.planned)?;
        }
        if let Some(locks) = locks {
            self.granted(job, locks).await?;
        }
        job.state.lock().tables = self.store.all_segments();
        same_columns(job)
    }

    /// Waits for a lock and gives it to the job.
    async fn granted(&self, job: &Job, lock: PendingLock) -> Result<String, Fault> {
        let patience_ms = lock_patience_ms(&job.planned.context);
        let granted = lock.granted(Duration::from_millis(patience_ms)).await;
        let lease = granted.map_err(|holders| Fault::insert_lock_timeout(patience_ms, &holders))?;
        let version = lease.version().ok_or_else(Fault::insert_lock_preempted);
        job.state.lock().locks.push(Arc::new(lease));
        version
    }

    /// The job has its slots. A lock that it had before may have been lent to a task that held slots while
    /// this one waited for some: it is waited for, and what the job reads is looked up again.
    pub(crate) async fn begin(&self, job: &Job) -> Result<(), Fault> {
        let locks = job.state.lock().locks.clone();
        let patience_ms = lock_patience_ms(&job.planned.context);
        for lock in &locks {
            let began = lock.begin(Duration::from_millis(patience_ms)).await;
            began.map_err(|holders| Fault::insert_lock_timeout(patience_ms, &holders))?;
        }
        let mut state = job.state.lock();
        // What stages of an earlier run have read stays what the job reads. Rows that another task has added since
        // are none of those that it replaces.
        let taken_over = state.stages.iter().any(|stage| stage.ended_ms.is_some());
        if !locks.is_empty() && !taken_over {
            state.tables = self.store.all_segments();
        }
        drop(state);
        same_columns(job)
    }

    /// Decides which segments the job writes.
    pub(crate) async fn allocate_segments(
        &self,
        job: &Arc<Job>,
        generator: StageNumber,
    ) -> Result<(), Fault> {
        let ingest = job
            .ingest()
            .ok_or_else(|| Fault::unknown("no segments to allocate"))?;
        let input = job
            .stage(generator)
            .and_then(|stage| stage.input_stages().first().copied())
            .and_then(|number| job.stage(number))
            .ok_or_else(|| Fault::unknown("segments without an input stage"))?;
        let (ranges, multiple) = {
            let state = job.state.lock();
            let run = state.stages.get(input.number.0 as usize);
            let ranges = run.and_then(|run| run.ranges.clone()).unwrap_or_default();
            let multiple = run.is_some_and(|run| run.has_multiple_values);
            (ranges, multiple)
        };
        let chunks = ingest::chunks(&ranges, ingest.granularity);
        if let Some(bounds) = ingest
            .overwrite
            .as_ref()
            .filter(|bounds| bounds.as_slice() != [ETERNITY])
        {
            let outside = chunks
                .iter()
                .find(|chunk| !bounds.iter().any(|bound| bound.contains(&chunk.interval)));
            if let Some(chunk) = outside {
                return Err(Fault::insert_time_out_of_bounds(chunk.interval, bounds));
            }
        }
        if let Some(most) = job.planned.context.max_num_segments() {
            let full = chunks.iter().find(|chunk| chunk.partitions.len() as u64 > most);
            if let Some(chunk) = full {
                // ALL is one chunk, that of the epoch.
                let start_ms = match ingest.granularity {
                    Granularity::All => 0,
                    _ => chunk.interval.start_ms,
                };
                return Err(Fault::too_many_segments_in_time_chunk(
                    &iso(start_ms),
                    chunk.partitions.len() as u64,
                    most,
                    ingest.granularity.name(),
                ));
            }
        }
        let Some(OutputShuffle::Chunks { keys, .. }) = &input.shuffle else {
            return Err(Fault::unknown("segments without sorted input"));
        };
        let schema = input
            .plan
            .as_ref()
            .map(|plan| plan.schema())
            .ok_or_else(|| Fault::unknown("no schema"))?;
        let visible = job.planned.columns.len();
        let name = |column: usize| {
            let output = job.planned.columns.get(column).filter(|_| column < visible)?;
            Some(output.name.clone())
        };
        let shards = ingest::shards(keys, &schema, name, multiple);
        let mut targets = Vec::with_capacity(ranges.len());
        let (version, appended) = match ingest.overwrite {
            Some(_) => (self.lock_version(job)?, Vec::new()),
            None => (String::new(), self.append(job, ingest, &chunks).await?),
        };
        let mut appended = appended.into_iter();
        for chunk in &chunks {
            let core = chunk.partitions.len() as u32;
            for (index, partition) in chunk.partitions.iter().enumerate() {
                let (version, shard_spec) = match appended.next() {
                    Some(allocation) => (allocation.version, allocation.shard_spec),
                    None => {
                        let place = (index as u32, core);
                        let range = ranges.get(*partition as usize);
                        let start = range.and_then(|range| range.start.as_ref()).filter(|_| index > 0);
                        let end = range
                            .and_then(|range| range.end.as_ref())
                            .filter(|_| index as u32 + 1 < core);
                        let start = ingest::boundary(start, &schema, keys, shards.keys)?;
                        let end = ingest::boundary(end, &schema, keys, shards.keys)?;
                        (version.clone(), shard_spec(&shards, start, end, place))
                    }
                };
                targets.push(SegmentTarget {
                    partition: PartitionNumber(*partition),
                    interval: chunk.interval,
                    version,
                    shard_spec,
                    path: file_path(&ingest.datasource, job.id.as_str(), &chunk.interval, *partition),
                });
            }
        }
        let segment_report = match ingest.overwrite {
            Some(_) => pb::SegmentReport {
                shard_spec: shards.kind().to_owned(),
                details: shards.details.clone(),
            },
            None => pb::SegmentReport {
                shard_spec: "NumberedShardSpec".to_owned(),
                details: "Using NumberedShardSpec to generate segments since the query is inserting rows."
                    .to_owned(),
            },
        };
        let any = !targets.is_empty();
        let mut state = job.state.lock();
        state.targets = targets;
        state.segment_report = any.then_some(segment_report);
        Ok(())
    }

    /// Version of the lock of a REPLACE.
    fn lock_version(&self, job: &Job) -> Result<String, Fault> {
        let state = job.state.lock();
        let lease = state.locks.first().ok_or_else(Fault::insert_lock_preempted)?;
        lease.version().ok_or_else(Fault::insert_lock_preempted)
    }

    /// Locks the chunks of an INSERT and finds places behind what is there, for every segment at once.
    async fn append(
        &self,
        job: &Job,
        ingest: &Ingest,
        chunks: &[ingest::Chunk],
    ) -> Result<Vec<Allocation>, Fault> {
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let kind = if ingest.concurrent {
            LockKind::Append
        } else {
            LockKind::Shared
        };
        let intervals = chunks.iter().map(|chunk| chunk.interval).collect();
        let lock = self.request(job, ingest, intervals, kind);
        let version = self.granted(job, lock).await?;
        let wanted: Vec<(Interval, usize)> = chunks
            .iter()
            .map(|chunk| (chunk.interval, chunk.partitions.len()))
            .collect();
        let (allocator, store) = (self.allocator.clone(), Arc::clone(&self.store));
        let (task, datasource) = (job.id.to_string(), ingest.datasource.clone());
        let concurrent = ingest.concurrent;
        tokio::task::spawn_blocking(move || {
            let current = || store.segments(&datasource);
            allocator
                .allocate_all(&task, &datasource, &wanted, &version, concurrent, current)
                .map_err(|covered| {
                    Fault::insert_cannot_allocate(&datasource, covered.wanted, covered.allocated)
                })
        })
        .await
        .map_err(|error| Fault::unknown(error.to_string()))?
    }

    /// The last step of a job: rows of a SELECT are kept, or segments published with the final state.
    pub(crate) async fn publish(&self, job: &Arc<Job>) -> Result<(), PublishError> {
        let Some(ingest) = job.ingest() else {
            // A connection that is cut would only be noticed much later than the end of its lease.
            let results = tokio::select! {
                results = self.write_results(job) => results?,
                address = self.results_lost(job) => {
                    let reason = format!("the worker process at {address} is gone");
                    return Err(Fault::worker_rpc_failed(job.id.as_str(), &reason).into());
                }
            };
            job.state.lock().results = Some(results);
            return self.record(job, &Outcome::Success, Change::None).await;
        };
        let change = self.change(job, ingest)?;
        self.record(job, &Outcome::Success, change).await
    }

    /// Waits until a process is gone that holds rows of a SELECT. Returns its address.
    async fn results_lost(&self, job: &Job) -> String {
        let holders: Vec<(ProcessId, String)> = {
            let state = job.state.lock();
            let last = state.stages.last().map(|run| run.workers.keys());
            last.into_iter()
                .flatten()
                .filter_map(|number| state.workers.get(number.0 as usize))
                .map(|worker| (worker.process, worker.address.clone()))
                .collect()
        };
        let mut gone: FuturesUnordered<_> = holders
            .into_iter()
            .map(|(process, address)| async move {
                self.pool.gone(process).await;
                address
            })
            .collect();
        match gone.next().await {
            Some(address) => address,
            None => std::future::pending().await,
        }
    }

    /// What a finished job is to change, with leave to do so: from here on nobody can take its locks.
    fn change(&self, job: &Job, ingest: &Ingest) -> Result<Change, Fault> {
        let mut state = job.state.lock();
        let segments: Vec<SegmentRecord> = state.segments.values().flatten().cloned().collect();
        if segments.is_empty() && job.planned.context.fail_on_empty_insert() {
            return Err(Fault::insert_cannot_be_empty(&ingest.datasource));
        }
        let permit = self.locks.permit(&state.locks);
        let permit = permit.ok_or_else(Fault::insert_lock_preempted)?;
        // Kept until the job ends: a lock taken between the commit and the news of it would fail the job.
        state.permit = Some(permit.clone());
        let Some(overwrite) = &ingest.overwrite else {
            return Ok(match segments.is_empty() {
                true => Change::None,
                false => Change::Append(Append { permit, segments }),
            });
        };
        let version = state.locks.first().and_then(|lease| lease.version());
        let base = state.tables.get(&ingest.datasource).cloned();
        Ok(Change::Replace(Replace {
            permit,
            segments,
            overwrite: overwrite.clone(),
            granularity: ingest.granularity,
            version: version.ok_or_else(Fault::insert_lock_preempted)?,
            base: base.unwrap_or_default(),
            tombstones_max: limits::BUCKETS_MAX as usize,
            created_ms: now_ms(),
        }))
    }

    /// Finds out what became of publishing: records the job as failed with this fault, which the store refuses
    /// if it is published already, and which keeps it from being published later. True if it is published.
    pub(crate) async fn settle(&self, job: &Arc<Job>, fault: Fault) -> Result<bool, Fault> {
        let failed = Outcome::Failed { fault, stage: None };
        match self.record(job, &failed, Change::None).await {
            Ok(()) => Ok(false),
            Err(PublishError::Unknown(fault) | PublishError::Refused(fault)) => Err(fault),
            Err(PublishError::Ended(_)) => {
                let (store, id) = (Arc::clone(&self.store), job.id.to_string());
                let task = tokio::task::spawn_blocking(move || store.task(&id))
                    .await
                    .map_err(|error| Fault::unknown(error.to_string()))?
                    .map_err(store_fault)?;
                Ok(task.is_some_and(|task| task.state == TaskState::Success))
            }
        }
    }

    /// Writes the end of a job in one transaction.
    async fn record(&self, job: &Arc<Job>, outcome: &Outcome, change: Change) -> Result<(), PublishError> {
        self.note_load(job, &change);
        let (task, report) = self.final_record(job, outcome);
        let publish = Publish { task, report, change };
        let store = Arc::clone(&self.store);
        let segments = self.worker_config.segment_directory.clone();
        tokio::task::spawn_blocking(move || {
            // The files are durable, and with this the way to them.
            sync_ancestors(&segments, publish.change.paths()).map_err(|error| Fault::from_error(&error))?;
            store.publish(&publish).map_err(PublishError::from)
        })
        .await
        .map_err(|error| PublishError::Unknown(Fault::unknown(error.to_string())))?
    }

    /// With `waitUntilSegmentsLoad`: queries see segments when they are published, so all are loaded with that.
    fn note_load(&self, job: &Job, change: &Change) {
        let wanted = job.planned.context.wait_until_segments_load();
        let Some(ingest) = job.ingest().filter(|_| wanted) else {
            return;
        };
        let view = self.store.segments(&ingest.datasource);
        let Some(count) = change.added_count(&ingest.datasource, &view) else {
            return;
        };
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        job.state.lock().segment_load = Some(pb::SegmentLoadReport {
            state: "SUCCESS".to_owned(),
            start_time_ms: Some(now_ms()),
            total_segments: count,
            used_segments: count,
            precached_segments: count,
            ..Default::default()
        });
    }

    fn final_record(&self, job: &Arc<Job>, outcome: &Outcome) -> (TaskRecord, Vec<u8>) {
        let mut state = job.state.lock();
        let now = now_ms();
        state.ended_ms = Some(now);
        let success = matches!(outcome, Outcome::Success);
        for worker in &mut state.workers {
            worker.ended_ms.get_or_insert(now);
            if worker.state == "RUNNING" {
                worker.state = if success { "SUCCESS" } else { "FAILED" };
            }
        }
        if success {
            state.kernel.mark_finished();
        }
        let error = match outcome {
            Outcome::Success => None,
            Outcome::Failed { fault, stage } => Some((fault, *stage)),
        };
        let parts = report::ReportParts {
            task: &job.id,
            status: if success { "SUCCESS" } else { "FAILED" },
            error,
            task_context_json: Some(super::submit::task_context(&job.planned.context).to_string()),
            results: state.results.clone(),
            host: Some(&self.location()),
            now_ms: now,
        };
        let report = report::build(parts, &job.graph, &state);
        let mut task = super::submit::record(job);
        task.state = if success {
            TaskState::Success
        } else {
            TaskState::Failed
        };
        task.duration_ms = now - job.created_ms;
        if let Some((fault, _)) = error {
            task.fault = Some(fault.to_json());
            task.error_message = Some(super::submit::short_message(fault));
            if fault.is_shutdown() {
                // As Druid's task queue records it; the report tells the fault.
                task.error_message = Some("Shutdown request from user".to_owned());
                task.duration_ms = -1;
            }
        }
        (task, prost::Message::encode_to_vec(&report))
    }

    /// Ends a job: records a failure, frees what it held, forgets it.
    pub(crate) async fn finish(&self, job: &Arc<Job>, outcome: Outcome) {
        if let Outcome::Failed { .. } = &outcome {
            let ended = match self.record(job, &outcome, Change::None).await {
                Ok(()) => true,
                Err(PublishError::Ended(_)) => {
                    tracing::debug!(task = %job.id, "the end of the task was recorded before");
                    true
                }
                Err(PublishError::Unknown(fault) | PublishError::Refused(fault)) => {
                    tracing::error!(task = %job.id, %fault, "the end of a task could not be recorded");
                    false
                }
            };
            if ended {
                self.remove_files(job).await;
                self.remove_results(job).await;
            }
        } else {
            self.pool.cancel_everywhere(&job.id).await;
        }
        self.allocator.release(job.id.as_str());
        self.clean_durable(job, matches!(outcome, Outcome::Success)).await;
        self.leave(job);
    }

    /// Frees slots, locks and place of a job, and forgets it.
    pub(crate) fn leave(&self, job: &Job) {
        let held = {
            let mut state = job.state.lock();
            let workers = state.workers.iter_mut();
            let leases: Vec<_> = workers.filter_map(|worker| worker.lease.take()).collect();
            let locks = std::mem::take(&mut state.locks);
            (leases, state.permit.take(), locks, state.place.take())
        };
        drop(held);
        self.jobs.lock().remove(&job.id);
        job.changed();
    }

    /// Removes segment files of a job that published nothing. Files that are published after all stay.
    async fn remove_files(&self, job: &Job) {
        let Some(ingest) = job.ingest() else { return };
        let any = file_path(&ingest.datasource, job.id.as_str(), &ETERNITY, 0);
        let Some(own) = Path::new(&any).parent() else {
            return;
        };
        let view = self.store.segments(&ingest.datasource);
        let mut paths = view
            .used()
            .iter()
            .filter_map(|segment| segment.record.path.as_ref());
        if paths.any(|path| Path::new(path).starts_with(own)) {
            return;
        }
        let directory = self.worker_config.segment_directory.join(own);
        let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(task = %job.id, %error, "files of a failed task remain until the next start");
        }
    }
}

/// Milliseconds that a task waits for locks.
pub(crate) fn lock_patience_ms(context: &QueryContext) -> u64 {
    let timeout = context.task_lock_timeout_ms();
    timeout.unwrap_or(limits::TASK_LOCK_TIMEOUT_MS).min(WAIT_MAX_MS)
}

fn shard_spec(
    shards: &Shards,
    start: Option<Vec<Option<String>>>,
    end: Option<Vec<Option<String>>>,
    (number, core): (u32, u32),
) -> ShardSpec {
    if shards.dimensions.is_empty() {
        return ShardSpec::Numbered {
            partition_num: number,
            partitions: core,
        };
    }
    ShardSpec::Range {
        dimensions: shards.dimensions.clone(),
        start,
        end,
        partition_num: number,
        num_core_partitions: core,
    }
}
