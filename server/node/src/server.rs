//! `trilith server`: controller, gRPC, Flight and the HTTP gateway in one process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tracing::{info, warn};
use trilith_engine::controller::{Controller, ControllerConfig};
use trilith_engine::limits;
use trilith_exchange::DurableSettings;
use trilith_input::Policy;
use trilith_metadata::SledStore;
use trilith_proto::FILE_DESCRIPTOR_SET;
use trilith_proto::pb::datasource::datasource_service_server::DatasourceServiceServer;
use trilith_proto::pb::query::query_service_server::QueryServiceServer;
use trilith_proto::pb::task::task_service_server::TaskServiceServer;
use trilith_proto::pb::worker::worker_service_server::WorkerServiceServer;

use crate::advertise::{outward, with_port};
use crate::compute::Compute;
use crate::config::{ServerOptions, durable_settings, memory_limit, task_disk_limit};
use crate::cors::CorsLayer;
use crate::deadline::DeadlineLayer;
use crate::flight::Flight;
use crate::machine::cores;
use crate::parts::{ProcessLimits, StartError, memory_bounds, worker_config};
use crate::services::{Datasources, Queries, Tasks, WorkerTerms, Workers};

const HTTP_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8888);
const GRPC_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8889);
/// How long clients may take to close their connections when the process stops.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DATA_DIRECTORY: &str = "trilith-data";
/// Statements carry their inline data.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// Where a running server listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// Gateway.
    pub http: SocketAddr,
    /// gRPC and Flight.
    pub grpc: SocketAddr,
}

/// Accepted connections with small packets sent at once.
pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Runs until `shutdown`, then drains. `ready` hears the addresses when every port answers.
pub async fn run(
    options: ServerOptions,
    shutdown: CancellationToken,
    ready: impl FnOnce(Addresses),
) -> Result<(), StartError> {
    let options = options.resolved()?;
    let data_dir = options
        .data_dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(DATA_DIRECTORY));
    std::fs::create_dir_all(&data_dir)?;
    let data_dir = data_dir.canonicalize()?;
    let grpc_listener = TcpListener::bind(options.grpc_address.unwrap_or(GRPC_ADDRESS)).await?;
    let http_listener = TcpListener::bind(options.http_address.unwrap_or(HTTP_ADDRESS)).await?;
    let addresses = Addresses {
        http: http_listener.local_addr()?,
        grpc: grpc_listener.local_addr()?,
    };
    let token = uuid::Uuid::new_v4().to_string();
    let durable = durable_settings(&options)?;
    let compute = Compute::start()?;
    let controller = start_controller(
        &options,
        compute.handle(),
        &data_dir,
        addresses,
        &token,
        durable.as_ref(),
    )
    .await?;
    controller.resume().await;
    let terms = WorkerTerms {
        flight_token: token.clone(),
        allow_local: options
            .allow_local
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        allow_http: options.allow_http.clone(),
        segment_directory: data_dir.join("segments").display().to_string(),
        durable,
    };
    let tracker = TaskTracker::new();
    let grpc_stop = CancellationToken::new();
    let grpc = grpc_server(
        &controller,
        terms,
        token,
        &tracker,
        &grpc_stop,
        grpc_listener,
        &options.allow_origin,
    )
    .await?;
    tracker.spawn(async move {
        if let Err(error) = grpc.await {
            warn!(%error, "the gRPC port stopped");
        }
    });
    let client = trilith_client::Client::connect(&format!("http://{}", addresses.grpc))?;
    let gateway = trilith_gateway::serve(http_listener, client, shutdown.clone());
    ready(addresses);
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    let result = tokio::select! {
        result = gateway => result,
        // A client that takes its time with an answer does not keep the tasks.
        () = late => {
            warn!("HTTP clients that do not take their answers are cut");
            Ok(())
        }
    };
    info!("stopping: tasks with faultTolerance are left to the next process, others are cancelled");
    controller.stop().await;
    grpc_stop.cancel();
    tracker.close();
    // A client that does not let go of its connection does not keep the process.
    if tokio::time::timeout(DRAIN_TIMEOUT, tracker.wait()).await.is_err() {
        warn!("connections that clients keep open are cut");
    }
    result.map_err(Into::into)
}

async fn start_controller(
    options: &ServerOptions,
    compute: Handle,
    data_dir: &std::path::Path,
    addresses: Addresses,
    token: &str,
    durable: Option<&DurableSettings>,
) -> Result<Arc<Controller>, StartError> {
    let policy = Policy {
        allow_local: options.allow_local.clone(),
        allow_http: options.allow_http.clone(),
        allow_http_headers: options.allow_http_header.clone(),
        ..Policy::default()
    };
    let slots = options.worker_slots.unwrap_or_else(cores);
    let bounds = ProcessLimits {
        memory: memory_bounds(memory_limit(options.memory_limit.as_deref())?, slots),
        task_disk_bytes: task_disk_limit(options.task_disk_limit.as_deref())?,
        compute,
    };
    let own = match &options.advertise_address {
        Some(given) => with_port(given, addresses.grpc.port()),
        None => outward(addresses.grpc).await?,
    };
    let segments = data_dir.join("segments");
    let worker = worker_config(data_dir, &segments, bounds, policy, own, token, durable)?;
    let directory = data_dir.to_owned();
    let lease = options.worker_lease()?;
    let task_start_timeout = options.task_start_timeout_s.map_or(
        Duration::from_millis(limits::TASK_START_TIMEOUT_MS as u64),
        |seconds| Duration::from_secs(seconds.into()),
    );
    let capacity = options.admission()?;
    let handle = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _runtime = handle.enter();
        let store = SledStore::open(&directory.join("metadata"))?;
        let config = ControllerConfig {
            worker,
            slots,
            results_directory: directory.join("results"),
            store: Arc::new(store),
            task_start_timeout,
            capacity,
            worker_lease: lease,
            host: addresses.http.ip().to_string(),
            port: addresses.http.port(),
        };
        Ok::<_, StartError>(Controller::start(config)?)
    })
    .await?
}

async fn grpc_server(
    controller: &Arc<Controller>,
    terms: WorkerTerms,
    token: String,
    tracker: &TaskTracker,
    stop: &CancellationToken,
    listener: TcpListener,
    origins: &[String],
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static, StartError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<TaskServiceServer<Tasks>>().await;
    health.set_serving::<QueryServiceServer<Queries>>().await;
    health.set_serving::<DatasourceServiceServer<Datasources>>().await;
    health.set_serving::<WorkerServiceServer<Workers>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // The details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let flight = Flight::new(controller.worker_config().clone(), Arc::new(Mutex::new(token)))
        .with_controller(Arc::clone(controller), tracker.clone());
    let workers = Workers::new(Arc::clone(controller), terms, tracker.clone(), stop.clone());
    let workers = WorkerServiceServer::new(workers)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let tasks = TaskServiceServer::new(Tasks::new(Arc::clone(controller)))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let queries = QueryServiceServer::new(Queries::new(Arc::clone(controller)))
        .max_decoding_message_size(REQUEST_BYTES_MAX);
    let flight = FlightServiceServer::new(flight).max_decoding_message_size(REQUEST_BYTES_MAX);
    let router = Server::builder()
        .accept_http1(true)
        .layer(CorsLayer::new(origins))
        .layer(tonic_web::GrpcWebLayer::new())
        .layer(DeadlineLayer)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(tasks)
        .add_service(queries)
        .add_service(DatasourceServiceServer::new(Datasources::new(Arc::clone(
            controller,
        ))))
        .add_service(workers)
        .add_service(flight);
    Ok(router.serve_with_incoming_shutdown(incoming(listener), stop.clone().cancelled_owned()))
}
