//! What a running job knows about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use trilith_exchange::{BucketStatistics, PartitionRange, StageSource};
use trilith_input::Split;
use trilith_metadata::{LockLease, PublishPermit, SegmentViews};
use trilith_proto::id::{WorkOrderId, WorkerNumber};
use trilith_proto::pb::task as pb;
use trilith_segment::SegmentRecord;

use super::job::Job;
use super::pool::{ProcessId, SlotLease};
use super::room::Place;
use crate::kernel::{Kernel, Shape};
use crate::stage::OutputMode;
use crate::worker::SegmentTarget;

/// A worker of a job: one slot, held from its first stage to the end of the job.
pub struct WorkerState {
    /// Counts from 0.
    pub number: WorkerNumber,
    /// Counts from 0; grows when its process is lost and another one takes its place.
    pub attempt: u32,
    /// "<task>-worker<N>_<attempt>".
    pub task_id: String,
    /// The slot, until the job ends.
    pub lease: Option<SlotLease>,
    /// Process of the slot.
    pub process: ProcessId,
    /// Flight address of the process.
    pub address: String,
    /// The same, for people.
    pub description: String,
    /// When the slot was asked for.
    pub requested_ms: i64,
    /// When it was there.
    pub started_ms: Option<i64>,
    /// When the job let it go.
    pub ended_ms: Option<i64>,
    /// "RUNNING", "SUCCESS" or "FAILED".
    pub state: &'static str,
}

/// One stage at run time.
#[derive(Default)]
pub struct StageRun {
    /// When its launch began.
    pub started_ms: Option<i64>,
    /// When its results were ready.
    pub ended_ms: Option<i64>,
    /// Files of its external inputs, by input number, as they were listed at its launch.
    pub splits: BTreeMap<usize, Vec<Split>>,
    /// Workers among which its inputs are dealt.
    pub worker_count: u32,
    /// Work orders, by worker: the newest attempt of each.
    pub workers: BTreeMap<WorkerNumber, WorkOrderId>,
    /// Those that the store knows to be finished.
    pub noted: Vec<WorkOrderId>,
    /// Key statistics, by worker, until they are merged.
    pub statistics: BTreeMap<WorkerNumber, Vec<BucketStatistics>>,
    /// Some cluster key held several values in one row.
    pub has_multiple_values: bool,
    /// Partitions cut at the barrier.
    pub ranges: Option<Arc<Vec<PartitionRange>>>,
    /// Rows by output partition, by worker.
    pub partition_rows: BTreeMap<WorkerNumber, Vec<u64>>,
    /// Partitions of its input, for segment generation.
    pub input_partition_count: Option<u32>,
}

impl StageRun {
    /// Output partitions as far as known (for segment generation: those of its input).
    pub fn partition_count(&self) -> u32 {
        if let Some(count) = self.input_partition_count {
            return count;
        }
        if let Some(ranges) = &self.ranges {
            return ranges.len() as u32;
        }
        self.partition_rows
            .values()
            .map(|rows| rows.len() as u32)
            .max()
            .unwrap_or(0)
    }

    /// Rows by partition, summed over the workers.
    pub fn rows_by_partition(&self) -> Vec<u64> {
        let mut sums = vec![0; self.partition_count() as usize];
        for rows in self.partition_rows.values() {
            for (sum, rows) in sums.iter_mut().zip(rows) {
                *sum += rows;
            }
        }
        sums
    }
}

/// Everything that changes while a job runs.
pub struct JobState {
    /// Decides.
    pub kernel: Kernel,
    /// When the job left the queue.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Workers asked for that are not there yet.
    pub wanted_workers: usize,
    /// Workers, by number.
    pub workers: Vec<WorkerState>,
    /// Lost workers that others replaced.
    pub former_workers: Vec<WorkerState>,
    /// Stages, by number.
    pub stages: Vec<StageRun>,
    /// Finished outputs of an earlier run, and the processes that say they hold them; until the job starts.
    pub claims: BTreeMap<WorkOrderId, ProcessId>,
    /// (sequence, counters) by stage and worker.
    pub counters: BTreeMap<(u32, u32), (u64, Vec<pb::Counter>)>,
    /// Verbose warnings.
    pub warnings: Vec<pb::ErrorReport>,
    /// Segments to write, by partition.
    pub targets: Vec<SegmentTarget>,
    /// Segments written, by worker: those of its newest attempt.
    pub segments: BTreeMap<WorkerNumber, Vec<SegmentRecord>>,
    /// Every datasource as it was when the job had its locks: all that the job reads.
    pub tables: SegmentViews,
    /// Locks, until the job ends.
    pub locks: Vec<Arc<LockLease>>,
    /// Its place among the tasks that are taken on, until it ends.
    pub(crate) place: Option<Place>,
    /// Leave to publish, once it was given: nobody can take the locks any more.
    pub permit: Option<PublishPermit>,
    /// Rows of a SELECT.
    pub results: Option<pb::ResultsReport>,
    /// Which shard spec, and why.
    pub segment_report: Option<pb::SegmentReport>,
    /// After publishing, if it was asked for.
    pub segment_load: Option<pb::SegmentLoadReport>,
    /// Task that reported the error, when it was a worker.
    pub error_task_id: Option<String>,
    /// Host of that task.
    pub error_host: Option<String>,
}

impl JobState {
    /// A job that has not started.
    pub fn new(shape: Shape) -> JobState {
        let stages = shape.stages.iter().map(|_| StageRun::default()).collect();
        JobState {
            kernel: Kernel::new(shape),
            started_ms: None,
            ended_ms: None,
            wanted_workers: 0,
            workers: Vec::new(),
            former_workers: Vec::new(),
            stages,
            claims: BTreeMap::new(),
            counters: BTreeMap::new(),
            warnings: Vec::new(),
            targets: Vec::new(),
            segments: BTreeMap::new(),
            tables: SegmentViews::default(),
            locks: Vec::new(),
            place: None,
            permit: None,
            results: None,
            segment_report: None,
            segment_load: None,
            error_task_id: None,
            error_host: None,
        }
    }

    /// Where the outputs of a stage are, by worker.
    pub(crate) fn sources(&self, job: &Job, stage: usize) -> Vec<StageSource> {
        let spec = job.graph.stages.get(stage);
        let durable = spec.is_some_and(|spec| spec.output == OutputMode::DurableStorage);
        let Some(run) = self.stages.get(stage) else {
            return Vec::new();
        };
        run.workers
            .iter()
            .map(|(number, id)| StageSource {
                // Durable outputs may be older than all workers of this run.
                address: self
                    .workers
                    .get(number.0 as usize)
                    .map(|worker| worker.address.clone()),
                id: id.clone(),
                durable,
            })
            .collect()
    }

    /// The newest order of its worker and stage, on the process where that worker is.
    pub(crate) fn is_current(&self, id: &WorkOrderId, process: ProcessId) -> bool {
        let run = self.stages.get(id.stage.0 as usize);
        let worker = self.workers.get(id.worker.0 as usize);
        run.and_then(|run| run.workers.get(&id.worker)) == Some(id)
            && worker.is_some_and(|worker| worker.process == process)
    }
}
