//! What controllers and workers say to each other, free of any transport.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::physical_plan::ExecutionPlan;
use serde::{Deserialize, Serialize};
use trilith_exchange::{BucketStatistics, PartitionRange, Shuffle, SortKey, StageSource};
use trilith_proto::fault::Fault;
use trilith_proto::id::{PartitionNumber, TaskId, WorkOrderId};
use trilith_proto::interval::Interval;
use trilith_proto::pb;
use trilith_segment::{SegmentRecord, ShardSpec};

use crate::kernel::HeldStep;

/// A plan as it reaches a worker.
#[derive(Clone)]
pub enum PlanSource {
    /// In the same process.
    Local(Arc<dyn ExecutionPlan>),
    /// Encoded by `stage::encode_plan`.
    Encoded(Bytes),
}

/// Settings of the statement that operators and sinks need.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderSettings {
    /// 0: the first parse error fails the job; -1: any number is accepted.
    pub max_parse_exceptions: i64,
    /// Drop byte 0 from strings instead of failing.
    pub remove_null_bytes: bool,
    /// Largest encoded row in bytes; above it `RowTooLarge`.
    pub max_frame_size_bytes: u64,
    /// Output goes to durable storage, where it outlives this process.
    #[serde(default)]
    pub durable_output: bool,
}

/// One segment to write from one partition of the input stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentTarget {
    /// Partition of the input stage.
    pub partition: PartitionNumber,
    /// Time chunk.
    pub interval: Interval,
    /// Version from the lock.
    pub version: String,
    /// Partition number within the chunk, and its range or count.
    pub shard_spec: ShardSpec,
    /// Where the file goes, relative to the segment directory.
    pub path: String,
}

/// Writes segments from the sorted output of a stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SegmentSink {
    /// Datasource that is written.
    pub datasource: String,
    /// Schema of the input stage's output, as IPC bytes in base64 (see `ingest::schema_text`).
    pub schema: String,
    /// Column of the input that becomes `__time`; none means the epoch for all rows.
    pub time_column: Option<usize>,
    /// (input column, output name) of every stored column but `__time`, in order.
    pub columns: Vec<(usize, String)>,
    /// Input columns whose multi-value strings keep the order of their values; others are sorted.
    pub kept_order: Vec<usize>,
    /// Output columns that are metrics (rollup).
    pub metrics: Vec<(String, String)>,
    /// Name of the query granularity, rollup only.
    pub query_granularity: Option<String>,
    /// Stored columns of CLUSTERED BY.
    pub clustered_by: Vec<String>,
    /// JSON of `lastCompactionState` without its `partitionsSpec`, if it is to be stored.
    #[serde(default)]
    pub compaction_state: Option<String>,
    /// `rowsPerSegment`.
    #[serde(default)]
    pub rows_per_segment: u64,
    /// Row order inside a segment, by input column; `__time` has its place in it.
    pub order: Vec<SortKey>,
    /// Outputs of the input stage.
    pub sources: Vec<StageSource>,
    /// Segments of this worker.
    pub targets: Vec<SegmentTarget>,
}

/// What becomes of the rows of a work order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Sink {
    /// Kept in the exchange for the next stage, under this shuffle.
    Exchange(Shuffle),
    /// Kept in durable storage as pages of a SELECT's result.
    Pages {
        /// Rows of a page.
        rows_per_page: u64,
    },
    /// Written as segments; the order has no plan.
    Segments(Box<SegmentSink>),
}

/// Work for one worker in one stage.
#[derive(Clone)]
pub struct WorkOrder {
    /// Names task, stage, worker and attempt.
    pub id: WorkOrderId,
    /// Plan with this worker's inputs; none for segment generation.
    pub plan: Option<PlanSource>,
    /// Where rows go.
    pub sink: Sink,
    /// From the query context.
    pub settings: OrderSettings,
    /// Span of the task, as `trace::trace_parent` gives it.
    pub trace_parent: String,
}

/// Controller to worker process.
#[derive(Clone)]
pub enum WorkerCommand {
    /// Run this.
    Start(Box<WorkOrder>),
    /// Cut the sorted output.
    SetBoundaries {
        /// Whose output.
        id: WorkOrderId,
        /// All partitions of the stage, in order.
        ranges: Arc<Vec<PartitionRange>>,
    },
    /// Nobody reads this output any more.
    Release {
        /// Whose output.
        id: WorkOrderId,
    },
    /// Tell once more how far an order is.
    Repeat {
        /// Which order.
        id: WorkOrderId,
    },
    /// Stop all work of a task and drop its outputs.
    CancelTask {
        /// Which task.
        task: TaskId,
    },
}

/// Worker process to controller.
#[derive(Debug, Clone)]
pub enum WorkerEvent {
    /// Input is read (sorted output with statistics only).
    InputRead {
        /// Whose.
        id: WorkOrderId,
        /// One for each time bucket.
        buckets: Vec<BucketStatistics>,
        /// A key column held several values in one row.
        has_multiple_values: bool,
    },
    /// Output can be read, or segments are written.
    OutputReady {
        /// Whose.
        id: WorkOrderId,
        /// Rows by output partition.
        partition_rows: Vec<u64>,
        /// Segment generation only.
        segments: Vec<SegmentRecord>,
    },
    /// The order failed.
    Failed {
        /// Whose.
        id: WorkOrderId,
        /// Why.
        fault: Fault,
    },
    /// Counters so far; later sequence numbers replace earlier ones.
    Counters {
        /// Whose.
        id: WorkOrderId,
        /// Counts up from 1.
        sequence: u64,
        /// All counters of the order.
        counters: Vec<pb::task::Counter>,
        /// Verbose warnings since the last update.
        warnings: Vec<pb::task::ErrorReport>,
    },
}

/// A work order whose work or output a process holds, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOrder {
    /// Which order.
    pub id: WorkOrderId,
    /// How far it is.
    pub step: HeldStep,
}

impl WorkerEvent {
    /// The order that the event speaks of.
    pub fn id(&self) -> &WorkOrderId {
        match self {
            WorkerEvent::InputRead { id, .. }
            | WorkerEvent::OutputReady { id, .. }
            | WorkerEvent::Failed { id, .. }
            | WorkerEvent::Counters { id, .. } => id,
        }
    }
}
