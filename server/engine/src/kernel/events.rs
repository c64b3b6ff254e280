//! What the kernel hears and says.

use trilith_proto::fault::{CancelReason, Fault};
use trilith_proto::id::{AttemptNumber, StageNumber, WorkerNumber};

/// Phase of a stage as the controller sees it and the report shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    New,
    /// Workers read their inputs.
    ReadingInput,
    /// All inputs are read; key statistics are merged and boundaries cut.
    MergingStatistics,
    /// Workers cut their sorted output.
    PostReading,
    /// Work orders of lost workers run again.
    Retrying,
    /// All output can be read.
    ResultsReady,
    /// Output was read and released.
    Finished,
    /// The stage failed.
    Failed,
}

impl Phase {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::New => "NEW",
            Phase::ReadingInput => "READING_INPUT",
            Phase::MergingStatistics => "MERGING_STATISTICS",
            Phase::PostReading => "POST_READING",
            Phase::Retrying => "RETRYING",
            Phase::ResultsReady => "RESULTS_READY",
            Phase::Finished => "FINISHED",
            Phase::Failed => "FAILED",
        }
    }
}

/// What the kernel must know of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageShape {
    /// Stages whose output it reads.
    pub inputs: Vec<StageNumber>,
    /// Its output is sorted: a phase POST_READING follows the reading.
    pub sorts: bool,
    /// Its workers gather key statistics, and boundaries are cut at a barrier.
    pub gathers_statistics: bool,
    /// It writes segments, so segment ids are allocated before it starts.
    pub writes_segments: bool,
    /// Its finished outputs outlive their workers.
    pub durable: bool,
}

/// What the kernel must know of a job. Stages are in order of their numbers; the last is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Controller task id, of which those of workers are made.
    pub task: String,
    /// One for each stage, index = stage number.
    pub stages: Vec<StageShape>,
    /// Its last step publishes segments (INSERT, REPLACE), which cannot be stopped half way; else it keeps
    /// the rows of a SELECT, which can.
    pub publishes: bool,
    /// Lost work runs again (`faultTolerance`). Outputs are kept until the job ends, because a later loss may
    /// need them once more.
    pub fault_tolerant: bool,
    /// Milliseconds since the epoch after which the job is cancelled; none without a `timeout`.
    pub deadline_ms: Option<i64>,
    /// Stages that may be active at the same time (`maxConcurrentStages`), at least 1.
    pub max_concurrent_stages: u32,
    /// Milliseconds that the launch of a stage may wait for worker slots.
    pub start_timeout_ms: i64,
    /// Milliseconds that the job may wait for its locks.
    pub lock_timeout_ms: i64,
    /// Milliseconds without a sign of a work order, or of an output that is kept, after which it is lost.
    pub silence_ms: i64,
}

impl Shape {
    /// Worker task id of an attempt.
    pub(super) fn worker_task_id(&self, attempt: Attempt) -> String {
        format!("{}-worker{}_{}", self.task, attempt.worker.0, attempt.number.0)
    }
}

/// One attempt of one worker at a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// Which worker of the job.
    pub worker: WorkerNumber,
    /// Counts from 0.
    pub number: AttemptNumber,
}

/// How far a worker process says that a work order is which it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldStep {
    /// It runs.
    Running,
    /// It has read all its input and waits for boundaries.
    InputRead,
    /// Its output is complete.
    OutputReady,
    /// It failed.
    Failed,
}

/// A work order that a worker process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Of which stage.
    pub stage: StageNumber,
    /// Which attempt.
    pub order: Attempt,
    /// How far it is.
    pub step: HeldStep,
}

/// A stage that an earlier run of the job finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedStage {
    /// Which stage.
    pub stage: StageNumber,
    /// Whose outputs can still be read; none when all who would read them have finished too, so that the outputs may be
    /// gone.
    pub outputs: Option<Vec<Attempt>>,
    /// Output partitions.
    pub partition_count: u32,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Work of an earlier run of the job, which need not be done again. Only before `Started`.
    Resumed { stages: Vec<FinishedStage> },
    /// The job may start: its locks are held.
    Started,
    /// Work orders of a stage were sent to these workers, as their first attempts.
    Launched {
        stage: StageNumber,
        workers: Vec<WorkerNumber>,
    },
    /// These attempts were sent.
    Relaunched {
        stage: StageNumber,
        orders: Vec<Attempt>,
    },
    /// A worker read all its input. Only from stages that sort with statistics.
    InputRead { stage: StageNumber, order: Attempt },
    /// Boundaries of a stage were cut into this many partitions.
    BoundariesCut {
        stage: StageNumber,
        partition_count: u32,
    },
    /// Segment ids for the stage were allocated.
    SegmentsAllocated { stage: StageNumber },
    /// A worker's output is complete.
    OutputReady { stage: StageNumber, order: Attempt },
    /// A worker's order failed.
    OrderFailed {
        stage: StageNumber,
        order: Attempt,
        fault: Fault,
    },
    /// The controller's own work for a stage failed.
    StageFailed { stage: StageNumber, fault: Fault },
    /// The controller's own work failed outside any stage.
    ControllerFailed { fault: Fault },
    /// Everything of this job that a worker process holds now. Heals what other messages lost on their way.
    Held { orders: Vec<Held> },
    /// A worker process is gone; these workers of the job ran there.
    WorkersLost {
        workers: Vec<WorkerNumber>,
        worker_task_id: String,
        reason: String,
    },
    /// Publishing ended well.
    Published,
    /// Publishing (or settling it) failed in a way that does not tell whether the transaction was committed.
    PublishUnknown { fault: Fault },
    /// The store has decided: the job is published, or it is recorded as failed and never will be.
    PublishSettled { published: bool },
    /// Somebody asked to stop.
    Cancel { reason: CancelReason },
    /// Time passes.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Assign inputs, get slots, send work orders; answer `Launched`.
    Launch { stage: StageNumber },
    /// Send these attempts, on new slots where a worker was lost; answer `Relaunched`.
    Relaunch {
        stage: StageNumber,
        orders: Vec<Attempt>,
    },
    /// Stop this attempt and drop its output: it read from an attempt that is lost, or another one replaced it.
    CancelOrder { stage: StageNumber, order: Attempt },
    /// Ask a worker to repeat how far this attempt is: it has told, and nobody has heard.
    AskAgain { stage: StageNumber, order: Attempt },
    /// Send the boundaries that were cut to an attempt that has read its input.
    SendBoundaries { stage: StageNumber, order: Attempt },
    /// Merge statistics, cut boundaries; answer `BoundariesCut`.
    CutBoundaries { stage: StageNumber },
    /// Allocate segment ids for the partitions of the stage's input; answer `SegmentsAllocated`.
    AllocateSegments { stage: StageNumber },
    /// Tell workers that nobody reads this stage's output any more.
    Release { stage: StageNumber },
    /// Publish segments (or keep result rows), report and final state in one step; answer `Published`,
    /// `ControllerFailed` (nothing was committed) or `PublishUnknown`.
    Publish,
    /// Record the job as failed unless it is published already; answer `PublishSettled` or `PublishUnknown`.
    SettlePublish { fault: Fault },
    /// Stop all workers of the job and drop what they hold.
    StopWorkers,
    /// The job ended.
    Finish(Outcome),
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Everything that was asked for is there.
    Success,
    /// Nothing was published. `stage` is where it failed, if in a stage.
    Failed {
        fault: Fault,
        stage: Option<StageNumber>,
    },
}
