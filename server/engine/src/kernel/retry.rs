//! What happens to work orders whose worker or input is lost.

use std::collections::BTreeSet;

use trilith_proto::fault::Fault;
use trilith_proto::id::{AttemptNumber, StageNumber, WorkerNumber};

use super::events::{Action, Attempt, Phase};
use super::progress::OrderStep;
use super::state::{Kernel, is_retryable};
use crate::limits;

impl Kernel {
    pub(super) fn workers_lost(
        &mut self,
        workers: &[WorkerNumber],
        worker_task_id: &str,
        reason: &str,
    ) -> Vec<Action> {
        if self.is_publishing() {
            // Every segment is written already; no worker is needed any more.
            return Vec::new();
        }
        let mut all = Vec::new();
        if self.shape.fault_tolerant && self.is_keeping_results() {
            self.late_losses.extend(workers);
            if !self.resume_publish() {
                // Perhaps the rows are all read already; if not, that failure says so.
                return Vec::new();
            }
            all.append(&mut self.late_losses);
        } else {
            all.extend(workers);
        }
        let fault = Fault::worker_failed(worker_task_id, Some(reason));
        self.run_again(&all, worker_task_id, reason, fault)
    }

    /// Outputs that were marked as gone, on workers that live.
    pub(super) fn outputs_gone(&mut self, worker_task_id: &str, reason: &str) -> Vec<Action> {
        if self.is_keeping_results() && !self.resume_publish() {
            return Vec::new();
        }
        let fault = Fault::worker_rpc_failed(worker_task_id, reason);
        self.run_again(&[], worker_task_id, reason, fault)
    }

    /// Everything that was lost with these workers or before, and is needed, runs again; or the job fails.
    fn run_again(
        &mut self,
        workers: &[WorkerNumber],
        worker_task_id: &str,
        reason: &str,
        fault: Fault,
    ) -> Vec<Action> {
        let needed = self.needed_losses(workers);
        for progress in &mut self.stages {
            for (worker, order) in &mut progress.orders {
                order.gone |= workers.contains(worker) && order.step == OrderStep::OutputReady;
            }
        }
        let Some((stage, _)) = needed.first().copied() else {
            return Vec::new();
        };
        if !self.shape.fault_tolerant {
            return self.fail(fault, Some(stage));
        }
        let lost: BTreeSet<WorkerNumber> = needed.iter().map(|(_, worker)| *worker).collect();
        for worker in lost {
            if self.is_being_replaced(worker) {
                continue;
            }
            if let Err(fault) = self.count_relaunch(worker, worker_task_id, reason) {
                return self.fail(fault, Some(stage));
            }
        }
        for (stage, worker) in &needed {
            self.lose(*stage, *worker, 0);
        }
        self.restart_readers()
    }

    /// Orders of lost workers that must run again: unfinished ones, and finished ones whose output somebody
    /// still has to read. Lowest stage first.
    fn needed_losses(&self, workers: &[WorkerNumber]) -> Vec<(StageNumber, WorkerNumber)> {
        let count = self.stages.len();
        // A stage has orders to run: from the last stage back, because a loss there needs its inputs again.
        let mut unfinished = vec![false; count];
        let mut found = Vec::new();
        for index in (0..count).rev() {
            let stage = StageNumber(index as u32);
            let progress = &self.stages[index];
            if matches!(progress.phase, Phase::Finished | Phase::Failed) {
                continue;
            }
            let is_last = index + 1 == count;
            let read_later = (index + 1..count)
                .any(|reader| self.shape.stages[reader].inputs.contains(&stage) && unfinished[reader]);
            // Rows of a SELECT are read from the workers when they are published; segments are not.
            let output_needed =
                !self.shape.stages[index].durable && (read_later || (is_last && !self.shape.publishes));
            unfinished[index] = !progress.is_launched();
            for (worker, order) in &progress.orders {
                let done = order.step == OrderStep::OutputReady;
                // Being sent to another process; if that is gone too, sending fails and says so.
                let known = matches!(order.step, OrderStep::Lost | OrderStep::Sending);
                let gone = order.gone || workers.contains(worker);
                let lost = gone && !known && (!done || output_needed);
                if lost {
                    found.push((stage, *worker));
                }
                unfinished[index] |= lost || !done;
            }
        }
        found.reverse();
        found
    }

    /// The same loss can be reported again, by an order that was sent to the process that is gone.
    fn is_being_replaced(&self, worker: WorkerNumber) -> bool {
        self.stages
            .iter()
            .filter_map(|progress| progress.orders.get(&worker))
            .any(|order| matches!(order.step, OrderStep::Lost | OrderStep::Sending))
    }

    pub(super) fn lose(&mut self, stage: StageNumber, worker: WorkerNumber, not_before_ms: i64) {
        if let Some(order) = self.stages[stage.0 as usize].orders.get_mut(&worker) {
            order.step = OrderStep::Lost;
            order.gone = false;
            order.attempt = AttemptNumber(order.attempt.0 + 1);
            order.not_before_ms = not_before_ms;
        }
    }

    /// Stages that still read from an output that was lost start again, all of them: another attempt may deal
    /// its rows to partitions differently, so that all partitions must be read from the same attempt.
    fn restart_readers(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for index in 0..self.stages.len() {
            let input_lost = self.shape.stages[index].inputs.iter().any(|input| {
                let orders = &self.stages[input.0 as usize].orders;
                orders.values().any(|order| order.step == OrderStep::Lost)
            });
            let progress = &mut self.stages[index];
            if !input_lost || matches!(progress.phase, Phase::Finished | Phase::Failed) {
                continue;
            }
            progress.stale_launch |= progress.is_launching();
            let complete = progress
                .orders
                .values()
                .all(|order| order.step == OrderStep::OutputReady);
            if !complete {
                actions.extend(self.restart_orders(StageNumber(index as u32)));
            }
        }
        actions
    }

    /// All orders of a stage start again.
    pub(super) fn restart_orders(&mut self, stage: StageNumber) -> Vec<Action> {
        let sent: Vec<Attempt> = self.stages[stage.0 as usize]
            .orders
            .iter()
            .filter(|(_, order)| order.step != OrderStep::Lost)
            .map(|(worker, order)| Attempt {
                worker: *worker,
                number: order.attempt,
            })
            .collect();
        for order in &sent {
            self.lose(stage, order.worker, 0);
        }
        sent.into_iter()
            .map(|order| Action::CancelOrder { stage, order })
            .collect()
    }

    pub(super) fn count_relaunch(
        &mut self,
        worker: WorkerNumber,
        worker_task_id: &str,
        reason: &str,
    ) -> Result<(), Fault> {
        let count = self.relaunches.entry(worker).or_insert(0);
        *count += 1;
        if *count > limits::RELAUNCHES_PER_WORKER_MAX {
            let max = limits::RELAUNCHES_PER_WORKER_MAX;
            return Err(Fault::too_many_attempts_for_worker(
                max,
                worker.0,
                worker_task_id,
                reason,
            ));
        }
        let total: u32 = self.relaunches.values().sum();
        if total > limits::RELAUNCHES_MAX {
            let max = limits::RELAUNCHES_MAX;
            return Err(Fault::too_many_attempts_for_job(
                max,
                total,
                worker_task_id,
                reason,
            ));
        }
        Ok(())
    }

    pub(super) fn order_failed(
        &mut self,
        stage: StageNumber,
        attempt: Attempt,
        fault: Fault,
        now_ms: i64,
    ) -> Vec<Action> {
        if self.is_publishing() || self.running(stage, attempt).is_none() {
            return Vec::new();
        }
        if !self.shape.fault_tolerant || !is_retryable(&fault) {
            return self.fail(fault, Some(stage));
        }
        let task_id = self.shape.worker_task_id(attempt);
        if let Err(fault) = self.count_relaunch(attempt.worker, &task_id, &fault.to_string()) {
            return self.fail(fault, Some(stage));
        }
        // It may have failed because an input is lost, of which the controller hears in a moment.
        self.lose(stage, attempt.worker, now_ms + limits::RELAUNCH_DELAY_MS);
        // Nobody reads from it yet: it was not finished.
        Vec::new()
    }

    /// Sends lost orders whose inputs are there.
    pub(super) fn relaunch_ready(&mut self, now_ms: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        for index in 0..self.stages.len() {
            if self.stages[index].phase != Phase::Retrying || !self.inputs_ready(index) {
                continue;
            }
            let mut orders = Vec::new();
            for (worker, order) in &mut self.stages[index].orders {
                if order.step == OrderStep::Lost && order.not_before_ms <= now_ms {
                    order.step = OrderStep::Sending;
                    orders.push(Attempt {
                        worker: *worker,
                        number: order.attempt,
                    });
                }
            }
            if !orders.is_empty() {
                let stage = StageNumber(index as u32);
                self.expect_relaunch(stage, now_ms);
                actions.push(Action::Relaunch { stage, orders });
            }
        }
        actions
    }

    pub(super) fn relaunched(&mut self, stage: StageNumber, orders: &[Attempt], now_ms: i64) -> Vec<Action> {
        for attempt in orders {
            if let Some(order) = self.running(stage, *attempt)
                && order.step == OrderStep::Sending
            {
                order.step = OrderStep::Running;
                order.seen_ms = now_ms;
            }
        }
        self.relaunch_answered(stage);
        Vec::new()
    }
}
