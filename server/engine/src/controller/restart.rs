//! What becomes of the tasks that ran when the process before this one stopped.
//!
//! Tasks with `faultTolerance` run again, under their ids, oldest first; the others end. What they had finished is kept
//! if it is still there (`checkpoint`).

use std::sync::Arc;

use prost::Message;
use serde_json::Value;
use tracing::{info, warn};
use trilith_metadata::{Change, MetadataError, MetadataStore, Publish, TaskFilter, TaskRecord, TaskState};
use trilith_proto::fault::Fault;
use trilith_proto::id::TaskId;
use trilith_proto::pb::task as pb;
use trilith_sql::{MASK, Planned, QueryContext, SqlParameter, Statement};

use super::Controller;
use super::job::{self, Job, Origin};
use super::submit::short_message;

/// Ends what cannot run again. Returns the rest, oldest first, each in its next run.
pub(super) fn interrupted(store: &dyn MetadataStore) -> Result<Vec<TaskRecord>, MetadataError> {
    let running = TaskFilter {
        states: vec![TaskState::Running],
        ..TaskFilter::default()
    };
    let mut again = Vec::new();
    for task in store.tasks(&running)?.tasks.into_iter().rev() {
        match obstacle(&task) {
            None => again.push(store.rerun_task(&task.id)?),
            Some(obstacle) => {
                warn!(task = %task.id, "ended a task that an earlier process left running");
                end(store, task, &Fault::unknown(obstacle))?;
            }
        }
    }
    Ok(again)
}

/// Why a task cannot run again.
fn obstacle(task: &TaskRecord) -> Option<&'static str> {
    let context = QueryContext::parse(task.context.as_object().cloned().unwrap_or_default());
    if !context.is_ok_and(|context| context.fault_tolerance()) {
        return Some(
            "The server stopped while the task was running. Submit it again; with faultTolerance=true it would \
             run again by itself.",
        );
    }
    let masked = task.sql.contains(MASK);
    masked.then_some(
        "The server stopped while the task was running, and the task cannot run again by itself, because passwords \
         are not stored. Submit it again.",
    )
}

/// A later process takes the task up again.
pub(super) fn can_run_again(planned: &Planned) -> bool {
    planned.context.fault_tolerance() && !planned.sql.contains(MASK)
}

fn end(store: &dyn MetadataStore, mut task: TaskRecord, fault: &Fault) -> Result<(), MetadataError> {
    task.state = TaskState::Failed;
    task.duration_ms = (job::now_ms() - task.created_ms).max(0);
    task.fault = Some(fault.to_json());
    task.error_message = Some(short_message(fault));
    let report = pb::TaskReport {
        task_id: task.id.clone(),
        status: Some(pb::StatusReport {
            status: "FAILED".to_owned(),
            error_report: Some(pb::ErrorReport {
                task_id: task.id.clone(),
                fault: Some(fault.into()),
                ..Default::default()
            }),
            duration_ms: task.duration_ms,
            ..Default::default()
        }),
        task_context_json: task.payload.get("context").map(Value::to_string),
        ..Default::default()
    };
    store.publish(&Publish {
        task,
        report: report.encode_to_vec(),
        change: Change::None,
    })
}

/// The statement as it was submitted, with its id.
fn statement(task: &TaskRecord) -> Statement {
    let mut context = task.context.as_object().cloned().unwrap_or_default();
    let query_id = task.id.strip_prefix("query-").unwrap_or(&task.id);
    context.insert("sqlQueryId".to_owned(), Value::from(query_id));
    let parameters = task.parameters.iter().map(|(sql_type, value)| SqlParameter {
        sql_type: sql_type.clone(),
        value: value.clone(),
    });
    Statement {
        sql: task.sql.clone(),
        context,
        parameters: parameters.collect(),
        now_ms: Some(task.created_ms),
    }
}

impl Controller {
    /// Runs tasks again that an earlier process left running. They ask for their locks in the order in which they
    /// were submitted, and before any new task does: call this before clients are served.
    pub async fn resume(self: &Arc<Self>) {
        let tasks = std::mem::take(&mut *self.interrupted.lock());
        for task in tasks {
            let id = task.id.clone();
            if let Err(error) = self.run_again(task).await {
                tracing::error!(task = id, %error, "a task could be neither run again nor ended");
            }
        }
    }

    async fn run_again(self: &Arc<Self>, task: TaskRecord) -> Result<(), MetadataError> {
        match self.prepare(statement(&task)).await {
            Ok(prepared) => {
                info!(
                    task = task.id,
                    run = task.run,
                    "a task that an earlier process left running runs again"
                );
                let origin = Origin {
                    id: TaskId::from(task.id.as_str()),
                    created_ms: task.created_ms,
                    run: task.run,
                    place: self.room.take_again(),
                };
                let (job, queue) = Job::new(origin, prepared.planned, prepared.graph, self);
                self.start_job(job, queue);
                Ok(())
            }
            Err(error) => {
                let fault = Fault::unknown(format!(
                    "The server stopped while the task was running, and the statement cannot be planned any more: {error}"
                ));
                let store = Arc::clone(&self.store);
                let ended = tokio::task::spawn_blocking(move || end(store.as_ref(), task, &fault));
                // A runtime that stops takes the task with it; the next start finds it.
                ended.await.unwrap_or(Ok(()))
            }
        }
    }
}
