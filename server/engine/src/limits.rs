//! Every limit, next to the fault that it raises (see the specification of faults).

/// Columns of a stage's output; above it `TooManyColumns`.
pub const COLUMNS_MAX: usize = 2_000;
/// Cluster-by columns of a stage; above it `TooManyClusteredByColumns`.
pub const CLUSTERED_BY_COLUMNS_MAX: u64 = 1_500;
/// Workers of a stage; above it `TooManyWorkers`.
pub const WORKERS_MAX: u32 = 1_000;
/// Output partitions of a stage; above it `TooManyPartitions`.
pub const PARTITIONS_MAX: u64 = 25_000;
/// Milliseconds that a task waits for its first worker slots, unless the server is set otherwise; then
/// `TaskStartTimeout`.
pub const TASK_START_TIMEOUT_MS: i64 = 600_000;
/// How often later tasks may be given slots before a task that waits for many.
pub const SLOT_OVERTAKES_MAX: u32 = 16;
/// Milliseconds between two steps of a stage's launch and its first sign of life; then `WorkerFailed`.
pub const LAUNCH_TIMEOUT_MS: i64 = 120_000;
/// Milliseconds that a worker may take to cut its sorted output once it has the boundaries.
pub const BOUNDARIES_TIMEOUT_MS: i64 = 600_000;
/// Milliseconds that allocation of segments and publishing may take, lock waits included.
pub const PUBLISH_TIMEOUT_MS: i64 = 900_000;
/// Milliseconds in which the rows of a SELECT are collected: all of them go through the controller.
pub const RESULTS_TIMEOUT_MS: i64 = 6 * 3_600_000;
/// Verbose parse warnings that one worker reports.
pub const VERBOSE_PARSE_WARNINGS_MAX: u64 = 5;
/// Examples of values that became null because they do not convert, for each column of a report.
pub const CONVERSION_EXAMPLES_MAX: usize = 5;
/// Commands and events in flight between the controller and one worker process.
pub const WORKER_QUEUE_CAPACITY: usize = 1_024;
/// Events in flight to one running task.
pub const TASK_QUEUE_CAPACITY: usize = 4_096;
/// Share of `--memory-limit`, in percent, for sides of joins that are kept in memory, over all slots of a process.
/// Beyond it a join is sorted; `BroadcastTablesTooLarge` if it cannot be.
pub const JOIN_BUILD_PERCENT: u64 = 20;
/// Bytes of `--memory-limit` that a slot needs for any stage; below it `NotEnoughMemory`.
pub const SLOT_BYTES_MIN: u64 = 8 << 20;
/// One part in this many of a slot's memory is set aside for merging what a sort spilled, within these bounds.
pub const MERGE_PART: u64 = 16;
/// Rows of a batch: one for so many bytes of a slot's memory, at most. A merge holds a batch of each part.
pub const BATCH_PART: u64 = 8 << 10;
/// Least bytes set aside for a merge.
pub const MERGE_BYTES_MIN: u64 = 1 << 20;
/// Most bytes set aside for a merge.
pub const MERGE_BYTES_MAX: u64 = 10 << 20;
/// Bytes of encoded rows that are worth a row group of their own.
pub const ROW_GROUP_BYTES_MIN: u64 = 4 << 20;
/// Bytes of encoded rows that a segment writer collects at most.
pub const ROW_GROUP_BYTES_MAX: u64 = 128 << 20;
/// Names that no stored column may have; `ColumnNameRestricted`.
pub const RESERVED_COLUMNS: [&str; 2] = ["__boost", "__bucket"];
/// Files that one worker of a stage may read; above it `TooManyInputFiles`.
pub const INPUT_FILES_PER_WORKER_MAX: u64 = 10_000;
/// Time chunks of a stage's output, and tombstones of a REPLACE; above it `TooManyBuckets`.
pub const BUCKETS_MAX: u64 = 5_000;
/// Milliseconds that a task waits for its locks; then `InsertLockPreempted`.
pub const TASK_LOCK_TIMEOUT_MS: u64 = 300_000;
/// Relaunches of one worker (`TooManyAttemptsForWorker`).
pub const RELAUNCHES_PER_WORKER_MAX: u32 = 2;
/// Relaunches of all workers of a job (`TooManyAttemptsForJob`).
pub const RELAUNCHES_MAX: u32 = 100;
/// A failed work order runs again after this time: its failure may come before the news of a lost input.
pub const RELAUNCH_DELAY_MS: i64 = 1_000;
/// How long after a failed read the loss of a worker may be heard of.
pub const LOSS_NOTICE_MS: i64 = 15_000;
/// Milliseconds without a sign of a work order on a connection that lives; then `WorkerRpcFailed`, or another attempt.
/// Never less than two leases of a worker.
pub const ORDER_SILENCE_MS: i64 = 10_000;
/// Milliseconds between two events of a job; for what is above it, the controller itself stood still.
pub const EVENT_GAP_MS: i64 = 1_000;
/// Milliseconds after which the store is asked again whether a job is published.
pub const SETTLE_TIMEOUT_MS: i64 = 30_000;
/// How often the store is asked; then `UnknownError`.
pub const SETTLE_ATTEMPTS_MAX: u32 = 20;
