//! Statements of Flight SQL: queries run at once, INSERT and REPLACE as tasks that the call waits for.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::metadata::MetadataMap;
use trilith_engine::controller::{Controller, Submission};
use trilith_metadata::{TaskRecord, TaskState};
use trilith_proto::error::ApiError;
use trilith_proto::fault::Fault;
use trilith_proto::id::TaskId;
use trilith_proto::pb::task::counter;
use trilith_sql::{SqlParameter, Statement, StatementKind};

/// Header with query context as the text of one JSON object; SET in the statement wins.
const CONTEXT_HEADER: &str = "trilith-context";

/// The row that a statement without rows of its own is answered with; it travels in the ticket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// INSERT, REPLACE or DELETE.
    #[serde(rename_all = "camelCase")]
    Written {
        /// Its controller task.
        task_id: String,
        /// Rows (after rollup) in its segments.
        rows: i64,
    },
    /// EXPLAIN PLAN FOR one of these.
    Explained {
        plan: String,
        resources: String,
        attributes: String,
    },
}

impl Answer {
    pub(super) fn decode(handle: &[u8]) -> Result<Answer, ApiError> {
        serde_json::from_slice(handle)
            .map_err(|_| ApiError::invalid_input("the ticket is not one of this server"))
    }

    pub(super) fn batch(&self) -> Result<RecordBatch, ApiError> {
        let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let columns = match self {
            Answer::Written { task_id, rows } => vec![
                ("task_id", text(task_id)),
                (
                    "rows_written",
                    Arc::new(Int64Array::from(vec![*rows])) as ArrayRef,
                ),
            ],
            Answer::Explained {
                plan,
                resources,
                attributes,
            } => vec![
                ("PLAN", text(plan)),
                ("RESOURCES", text(resources)),
                ("ATTRIBUTES", text(attributes)),
            ],
        };
        RecordBatch::try_from_iter(columns).map_err(|error| ApiError::internal(error.to_string()))
    }

    fn ticket(&self) -> Ticket {
        let ticket = TicketStatementQuery {
            statement_handle: serde_json::to_vec(self).unwrap_or_default().into(),
        };
        Ticket::new(ticket.as_any().encode_to_vec())
    }
}

/// Query context of a call.
pub(super) fn context(metadata: &MetadataMap) -> Result<Map<String, Value>, ApiError> {
    let Some(text) = metadata.get(CONTEXT_HEADER) else {
        return Ok(Map::new());
    };
    let parsed = text.to_str().ok().map(serde_json::from_str);
    match parsed {
        Some(Ok(context)) => Ok(context),
        _ => Err(ApiError::invalid_input(format!(
            "header [{CONTEXT_HEADER}] is not a JSON object"
        ))),
    }
}

/// Runs statements for the Flight SQL service.
pub(super) struct Statements {
    pub controller: Arc<Controller>,
    pub tracker: TaskTracker,
}

impl Statements {
    /// Starts a query, or runs an INSERT or REPLACE to its end, and says where the rows are.
    pub(super) async fn execute(
        &self,
        statement: Statement,
        descriptor: FlightDescriptor,
    ) -> Result<FlightInfo, Status> {
        let (kind, explain) = trilith_sql::kind(&statement.sql)?;
        if kind == StatementKind::Select {
            let query = self.controller.run_query(statement).await?;
            let ticket = Ticket::new(query.ticket.encode());
            return info(&query.schema, ticket, descriptor, -1);
        }
        let answer = match explain {
            true => self.explain(statement).await?,
            false => self.write(statement).await?,
        };
        info(&answer.batch()?.schema(), answer.ticket(), descriptor, 1)
    }

    /// Runs an INSERT or REPLACE to its end. Returns the rows in its segments.
    pub(super) async fn update(&self, statement: Statement) -> Result<i64, ApiError> {
        let (kind, explain) = trilith_sql::kind(&statement.sql)?;
        if kind == StatementKind::Select || explain {
            return Err(ApiError::invalid_input(
                "the statement returns rows: execute it as a query, not as an update",
            ));
        }
        match self.write(statement).await? {
            Answer::Written { rows, .. } => Ok(rows),
            Answer::Explained { .. } => Ok(0),
        }
    }

    async fn explain(&self, statement: Statement) -> Result<Answer, ApiError> {
        match self.controller.submit(statement).await? {
            Submission::Explained(explanation) => Ok(Answer::Explained {
                plan: explanation.plan_json,
                resources: explanation.resources_json,
                attributes: explanation.attributes_json,
            }),
            Submission::Accepted(task) => Err(ApiError::internal(format!(
                "EXPLAIN became the task [{}]",
                task.task_id
            ))),
        }
    }

    async fn write(&self, statement: Statement) -> Result<Answer, ApiError> {
        let (controller, tracker) = (Arc::clone(&self.controller), self.tracker.clone());
        // Also of a client that goes away while its task is taken in, which is seen through.
        let submitted = self.tracker.spawn(async move {
            let Submission::Accepted(task) = controller.submit(statement).await? else {
                return Err(ApiError::internal("a statement that writes became no task"));
            };
            let guard = CancelOnDrop {
                controller,
                tracker,
                task: Some(task.task_id.clone()),
            };
            Ok((task, guard))
        });
        let (task, mut guard) = submitted
            .await
            .map_err(|error| ApiError::internal(error.to_string()))??;
        let record = self.end_of(&task.task_id).await?;
        guard.task = None;
        if record.state != TaskState::Success {
            return Err(failure(&record));
        }
        let report = self.controller.report(&task.task_id).await?;
        let rows = report.counters.iter().map(|counter| match &counter.value {
            Some(counter::Value::SegmentGenerationProgress(progress)) => progress.rows_pushed,
            _ => 0,
        });
        Ok(Answer::Written {
            rows: rows.sum(),
            task_id: task.task_id.to_string(),
        })
    }

    async fn end_of(&self, task: &TaskId) -> Result<TaskRecord, ApiError> {
        let mut changes = self.controller.watch(task).changes;
        loop {
            let record = self.controller.task(task).await?;
            if record.state != TaskState::Running {
                return Ok(record);
            }
            match &mut changes {
                // The sender goes away when the task ends: that is a change as well.
                Some(receiver) => {
                    if receiver.changed().await.is_err() {
                        changes = None;
                    }
                }
                None => {
                    return Err(ApiError::unavailable(format!(
                        "the server stops while task [{task}] runs; ask for its status when it is back"
                    )));
                }
            }
        }
    }
}

fn info(
    schema: &arrow::datatypes::Schema,
    ticket: Ticket,
    descriptor: FlightDescriptor,
    rows: i64,
) -> Result<FlightInfo, Status> {
    Ok(FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|error| ApiError::internal(error.to_string()))?
        .with_descriptor(descriptor)
        .with_endpoint(FlightEndpoint::new().with_ticket(ticket))
        .with_total_records(rows)
        .with_total_bytes(-1)
        .with_ordered(true))
}

fn failure(record: &TaskRecord) -> ApiError {
    let fault = record.fault.clone().map(Fault::try_from);
    let error = match fault {
        Some(Ok(fault)) => {
            // Drivers show the message alone.
            let mut error = ApiError::from(&fault);
            error.message = fault.to_string();
            error
        }
        _ => ApiError::internal(record.error_message.clone().unwrap_or_default()),
    };
    error.with("taskId", record.id.clone())
}

/// A client that goes away while it waits takes its task along.
struct CancelOnDrop {
    controller: Arc<Controller>,
    tracker: TaskTracker,
    task: Option<TaskId>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            let controller = Arc::clone(&self.controller);
            self.tracker.spawn(async move {
                if let Err(error) = controller.cancel(&task).await {
                    tracing::warn!(%error, %task, "a task whose client went away could not be stopped");
                }
            });
        }
    }
}

/// A statement with one row of values.
pub(super) fn statement(sql: &str, context: Map<String, Value>, parameters: Vec<SqlParameter>) -> Statement {
    Statement {
        sql: sql.to_owned(),
        context,
        parameters,
        now_ms: None,
    }
}
