//! `trilith.task.v1.TaskService`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};
use tracing::{Instrument, info_span};
use trilith_engine::controller::{Controller, Submission};
use trilith_engine::trace;
use trilith_metadata::{ActiveLock, LockKind, TaskFilter, TaskRecord, TaskState};
use trilith_proto::error::ApiError;
use trilith_proto::id::TaskId;
use trilith_proto::pb::task as pb;
use trilith_proto::pb::task::task_service_server::TaskService;

use super::statement;

const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 10_000;
const WATCH_INTERVAL_DEFAULT: Duration = Duration::from_millis(200);
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Serves tasks of a controller.
pub struct Tasks {
    controller: Arc<Controller>,
}

impl Tasks {
    /// The service of a controller.
    pub fn new(controller: Arc<Controller>) -> Tasks {
        Tasks { controller }
    }
}

fn state(controller: &Controller, record: &TaskRecord) -> pb::State {
    match (record.state, controller.runner_status(record)) {
        (TaskState::Success, _) => pb::State::Success,
        (TaskState::Failed, _) => pb::State::Failed,
        (TaskState::Running, "WAITING") => pb::State::Waiting,
        (TaskState::Running, "PENDING") => pb::State::Pending,
        (TaskState::Running, _) => pb::State::Running,
    }
}

fn message(controller: &Controller, record: TaskRecord) -> pb::Task {
    let statement = match record.statement.as_str() {
        "INSERT" => pb::StatementType::Insert,
        "REPLACE" => pb::StatementType::Replace,
        _ => pb::StatementType::Select,
    };
    let state = state(controller, &record);
    let location = controller.location();
    let (host, port) = location.rsplit_once(':').unwrap_or((location.as_str(), "0"));
    let (host, port) = match state {
        pb::State::Waiting | pb::State::Pending => ("", -1),
        _ => (host, port.parse().unwrap_or(0)),
    };
    pb::Task {
        state: state.into(),
        statement_type: statement.into(),
        fault: record.fault.as_ref().map(|fault| pb::Fault {
            error_code: fault["errorCode"].as_str().unwrap_or("UnknownError").to_owned(),
            error_message: fault["errorMessage"].as_str().unwrap_or_default().to_owned(),
            fields_json: fault.to_string(),
        }),
        task_id: record.id,
        datasource: record.datasource,
        created_time_ms: record.created_ms,
        duration_ms: record.duration_ms,
        error_message: record.error_message,
        sql: record.sql,
        context_json: record.context.to_string(),
        payload_json: record.payload.to_string(),
        host: host.to_owned(),
        port,
    }
}

/// Without the payload, which is large.
fn listed(controller: &Controller, mut record: TaskRecord) -> pb::Task {
    record.payload = serde_json::Value::Null;
    pb::Task {
        payload_json: String::new(),
        ..message(controller, record)
    }
}

fn lock(lock: ActiveLock) -> pb::Lock {
    let kind = match lock.kind {
        LockKind::Exclusive => pb::LockType::Exclusive,
        LockKind::Shared => pb::LockType::Shared,
        LockKind::Append => pb::LockType::Append,
        LockKind::Replace => pb::LockType::Replace,
    };
    pb::Lock {
        r#type: kind.into(),
        task_id: lock.task,
        datasource: lock.datasource,
        interval: lock.interval.to_string(),
        version: lock.version,
        priority: lock.priority,
        revoked: lock.revoked,
    }
}

fn wanted_state(state: i32) -> Result<Option<TaskState>, Status> {
    match pb::State::try_from(state) {
        Ok(pb::State::Unspecified) => Ok(None),
        Ok(pb::State::Success) => Ok(Some(TaskState::Success)),
        Ok(pb::State::Failed) => Ok(Some(TaskState::Failed)),
        Ok(_) => Ok(Some(TaskState::Running)),
        Err(_) => Err(Status::from(ApiError::invalid_input(format!(
            "[{state}] is no state of a task"
        )))),
    }
}

#[tonic::async_trait]
impl TaskService for Tasks {
    async fn submit_task(
        &self,
        request: Request<pb::SubmitTaskRequest>,
    ) -> Result<Response<pb::SubmitTaskResponse>, Status> {
        let span = info_span!("SubmitTask");
        if let Some(parent) = request.metadata().get("traceparent") {
            trace::continue_from(&span, parent.to_str().unwrap_or_default());
        }
        let request = request.into_inner();
        let statement = statement(request.sql, &request.context_json, request.parameters)?;
        let answer = match self.controller.submit(statement).instrument(span).await? {
            Submission::Accepted(accepted) => pb::SubmitTaskResponse {
                task_id: accepted.task_id.to_string(),
                state: pb::State::Running.into(),
                explanation: None,
            },
            Submission::Explained(explanation) => pb::SubmitTaskResponse {
                explanation: Some(explanation),
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }

    async fn get_task(
        &self,
        request: Request<pb::GetTaskRequest>,
    ) -> Result<Response<pb::GetTaskResponse>, Status> {
        let record = self
            .controller
            .task(&TaskId::from(request.into_inner().task_id))
            .await?;
        Ok(Response::new(pb::GetTaskResponse {
            task: Some(message(&self.controller, record)),
        }))
    }

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let request = request.into_inner();
        let states = request
            .states
            .into_iter()
            .map(wanted_state)
            .collect::<Result<Vec<_>, _>>()?;
        let filter = TaskFilter {
            states: states.into_iter().flatten().collect(),
            datasource: Some(request.datasource).filter(|name| !name.is_empty()),
            limit: match request.page_size as usize {
                0 => PAGE_SIZE_DEFAULT,
                size => size.min(PAGE_SIZE_MAX),
            },
            after: Some(request.page_token).filter(|token| !token.is_empty()),
        };
        let page = self.controller.tasks(filter).await?;
        let tasks = page
            .tasks
            .into_iter()
            .map(|record| listed(&self.controller, record))
            .collect();
        Ok(Response::new(pb::ListTasksResponse {
            tasks,
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn cancel_task(
        &self,
        request: Request<pb::CancelTaskRequest>,
    ) -> Result<Response<pb::CancelTaskResponse>, Status> {
        let record = self
            .controller
            .cancel(&TaskId::from(request.into_inner().task_id))
            .await?;
        Ok(Response::new(pb::CancelTaskResponse {
            state: state(&self.controller, &record).into(),
        }))
    }

    async fn get_task_report(
        &self,
        request: Request<pb::GetTaskReportRequest>,
    ) -> Result<Response<pb::GetTaskReportResponse>, Status> {
        let report = self
            .controller
            .report(&TaskId::from(request.into_inner().task_id))
            .await?;
        Ok(Response::new(pb::GetTaskReportResponse { report: Some(report) }))
    }

    async fn list_locks(
        &self,
        request: Request<pb::ListLocksRequest>,
    ) -> Result<Response<pb::ListLocksResponse>, Status> {
        let datasource = request.into_inner().datasource;
        let mut locks = self.controller.active_locks();
        locks.retain(|lock| datasource.is_empty() || lock.datasource == datasource);
        Ok(Response::new(pb::ListLocksResponse {
            locks: locks.into_iter().map(lock).collect(),
        }))
    }

    async fn list_workers(
        &self,
        _: Request<pb::ListWorkersRequest>,
    ) -> Result<Response<pb::ListWorkersResponse>, Status> {
        let workers = self.controller.worker_processes().into_iter();
        let workers = workers.map(|(process, running_tasks)| pb::WorkerProcess {
            address: process.address,
            slot_count: process.slots,
            busy_slot_count: process.busy,
            running_tasks,
            idle_since_ms: process.idle_since_ms,
        });
        Ok(Response::new(pb::ListWorkersResponse {
            workers: workers.collect(),
        }))
    }

    type WatchTaskStream = BoxStream<'static, Result<pb::WatchTaskResponse, Status>>;

    async fn watch_task(
        &self,
        request: Request<pb::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let request = request.into_inner();
        let id = TaskId::from(request.task_id);
        self.controller.task(&id).await?;
        let interval = match request.interval_ms {
            0 => WATCH_INTERVAL_DEFAULT,
            ms => Duration::from_millis(u64::from(ms)).max(WATCH_INTERVAL_MIN),
        };
        let watch = Watch {
            changes: self.controller.watch(&id).changes,
            controller: Arc::clone(&self.controller),
            id,
            sequence: 0,
            ended: false,
        };
        let updates = stream::unfold(watch, move |mut watch| async move {
            if watch.ended {
                return None;
            }
            if watch.sequence > 0 {
                watch.wait(interval).await;
            }
            let update = watch.update().await;
            watch.ended |= update.is_err();
            Some((update, watch))
        });
        Ok(Response::new(updates.boxed()))
    }
}

/// One watcher.
struct Watch {
    controller: Arc<Controller>,
    id: TaskId,
    changes: Option<tokio::sync::watch::Receiver<u64>>,
    sequence: u64,
    ended: bool,
}

impl Watch {
    /// Until something changed, but no more often than the interval says.
    async fn wait(&mut self, interval: Duration) {
        tokio::time::sleep(interval).await;
        if let Some(changes) = &mut self.changes {
            // The sender goes away when the task ends: that is a change as well.
            let _ended = changes.changed().await;
        }
    }

    async fn update(&mut self) -> Result<pb::WatchTaskResponse, Status> {
        let record = self.controller.task(&self.id).await?;
        let report = self.controller.report(&self.id).await?;
        self.ended = record.state != TaskState::Running;
        self.sequence += 1;
        Ok(pb::WatchTaskResponse {
            sequence: self.sequence,
            task: Some(listed(&self.controller, record)),
            report: Some(report),
        })
    }
}
