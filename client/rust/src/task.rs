//! Statements as tasks: submitted once, waited for, their rows read.

use arrow::record_batch::RecordBatch;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde_json::{Map, Value};
use tonic::Code;
use trilith_proto::error::ApiError;
use trilith_proto::pb::query as queries;
use trilith_proto::pb::task as tasks;

use crate::client::{Client, ClientError, Patience, QueryResult};

const WATCH_MS: u32 = 200;

/// A statement to submit.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    /// Text.
    pub sql: String,
    /// Query context.
    pub context: Map<String, Value>,
    /// Values of its `?`, in order.
    pub parameters: Vec<tasks::Parameter>,
    /// `sqlQueryId`: the task becomes "query-<id>". Default: that of the context, or a random UUID.
    pub id: Option<String>,
}

impl Statement {
    /// A statement without context and parameters.
    pub fn new(sql: impl Into<String>) -> Statement {
        Statement {
            sql: sql.into(),
            ..Statement::default()
        }
    }

    /// Sets one key of the query context.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Statement {
        self.context.insert(key.to_owned(), value.into());
        self
    }

    /// Gives the `?` their values.
    pub fn with_parameters(mut self, values: impl IntoIterator<Item = tasks::Parameter>) -> Statement {
        self.parameters.extend(values);
        self
    }

    /// Chooses the id.
    pub fn with_id(mut self, id: impl Into<String>) -> Statement {
        self.id = Some(id.into());
        self
    }

    /// The request, with an id in its context.
    fn request(mut self) -> tasks::SubmitTaskRequest {
        let given = self.context.get("sqlQueryId").and_then(Value::as_str);
        let id = self.id.or_else(|| given.map(str::to_owned));
        let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        self.context.insert("sqlQueryId".to_owned(), id.into());
        tasks::SubmitTaskRequest {
            sql: self.sql,
            context_json: Value::Object(self.context).to_string(),
            parameters: self.parameters,
        }
    }
}

/// The taken id of an error that says that a task exists already.
fn existing(error: &ApiError) -> Option<&str> {
    match error.error_code.as_str() {
        "entryAlreadyExists" => error.context.get("taskId").and_then(Value::as_str),
        _ => None,
    }
}

impl Client {
    /// Submits a statement as a task and returns its id. While the server cannot be reached it tries again, under the
    /// same id: the task runs once.
    ///
    /// Errors: those of the statement; `entryAlreadyExists` when the id was taken before the first try; an EXPLAIN.
    pub async fn submit_task(&self, statement: Statement) -> Result<String, ClientError> {
        let answer = self.submit_once(statement).await?;
        match answer.explanation {
            Some(_) => Err(ApiError::invalid_input("EXPLAIN PLAN FOR is no task; call explain").into()),
            None => Ok(answer.task_id),
        }
    }

    /// Plans a statement and says how it would run.
    pub async fn explain(&self, statement: Statement) -> Result<tasks::Explanation, ClientError> {
        let answer = self.submit_once(statement).await?;
        answer.explanation.ok_or_else(|| {
            ApiError::invalid_input("the statement does not begin with EXPLAIN PLAN FOR").into()
        })
    }

    pub(crate) async fn submit_once(
        &self,
        statement: Statement,
    ) -> Result<tasks::SubmitTaskResponse, ClientError> {
        let request = statement.request();
        let mut patience = Patience::new(self.deadline());
        let mut repeated = false;
        loop {
            let timed = self.timed(request.clone(), patience.until);
            let status = match self.tasks().submit_task(timed).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            let error = ApiError::from_status(&status);
            if repeated && let Some(task_id) = existing(&error) {
                // An earlier try arrived, only its answer did not.
                return Ok(tasks::SubmitTaskResponse {
                    task_id: task_id.to_owned(),
                    state: tasks::State::Running.into(),
                    explanation: None,
                });
            }
            if status.code() != Code::Unavailable || !patience.pause().await {
                return Err(error.into());
            }
            repeated = true;
        }
    }

    /// Waits for the end of a task; `progress` hears of every change. Goes on watching when the server was away for
    /// less than the deadline of a call. Dropping it leaves the task alone.
    ///
    /// Errors: `TaskFailed` with Druid's fault; those of the calls.
    pub async fn wait(
        &self,
        task_id: &str,
        mut progress: impl FnMut(&tasks::WatchTaskResponse),
    ) -> Result<tasks::Task, ClientError> {
        let mut patience = Patience::new(self.deadline());
        loop {
            let lost = match self.watch(task_id, WATCH_MS).await {
                Ok(mut updates) => loop {
                    match updates.message().await {
                        Ok(Some(update)) => {
                            progress(&update);
                            patience = Patience::new(self.deadline());
                            if let Some(task) = update.task
                                && matches!(task.state(), tasks::State::Success | tasks::State::Failed)
                            {
                                return ended(task);
                            }
                        }
                        Ok(None) => {
                            break ClientError::from(ApiError::unavailable(
                                "the server stopped following the task",
                            ));
                        }
                        Err(status) => break ClientError::from(status),
                    }
                },
                Err(error) => error,
            };
            if !lost.is_unavailable() || !patience.pause().await {
                return Err(lost);
            }
        }
    }

    /// Submits a statement and waits for its end.
    pub async fn run(
        &self,
        statement: Statement,
        progress: impl FnMut(&tasks::WatchTaskResponse),
    ) -> Result<tasks::Task, ClientError> {
        let task_id = self.submit_task(statement).await?;
        self.wait(&task_id, progress).await
    }

    /// Runs a SELECT at once, outside of tasks. While the server cannot be reached it tries again.
    ///
    /// Errors: those of the statement; an id that a running query has.
    pub async fn select(&self, statement: Statement) -> Result<QueryResult, ClientError> {
        let mut context = statement.context;
        if let Some(id) = statement.id {
            context.insert("sqlQueryId".to_owned(), id.into());
        }
        let request = queries::RunQueryRequest {
            sql: statement.sql,
            context_json: Value::Object(context).to_string(),
            parameters: statement.parameters,
        };
        let mut patience = Patience::new(self.deadline());
        loop {
            match self.query(request.clone()).await {
                Err(error) if error.is_unavailable() && patience.pause().await => {}
                answer => return answer,
            }
        }
    }

    /// Rows of a SELECT task that succeeded, page after page.
    pub async fn results(
        &self,
        task_id: &str,
    ) -> Result<BoxStream<'static, Result<RecordBatch, ClientError>>, ClientError> {
        let report = self.report(task_id).await?;
        let results = report.results.ok_or_else(|| {
            ApiError::invalid_input(format!(
                "task [{task_id}] has no rows: it is no SELECT that succeeded"
            ))
        })?;
        if results.pages.is_empty() {
            return self.rows(results.ticket).await;
        }
        let client = self.clone();
        let pages = stream::iter(results.pages).then(move |page| {
            let client = client.clone();
            async move { client.rows(page.ticket).await }
        });
        Ok(pages.try_flatten().boxed())
    }
}

fn ended(task: tasks::Task) -> Result<tasks::Task, ClientError> {
    match task.state() {
        tasks::State::Failed => Err(ClientError::TaskFailed {
            fault: task.fault.clone().unwrap_or_default(),
            message: task.error_message.clone().unwrap_or_default(),
            task_id: task.task_id,
        }),
        _ => Ok(task),
    }
}

/// A parameter of a type ("BIGINT", "VARCHAR", …).
pub fn parameter(sql_type: &str, value: impl Into<Value>) -> tasks::Parameter {
    tasks::Parameter {
        r#type: sql_type.to_owned(),
        value_json: value.into().to_string(),
    }
}
