//! Druid's HTTP API in front of a Trilith server, by gRPC and Flight only.

mod body;
mod coordinator;
mod error;
mod locks;
mod render;
mod sql;
mod status;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trilith_client::Client;

/// Largest request body: statements may carry inline data.
const BODY_BYTES_MAX: usize = 64 << 20;

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Gateway {
    pub client: Client,
    pub started_ms: Arc<i64>,
}

/// All endpoints.
pub fn router(client: Client) -> Router {
    let gateway = Gateway {
        client,
        started_ms: Arc::new(chrono::Utc::now().timestamp_millis()),
    };
    Router::new()
        .route("/status", get(status::status))
        .route("/status/health", get(status::health))
        .route("/status/selfDiscovered/status", get(status::self_discovered))
        .route("/status/selfDiscovered", get(status::healthy))
        .route("/druid/v2/sql", post(sql::run))
        .route("/druid/v2/sql/", post(sql::run))
        .route("/druid/v2/sql/{id}", delete(sql::cancel))
        .route("/druid/v2/sql/task", post(tasks::submit))
        .route("/druid/v2/sql/task/", post(tasks::submit))
        .route("/druid/v2/sql/task/enabled", get(tasks::enabled))
        .route("/druid/indexer/v1/task/{id}", get(tasks::payload))
        .route("/druid/indexer/v1/task/{id}/status", get(tasks::status))
        .route("/druid/indexer/v1/task/{id}/reports", get(tasks::reports))
        .route("/druid/indexer/v1/task/{id}/shutdown", post(tasks::shutdown))
        .route("/druid/indexer/v1/tasks", get(tasks::list))
        .route("/druid/indexer/v1/runningTasks", get(tasks::running))
        .route("/druid/indexer/v1/pendingTasks", get(tasks::pending))
        .route("/druid/indexer/v1/waitingTasks", get(tasks::waiting))
        .route("/druid/indexer/v1/completeTasks", get(tasks::complete))
        .route("/druid/indexer/v1/taskStatus", post(tasks::statuses))
        .route("/druid/indexer/v1/activeLocks", post(locks::active))
        .route("/druid/indexer/v1/lockedIntervals/v2", post(locks::intervals))
        .route("/druid/v2/datasources", get(coordinator::datasources))
        .route("/druid/coordinator/v1/datasources", get(coordinator::datasources))
        .route(
            "/druid/coordinator/v1/metadata/datasources",
            get(coordinator::datasources),
        )
        .route(
            "/druid/coordinator/v1/datasources/{name}/segments",
            get(coordinator::segments),
        )
        .route(
            "/druid/coordinator/v1/metadata/datasources/{name}/segments",
            get(coordinator::segments),
        )
        .route(
            "/druid/coordinator/v1/metadata/segments",
            get(coordinator::all_segments),
        )
        .route("/druid/coordinator/v1/loadstatus", get(coordinator::load_status))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(gateway)
}

/// Serves until `shutdown`; open requests are answered.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    shutdown: CancellationToken,
) -> Result<(), std::io::Error> {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small packets may be delayed");
        }
    });
    axum::serve(listener, router(client))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}
