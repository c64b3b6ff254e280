//! The kernel: events in, actions out.

use std::collections::BTreeMap;

use trilith_proto::fault::{CancelReason, Fault, FaultCode};
use trilith_proto::id::{AttemptNumber, StageNumber, WorkerNumber};

use super::events::{Action, Attempt, Event, FinishedStage, Outcome, Phase, Shape};
use super::progress::{Boundaries, Order, OrderStep, StageProgress, Start};
use crate::limits;

/// One job.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(super) shape: Shape,
    pub(super) stages: Vec<StageProgress>,
    pub(super) step: Step,
    /// Steps of the controller that must be answered, and when that takes too long.
    pub(super) waits: BTreeMap<Wait, i64>,
    /// Reading a SELECT's rows failed; a lost worker may explain it until this time.
    pub(super) failed_publish: Option<(Fault, i64)>,
    /// How often the store was asked what became of publishing, and why it was asked.
    pub(super) unsettled: Option<(Fault, u32)>,
    /// When the last event came.
    pub(super) last_event_ms: Option<i64>,
    /// Workers lost while a SELECT's rows were being read.
    pub(super) late_losses: Vec<WorkerNumber>,
    /// Relaunches by worker.
    pub(super) relaunches: BTreeMap<WorkerNumber, u32>,
}

/// What the controller was told to do, and has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wait {
    Start,
    Launch(StageNumber),
    Relaunch(StageNumber),
    Boundaries(StageNumber),
    Publish,
    Settle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// For its locks.
    Waiting,
    Running,
    Publishing,
    /// Whether it was published is being found out.
    Settling,
    Done,
}

impl Kernel {
    /// A job that has not started.
    pub fn new(shape: Shape) -> Kernel {
        let stages = shape.stages.iter().map(|_| StageProgress::new()).collect();
        Kernel {
            shape,
            stages,
            step: Step::Waiting,
            waits: BTreeMap::new(),
            failed_publish: None,
            unsettled: None,
            last_event_ms: None,
            late_losses: Vec::new(),
            relaunches: BTreeMap::new(),
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
        self.forgive_gap(now_ms);
        let mut actions = match event {
            Event::Resumed { stages } => self.resumed(&stages, now_ms),
            Event::Started => self.started(),
            Event::Launched { stage, workers } => self.launched(stage, &workers, now_ms),
            Event::Relaunched { stage, orders } => self.relaunched(stage, &orders, now_ms),
            Event::InputRead { stage, order } => self.input_read(stage, order, now_ms),
            Event::BoundariesCut {
                stage,
                partition_count,
            } => self.boundaries_cut(stage, partition_count),
            Event::SegmentsAllocated { stage } => self.segments_allocated(stage),
            Event::OutputReady { stage, order } => self.output_ready(stage, order, now_ms),
            Event::Held { orders } => self.held(&orders, now_ms),
            Event::OrderFailed { stage, order, fault } => self.order_failed(stage, order, fault, now_ms),
            Event::StageFailed { stage, fault } => self.fail(fault, Some(stage)),
            Event::ControllerFailed { fault } => self.controller_failed(fault, now_ms),
            Event::WorkersLost {
                workers,
                worker_task_id,
                reason,
            } => self.workers_lost(&workers, &worker_task_id, &reason),
            Event::Published => self.published(),
            Event::PublishUnknown { fault } => self.publish_unknown(fault, now_ms),
            Event::PublishSettled { published } => self.publish_settled(published),
            Event::Cancel { reason } => self.cancel(reason),
            Event::Tick => self.tick(now_ms),
        };
        self.refresh();
        actions.extend(self.advance(now_ms));
        actions
    }

    fn refresh(&mut self) {
        for (progress, shape) in self.stages.iter_mut().zip(&self.shape.stages) {
            progress.phase = progress.derive_phase(shape.gathers_statistics);
        }
    }

    fn resumed(&mut self, stages: &[FinishedStage], now_ms: i64) -> Vec<Action> {
        if self.step != Step::Waiting {
            return Vec::new();
        }
        for finished in stages {
            if let Some(progress) = self.stages.get_mut(finished.stage.0 as usize) {
                progress.resume(finished, now_ms);
            }
        }
        Vec::new()
    }

    fn started(&mut self) -> Vec<Action> {
        if self.step == Step::Waiting {
            self.step = Step::Running;
            self.waits.remove(&Wait::Start);
        }
        Vec::new()
    }

    /// Whatever can be begun now: lost orders whose inputs are there, the next stage, publishing.
    fn advance(&mut self, now_ms: i64) -> Vec<Action> {
        if self.step != Step::Running {
            return Vec::new();
        }
        let mut actions = self.relaunch_ready(now_ms);
        for index in 0..self.stages.len() {
            if self.stages[index].start == Start::Allocated && self.inputs_ready(index) {
                actions.push(self.launch(index, now_ms));
            }
        }
        actions.extend(self.release_read());
        while let Some(index) = self.next_stage() {
            if self.shape.stages[index].writes_segments {
                let stage = StageNumber(index as u32);
                self.stages[index].start = Start::Allocating;
                // An INSERT waits for its locks here.
                let deadline = now_ms + limits::PUBLISH_TIMEOUT_MS.max(self.shape.lock_timeout_ms);
                self.waits.insert(Wait::Launch(stage), deadline);
                actions.push(Action::AllocateSegments { stage });
            } else {
                actions.push(self.launch(index, now_ms));
            }
            self.refresh();
        }
        let last = self.stages.last().map(|last| last.phase);
        if self.active_stages() == 0 && last == Some(Phase::ResultsReady) {
            self.step = Step::Publishing;
            let patience_ms = match self.shape.publishes {
                true => limits::PUBLISH_TIMEOUT_MS,
                false => limits::RESULTS_TIMEOUT_MS,
            };
            self.waits.insert(Wait::Publish, now_ms + patience_ms);
            actions.push(Action::Publish);
        }
        actions
    }

    /// The stage to start now, if another one may be active.
    fn next_stage(&self) -> Option<usize> {
        // One launch at a time asks for slots: a job that holds slots never waits for more.
        let launching = self.stages.iter().any(StageProgress::is_launching);
        if launching || self.active_stages() >= self.shape.max_concurrent_stages.max(1) as usize {
            return None;
        }
        (0..self.stages.len())
            .find(|index| self.stages[*index].phase == Phase::New && self.inputs_ready(*index))
    }

    fn active_stages(&self) -> usize {
        let active = self.stages.iter().filter(|stage| {
            matches!(
                stage.phase,
                Phase::ReadingInput | Phase::MergingStatistics | Phase::PostReading | Phase::Retrying
            )
        });
        active.count()
    }

    fn launch(&mut self, index: usize, now_ms: i64) -> Action {
        let stage = StageNumber(index as u32);
        self.stages[index].start = Start::Launching;
        let deadline = self.launch_deadline(now_ms);
        self.waits.insert(Wait::Launch(stage), deadline);
        Action::Launch { stage }
    }

    fn launch_deadline(&self, now_ms: i64) -> i64 {
        // The first launch may also wait for a lock that was lent while the job had no slots.
        let first = self.stages.iter().all(|stage| stage.phase == Phase::New);
        let lent_ms = if first { self.shape.lock_timeout_ms } else { 0 };
        now_ms + self.shape.start_timeout_ms + limits::LAUNCH_TIMEOUT_MS + lent_ms
    }

    pub(super) fn inputs_ready(&self, index: usize) -> bool {
        self.shape.stages[index]
            .inputs
            .iter()
            .all(|input| self.phase(*input) == Some(Phase::ResultsReady))
    }

    pub(super) fn expect_relaunch(&mut self, stage: StageNumber, now_ms: i64) {
        let deadline = self.launch_deadline(now_ms);
        self.waits.insert(Wait::Relaunch(stage), deadline);
    }

    pub(super) fn relaunch_answered(&mut self, stage: StageNumber) {
        let sending = self.stages.get(stage.0 as usize).is_some_and(|progress| {
            progress
                .orders
                .values()
                .any(|order| order.step == OrderStep::Sending)
        });
        if !sending {
            self.waits.remove(&Wait::Relaunch(stage));
        }
    }

    fn phase(&self, stage: StageNumber) -> Option<Phase> {
        self.stages.get(stage.0 as usize).map(|progress| progress.phase)
    }

    fn segments_allocated(&mut self, stage: StageNumber) -> Vec<Action> {
        if let Some(progress) = self.stages.get_mut(stage.0 as usize)
            && progress.start == Start::Allocating
        {
            progress.start = Start::Allocated;
            self.waits.remove(&Wait::Launch(stage));
        }
        Vec::new()
    }

    fn launched(&mut self, stage: StageNumber, workers: &[WorkerNumber], now_ms: i64) -> Vec<Action> {
        let Some(progress) = self.stages.get_mut(stage.0 as usize) else {
            return Vec::new();
        };
        if progress.start != Start::Launching || workers.is_empty() {
            return Vec::new();
        }
        progress.start = Start::Launched;
        let stale = std::mem::take(&mut progress.stale_launch);
        progress.orders = workers
            .iter()
            .map(|worker| {
                let order = Order {
                    attempt: AttemptNumber(0),
                    step: OrderStep::Running,
                    gone: false,
                    not_before_ms: 0,
                    seen_ms: now_ms,
                };
                (*worker, order)
            })
            .collect();
        // From here on honest work has no deadline, but silence has (see `silence`).
        self.waits.remove(&Wait::Launch(stage));
        if stale {
            return self.restart_orders(stage);
        }
        Vec::new()
    }

    /// The order, if this attempt is the newest and was sent.
    pub(super) fn running(&mut self, stage: StageNumber, attempt: Attempt) -> Option<&mut Order> {
        let progress = self.stages.get_mut(stage.0 as usize)?;
        if matches!(progress.phase, Phase::Finished | Phase::Failed) {
            return None;
        }
        let order = progress.orders.get_mut(&attempt.worker)?;
        (order.attempt == attempt.number && order.step >= OrderStep::Sending).then_some(order)
    }

    fn input_read(&mut self, stage: StageNumber, attempt: Attempt, now_ms: i64) -> Vec<Action> {
        let gathers = self
            .shape
            .stages
            .get(stage.0 as usize)
            .is_some_and(|shape| shape.gathers_statistics);
        let Some(order) = self.running(stage, attempt) else {
            return Vec::new();
        };
        if !gathers || order.step >= OrderStep::InputRead {
            return Vec::new();
        }
        order.step = OrderStep::InputRead;
        order.seen_ms = now_ms;
        let progress = &mut self.stages[stage.0 as usize];
        match progress.boundaries {
            Boundaries::Cut => {
                return vec![Action::SendBoundaries {
                    stage,
                    order: attempt,
                }];
            }
            Boundaries::None if progress.all_at_least(OrderStep::InputRead) => {}
            _ => return Vec::new(),
        }
        progress.boundaries = Boundaries::Cutting;
        let deadline = now_ms + limits::BOUNDARIES_TIMEOUT_MS;
        self.waits.insert(Wait::Boundaries(stage), deadline);
        vec![Action::CutBoundaries { stage }]
    }

    fn boundaries_cut(&mut self, stage: StageNumber, partition_count: u32) -> Vec<Action> {
        let Some(progress) = self.stages.get_mut(stage.0 as usize) else {
            return Vec::new();
        };
        if progress.boundaries != Boundaries::Cutting {
            return Vec::new();
        }
        progress.boundaries = Boundaries::Cut;
        progress.partition_count = partition_count;
        self.waits.remove(&Wait::Boundaries(stage));
        progress
            .orders
            .iter()
            .filter(|(_, order)| order.step == OrderStep::InputRead)
            .map(|(worker, order)| Action::SendBoundaries {
                stage,
                order: Attempt {
                    worker: *worker,
                    number: order.attempt,
                },
            })
            .collect()
    }

    fn output_ready(&mut self, stage: StageNumber, attempt: Attempt, now_ms: i64) -> Vec<Action> {
        let Some(shape) = self.shape.stages.get(stage.0 as usize) else {
            return Vec::new();
        };
        let gathers = shape.gathers_statistics;
        let cut = self.stages[stage.0 as usize].boundaries == Boundaries::Cut;
        if let Some(order) = self.running(stage, attempt)
            && (!gathers || (cut && order.step >= OrderStep::InputRead))
        {
            order.step = OrderStep::OutputReady;
            order.seen_ms = now_ms;
        }
        Vec::new()
    }

    /// Releases outputs that nobody still has to read.
    fn release_read(&mut self) -> Vec<Action> {
        let fault_tolerant = self.shape.fault_tolerant;
        let mut actions = Vec::new();
        for index in 0..self.stages.len() {
            let stage = StageNumber(index as u32);
            let mut readers = self
                .shape
                .stages
                .iter()
                .zip(&self.stages)
                .filter(|(shape, _)| shape.inputs.contains(&stage))
                .peekable();
            // A reader whose own output may be lost could need its input once more.
            let read = readers.peek().is_some()
                && readers.all(|(shape, progress)| {
                    matches!(progress.phase, Phase::ResultsReady | Phase::Finished)
                        && (!fault_tolerant || shape.durable)
                });
            let progress = &mut self.stages[index];
            if read && !progress.released {
                progress.released = true;
                progress.phase = Phase::Finished;
                actions.push(Action::Release { stage });
            }
        }
        actions
    }

    /// Shows every stage as finished: the report of a success is written before the kernel hears of it.
    pub fn mark_finished(&mut self) {
        for stage in &mut self.stages {
            stage.phase = Phase::Finished;
        }
    }

    pub(super) fn fail(&mut self, fault: Fault, stage: Option<StageNumber>) -> Vec<Action> {
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

    fn tick(&mut self, now_ms: i64) -> Vec<Action> {
        if self.step == Step::Waiting {
            let deadline = now_ms + self.shape.lock_timeout_ms;
            self.waits.entry(Wait::Start).or_insert(deadline);
        }
        if !self.is_publishing() {
            if self.shape.deadline_ms.is_some_and(|deadline| now_ms >= deadline) {
                return self.cancel(CancelReason::QueryTimeout);
            }
            let silent = self.silent(now_ms);
            if self.step == Step::Done {
                return silent;
            }
            if let Some((fault, until)) = self.failed_publish.clone()
                && now_ms >= until
            {
                return self.fail(fault, None);
            }
            if !silent.is_empty() {
                return silent;
            }
        }
        let late = self.waits.iter().find(|(_, deadline)| now_ms >= **deadline);
        match late.map(|(wait, _)| *wait) {
            None => Vec::new(),
            Some(Wait::Publish | Wait::Settle) => self.settle(too_late("publishing"), now_ms),
            Some(wait) => self.fail(too_late(wait.name()), None),
        }
    }
}

fn too_late(what: &str) -> Fault {
    Fault::unknown(format!(
        "The controller's own work ({what}) did not end in time. Look for errors in the server's log, then submit the task again."
    ))
}

impl Wait {
    fn name(self) -> &'static str {
        match self {
            Wait::Start => "waiting for locks",
            Wait::Launch(_) => "starting a stage",
            Wait::Relaunch(_) => "starting lost work again",
            Wait::Boundaries(_) => "cutting partitions",
            Wait::Publish | Wait::Settle => "publishing",
        }
    }
}

/// Faults after which another attempt may do better.
pub(super) fn is_retryable(fault: &Fault) -> bool {
    matches!(
        fault.code,
        FaultCode::Canceled | FaultCode::UnknownError | FaultCode::WorkerRpcFailed
    )
}
