//! Messages get lost. What worker processes say they hold is compared with what should be there, and what nobody
//! has given a sign of for too long is lost.

use trilith_proto::fault::Fault;
use trilith_proto::id::StageNumber;

use super::events::{Action, Attempt, Held, HeldStep};
use super::progress::{Boundaries, OrderStep};
use super::state::{Kernel, Step};
use crate::limits;

impl Kernel {
    /// A worker process says what it holds.
    pub(super) fn held(&mut self, orders: &[Held], now_ms: i64) -> Vec<Action> {
        orders
            .iter()
            .filter_map(|held| self.compare(*held, now_ms))
            .collect()
    }

    fn compare(&mut self, held: Held, now_ms: i64) -> Option<Action> {
        let Held { stage, order, step } = held;
        let progress = self.stages.get_mut(stage.0 as usize)?;
        let known = progress.orders.get_mut(&order.worker);
        let Some(known) = known.filter(|known| known.attempt == order.number && !progress.released) else {
            // Nobody wants it any more.
            return Some(Action::CancelOrder { stage, order });
        };
        known.seen_ms = now_ms;
        let unheard = match step {
            HeldStep::Running => false,
            HeldStep::InputRead => known.step < OrderStep::InputRead,
            HeldStep::OutputReady => known.step < OrderStep::OutputReady,
            HeldStep::Failed => true,
        };
        if unheard {
            return Some(Action::AskAgain { stage, order });
        }
        let waits = step == HeldStep::InputRead && progress.boundaries == Boundaries::Cut;
        waits.then_some(Action::SendBoundaries { stage, order })
    }

    /// While the controller itself stood still, nobody could give a sign.
    pub(super) fn forgive_gap(&mut self, now_ms: i64) {
        let gap = now_ms - self.last_event_ms.replace(now_ms).unwrap_or(now_ms);
        let forgiven = gap - limits::EVENT_GAP_MS;
        if forgiven <= 0 {
            return;
        }
        for order in self
            .stages
            .iter_mut()
            .flat_map(|progress| progress.orders.values_mut())
        {
            order.seen_ms = (order.seen_ms + forgiven).min(now_ms);
        }
    }

    /// Gives up work orders and outputs of which nobody has given a sign for too long.
    pub(super) fn silent(&mut self, now_ms: i64) -> Vec<Action> {
        if self.step != Step::Running && self.failed_publish.is_none() {
            return Vec::new();
        }
        let since = now_ms - self.shape.silence_ms;
        let mut actions = Vec::new();
        let mut outputs_gone = None;
        for index in 0..self.stages.len() {
            // What is written is in deep or durable storage, and needs nobody to hold it.
            let shape = &self.shape.stages[index];
            let keeps_output = !shape.writes_segments && !shape.durable;
            let progress = &mut self.stages[index];
            if progress.released {
                continue;
            }
            let stage = StageNumber(index as u32);
            let mut unfinished = Vec::new();
            for (worker, order) in &mut progress.orders {
                let attempt = Attempt {
                    worker: *worker,
                    number: order.attempt,
                };
                if order.seen_ms > since {
                    continue;
                }
                match order.step {
                    OrderStep::Running | OrderStep::InputRead => unfinished.push(attempt),
                    OrderStep::OutputReady if keeps_output && !order.gone => {
                        order.gone = true;
                        outputs_gone.get_or_insert(attempt);
                    }
                    _ => {}
                }
            }
            for order in unfinished {
                actions.push(Action::CancelOrder { stage, order });
                let (task_id, reason) = (self.shape.worker_task_id(order), self.silence());
                let fault = Fault::worker_rpc_failed(&task_id, &reason);
                actions.extend(self.order_failed(stage, order, fault, now_ms));
                if self.step == Step::Done {
                    return actions;
                }
            }
        }
        if let Some(order) = outputs_gone {
            let (task_id, reason) = (self.shape.worker_task_id(order), self.silence());
            actions.extend(self.outputs_gone(&task_id, &reason));
        }
        actions
    }

    fn silence(&self) -> String {
        format!("no sign of its work for {} ms", self.shape.silence_ms)
    }
}
