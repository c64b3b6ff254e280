//! `trilith.worker.v1.WorkerService`: worker processes join here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;
use trilith_engine::controller::{Controller, ProcessId, heartbeat_interval};
use trilith_engine::limits;
use trilith_engine::worker::{WorkerCommand, wire};
use trilith_exchange::DurableSettings;
use trilith_proto::error::ApiError;
use trilith_proto::pb::worker as pb;
use trilith_proto::pb::worker::worker_service_server::WorkerService;

/// What a worker process must know of the server.
#[derive(Debug, Clone)]
pub struct WorkerTerms {
    /// Secret for Flight reads between processes.
    pub flight_token: String,
    /// Directories for `local` input.
    pub allow_local: Vec<String>,
    /// Hosts for `http` input.
    pub allow_http: Vec<String>,
    /// Where segments go.
    pub segment_directory: String,
    /// Where outputs outlive their process.
    pub durable: Option<DurableSettings>,
}

/// Serves worker processes.
pub struct Workers {
    controller: Arc<Controller>,
    terms: WorkerTerms,
    /// Until they begin to work, or their lease is over.
    registered: Mutex<HashMap<String, (Instant, pb::RegisterRequest)>>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Workers {
    /// The service of a controller.
    pub fn new(
        controller: Arc<Controller>,
        terms: WorkerTerms,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> Workers {
        Workers {
            controller,
            terms,
            registered: Mutex::new(HashMap::new()),
            tracker,
            shutdown,
        }
    }
}

#[tonic::async_trait]
impl WorkerService for Workers {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterResponse>, Status> {
        let request = request.into_inner();
        if request.slot_count == 0 {
            return Err(ApiError::invalid_input("slot_count must be at least 1").into());
        }
        if request.flight_address.is_empty() {
            return Err(ApiError::invalid_input("flight_address is required, as host:port").into());
        }
        if request.version != env!("CARGO_PKG_VERSION") {
            return Err(ApiError::invalid_input(format!(
                "worker version [{}] differs from server version [{}]; run the same release on both",
                request.version,
                env!("CARGO_PKG_VERSION")
            ))
            .into());
        }
        let lease = self.controller.worker_lease();
        let durable = self.terms.durable.clone().unwrap_or_default();
        let worker_id = uuid::Uuid::new_v4().to_string();
        let mut registered = self.registered.lock();
        registered.retain(|_, (since, _)| since.elapsed() < lease * 2);
        registered.insert(worker_id.clone(), (Instant::now(), request));
        drop(registered);
        Ok(Response::new(pb::RegisterResponse {
            worker_id,
            heartbeat_interval_ms: heartbeat_interval(lease).as_millis() as u32,
            lease_ms: lease.as_millis() as u32,
            flight_token: self.terms.flight_token.clone(),
            allow_local: self.terms.allow_local.clone(),
            allow_http: self.terms.allow_http.clone(),
            segment_directory: self.terms.segment_directory.clone(),
            durable_storage: durable.url,
            durable_storage_options: durable.options.into_iter().collect(),
        }))
    }

    type WorkStream = BoxStream<'static, Result<pb::WorkResponse, Status>>;

    async fn work(
        &self,
        request: Request<Streaming<pb::WorkRequest>>,
    ) -> Result<Response<Self::WorkStream>, Status> {
        let lease = self.controller.worker_lease();
        let mut messages = request.into_inner();
        let first = tokio::time::timeout(lease, messages.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the first heartbeat did not come"))??
            .ok_or_else(|| ApiError::invalid_input("the stream ended before the first heartbeat"))?;
        let (_, terms) =
            self.registered.lock().remove(&first.worker_id).ok_or_else(|| {
                ApiError::not_found(format!("worker [{}] is not registered", first.worker_id))
            })?;
        let (commands, orders) = mpsc::channel(limits::WORKER_QUEUE_CAPACITY);
        let (answers, stream) = mpsc::channel(limits::WORKER_QUEUE_CAPACITY);
        let process = self
            .controller
            .add_process(terms.slot_count, terms.flight_address, commands);
        let session = Session {
            controller: Arc::clone(&self.controller),
            process,
            answers,
            lease,
        };
        let shutdown = self.shutdown.clone();
        self.tracker
            .spawn(async move { session.serve(messages, orders, shutdown).await });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }
}

/// One connected worker process.
struct Session {
    controller: Arc<Controller>,
    process: ProcessId,
    answers: mpsc::Sender<Result<pb::WorkResponse, Status>>,
    lease: Duration,
}

impl Session {
    async fn serve(
        self,
        messages: Streaming<pb::WorkRequest>,
        orders: mpsc::Receiver<WorkerCommand>,
        shutdown: CancellationToken,
    ) {
        // Two directions that must not wait for each other.
        let reason = tokio::select! {
            reason = self.receive(messages) => reason,
            reason = self.send(orders) => reason,
            () = shutdown.cancelled() => "the server is stopping".to_owned(),
        };
        self.controller.process_lost(self.process, &reason).await;
    }

    async fn receive(&self, mut messages: Streaming<pb::WorkRequest>) -> String {
        loop {
            let message = match tokio::time::timeout(self.lease, messages.message()).await {
                Err(_) => return format!("no heartbeat for {} ms", self.lease.as_millis()),
                Ok(Err(status)) => return format!("connection broken: {}", status.message()),
                Ok(Ok(None)) => return "the worker process closed its connection".to_owned(),
                Ok(Ok(Some(message))) => message,
            };
            if let Some(pb::work_request::Message::Heartbeat(heartbeat)) = message.message {
                match wire::held(heartbeat) {
                    Ok(held) => self.controller.on_heartbeat(self.process, held),
                    Err(error) => return error.to_string(),
                }
                let reply = pb::work_response::Message::Heartbeat(pb::HeartbeatReply {});
                let reply = pb::WorkResponse { message: Some(reply) };
                if self.answers.send(Ok(reply)).await.is_err() {
                    return "the worker process stopped listening".to_owned();
                }
                continue;
            }
            match wire::event(message) {
                Ok(event) => self.controller.on_worker_event(event).await,
                Err(error) => return error.to_string(),
            }
        }
    }

    async fn send(&self, mut orders: mpsc::Receiver<WorkerCommand>) -> String {
        while let Some(command) = orders.recv().await {
            let message = match wire::command_message(command) {
                Ok(message) => message,
                Err(error) => {
                    warn!(%error, "a command could not be sent");
                    return error.to_string();
                }
            };
            if self.answers.send(Ok(message)).await.is_err() {
                return "the worker process stopped listening".to_owned();
            }
        }
        "the worker was removed".to_owned()
    }
}
