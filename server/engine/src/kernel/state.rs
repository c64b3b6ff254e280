//! The kernel: events in, actions out.

use std::collections::BTreeSet;

use trilith_proto::fault::{CancelReason, Fault};
use trilith_proto::id::{StageNumber, WorkerNumber};

use crate::limits;

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
}

/// What the kernel must know of a job. Stages are in order of their numbers; the last is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// One for each stage, index = stage number.
    pub stages: Vec<StageShape>,
    /// Its last step publishes segments (INSERT, REPLACE), which cannot be stopped half way; else it keeps
    /// the rows of a SELECT, which can.
    pub publishes: bool,
    /// Milliseconds since the epoch after which the job is cancelled; none without a `timeout`.
    pub deadline_ms: Option<i64>,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The job may start: its locks are held.
    Started,
    /// Work orders of a stage were sent to these workers.
    Launched {
        stage: StageNumber,
        workers: Vec<WorkerNumber>,
    },
    /// A worker read all its input. Only from stages that sort with statistics.
    InputRead {
        stage: StageNumber,
        worker: WorkerNumber,
    },
    /// Boundaries of a stage were cut into this many partitions and sent.
    BoundariesCut {
        stage: StageNumber,
        partition_count: u32,
    },
    /// Segment ids for the stage were allocated.
    SegmentsAllocated { stage: StageNumber },
    /// A worker's output is complete.
    OutputReady {
        stage: StageNumber,
        worker: WorkerNumber,
    },
    /// A worker's order, or the controller's own work for a stage, failed.
    StageFailed { stage: StageNumber, fault: Fault },
    /// The controller's own work failed outside any stage.
    ControllerFailed { fault: Fault },
    /// A worker process is gone; these workers of the job ran there.
    WorkersLost {
        workers: Vec<WorkerNumber>,
        worker_task_id: String,
        reason: String,
    },
    /// Publishing ended well.
    Published,
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
    /// Merge statistics, cut boundaries, send them; answer `BoundariesCut`.
    CutBoundaries { stage: StageNumber },
    /// Allocate segment ids for the partitions of the stage's input; answer `SegmentsAllocated`.
    AllocateSegments { stage: StageNumber },
    /// Tell workers that nobody reads this stage's output any more.
    Release { stage: StageNumber },
    /// Publish segments (or keep result rows), report and final state in one step; answer `Published`.
    Publish,
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

/// Progress of one stage.
#[derive(Debug, Clone)]
pub struct StageProgress {
    /// Current phase.
    pub phase: Phase,
    /// Workers that got an order.
    pub workers: BTreeSet<WorkerNumber>,
    /// Output partitions, once known.
    pub partition_count: u32,
    input_read: BTreeSet<WorkerNumber>,
    output_ready: BTreeSet<WorkerNumber>,
    released: bool,
}

/// One job.
#[derive(Debug, Clone)]
pub struct Kernel {
    shape: Shape,
    stages: Vec<StageProgress>,
    step: Step,
    /// When the present wait is too long.
    wait_deadline_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
    Running,
    Publishing,
    Done,
}

impl Kernel {
    /// A job that has not started.
    pub fn new(shape: Shape) -> Kernel {
        let stages = shape
            .stages
            .iter()
            .map(|_| StageProgress {
                phase: Phase::New,
                workers: BTreeSet::new(),
                partition_count: 0,
                input_read: BTreeSet::new(),
                output_ready: BTreeSet::new(),
                released: false,
            })
            .collect();
        Kernel {
            shape,
            stages,
            step: Step::Waiting,
            wait_deadline_ms: None,
        }
    }

    /// Progress by stage number.
    pub fn stages(&self) -> &[StageProgress] {
        &self.stages
    }

    /// True after `Finish` was returned.
    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// Takes one event at a time (milliseconds since the epoch) and returns what to do, in order.
    ///
    /// Late, repeated and impossible events change nothing. After `Finish` nothing is returned.
    pub fn on_event(&mut self, event: Event, now_ms: i64) -> Vec<Action> {
        if self.step == Step::Done {
            return Vec::new();
        }
        match event {
            Event::Started => self.started(now_ms),
            Event::Launched { stage, workers } => self.launched(stage, workers),
            Event::InputRead { stage, worker } => self.input_read(stage, worker, now_ms),
            Event::BoundariesCut {
                stage,
                partition_count,
            } => self.boundaries_cut(stage, partition_count, now_ms),
            Event::SegmentsAllocated { stage } => self.segments_allocated(stage, now_ms),
            Event::OutputReady { stage, worker } => self.output_ready(stage, worker, now_ms),
            Event::StageFailed { stage, fault } => self.fail(fault, Some(stage)),
            Event::ControllerFailed { fault } => self.fail(fault, None),
            Event::WorkersLost {
                workers,
                worker_task_id,
                reason,
            } => self.workers_lost(&workers, &worker_task_id, &reason),
            Event::Published => self.published(),
            Event::Cancel { reason } => self.cancel(reason),
            Event::Tick => self.tick(now_ms),
        }
    }

    fn started(&mut self, now_ms: i64) -> Vec<Action> {
        if self.step != Step::Waiting {
            return Vec::new();
        }
        self.step = Step::Running;
        self.start_ready(now_ms)
    }

    /// Starts the first stage whose inputs are ready, one at a time.
    fn start_ready(&mut self, now_ms: i64) -> Vec<Action> {
        let busy = self.stages.iter().any(|stage| {
            matches!(
                stage.phase,
                Phase::ReadingInput | Phase::MergingStatistics | Phase::PostReading
            )
        });
        if busy {
            return Vec::new();
        }
        let next = self
            .stages
            .iter()
            .zip(&self.shape.stages)
            .position(|(progress, shape)| {
                progress.phase == Phase::New
                    && shape
                        .inputs
                        .iter()
                        .all(|input| self.phase(*input) == Some(Phase::ResultsReady))
            });
        let Some(index) = next else { return Vec::new() };
        let stage = StageNumber(index as u32);
        self.stages[index].phase = Phase::ReadingInput;
        if self.shape.stages[index].writes_segments {
            self.wait_deadline_ms = Some(now_ms + limits::PUBLISH_TIMEOUT_MS);
            return vec![Action::AllocateSegments { stage }];
        }
        self.wait_deadline_ms = Some(now_ms + limits::TASK_START_TIMEOUT_MS + limits::LAUNCH_TIMEOUT_MS);
        vec![Action::Launch { stage }]
    }

    fn phase(&self, stage: StageNumber) -> Option<Phase> {
        self.stages.get(stage.0 as usize).map(|progress| progress.phase)
    }

    fn segments_allocated(&mut self, stage: StageNumber, now_ms: i64) -> Vec<Action> {
        let index = stage.0 as usize;
        let expected = self.phase(stage) == Some(Phase::ReadingInput)
            && self.shape.stages[index].writes_segments
            && self.stages[index].workers.is_empty();
        if !expected {
            return Vec::new();
        }
        self.wait_deadline_ms = Some(now_ms + limits::TASK_START_TIMEOUT_MS + limits::LAUNCH_TIMEOUT_MS);
        vec![Action::Launch { stage }]
    }

    fn launched(&mut self, stage: StageNumber, workers: Vec<WorkerNumber>) -> Vec<Action> {
        if self.phase(stage) != Some(Phase::ReadingInput) {
            return Vec::new();
        }
        let progress = &mut self.stages[stage.0 as usize];
        if !progress.workers.is_empty() {
            return Vec::new();
        }
        progress.workers = workers.into_iter().collect();
        // From here on workers send heartbeats, and losing one is an event: no deadline on honest work.
        self.wait_deadline_ms = None;
        Vec::new()
    }

    fn input_read(&mut self, stage: StageNumber, worker: WorkerNumber, now_ms: i64) -> Vec<Action> {
        let index = stage.0 as usize;
        if self.phase(stage) != Some(Phase::ReadingInput) || !self.shape.stages[index].gathers_statistics {
            return Vec::new();
        }
        let progress = &mut self.stages[index];
        if !progress.workers.contains(&worker) {
            return Vec::new();
        }
        progress.input_read.insert(worker);
        if progress.input_read != progress.workers {
            return Vec::new();
        }
        progress.phase = Phase::MergingStatistics;
        self.wait_deadline_ms = Some(now_ms + limits::BOUNDARIES_TIMEOUT_MS);
        vec![Action::CutBoundaries { stage }]
    }

    fn boundaries_cut(&mut self, stage: StageNumber, partition_count: u32, now_ms: i64) -> Vec<Action> {
        if self.phase(stage) != Some(Phase::MergingStatistics) {
            return Vec::new();
        }
        let progress = &mut self.stages[stage.0 as usize];
        progress.phase = Phase::PostReading;
        progress.partition_count = partition_count;
        self.wait_deadline_ms = Some(now_ms + limits::BOUNDARIES_TIMEOUT_MS);
        Vec::new()
    }

    fn output_ready(&mut self, stage: StageNumber, worker: WorkerNumber, now_ms: i64) -> Vec<Action> {
        let index = stage.0 as usize;
        let shape = match self.shape.stages.get(index) {
            Some(shape) => shape.clone(),
            None => return Vec::new(),
        };
        let expected = match self.stages[index].phase {
            Phase::ReadingInput => !shape.gathers_statistics,
            Phase::PostReading => true,
            _ => false,
        };
        let progress = &mut self.stages[index];
        if !expected || !progress.workers.contains(&worker) {
            return Vec::new();
        }
        progress.output_ready.insert(worker);
        if shape.sorts && progress.phase == Phase::ReadingInput {
            // A local sort: whoever reports output has read its input.
            progress.input_read.insert(worker);
        }
        if progress.output_ready != progress.workers {
            return Vec::new();
        }
        progress.phase = Phase::ResultsReady;
        self.wait_deadline_ms = None;
        self.after_results(stage, now_ms)
    }

    fn after_results(&mut self, stage: StageNumber, now_ms: i64) -> Vec<Action> {
        let mut actions = self.release_inputs(stage);
        if stage.0 as usize + 1 < self.stages.len() {
            actions.extend(self.start_ready(now_ms));
            return actions;
        }
        self.step = Step::Publishing;
        self.wait_deadline_ms = Some(now_ms + limits::PUBLISH_TIMEOUT_MS);
        actions.push(Action::Publish);
        actions
    }

    /// Releases the inputs of a stage that nobody else still has to read.
    fn release_inputs(&mut self, stage: StageNumber) -> Vec<Action> {
        let mut actions = Vec::new();
        for input in self.shape.stages[stage.0 as usize].inputs.clone() {
            let still_read = self
                .shape
                .stages
                .iter()
                .zip(&self.stages)
                .any(|(shape, progress)| {
                    shape.inputs.contains(&input)
                        && !matches!(progress.phase, Phase::ResultsReady | Phase::Finished)
                });
            let progress = &mut self.stages[input.0 as usize];
            if !still_read && !progress.released {
                progress.released = true;
                progress.phase = Phase::Finished;
                actions.push(Action::Release { stage: input });
            }
        }
        actions
    }

    fn published(&mut self) -> Vec<Action> {
        if self.step != Step::Publishing {
            return Vec::new();
        }
        self.finish_stages();
        vec![Action::StopWorkers, Action::Finish(Outcome::Success)]
    }

    fn is_publishing(&self) -> bool {
        self.step == Step::Publishing && self.shape.publishes
    }

    fn finish_stages(&mut self) {
        self.step = Step::Done;
        self.mark_finished();
    }

    /// Shows every stage as finished: the report of a success is written before the kernel hears of it.
    pub fn mark_finished(&mut self) {
        for stage in &mut self.stages {
            stage.phase = Phase::Finished;
        }
    }

    fn fail(&mut self, fault: Fault, stage: Option<StageNumber>) -> Vec<Action> {
        if let Some(progress) = stage.and_then(|stage| self.stages.get_mut(stage.0 as usize)) {
            progress.phase = Phase::Failed;
        }
        self.step = Step::Done;
        vec![
            Action::StopWorkers,
            Action::Finish(Outcome::Failed { fault, stage }),
        ]
    }

    fn cancel(&mut self, reason: CancelReason) -> Vec<Action> {
        if self.is_publishing() {
            // The publish transaction has begun: the job ends as that ends.
            return Vec::new();
        }
        self.fail(Fault::canceled(reason), None)
    }

    fn workers_lost(&mut self, workers: &[WorkerNumber], worker_task_id: &str, reason: &str) -> Vec<Action> {
        if self.is_publishing() {
            // Every segment is written already; no worker is needed any more.
            return Vec::new();
        }
        let needed = self.stages.iter().position(|progress| {
            !matches!(progress.phase, Phase::New | Phase::Finished | Phase::Failed)
                && workers.iter().any(|worker| progress.workers.contains(worker))
        });
        match needed {
            Some(index) => {
                let fault = Fault::worker_failed(worker_task_id, Some(reason));
                self.fail(fault, Some(StageNumber(index as u32)))
            }
            None => Vec::new(),
        }
    }

    fn tick(&mut self, now_ms: i64) -> Vec<Action> {
        if self.is_publishing() {
            return Vec::new();
        }
        if self.shape.deadline_ms.is_some_and(|deadline| now_ms >= deadline) {
            return self.cancel(CancelReason::QueryTimeout);
        }
        if self.wait_deadline_ms.is_some_and(|deadline| now_ms >= deadline) {
            return self.fail(Fault::unknown("a step of the job did not end in time"), None);
        }
        Vec::new()
    }
}
