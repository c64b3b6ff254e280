//! Tasks as clients see them: submit, list, watch, cancel, report.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, field, info_span};
use trilith_metadata::{MetadataError, TaskFilter, TaskRecord, TaskState};
use trilith_proto::error::{ApiError, Category, Persona};
use trilith_proto::fault::{CancelReason, Fault};
use trilith_proto::id::TaskId;
use trilith_proto::pb::task as pb;
use trilith_sql::{QueryContext, Statement, StatementKind};

use super::Controller;
use super::driver;
use super::explain;
use super::job::{Job, JobEvent, Origin};
use super::room::Place;

/// How long a call that stops a task waits for its end.
const CANCEL_WAIT: Duration = Duration::from_secs(5);
/// Characters of the error in the record of a task, without the words for what is left out.
const ERROR_MESSAGE_MAX: usize = 1_024;
/// Datasource of SELECT tasks.
const SELECT_DATASOURCE: &str = "__query_select";

/// A task that was accepted.
pub struct Accepted {
    /// "query-<sqlQueryId>".
    pub task_id: TaskId,
}

/// What became of a submission.
pub enum Submission {
    /// It runs.
    Accepted(Accepted),
    /// It was an EXPLAIN.
    Explained(pb::Explanation),
}

/// A task that is being watched.
pub struct Progress {
    /// Changes while the task runs; none once it has ended.
    pub changes: Option<watch::Receiver<u64>>,
}

/// Context of the task itself, as the report shows it.
pub(super) fn task_context(context: &QueryContext) -> Value {
    let mut out = Map::new();
    out.insert("forceTimeChunkLock".to_owned(), json!(true));
    for key in ["taskLockTimeout", "priority", "tags"] {
        if let Some(value) = context.map().get(key).filter(|value| !value.is_null()) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(out)
}

/// What the record of a task says of its fault: a long text loses its middle, as in Druid; the report has it all.
pub(super) fn short_message(fault: &Fault) -> String {
    let text = fault.to_string();
    let length = text.chars().count();
    if length <= ERROR_MESSAGE_MAX {
        return text;
    }
    let half = ERROR_MESSAGE_MAX / 2;
    let start: String = text.chars().take(half).collect();
    let end: String = text.chars().skip(length - half).collect();
    format!(
        "{start}...{} characters omitted...{end}",
        length - ERROR_MESSAGE_MAX
    )
}

pub(super) fn record(job: &Job) -> TaskRecord {
    let planned = &job.planned;
    let statement = match planned.kind {
        StatementKind::Select => "SELECT",
        StatementKind::Insert => "INSERT",
        StatementKind::Replace => "REPLACE",
    };
    let datasource = job
        .ingest()
        .map_or(SELECT_DATASOURCE, |ingest| &ingest.datasource);
    let context = Value::Object(planned.context.map().clone());
    TaskRecord {
        id: job.id.to_string(),
        statement: statement.to_owned(),
        datasource: datasource.to_owned(),
        sql: planned.sql.clone(),
        payload: payload(job, &context, datasource),
        context,
        created_ms: job.created_ms,
        state: TaskState::Running,
        duration_ms: -1,
        fault: None,
        error_message: None,
        parameters: planned
            .parameters
            .iter()
            .map(|parameter| (parameter.sql_type.clone(), parameter.value.clone()))
            .collect(),
        run: job.run,
    }
}

/// The task in Druid's JSON: `query_controller`.
fn payload(job: &Job, context: &Value, datasource: &str) -> Value {
    let planned = &job.planned;
    let columns: Vec<String> = planned.columns.iter().map(|column| column.name.clone()).collect();
    let sql_types: Vec<&str> = planned
        .columns
        .iter()
        .map(|column| column.sql_type.as_str())
        .collect();
    let native_types: Vec<String> = planned
        .columns
        .iter()
        .map(|column| column.column_type.to_string())
        .collect();
    // What the first stage reads, as a native query; later stages read from it.
    let first = job.graph.stages.iter().find_map(|stage| stage.plan.as_ref());
    let query = first.map(|plan| crate::stage::native_query_json(plan, &columns, context));
    let mappings: Vec<Value> = columns
        .iter()
        .map(|name| json!({"queryColumn": name, "outputColumn": name}))
        .collect();
    let context_of = &planned.context;
    json!({
        "type": "query_controller",
        "id": job.id.as_str(),
        "spec": {
            "query": query,
            "columnMappings": mappings,
            "destination": destination(job),
            "assignmentStrategy": if context_of.auto_assignment() { "auto" } else { "max" },
            "tuningConfig": tuning(context_of),
        },
        "sqlQuery": planned.sql,
        "sqlQueryContext": context,
        "sqlResultsContext": {"timeZone": context_of.sql_time_zone(), "stringifyArrays": context_of.stringify_arrays()},
        "sqlTypeNames": sql_types,
        "nativeTypeNames": native_types,
        "context": task_context(context_of),
        "groupId": job.id.as_str(),
        "dataSource": datasource,
        "resource": {"availabilityGroup": job.id.as_str(), "requiredCapacity": 1},
    })
}

/// Limits of a task, in Druid's JSON.
fn tuning(context: &QueryContext) -> Value {
    let mut tuning = json!({
        "maxNumWorkers": context.max_num_tasks().saturating_sub(1),
        "rowsPerSegment": context.rows_per_segment(),
    });
    if let Some(count) = context.max_num_segments() {
        tuning["maxNumSegments"] = json!(count);
    }
    if let Some(spec) = context.index_spec() {
        tuning["indexSpec"] = spec;
    }
    tuning
}

/// Where the rows of a task go, in Druid's JSON.
fn destination(job: &Job) -> Value {
    let Some(ingest) = job.ingest() else {
        let durable = job.planned.context.durable_results();
        return json!({"type": if durable { "durableStorage" } else { "taskReport" }});
    };
    let mut destination = json!({
        "type": "dataSource",
        "dataSource": ingest.datasource,
        "segmentGranularity": ingest.granularity.to_json(),
    });
    let order = job.planned.context.segment_sort_order().unwrap_or_default();
    if !order.is_empty() {
        destination["segmentSortOrder"] = json!(order);
    }
    // Absent for an INSERT.
    if let Some(overwrite) = &ingest.overwrite {
        destination["replaceTimeChunks"] = overwrite.iter().map(ToString::to_string).collect();
    }
    destination
}

fn store_error(error: MetadataError) -> ApiError {
    ApiError::internal(error.to_string())
}

impl Controller {
    /// Plans a statement and starts it as a task. Returns when the task is recorded.
    pub async fn submit(self: &Arc<Self>, statement: Statement) -> Result<Submission, ApiError> {
        if self.shutdown.is_cancelled() || self.tracker.is_closed() {
            return Err(ApiError::unavailable(
                "the server is stopping; submit the task to another one",
            ));
        }
        let place = self.room_for_a_task()?;
        let prepared = self.prepare(statement).instrument(info_span!("plan")).await?;
        if prepared.planned.explain {
            return Ok(Submission::Explained(explain::explanation(&prepared)));
        }
        let task_id = TaskId::from(format!("query-{}", prepared.planned.query_id));
        let origin = Origin {
            id: task_id.clone(),
            created_ms: prepared.planned.now_ms,
            run: 0,
            place,
        };
        let (job, queue) = Job::new(origin, prepared.planned, prepared.graph, self);
        let (store, task) = (Arc::clone(&self.store), record(&job));
        // Visible before it is recorded, so that nobody sees a task that neither runs nor has ended.
        if self.jobs.lock().contains_key(&task_id) {
            return Err(exists(&task_id));
        }
        let controller = Arc::clone(self);
        // A caller that goes away between the two does not keep a recorded task from starting.
        let start = async move {
            let put = tokio::task::spawn_blocking(move || store.put_task(&task))
                .await
                .map_err(|error| ApiError::internal(error.to_string()))?;
            match put {
                Ok(()) => {}
                Err(MetadataError::AlreadyExists(_)) => return Err(exists(&job.id)),
                Err(error) => return Err(store_error(error)),
            }
            controller.start_job(job, queue);
            Ok(())
        };
        self.tracker
            .spawn(start.in_current_span())
            .await
            .map_err(|error| ApiError::internal(error.to_string()))??;
        Ok(Submission::Accepted(Accepted { task_id }))
    }

    fn room_for_a_task(&self) -> Result<Place, ApiError> {
        self.room.take().ok_or_else(|| {
            let (running, max) = (self.room.taken(), self.room.max());
            ApiError::new(
                Category::CapacityExceeded,
                Persona::Admin,
                "general",
                format!(
                    "Task queue already contains [{running}] tasks. Retry later or increase --max-tasks [{max}]."
                ),
            )
        })
    }

    /// Runs a task that is recorded.
    pub(super) fn start_job(self: &Arc<Self>, job: Arc<Job>, queue: mpsc::Receiver<JobEvent>) {
        self.jobs.lock().insert(job.id.clone(), Arc::clone(&job));
        // In this order: `stop` finds the job, or the job finds that the process stops.
        if self.stopping.load(Ordering::SeqCst) {
            job.try_notify(super::last_event(&job));
        }
        let span = info_span!(
            "task",
            task = %job.id,
            datasource = job.ingest().map_or(SELECT_DATASOURCE, |ingest| &ingest.datasource),
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
        );
        // Asked for here, so that locks go to tasks in the order in which they were accepted.
        let locks = self.request_locks(&job);
        let controller = Arc::clone(self);
        let run = async move {
            driver::run(Arc::clone(&controller), job, queue, locks).await;
            // Of what the job itself has replaced or read, among others.
            controller.remove_replaced().await;
        };
        self.tracker.spawn(run.instrument(span));
    }

    /// A task by id.
    pub async fn task(&self, id: &TaskId) -> Result<TaskRecord, ApiError> {
        let (store, key) = (Arc::clone(&self.store), id.to_string());
        tokio::task::spawn_blocking(move || store.task(&key))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(store_error)?
            .ok_or_else(|| ApiError::not_found(format!("task [{id}] was not found")))
    }

    /// The report: live while the task runs, else as it was recorded.
    pub async fn report(&self, id: &TaskId) -> Result<pb::TaskReport, ApiError> {
        let live = self.jobs.lock().get(id).cloned();
        let recorded = self.recorded_report(id).await?;
        match (recorded, live) {
            (Some(report), _) => Ok(report),
            (None, Some(job)) => Ok(job.live_report(Some(&self.location()))),
            (None, None) => Err(ApiError::not_found(format!("task [{id}] was not found"))),
        }
    }

    async fn recorded_report(&self, id: &TaskId) -> Result<Option<pb::TaskReport>, ApiError> {
        let (store, key) = (Arc::clone(&self.store), id.to_string());
        let bytes = tokio::task::spawn_blocking(move || store.report(&key))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(store_error)?;
        bytes
            .map(|bytes| pb::TaskReport::decode(bytes.as_slice()))
            .transpose()
            .map_err(|error| ApiError::internal(format!("report of task [{id}]: {error}")))
    }

    /// Follows a task.
    pub fn watch(&self, id: &TaskId) -> Progress {
        let job = self.jobs.lock().get(id).cloned();
        Progress {
            changes: job.map(|job| job.changes.subscribe()),
        }
    }

    /// Stops a task and returns it as it ended; one that takes longer than a few seconds to stop as it is then. A task
    /// that has ended stays as it is.
    pub async fn cancel(&self, id: &TaskId) -> Result<TaskRecord, ApiError> {
        let job = self.jobs.lock().get(id).cloned();
        if let Some(job) = job {
            let mut changes = job.changes.subscribe();
            job.notify(JobEvent::Cancel(CancelReason::UserRequest)).await;
            let ended = async {
                while self.jobs.lock().contains_key(id) {
                    if changes.changed().await.is_err() {
                        break;
                    }
                }
            };
            drop(job);
            let _late = tokio::time::timeout(CANCEL_WAIT, ended).await;
        }
        self.task(id).await
    }

    /// Tasks, newest first.
    pub async fn tasks(&self, filter: TaskFilter) -> Result<trilith_metadata::TaskPage, ApiError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.tasks(&filter))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(store_error)
    }
}

fn exists(task_id: &TaskId) -> ApiError {
    let message = format!("task [{task_id}] exists already; choose another sqlQueryId");
    ApiError::new(
        Category::InvalidInput,
        Persona::User,
        "entryAlreadyExists",
        message,
    )
    .with("taskId", task_id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_lose_their_middle() {
        let short = Fault::unknown("ä".repeat(100));
        assert_eq!(short_message(&short), short.to_string());
        let long = Fault::unknown(format!("{}{}", "ä".repeat(1_000), "b".repeat(1_000)));
        let whole = long.to_string();
        let omitted = whole.chars().count() - 1_024;
        let message = short_message(&long);
        assert!(
            message.starts_with("UnknownError: ää") && message.ends_with('b'),
            "{message}"
        );
        assert!(
            message.contains(&format!("ä...{omitted} characters omitted...b")),
            "{message}"
        );
    }
}
