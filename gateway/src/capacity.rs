//! Worker processes and their slots, as the Overlord shows them.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use trilith_proto::interval::iso;
use trilith_proto::pb::task::WorkerProcess;

use crate::Gateway;
use crate::coordinator::answer;

pub(crate) async fn total(State(gateway): State<Gateway>) -> Response {
    answer(gateway.client.workers().await.map(|workers| {
        let all: u32 = workers.iter().map(|worker| worker.slot_count).sum();
        let busy: u32 = workers.iter().map(|worker| worker.busy_slot_count).sum();
        json!({
            "currentClusterCapacity": all,
            "maximumCapacityWithAutoScale": -1,
            "usedClusterCapacity": busy,
        })
    }))
}

pub(crate) async fn workers(State(gateway): State<Gateway>) -> Response {
    let workers = gateway.client.workers().await;
    answer(workers.map(|workers| workers.iter().map(worker_json).collect()))
}

/// "host:port" of a Flight address.
fn host(worker: &WorkerProcess) -> &str {
    match worker.address.split_once("://") {
        Some((_, rest)) => rest.trim_end_matches('/'),
        None => &worker.address,
    }
}

fn worker_json(worker: &WorkerProcess) -> Value {
    let host = host(worker);
    let mut out = json!({
        "worker": {
            "scheme": "http",
            "host": host,
            "ip": host.rsplit_once(':').map_or(host, |(ip, _)| ip),
            "capacity": worker.slot_count,
            "version": env!("CARGO_PKG_VERSION"),
            "category": "_default_worker_category",
            "disabled": false,
        },
        "currCapacityUsed": worker.busy_slot_count,
        "currParallelIndexCapacityUsed": 0,
    });
    if worker.busy_slot_count > 0 {
        out["currCapacityUsedByTaskType"] = json!({"query_worker": worker.busy_slot_count});
    }
    out["availabilityGroups"] = json!([]);
    out["runningTasks"] = json!(worker.running_tasks);
    out["lastCompletedTaskTime"] = json!(iso(worker.idle_since_ms));
    out
}

/// No worker is disabled or limited, and none can be.
pub(crate) async fn config() -> Json<Value> {
    Json(json!({"type": "default"}))
}

/// What a worker is, whatever somebody wants it to be.
pub(crate) async fn enabled(Path(host): Path<String>) -> Json<Value> {
    Json(json!({host: "enabled"}))
}

pub(crate) async fn empty_list() -> Response {
    Json(json!([])).into_response()
}

pub(crate) async fn empty_map() -> Response {
    Json(json!({})).into_response()
}
