//! Druid's HTTP API in front of a Trilith server, by gRPC and Flight only.

mod body;
mod capacity;
mod coordinator;
mod error;
mod format;
mod infer;
mod interval;
mod json;
mod locks;
mod log;
mod mark;
mod render;
mod settings;
mod sql;
mod statements;
mod status;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, post};
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
    let api = druid().merge(overlord()).merge(coordinator());
    Router::new()
        .route("/proxy/enabled", get(status::proxy_enabled))
        .route("/proxy/{target}/{*rest}", any(status::unknown_proxy))
        .nest("/proxy/overlord", api.clone())
        .nest("/proxy/coordinator", api.clone())
        .merge(api)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(gateway)
}

/// SQL and status.
fn druid() -> Router<Gateway> {
    Router::new()
        .route("/status", get(status::status))
        .route("/status/health", get(status::health))
        .route("/status/ready", get(status::health))
        .route("/status/properties", get(status::properties))
        .route("/status/selfDiscovered/status", get(status::self_discovered))
        .route("/status/selfDiscovered", get(status::healthy))
        .route("/trilith/v1/infer", post(infer::signature))
        .route("/druid/v2/sql", post(sql::run))
        .route("/druid/v2/sql/", post(sql::run))
        .route("/druid/v2/sql/{id}", delete(sql::cancel))
        .route("/druid/v2", post(sql::refuse_native))
        .route("/druid/v2/", post(sql::refuse_native))
        .route("/druid/v2/sql/avatica", post(sql::refuse_avatica))
        .route("/druid/v2/sql/avatica/", post(sql::refuse_avatica))
        .route("/druid/v2/sql/avatica-protobuf", post(sql::refuse_avatica))
        .route("/druid/v2/sql/avatica-protobuf/", post(sql::refuse_avatica))
        .route("/druid/v2/sql/engines", get(sql::engines))
        .route("/druid/v2/sql/queries", get(sql::queries))
        .route("/druid/v2/sql/queries/{id}/reports", get(sql::query_report))
        .route("/druid/v2/sql/task", post(tasks::submit))
        .route("/druid/v2/sql/task/", post(tasks::submit))
        .route("/druid/v2/sql/task/enabled", get(tasks::enabled))
        // Airflow makes the address of a cancel from that of the submission.
        .route("/druid/v2/sql/task/{id}/shutdown", post(tasks::shutdown))
        .route("/druid/v2/sql/statements", post(statements::submit))
        .route("/druid/v2/sql/statements/", post(statements::submit))
        .route("/druid/v2/sql/statements/enabled", get(statements::enabled))
        .route(
            "/druid/v2/sql/statements/{id}",
            get(statements::status).delete(statements::cancel),
        )
        .route("/druid/v2/sql/statements/{id}/results", get(statements::results))
        .route("/druid/v2/datasources", get(coordinator::datasources))
        .route("/druid/broker/v1/readiness", get(status::healthy))
        .route("/druid/broker/v1/loadstatus", get(status::inventory))
}

/// Tasks, workers, and which segments are used.
fn overlord() -> Router<Gateway> {
    Router::new()
        .route("/druid/indexer/v1/leader", get(status::leader))
        .route("/druid/indexer/v1/isLeader", get(status::is_leader))
        .route("/druid/indexer/v1/scaling", get(capacity::empty_list))
        .route("/druid/indexer/v1/task", post(tasks::submit_native))
        .route("/druid/indexer/v1/task/{id}", get(tasks::payload))
        .route("/druid/indexer/v1/task/{id}/status", get(tasks::status))
        .route("/druid/indexer/v1/task/{id}/reports", get(tasks::reports))
        .route("/druid/indexer/v1/task/{id}/log", get(tasks::task_log))
        .route("/druid/indexer/v1/task/{id}/segments", get(tasks::segments))
        .route("/druid/indexer/v1/task/{id}/shutdown", post(tasks::shutdown))
        .route("/druid/indexer/v1/tasks", get(tasks::list))
        .route("/druid/indexer/v1/runningTasks", get(tasks::running))
        .route("/druid/indexer/v1/pendingTasks", get(tasks::pending))
        .route("/druid/indexer/v1/waitingTasks", get(tasks::waiting))
        .route("/druid/indexer/v1/completeTasks", get(tasks::complete))
        .route("/druid/indexer/v1/taskStatus", post(tasks::statuses))
        .route("/druid/indexer/v1/activeLocks", post(locks::active))
        .route("/druid/indexer/v1/lockedIntervals/v2", post(locks::intervals))
        .route("/druid/indexer/v1/totalWorkerCapacity", get(capacity::total))
        .route("/druid/indexer/v1/workers", get(capacity::workers))
        .route(
            "/druid/indexer/v1/worker",
            get(capacity::config).post(capacity::config),
        )
        .route("/druid/indexer/v1/worker/{host}/enable", post(capacity::enabled))
        .route("/druid/indexer/v1/worker/{host}/disable", post(capacity::enabled))
        .route("/druid/indexer/v1/worker/history", get(capacity::empty_list))
        .route("/druid/indexer/v1/supervisor", get(capacity::empty_list))
        .route(
            "/druid/indexer/v1/datasources/{name}/shutdownAllTasks",
            post(tasks::shutdown_all),
        )
        .merge(marks("/druid/indexer/v1/datasources"))
        .route(
            "/druid/indexer/v1/datasources/{name}",
            post(mark::use_all).delete(mark::unuse_all),
        )
        .route(
            "/druid/indexer/v1/pendingSegments/{name}",
            delete(mark::delete_pending),
        )
        .route(
            "/druid/indexer/v1/datasources/{name}/segments/{id}",
            post(mark::use_segment).delete(mark::unuse_segment),
        )
}

/// Which segments are used, by interval or ids.
fn marks(base: &str) -> Router<Gateway> {
    Router::new()
        .route(&format!("{base}/{{name}}/markUsed"), post(mark::mark_used))
        .route(&format!("{base}/{{name}}/markUnused"), post(mark::mark_unused))
}

/// Datasources and segments.
fn coordinator() -> Router<Gateway> {
    let base = "/druid/coordinator/v1";
    let at = |path: &str| format!("{base}{path}");
    Router::new()
        .route(&at("/leader"), get(status::leader))
        .route(&at("/isLeader"), get(status::is_leader))
        .route(
            &at("/metadata/datasources"),
            get(coordinator::metadata_datasources),
        )
        .route(
            &at("/metadata/datasources/{name}"),
            get(coordinator::metadata_datasource),
        )
        .route(
            &at("/metadata/datasources/{name}/segments"),
            get(coordinator::metadata_segments).post(coordinator::metadata_segments_of),
        )
        .route(
            &at("/metadata/datasources/{name}/segments/{id}"),
            get(coordinator::metadata_segment),
        )
        .route(
            &at("/metadata/datasources/{name}/unusedSegments"),
            get(coordinator::unused_segments),
        )
        .route(&at("/metadata/segments"), get(coordinator::all_segments))
        .route(&at("/datasources"), get(coordinator::datasources))
        .route(
            &at("/datasources/{name}"),
            get(coordinator::datasource)
                .post(mark::use_all)
                .delete(mark::unuse_all),
        )
        .route(&at("/datasources/{name}/intervals"), get(coordinator::intervals))
        .route(
            &at("/datasources/{name}/intervals/{interval}"),
            get(coordinator::one_interval).delete(mark::delete_interval),
        )
        .route(
            &at("/datasources/{name}/segments"),
            get(coordinator::datasource_segments),
        )
        .route(
            &at("/datasources/{name}/segments/{id}"),
            get(coordinator::datasource_segment)
                .post(mark::use_segment)
                .delete(mark::unuse_segment),
        )
        .route(&at("/datasources/{name}/tiers"), get(coordinator::tiers))
        .route(
            &at("/datasources/{name}/loadstatus"),
            get(coordinator::datasource_load_status),
        )
        .merge(marks(&at("/datasources")))
        .route(&at("/loadstatus"), get(coordinator::load_status))
        // Decoration of the web console: there are no rules, queues or dynamic settings.
        .route(&at("/loadqueue"), get(capacity::empty_map))
        .route(&at("/servers"), get(capacity::empty_list))
        .route(&at("/cluster"), get(capacity::empty_map))
        .route(&at("/rules"), get(capacity::empty_map))
        .route(&at("/rules/{name}"), get(capacity::empty_list))
        .route(&at("/config"), get(capacity::empty_map))
        .route(&at("/lookups/config/all"), get(capacity::empty_map))
        .route(&at("/lookups/status"), get(capacity::empty_map))
        .route(&at("/broker/config"), get(capacity::empty_map))
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
