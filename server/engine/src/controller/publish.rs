//! Locks, allocation, publishing: what makes the rows of a job visible, all at once.

use std::sync::Arc;
use std::time::Duration;

use trilith_metadata::{
    Allocation, AllocationError, LockKind, LockLease, MetadataError, Publish, TaskRecord, TaskState,
};
use trilith_proto::fault::Fault;
use trilith_proto::id::{PartitionNumber, StageNumber};
use trilith_proto::interval::{ETERNITY, Granularity, Interval};
use trilith_proto::pb::task as pb;
use trilith_segment::{SegmentRecord, ShardSpec, file_path, tombstone_intervals};
use trilith_sql::Ingest;

use super::Controller;
use super::job::{Job, now_ms};
use crate::ingest::{self, Shards};
use crate::kernel::Outcome;
use crate::stage::OutputShuffle;
use crate::worker::SegmentTarget;
use crate::{limits, report};

/// Errors of the metadata store, as faults.
pub(crate) fn store_fault(error: MetadataError) -> Fault {
    Fault::unknown(error.to_string())
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
    /// Waits for the locks of a job: exclusive on what a REPLACE overwrites, shared for an INSERT.
    pub(crate) async fn lock(&self, job: &Job) -> Result<Vec<LockLease>, Fault> {
        if job.graph.needs_durable_storage() {
            self.worker_config.exchange.durable().map_err(Fault::from)?;
        }
        let Some(ingest) = job.ingest() else {
            return Ok(Vec::new());
        };
        let reserved = job
            .planned
            .columns
            .iter()
            .find(|column| limits::RESERVED_COLUMNS.contains(&column.name.as_str()));
        if let Some(column) = reserved {
            return Err(Fault::column_name_restricted(&column.name));
        }
        let (kind, intervals) = match &ingest.overwrite {
            Some(intervals) => (LockKind::Exclusive, intervals.clone()),
            None => (LockKind::Shared, vec![ETERNITY]),
        };
        let priority = job.planned.context.priority();
        let patience = Duration::from_millis(limits::TASK_LOCK_TIMEOUT_MS);
        let lease = self
            .locks
            .acquire(
                job.id.as_str(),
                &ingest.datasource,
                &intervals,
                kind,
                priority,
                patience,
            )
            .await;
        let lease = lease.ok_or_else(Fault::insert_lock_preempted)?;
        job.state.lock().version = Some(lease.version().to_owned());
        Ok(vec![lease])
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
        let (ranges, multiple, version) = {
            let state = job.state.lock();
            let run = state.stages.get(input.number.0 as usize);
            let ranges = run.and_then(|run| run.ranges.clone()).unwrap_or_default();
            let multiple = run.is_some_and(|run| run.has_multiple_values);
            (ranges, multiple, state.version.clone().unwrap_or_default())
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
        let mut appended = match ingest.overwrite {
            Some(_) => Vec::new(),
            None => self.append(job, ingest, &chunks, &version).await?,
        }
        .into_iter();
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
        let mut state = job.state.lock();
        state.targets = targets;
        state.segment_report = Some(segment_report);
        Ok(())
    }

    /// Places behind what is there, for every segment of the job at once.
    async fn append(
        &self,
        job: &Job,
        ingest: &Ingest,
        chunks: &[ingest::Chunk],
        version: &str,
    ) -> Result<Vec<Allocation>, Fault> {
        let wanted: Vec<(Interval, usize)> = chunks
            .iter()
            .map(|chunk| (chunk.interval, chunk.partitions.len()))
            .collect();
        let (allocator, store) = (self.allocator.clone(), Arc::clone(&self.store));
        let (task, datasource, version) = (job.id.to_string(), ingest.datasource.clone(), version.to_owned());
        tokio::task::spawn_blocking(move || {
            let used = || store.used_segments(Some(&datasource));
            allocator
                .allocate_all(&task, &datasource, &wanted, &version, used)
                .map_err(|error| match error {
                    AllocationError::Covered { wanted, allocated } => {
                        Fault::insert_cannot_allocate(&datasource, wanted, allocated)
                    }
                    AllocationError::Used(error) => store_fault(error),
                })
        })
        .await
        .map_err(|error| Fault::unknown(error.to_string()))?
    }

    pub(crate) async fn used_segments(&self, datasource: &str) -> Result<Vec<SegmentRecord>, Fault> {
        let (store, name) = (Arc::clone(&self.store), datasource.to_owned());
        tokio::task::spawn_blocking(move || store.used_segments(Some(&name)))
            .await
            .map_err(|error| Fault::unknown(error.to_string()))?
            .map_err(store_fault)
    }

    /// The last step of a job: rows of a SELECT are kept, or segments published with the final state.
    pub(crate) async fn publish(&self, job: &Arc<Job>) -> Result<(), PublishError> {
        let Some(ingest) = job.ingest() else {
            let results = self.write_results(job).await?;
            job.state.lock().results = Some(results);
            return self.record(job, &Outcome::Success, Vec::new(), Vec::new()).await;
        };
        let (segments, version) = {
            let state = job.state.lock();
            let segments: Vec<SegmentRecord> = state.segments.values().flatten().cloned().collect();
            (segments, state.version.clone().unwrap_or_default())
        };
        if segments.is_empty() && job.planned.context.fail_on_empty_insert() {
            return Err(Fault::insert_cannot_be_empty(&ingest.datasource).into());
        }
        let (tombstones, unused) = self.replaced(ingest, &segments, &version).await?;
        let all = segments.into_iter().chain(tombstones).collect();
        self.record(job, &Outcome::Success, all, unused).await
    }

    /// Tombstones that a REPLACE leaves, and segments that nothing of is visible any more.
    async fn replaced(
        &self,
        ingest: &Ingest,
        segments: &[SegmentRecord],
        version: &str,
    ) -> Result<(Vec<SegmentRecord>, Vec<String>), Fault> {
        let Some(overwrite) = &ingest.overwrite else {
            return Ok((Vec::new(), Vec::new()));
        };
        let used = self.used_segments(&ingest.datasource).await?;
        let published: Vec<Interval> = segments.iter().map(|segment| segment.interval).collect();
        let chunk: Granularity = ingest.granularity;
        let intervals =
            tombstone_intervals(overwrite, &published, &used, chunk, limits::BUCKETS_MAX as usize)
                .ok_or_else(|| Fault::too_many_buckets(limits::BUCKETS_MAX))?;
        let tombstones: Vec<SegmentRecord> = intervals
            .into_iter()
            .map(|interval| SegmentRecord::tombstone(&ingest.datasource, interval, version, now_ms()))
            .collect();
        let mut after = used.clone();
        after.extend(segments.iter().cloned());
        after.extend(tombstones.iter().cloned());
        let visible: std::collections::HashSet<String> = trilith_segment::visible(&after)
            .into_iter()
            .map(|(record, _)| record.segment_id())
            .collect();
        let unused: Vec<String> = used
            .iter()
            .map(SegmentRecord::segment_id)
            .filter(|id| !visible.contains(id))
            .collect();
        Ok((tombstones, unused))
    }

    /// Finds out what became of publishing: records the job as failed with this fault, which the store refuses
    /// if it is published already, and which keeps it from being published later. True if it is published.
    pub(crate) async fn settle(&self, job: &Arc<Job>, fault: Fault) -> Result<bool, Fault> {
        let failed = Outcome::Failed { fault, stage: None };
        match self.record(job, &failed, Vec::new(), Vec::new()).await {
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
    async fn record(
        &self,
        job: &Arc<Job>,
        outcome: &Outcome,
        segments: Vec<SegmentRecord>,
        unused: Vec<String>,
    ) -> Result<(), PublishError> {
        let (task, report) = self.final_record(job, outcome);
        let publish = Publish {
            task,
            report,
            segments,
            unused,
        };
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.publish(&publish))
            .await
            .map_err(|error| PublishError::Unknown(Fault::unknown(error.to_string())))?
            .map_err(PublishError::from)
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
            task_context_json: Some(super::submit::task_context().to_string()),
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
            task.error_message = Some(fault.to_string());
        }
        (task, prost::Message::encode_to_vec(&report))
    }

    /// Ends a job: records a failure, frees what it held, forgets it.
    pub(crate) async fn finish(&self, job: &Arc<Job>, outcome: Outcome) {
        if let Outcome::Failed { .. } = &outcome {
            match self.record(job, &outcome, Vec::new(), Vec::new()).await {
                Ok(()) => {}
                Err(PublishError::Ended(_)) => {
                    tracing::debug!(task = %job.id, "the end of the task was recorded before");
                }
                Err(PublishError::Unknown(fault) | PublishError::Refused(fault)) => {
                    tracing::error!(task = %job.id, %fault, "the end of a task could not be recorded");
                }
            }
        }
        self.allocator.release(job.id.as_str());
        if let Outcome::Failed { .. } = &outcome {
            self.remove_files(job).await;
        } else {
            self.pool.cancel_everywhere(&job.id).await;
        }
        self.clean_durable(job, matches!(outcome, Outcome::Success)).await;
        // Slots are free again from here.
        let leases: Vec<_> = job
            .state
            .lock()
            .workers
            .iter_mut()
            .filter_map(|worker| worker.lease.take())
            .collect();
        drop(leases);
        self.jobs.lock().remove(&job.id);
        job.changed();
    }

    /// Removes segment files of a job that published nothing.
    async fn remove_files(&self, job: &Job) {
        let Some(ingest) = job.ingest() else { return };
        let any = file_path(&ingest.datasource, job.id.as_str(), &ETERNITY, 0);
        let path = self.worker_config.segment_directory.join(any);
        let Some(directory) = path.parent().map(std::path::Path::to_path_buf) else {
            return;
        };
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
