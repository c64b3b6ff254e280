//! Health, version, and what the web console asks before it shows its views.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Gateway;

/// Druid's release whose API is spoken.
const DRUID_VERSION: &str = "36.0.0";

pub(crate) async fn status(State(gateway): State<Gateway>) -> Json<Value> {
    Json(json!({
        "version": DRUID_VERSION,
        "modules": [{
            "name": "trilith",
            "artifact": "trilith-gateway",
            "version": env!("CARGO_PKG_VERSION"),
        }],
        "memory": memory().await,
        "startTime": trilith_proto::interval::iso(*gateway.started_ms),
    }))
}

/// A line "Name:  123 kB" of a file of `/proc`, in bytes.
fn proc_bytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    number
        .and_then(|number| number.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1_024)
}

/// Memory of this process: the most that it may have is that of the machine, the total is the most that it had.
/// Zeroes where there is no `/proc`.
async fn memory() -> Value {
    let read = |path: &'static str| async move { tokio::fs::read_to_string(path).await.unwrap_or_default() };
    let (own, machine) = tokio::join!(read("/proc/self/status"), read("/proc/meminfo"));
    let (used, peak) = (proc_bytes(&own, "VmRSS"), proc_bytes(&own, "VmHWM"));
    json!({
        "maxMemory": proc_bytes(&machine, "MemTotal"),
        "totalMemory": peak.max(used),
        "freeMemory": peak.saturating_sub(used),
        "usedMemory": used,
        "directMemory": 0,
    })
}

/// Healthy means that the server behind answers.
pub(crate) async fn health(State(gateway): State<Gateway>) -> Response {
    match gateway.client.list_datasources().await {
        Ok(_) => Json(true).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(false)).into_response(),
    }
}

pub(crate) async fn self_discovered() -> Json<Value> {
    Json(json!({"selfDiscovered": true}))
}

pub(crate) async fn healthy() -> StatusCode {
    StatusCode::OK
}

/// Host and port by which the caller reached this process.
fn own_address(headers: &HeaderMap) -> String {
    headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("localhost")
        .to_owned()
}

/// Settings, sorted. There are no others that clients look at.
pub(crate) async fn properties(headers: HeaderMap) -> Json<BTreeMap<&'static str, String>> {
    let address = own_address(&headers);
    let (host, port) = address.rsplit_once(':').unwrap_or((&address, "80"));
    Json(BTreeMap::from([
        ("druid.host", host.to_owned()),
        ("druid.plaintextPort", port.to_owned()),
        ("druid.service", "druid/router".to_owned()),
        ("druid.server.http.showDetailedJettyErrors", "true".to_owned()),
        ("os.arch", std::env::consts::ARCH.to_owned()),
        ("os.name", std::env::consts::OS.to_owned()),
        ("trilith.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]))
}

/// Management calls are answered here.
pub(crate) async fn proxy_enabled() -> Json<Value> {
    Json(json!({"enabled": true}))
}

pub(crate) async fn unknown_proxy() -> Response {
    (
        StatusCode::BAD_REQUEST,
        "Unknown proxy target; use /proxy/coordinator or /proxy/overlord",
    )
        .into_response()
}

/// One process leads everything.
pub(crate) async fn leader(headers: HeaderMap) -> String {
    format!("http://{}", own_address(&headers))
}

pub(crate) async fn is_leader() -> Json<Value> {
    Json(json!({"leader": true}))
}

pub(crate) async fn inventory() -> Json<Value> {
    Json(json!({"inventoryInitialized": true}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_proc() {
        let text = "VmPeak:\t 10 kB\nVmRSS:\t     7 kB\n";
        assert_eq!(proc_bytes(text, "VmRSS"), 7 * 1_024);
        assert_eq!(proc_bytes(text, "VmHWM"), 0);
    }
}
