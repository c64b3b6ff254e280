//! How far the work orders of a process are, for heartbeats, and what was said last, in case nobody heard it.

use parking_lot::Mutex;

use super::order::WorkerEvent;
use crate::kernel::HeldStep;

/// How far one order is.
pub(crate) struct OrderStatus {
    step: Mutex<(HeldStep, Option<WorkerEvent>)>,
}

impl OrderStatus {
    /// An order that begins.
    pub(crate) fn new() -> OrderStatus {
        OrderStatus {
            step: Mutex::new((HeldStep::Running, None)),
        }
    }

    /// Notes what is about to be said. Counters are no step.
    pub(crate) fn note(&self, event: &WorkerEvent) {
        let step = match event {
            WorkerEvent::InputRead { .. } => HeldStep::InputRead,
            WorkerEvent::OutputReady { .. } => HeldStep::OutputReady,
            WorkerEvent::Failed { .. } => HeldStep::Failed,
            WorkerEvent::Counters { .. } => return,
        };
        *self.step.lock() = (step, Some(event.clone()));
    }

    /// Boundaries came: the order works again, and its statistics are not needed any more.
    pub(crate) fn resume(&self) {
        *self.step.lock() = (HeldStep::Running, None);
    }

    /// How far it is.
    pub(crate) fn step(&self) -> HeldStep {
        self.step.lock().0
    }

    /// What was said last.
    pub(crate) fn last(&self) -> Option<WorkerEvent> {
        self.step.lock().1.clone()
    }
}
