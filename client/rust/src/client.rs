//! Calls to a server.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::{FlightData, Ticket};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tokio::time::Instant;
use tonic::{Code, Request, Status, Streaming};
use trilith_proto::error::{ApiError, Category};
use trilith_proto::pb::datasource as datasources;
use trilith_proto::pb::datasource::datasource_service_client::DatasourceServiceClient;
use trilith_proto::pb::query as queries;
use trilith_proto::pb::query::query_service_client::QueryServiceClient;
use trilith_proto::pb::task as tasks;
use trilith_proto::pb::task::task_service_client::TaskServiceClient;

use crate::connect::{ConnectOptions, Transport};

const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// Pause before a call is tried again while the server cannot be reached; it doubles each time.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How long a call is tried again while the server cannot be reached.
pub(crate) struct Patience {
    pub until: Instant,
    backoff: Duration,
}

impl Patience {
    pub(crate) fn new(deadline: Duration) -> Patience {
        Patience {
            until: Instant::now() + deadline,
            backoff: BACKOFF,
        }
    }

    /// Waits before the next try; false, at once, when the deadline would pass meanwhile.
    pub(crate) async fn pause(&mut self) -> bool {
        if Instant::now() + self.backoff >= self.until {
            return false;
        }
        tokio::time::sleep(self.backoff).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        true
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said so.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The address is malformed.
    #[error("server address [{address}]: {source}")]
    Address {
        /// As it was given.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// An option cannot be used.
    #[error("{0}")]
    Option(String),
    /// A task failed.
    #[error("task {task_id} failed: {message}")]
    TaskFailed {
        /// Controller task id.
        task_id: String,
        /// Druid's code, message and fields.
        fault: tasks::Fault,
        /// "<code>: <message>".
        message: String,
    },
    /// Rows could not be decoded.
    #[error("rows cannot be read: {0}")]
    Rows(String),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> ClientError {
        ClientError::Api(ApiError::from_status(&status))
    }
}

impl ClientError {
    /// The error as the server's API has it.
    pub fn to_api(&self) -> ApiError {
        match self {
            ClientError::Api(error) => error.clone(),
            other => ApiError::internal(other.to_string()),
        }
    }

    /// The server could not be reached, or is stopping.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, ClientError::Api(error) if error.category == Category::ServiceUnavailable)
    }
}

/// Rows of a statement.
pub struct QueryResult {
    /// `sqlQueryId`.
    pub query_id: String,
    /// Columns with Druid's types.
    pub columns: Vec<tasks::ResultColumn>,
    /// The statement was an EXPLAIN.
    pub explain: bool,
    /// Batches, as they come.
    pub rows: BoxStream<'static, Result<RecordBatch, ClientError>>,
}

/// A connection to a server; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Transport,
    deadline: Duration,
}

impl Client {
    pub(crate) fn new(channel: Transport, deadline: Duration) -> Client {
        Client { channel, deadline }
    }

    /// A client of `http://host:port`, `https://host:port` or `host:port`, with default options.
    pub fn connect(address: &str) -> Result<Client, ClientError> {
        ConnectOptions::new(address).connect()
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A request that the server gives up at this time.
    pub(crate) fn timed<T>(&self, message: T, until: Instant) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        request
    }

    pub(crate) fn tasks(&self) -> TaskServiceClient<Transport> {
        TaskServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn queries(&self) -> QueryServiceClient<Transport> {
        QueryServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn datasources(&self) -> DatasourceServiceClient<Transport> {
        DatasourceServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Repeats a read while the server cannot be reached, until the deadline.
    async fn read<T, R, F>(&self, message: T, call: impl Fn(Request<T>) -> F) -> Result<R, ClientError>
    where
        T: Clone,
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let mut patience = Patience::new(self.deadline);
        loop {
            match call(self.timed(message.clone(), patience.until)).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if status.code() == Code::Unavailable && patience.pause().await => {}
                Err(status) => return Err(status.into()),
            }
        }
    }

    /// Submits a statement as a task.
    pub async fn submit(
        &self,
        request: tasks::SubmitTaskRequest,
    ) -> Result<tasks::SubmitTaskResponse, ClientError> {
        Ok(self.tasks().submit_task(request).await?.into_inner())
    }

    /// A task by id.
    pub async fn task(&self, task_id: &str) -> Result<tasks::Task, ClientError> {
        let request = tasks::GetTaskRequest {
            task_id: task_id.to_owned(),
        };
        let answer = self
            .read(request, |request| async { self.tasks().get_task(request).await })
            .await?;
        answer
            .task
            .ok_or_else(|| ApiError::internal("the server sent no task").into())
    }

    /// One page of tasks, newest first.
    pub async fn list(
        &self,
        request: tasks::ListTasksRequest,
    ) -> Result<tasks::ListTasksResponse, ClientError> {
        self.read(request.clone(), |request| async {
            self.tasks().list_tasks(request).await
        })
        .await
    }

    /// Asks a task to stop.
    pub async fn cancel(&self, task_id: &str) -> Result<tasks::State, ClientError> {
        let request = tasks::CancelTaskRequest {
            task_id: task_id.to_owned(),
        };
        Ok(self.tasks().cancel_task(request).await?.into_inner().state())
    }

    /// The report of a task.
    pub async fn report(&self, task_id: &str) -> Result<tasks::TaskReport, ClientError> {
        let request = tasks::GetTaskReportRequest {
            task_id: task_id.to_owned(),
        };
        let answer = self
            .read(request, |request| async {
                self.tasks().get_task_report(request).await
            })
            .await?;
        answer
            .report
            .ok_or_else(|| ApiError::internal("the server sent no report").into())
    }

    /// Locks that tasks hold on a datasource.
    pub async fn locks(&self, datasource: &str) -> Result<Vec<tasks::Lock>, ClientError> {
        let request = tasks::ListLocksRequest {
            datasource: datasource.to_owned(),
        };
        let answer = self
            .read(request, |request| async {
                self.tasks().list_locks(request).await
            })
            .await?;
        Ok(answer.locks)
    }

    /// The worker processes.
    pub async fn workers(&self) -> Result<Vec<tasks::WorkerProcess>, ClientError> {
        let request = tasks::ListWorkersRequest {};
        let answer = self
            .read(request, |request| async {
                self.tasks().list_workers(request).await
            })
            .await?;
        Ok(answer.workers)
    }

    /// Follows a task until it ends.
    pub async fn watch(
        &self,
        task_id: &str,
        interval_ms: u32,
    ) -> Result<Streaming<tasks::WatchTaskResponse>, ClientError> {
        let request = tasks::WatchTaskRequest {
            task_id: task_id.to_owned(),
            interval_ms,
        };
        Ok(self.tasks().watch_task(request).await?.into_inner())
    }

    /// Runs a statement at once.
    pub async fn query(&self, request: queries::RunQueryRequest) -> Result<QueryResult, ClientError> {
        let answer = self.queries().run_query(request).await?.into_inner();
        let rows = self.rows(answer.ticket).await?;
        Ok(QueryResult {
            query_id: answer.query_id,
            columns: answer.columns,
            explain: answer.explain,
            rows,
        })
    }

    /// Columns of external data, from a sample.
    pub async fn infer_signature(
        &self,
        request: queries::InferSignatureRequest,
    ) -> Result<queries::InferSignatureResponse, ClientError> {
        self.read(request, |request| async {
            self.queries().infer_signature(request).await
        })
        .await
    }

    /// Stops a statement that runs at once.
    pub async fn cancel_query(&self, query_id: &str) -> Result<(), ClientError> {
        let request = queries::CancelQueryRequest {
            query_id: query_id.to_owned(),
        };
        self.queries().cancel_query(request).await?;
        Ok(())
    }

    /// Rows behind a ticket.
    pub async fn rows(
        &self,
        ticket: Vec<u8>,
    ) -> Result<BoxStream<'static, Result<RecordBatch, ClientError>>, ClientError> {
        let mut flight =
            FlightServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let messages: Streaming<FlightData> = flight
            .do_get(Ticket {
                ticket: ticket.into(),
            })
            .await?
            .into_inner();
        let messages = messages.map_err(|status| FlightError::Tonic(Box::new(status)));
        let rows = FlightRecordBatchStream::new_from_flight_data(messages).map_err(|error| match error {
            FlightError::Tonic(status) => ClientError::from(*status),
            other => ClientError::Rows(other.to_string()),
        });
        Ok(rows.boxed())
    }

    /// All datasources.
    pub async fn list_datasources(&self) -> Result<Vec<datasources::Datasource>, ClientError> {
        let request = datasources::ListDatasourcesRequest {};
        Ok(self
            .read(request, |request| async {
                self.datasources().list_datasources(request).await
            })
            .await?
            .datasources)
    }

    /// All used segments of a datasource; of all datasources when its name is empty.
    pub async fn segments(
        &self,
        datasource: &str,
        overshadowed: bool,
    ) -> Result<Vec<datasources::Segment>, ClientError> {
        self.all_segments(datasources::ListSegmentsRequest {
            datasource: datasource.to_owned(),
            include_overshadowed: overshadowed,
            ..Default::default()
        })
        .await
    }

    /// All segments of a datasource that were put aside; of all datasources when its name is empty.
    pub async fn unused_segments(&self, datasource: &str) -> Result<Vec<datasources::Segment>, ClientError> {
        self.all_segments(datasources::ListSegmentsRequest {
            datasource: datasource.to_owned(),
            unused: true,
            ..Default::default()
        })
        .await
    }

    /// Marks segments as used or unused. Returns how many changed.
    pub async fn mark_segments(&self, request: datasources::MarkSegmentsRequest) -> Result<u64, ClientError> {
        let answer = self.datasources().mark_segments(request).await?;
        Ok(answer.into_inner().changed_count)
    }

    /// Deletes unused segments of a datasource inside an interval. Returns how many went.
    pub async fn delete_unused(&self, datasource: &str, interval: &str) -> Result<u64, ClientError> {
        let request = datasources::DeleteUnusedSegmentsRequest {
            datasource: datasource.to_owned(),
            interval: interval.to_owned(),
        };
        let answer = self.datasources().delete_unused_segments(request).await?;
        Ok(answer.into_inner().deleted_count)
    }

    async fn all_segments(
        &self,
        mut request: datasources::ListSegmentsRequest,
    ) -> Result<Vec<datasources::Segment>, ClientError> {
        let mut segments = Vec::new();
        loop {
            let page = self
                .read(request.clone(), |request| async {
                    self.datasources().list_segments(request).await
                })
                .await?;
            segments.extend(page.segments);
            if page.next_page_token.is_empty() {
                return Ok(segments);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Columns of a datasource.
    pub async fn schema(&self, datasource: &str) -> Result<Vec<tasks::Column>, ClientError> {
        let request = datasources::GetSchemaRequest {
            datasource: datasource.to_owned(),
        };
        Ok(self
            .read(request, |request| async {
                self.datasources().get_schema(request).await
            })
            .await?
            .columns)
    }
}

/// The schema of the batches of a result, from the first one.
pub(crate) fn schema_of(batches: &[RecordBatch]) -> Option<SchemaRef> {
    batches.first().map(RecordBatch::schema)
}
