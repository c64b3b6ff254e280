//! Health and version.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
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
        "memory": {},
        "startTime": trilith_proto::interval::iso(*gateway.started_ms),
    }))
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
