//! The Flight service: rows of statements for clients, Flight SQL, stage outputs for other processes.

mod sql;

use std::sync::Arc;

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use trilith_engine::controller::{Controller, ResultTicket};
use trilith_engine::worker::{MemoryBounds, WorkerConfig, fault_of};
use trilith_exchange::flight::serve::{check_token, do_get};
use trilith_proto::error::ApiError;
use trilith_proto::id::TaskId;

use sql::FlightSql;

type Answer<T> = BoxStream<'static, Result<T, Status>>;

/// Serves one process. Only the server has results of statements.
pub struct Flight {
    worker: WorkerConfig,
    token: Arc<Mutex<String>>,
    server: Option<Server>,
}

/// What a server has and a worker process has not.
struct Server {
    controller: Arc<Controller>,
    sql: FlightSql,
}

impl Flight {
    /// The service of a worker process.
    /// `token` is what other processes must know; it may change while the service runs.
    pub fn new(worker: WorkerConfig, token: Arc<Mutex<String>>) -> Flight {
        Flight {
            worker,
            token,
            server: None,
        }
    }

    /// Serves the statements of a controller as well.
    pub fn with_controller(mut self, controller: Arc<Controller>, tracker: TaskTracker) -> Flight {
        let sql = FlightSql::new(Arc::clone(&controller), tracker);
        self.server = Some(Server { controller, sql });
        self
    }

    fn server(&self) -> Result<&Server, Status> {
        self.server.as_ref().ok_or_else(|| {
            ApiError::not_found("this is a worker; ask the server, which has the statements").into()
        })
    }

    fn controller(&self) -> Result<&Arc<Controller>, Status> {
        Ok(&self.server()?.controller)
    }

    async fn results(&self, ticket: &ResultTicket) -> Result<SendableRecordBatchStream, Status> {
        let controller = self.controller()?;
        let rows = match ticket {
            ResultTicket::Task(id) => controller.task_results(&TaskId::from(id.as_str()), None).await,
            ResultTicket::Page(id, page) => {
                controller
                    .task_results(&TaskId::from(id.as_str()), Some(*page))
                    .await
            }
            ResultTicket::Query(id) => controller.query_results(id),
        };
        rows.map_err(Status::from)
    }
}

/// Batches as Flight messages, the schema first; they are encoded where operators run. An encoder that ends before its rows
/// do, because it panicked or because the process stops, is an error and never looks like the end of the rows.
fn encode(rows: SendableRecordBatchStream, memory: MemoryBounds, compute: &Handle) -> Answer<FlightData> {
    let schema = rows.schema();
    let rows = rows.map_err(move |error| {
        let fault = fault_of(&error, &memory);
        FlightError::from(Status::from(ApiError::from(&fault)))
    });
    let mut messages = FlightDataEncoderBuilder::new()
        .with_schema(schema)
        .build(rows)
        .map_err(|error| match error {
            FlightError::Tonic(status) => *status,
            other => Status::from(other),
        });
    let (sender, receiver) = mpsc::channel(1);
    let encoding = compute.spawn(async move {
        while let Some(message) = messages.next().await {
            if sender.send(message).await.is_err() {
                break;
            }
        }
    });
    // Stopped when the stream is dropped, also while a message is being made.
    let encoding = AbortOnDropHandle::new(encoding);
    let ended = async move {
        let broken = encoding.await.err()?;
        let message = format!("the rows could not be sent to their end: {broken}");
        Some(Err(Status::from(ApiError::internal(message))))
    };
    ReceiverStream::new(receiver)
        .chain(futures::stream::once(ended).filter_map(std::future::ready))
        .boxed()
}

fn unsupported<T>(what: &str) -> Result<Response<T>, Status> {
    Err(ApiError::unsupported(format!(
        "{what} is not offered; use Flight SQL, or trilith.query.v1.QueryService and DoGet of its ticket"
    ))
    .into())
}

#[tonic::async_trait]
impl FlightService for Flight {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = Answer<FlightData>;
    type DoPutStream = Answer<PutResult>;
    type DoActionStream = Answer<arrow_flight::Result>;
    type ListActionsStream = Answer<ActionType>;
    type DoExchangeStream = Answer<FlightData>;

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let bytes = &request.get_ref().ticket;
        if let Some(ticket) = ResultTicket::decode(bytes) {
            let rows = self.results(&ticket).await?;
            return Ok(Response::new(encode(
                rows,
                self.worker.memory,
                &self.worker.compute,
            )));
        }
        if let Some(server) = &self.server
            && FlightSql::knows(bytes)
        {
            return server.sql.do_get(request).await;
        }
        let token = self.token.lock().clone();
        check_token(request.metadata(), Some(&token))?;
        let rows = do_get(&self.worker.exchange, &self.worker.flight_pool, bytes).await?;
        Ok(Response::new(rows))
    }

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.server()?.sql.handshake(request).await
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        unsupported("ListFlights")
    }

    /// The descriptor is a command of Flight SQL, or a path with the id of a finished SELECT task, which has one endpoint
    /// for each page.
    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        if request.get_ref().r#type() == DescriptorType::Cmd {
            return self.server()?.sql.get_flight_info(request).await;
        }
        let descriptor = request.into_inner();
        let [task] = descriptor.path.as_slice() else {
            let message = "the descriptor must be a command of Flight SQL, or a path with one part, the id of a SELECT task";
            return Err(ApiError::invalid_input(message).into());
        };
        let result = self
            .controller()?
            .result_info(&TaskId::from(task.as_str()))
            .await?;
        let rows: u64 = result.pages.iter().map(|page| page.rows).sum();
        let bytes: Option<u64> = result.pages.iter().map(|page| page.bytes).sum();
        let mut info = FlightInfo::new()
            .try_with_schema(&result.schema)
            .map_err(|error| Status::internal(error.to_string()))?
            .with_descriptor(descriptor)
            .with_total_records(rows as i64)
            .with_total_bytes(bytes.map_or(-1, |bytes| bytes as i64))
            .with_ordered(true);
        for page in &result.pages {
            let ticket = Ticket::new(page.ticket.encode());
            info = info.with_endpoint(FlightEndpoint::new().with_ticket(ticket));
        }
        Ok(Response::new(info))
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        unsupported("PollFlightInfo")
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.server()?.sql.schema(request).await
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        self.server()?.sql.do_put(request).await
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.server()?.sql.do_action(request).await
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.server()?;
        let actions = FlightSql::actions().into_iter().map(Ok);
        Ok(Response::new(futures::stream::iter(actions).boxed()))
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        unsupported("DoExchange")
    }
}
