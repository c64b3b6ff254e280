//! Domain values to and from messages.

use crate::fault::{Fault, FaultCode};
use crate::id::{AttemptNumber, StageNumber, TaskId, WorkOrderId, WorkerNumber};
use crate::pb;

impl From<&WorkOrderId> for pb::worker::WorkOrderId {
    fn from(id: &WorkOrderId) -> Self {
        pb::worker::WorkOrderId {
            task_id: id.task.to_string(),
            stage_number: id.stage.0,
            worker_number: id.worker.0,
            attempt_number: id.attempt.0,
            run_number: id.run,
        }
    }
}

impl From<pb::worker::WorkOrderId> for WorkOrderId {
    fn from(id: pb::worker::WorkOrderId) -> Self {
        WorkOrderId {
            task: TaskId::from(id.task_id),
            stage: StageNumber(id.stage_number),
            worker: WorkerNumber(id.worker_number),
            attempt: AttemptNumber(id.attempt_number),
            run: id.run_number,
        }
    }
}

impl From<&Fault> for pb::task::Fault {
    fn from(fault: &Fault) -> Self {
        pb::task::Fault {
            error_code: fault.code.as_str().to_owned(),
            error_message: fault.message.clone(),
            fields_json: serde_json::Value::Object(fault.fields.clone()).to_string(),
        }
    }
}

impl From<pb::task::Fault> for Fault {
    /// A code that this version does not know becomes `UnknownError` and keeps its text.
    fn from(fault: pb::task::Fault) -> Self {
        match FaultCode::parse(&fault.error_code) {
            Some(code) => Fault {
                code,
                fields: serde_json::from_str(&fault.fields_json).unwrap_or_default(),
                message: fault.error_message,
            },
            None => Fault::unknown(format!("{}: {}", fault.error_code, fault.error_message)),
        }
    }
}
