//! How far stages and their work orders are.

use std::collections::BTreeMap;

use trilith_proto::id::{AttemptNumber, WorkerNumber};

use super::events::{Attempt, FinishedStage, Phase};

/// How far one work order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OrderStep {
    /// It must run (again); nothing was sent for this attempt.
    Lost,
    /// Being sent.
    Sending,
    /// It runs.
    Running,
    /// It has read all its input, and reported key statistics.
    InputRead,
    /// Its output is complete.
    OutputReady,
}

/// The newest attempt of one worker at one stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub attempt: AttemptNumber,
    pub step: OrderStep,
    /// Its output went with its worker when nobody needed it; a later loss may need it again.
    pub gone: bool,
    /// A lost order is not sent again before this time.
    pub not_before_ms: i64,
    /// When its worker last gave a sign of it.
    pub seen_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundaries {
    None,
    Cutting,
    Cut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Not started.
    New,
    /// Segment ids are being allocated.
    Allocating,
    /// They are allocated; work orders can be sent as soon as the inputs are there.
    Allocated,
    /// Work orders are being sent for the first time.
    Launching,
    /// All workers are known.
    Launched,
}

/// Progress of one stage.
#[derive(Debug, Clone)]
pub struct StageProgress {
    /// Current phase.
    pub phase: Phase,
    /// Output partitions, once known.
    pub partition_count: u32,
    pub(super) start: Start,
    pub(super) orders: BTreeMap<WorkerNumber, Order>,
    pub(super) boundaries: Boundaries,
    /// An input was lost while the first orders were being sent; they must start again.
    pub(super) stale_launch: bool,
    pub(super) released: bool,
}

impl StageProgress {
    pub(super) fn new() -> StageProgress {
        StageProgress {
            phase: Phase::New,
            partition_count: 0,
            start: Start::New,
            orders: BTreeMap::new(),
            boundaries: Boundaries::None,
            stale_launch: false,
            released: false,
        }
    }

    /// Takes over what an earlier run of the job finished.
    pub(super) fn resume(&mut self, finished: &FinishedStage, now_ms: i64) {
        self.start = Start::Launched;
        self.boundaries = Boundaries::Cut;
        self.partition_count = finished.partition_count;
        match &finished.outputs {
            Some(outputs) => {
                let order = |attempt: &Attempt| Order {
                    attempt: attempt.number,
                    step: OrderStep::OutputReady,
                    gone: false,
                    not_before_ms: 0,
                    seen_ms: now_ms,
                };
                self.orders = outputs
                    .iter()
                    .map(|attempt| (attempt.worker, order(attempt)))
                    .collect();
            }
            None => {
                self.released = true;
                self.phase = Phase::Finished;
            }
        }
    }

    /// Its first work orders are being sent.
    pub(super) fn is_launching(&self) -> bool {
        self.start == Start::Launching
    }

    /// Its first work orders were sent.
    pub fn is_launched(&self) -> bool {
        self.start == Start::Launched
    }

    /// This attempt was sent, and is the newest of its worker.
    pub fn is_sent(&self, attempt: Attempt) -> bool {
        self.orders
            .get(&attempt.worker)
            .is_some_and(|order| order.attempt == attempt.number && order.step >= OrderStep::Running)
    }

    /// Key boundaries are cut.
    pub fn has_boundaries(&self) -> bool {
        self.boundaries == Boundaries::Cut
    }

    pub(super) fn all_at_least(&self, step: OrderStep) -> bool {
        self.is_launched() && self.orders.values().all(|order| order.step >= step)
    }

    /// What the orders amount to. Final phases stay.
    pub(super) fn derive_phase(&self, gathers_statistics: bool) -> Phase {
        match self.phase {
            Phase::Finished | Phase::Failed => return self.phase,
            _ => {}
        }
        match self.start {
            Start::New => return Phase::New,
            Start::Allocating | Start::Allocated | Start::Launching => return Phase::ReadingInput,
            Start::Launched => {}
        }
        if !self.all_at_least(OrderStep::Running) {
            return Phase::Retrying;
        }
        if self.all_at_least(OrderStep::OutputReady) {
            return Phase::ResultsReady;
        }
        if !gathers_statistics {
            return Phase::ReadingInput;
        }
        if !self.all_at_least(OrderStep::InputRead) {
            return Phase::ReadingInput;
        }
        match self.boundaries {
            Boundaries::Cut => Phase::PostReading,
            _ => Phase::MergingStatistics,
        }
    }
}
