//! `trilith worker`: a process that only runs work orders.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::{Channel, Endpoint, Server};
use tracing::{info, warn};
use trilith_engine::limits;
use trilith_engine::worker::{FinishedOrders, WorkerConfig, WorkerEvent, WorkerRuntime, wire};
use trilith_exchange::DurableSettings;
use trilith_input::Policy;
use trilith_proto::pb::worker as pb;
use trilith_proto::pb::worker::worker_service_client::WorkerServiceClient;

use crate::advertise::{reachable, with_port};
use crate::compute::Compute;
use crate::config::{WorkerOptions, memory_limit, task_disk_limit};
use crate::flight::Flight;
use crate::machine::cores;
use crate::parts::{ProcessLimits, StartError, memory_bounds, worker_config};
use crate::server::{DRAIN_TIMEOUT, incoming};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// How long a new worker tries to find its server before it gives up.
const FIRST_CONNECT_ATTEMPTS: u32 = 20;

/// Runs until `shutdown`. `ready` hears the Flight address once the server has accepted the worker.
pub async fn run(
    options: WorkerOptions,
    shutdown: CancellationToken,
    ready: impl FnOnce(std::net::SocketAddr),
) -> Result<(), StartError> {
    let listener = TcpListener::bind(options.grpc_address).await?;
    let address = listener.local_addr()?;
    let slots = options.slots.unwrap_or_else(cores).max(1);
    let compute = Compute::start()?;
    let limits = ProcessLimits {
        memory: memory_bounds(memory_limit(options.memory_limit.as_deref())?, slots),
        task_disk_bytes: task_disk_limit(options.task_disk_limit.as_deref())?,
        compute: compute.handle(),
    };
    let uri = if options.server.contains("://") {
        options.server.clone()
    } else {
        format!("http://{}", options.server)
    };
    let endpoint = Endpoint::from_shared(uri)?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3));
    let advertised = match &options.advertise_address {
        Some(given) => with_port(given, address.port()),
        None => reachable(address, &options.server).await?,
    };
    info!(
        address = advertised,
        "other processes read this one's outputs here"
    );
    let register = pb::RegisterRequest {
        flight_address: advertised.clone(),
        slot_count: slots,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let (channel, terms) = first_session(&endpoint, &register, &shutdown).await?;
    let config = worker_parts(&options, limits, &terms, advertised)?;
    let token = Arc::new(Mutex::new(terms.flight_token.clone()));
    let flight = Flight::new(config.clone(), Arc::clone(&token));
    let tracker = TaskTracker::new();
    let server = Server::builder()
        .add_service(FlightServiceServer::new(flight))
        .serve_with_incoming_shutdown(incoming(listener), shutdown.clone().cancelled_owned());
    tracker.spawn(async move {
        if let Err(error) = server.await {
            warn!(%error, "the Flight port stopped");
        }
    });
    ready(address);
    let mut session = Some((channel, terms));
    let mut kept = Kept::default();
    while !shutdown.is_cancelled() {
        let Some((channel, terms)) = session.take() else {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = kept.expired() => {
                    info!("the outputs that were finished when the server was lost are given up");
                    kept = Kept::default();
                    config.exchange.release_all();
                }
                joined = rejoin(&endpoint, &register) => match joined {
                    Ok(joined) => session = Some(joined),
                    Err(error) => warn!(%error, "the server cannot be reached"),
                }
            }
            continue;
        };
        // Another process of the server, perhaps with other settings.
        *token.lock() = terms.flight_token.clone();
        config.flight_pool.set_token(Some(&terms.flight_token))?;
        let config = WorkerConfig {
            policy: Arc::new(policy(&terms)),
            segment_directory: PathBuf::from(&terms.segment_directory),
            ..config.clone()
        };
        let held = std::mem::take(&mut kept).orders;
        let (finished, ended) = serve(&config, channel, &terms, held, &shutdown).await;
        if let Err(error) = ended {
            warn!(%error, "lost the server; unfinished work is given up");
            kept = Kept::new(finished, Duration::from_millis(u64::from(terms.lease_ms)));
        }
    }
    tracker.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, tracker.wait()).await.is_err() {
        warn!("connections that readers keep open are cut");
    }
    let served = config.exchange.stats();
    info!(
        rows = served.flight_rows_served,
        batches = served.flight_batches_served,
        "Flight reads served"
    );
    Ok(())
}

/// Outputs of finished work, for a while after the server was lost: it may come back and want them.
#[derive(Default)]
struct Kept {
    orders: FinishedOrders,
    until: Option<Instant>,
}

impl Kept {
    fn new(orders: FinishedOrders, lease: Duration) -> Kept {
        Kept {
            until: (!orders.is_empty()).then(|| Instant::now() + lease),
            orders,
        }
    }

    /// Waits until they are to be given up; for ever when there are none.
    async fn expired(&self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}

/// Joins again, with a new session.
async fn rejoin(
    endpoint: &Endpoint,
    register: &pb::RegisterRequest,
) -> Result<(Channel, pb::RegisterResponse), StartError> {
    tokio::time::sleep(RECONNECT_AFTER).await;
    join(endpoint, register).await
}

async fn first_session(
    endpoint: &Endpoint,
    register: &pb::RegisterRequest,
    shutdown: &CancellationToken,
) -> Result<(Channel, pb::RegisterResponse), StartError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match join(endpoint, register).await {
            Ok(joined) => return Ok(joined),
            Err(error) if attempt >= FIRST_CONNECT_ATTEMPTS => return Err(error),
            Err(error) => warn!(%error, "the server cannot be reached yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Err("stopped before the server was reached".into()),
            () = tokio::time::sleep(RECONNECT_AFTER) => {}
        }
    }
}

async fn join(
    endpoint: &Endpoint,
    register: &pb::RegisterRequest,
) -> Result<(Channel, pb::RegisterResponse), StartError> {
    let channel = endpoint.connect().await?;
    let mut client = WorkerServiceClient::new(channel.clone());
    let terms = tokio::time::timeout(CONNECT_TIMEOUT, client.register(register.clone()))
        .await??
        .into_inner();
    Ok((channel, terms))
}

fn policy(terms: &pb::RegisterResponse) -> Policy {
    Policy {
        allow_local: terms.allow_local.iter().map(PathBuf::from).collect(),
        allow_http: terms.allow_http.clone(),
        ..Policy::default()
    }
}

fn worker_parts(
    options: &WorkerOptions,
    limits: ProcessLimits,
    terms: &pb::RegisterResponse,
    address: String,
) -> Result<WorkerConfig, StartError> {
    let segments = PathBuf::from(&terms.segment_directory);
    let durable = (!terms.durable_storage.is_empty()).then(|| DurableSettings {
        url: terms.durable_storage.clone(),
        options: terms.durable_storage_options.clone().into_iter().collect(),
    });
    worker_config(
        &options.data_dir,
        &segments,
        limits,
        policy(terms),
        address,
        &terms.flight_token,
        durable.as_ref(),
    )
}

/// One session with the server, until it breaks or the process stops. Returns what was finished by then.
async fn serve(
    config: &WorkerConfig,
    channel: Channel,
    terms: &pb::RegisterResponse,
    held: FinishedOrders,
    shutdown: &CancellationToken,
) -> (FinishedOrders, Result<(), StartError>) {
    let (events, mut reports) = mpsc::channel(limits::WORKER_QUEUE_CAPACITY);
    let runtime = WorkerRuntime::new(config.clone(), events, shutdown.child_token());
    runtime.hold(held);
    let ended = converse(&runtime, &mut reports, channel, terms, shutdown).await;
    stop(&runtime, reports).await;
    (runtime.finished(), ended)
}

/// Takes orders and tells what becomes of them.
async fn converse(
    runtime: &Arc<WorkerRuntime>,
    reports: &mut mpsc::Receiver<WorkerEvent>,
    channel: Channel,
    terms: &pb::RegisterResponse,
    shutdown: &CancellationToken,
) -> Result<(), StartError> {
    let (requests, stream) = mpsc::channel(limits::WORKER_QUEUE_CAPACITY);
    let lease = Duration::from_millis(u64::from(terms.lease_ms));
    requests
        .send(wire::heartbeat_message(&terms.worker_id, 0, &[]))
        .await?;
    let mut client = WorkerServiceClient::new(channel)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let mut responses = tokio::time::timeout(lease, client.work(ReceiverStream::new(stream)))
        .await??
        .into_inner();
    info!(worker = terms.worker_id, "joined the server");
    let mut beat = tokio::time::interval(Duration::from_millis(u64::from(
        terms.heartbeat_interval_ms.max(1),
    )));
    let upward = async {
        loop {
            let message = tokio::select! {
                Some(event) = reports.recv() => wire::event_message(&terms.worker_id, event)?,
                _ = beat.tick() => {
                    wire::heartbeat_message(&terms.worker_id, runtime.running(), &runtime.held())
                }
            };
            requests.send(message).await?;
        }
        #[allow(unreachable_code)]
        Ok::<(), StartError>(())
    };
    let downward = async {
        loop {
            let message = tokio::time::timeout(lease, responses.message()).await??;
            let message = message.ok_or("the server closed the connection")?;
            if let Some(command) = wire::command(message)? {
                runtime.command(command);
            }
        }
        #[allow(unreachable_code)]
        Ok::<(), StartError>(())
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        result = upward => result,
        result = downward => result,
    }
}

/// Stops all work; what it still reports has no reader.
async fn stop(runtime: &Arc<WorkerRuntime>, mut reports: mpsc::Receiver<WorkerEvent>) {
    let drain = async { while reports.recv().await.is_some() {} };
    tokio::select! {
        () = runtime.stop() => {}
        () = drain => {}
    }
}
