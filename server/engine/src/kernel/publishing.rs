//! The last step of a job, whose outcome may be unknown for a while: then the store decides.

use trilith_proto::fault::Fault;
use trilith_proto::id::{AttemptNumber, WorkerNumber};

use super::events::{Action, Attempt, Outcome};
use super::state::{Kernel, Step, Wait, is_retryable};
use crate::limits;

impl Kernel {
    pub(super) fn published(&mut self) -> Vec<Action> {
        if !matches!(self.step, Step::Publishing | Step::Settling) {
            return Vec::new();
        }
        self.step = Step::Done;
        self.mark_finished();
        vec![Action::StopWorkers, Action::Finish(Outcome::Success)]
    }

    /// Nothing stops the job any more: segments are being published, or the store is asked whether they were.
    pub fn is_publishing(&self) -> bool {
        self.step == Step::Settling || (self.step == Step::Publishing && self.shape.publishes)
    }

    /// The rows of a SELECT are being kept; that can be tried again.
    pub(super) fn is_keeping_results(&self) -> bool {
        self.step == Step::Publishing && !self.shape.publishes
    }

    pub(super) fn controller_failed(&mut self, fault: Fault, now_ms: i64) -> Vec<Action> {
        if self.shape.fault_tolerant && self.is_keeping_results() && is_retryable(&fault) {
            // The worker that held the rows may be lost, of which the controller hears in a moment.
            self.waits.remove(&Wait::Publish);
            let reason = fault.to_string();
            self.failed_publish = Some((fault, now_ms + limits::LOSS_NOTICE_MS));
            return match self.late_losses.first() {
                Some(worker) => {
                    let lost = self.shape.worker_task_id(self.newest_attempt(*worker));
                    self.workers_lost(&[], &lost, &reason)
                }
                None => Vec::new(),
            };
        }
        self.fail(fault, None)
    }

    fn newest_attempt(&self, worker: WorkerNumber) -> Attempt {
        let orders = self.stages.iter().filter_map(|stage| stage.orders.get(&worker));
        Attempt {
            worker,
            number: orders
                .map(|order| order.attempt)
                .max()
                .unwrap_or(AttemptNumber(0)),
        }
    }

    /// If rows of a SELECT could not be read: goes back to making them, for their worker is lost.
    pub(super) fn resume_publish(&mut self) -> bool {
        let failed = self.failed_publish.take().is_some();
        if failed {
            self.step = Step::Running;
        }
        failed
    }

    pub(super) fn publish_unknown(&mut self, fault: Fault, now_ms: i64) -> Vec<Action> {
        match self.step {
            Step::Publishing => self.settle(fault, now_ms),
            // The next deadline asks once more.
            _ => Vec::new(),
        }
    }

    /// Asks the store, again after a while, and gives up in the end.
    pub(super) fn settle(&mut self, fault: Fault, now_ms: i64) -> Vec<Action> {
        let (fault, asked) = self.unsettled.take().unwrap_or((fault, 0));
        if asked == limits::SETTLE_ATTEMPTS_MAX {
            return self.fail(fault, None);
        }
        self.step = Step::Settling;
        self.failed_publish = None;
        self.waits.remove(&Wait::Publish);
        self.waits
            .insert(Wait::Settle, now_ms + limits::SETTLE_TIMEOUT_MS);
        self.unsettled = Some((fault.clone(), asked + 1));
        vec![Action::SettlePublish { fault }]
    }

    pub(super) fn publish_settled(&mut self, published: bool) -> Vec<Action> {
        if self.step != Step::Settling {
            return Vec::new();
        }
        match self.unsettled.take() {
            Some((fault, _)) if !published => self.fail(fault, None),
            _ => self.published(),
        }
    }
}
