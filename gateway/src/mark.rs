//! Segments that are put aside, brought back, or deleted.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use trilith_proto::pb::datasource::MarkSegmentsRequest;

use crate::Gateway;
use crate::coordinator::{Params, is_segment_id, no_interval, no_segment_id};
use crate::error::HttpError;
use crate::interval::parse as interval;

async fn mark(gateway: &Gateway, request: MarkSegmentsRequest) -> Response {
    match gateway.client.mark_segments(request).await {
        Ok(count) => changed(count),
        Err(error) => HttpError::from(error).into_response(),
    }
}

fn changed(count: u64) -> Response {
    Json(json!({"numChangedSegments": count, "segmentStateChanged": count > 0})).into_response()
}

fn all(datasource: String, used: bool) -> MarkSegmentsRequest {
    MarkSegmentsRequest {
        datasource,
        used,
        ..Default::default()
    }
}

/// All segments that no newer one hides come back.
pub(crate) async fn use_all(State(gateway): State<Gateway>, Path(name): Path<String>) -> Response {
    mark(&gateway, all(name, true)).await
}

/// All segments are put aside; with `?kill=true&interval=` the unused ones inside are deleted instead.
pub(crate) async fn unuse_all(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
) -> Response {
    let kill = query
        .get("kill")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match (kill, query.get("interval")) {
        (true, Some(text)) => delete(&gateway, &name, text).await,
        (true, None) => (StatusCode::BAD_REQUEST, "kill needs an interval").into_response(),
        (false, _) => mark(&gateway, all(name, false)).await,
    }
}

/// Which segments a body means: an interval (of some versions), or ids.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meant {
    interval: Option<String>,
    segment_ids: Option<Vec<String>>,
    versions: Option<Vec<String>>,
}

async fn mark_meant(gateway: &Gateway, name: String, body: &Bytes, used: bool) -> Response {
    let wrong = |message: String| (StatusCode::BAD_REQUEST, message).into_response();
    let meant: Meant = match serde_json::from_slice(body) {
        Ok(meant) => meant,
        Err(error) => return wrong(format!("Invalid request payload: {error}")),
    };
    let request = match meant {
        Meant {
            interval: Some(text),
            segment_ids: None,
            versions,
        } => {
            let Some(interval) = interval(&text) else {
                return no_interval(&text);
            };
            // None of the versions, which is not the same as all of them.
            if versions.as_ref().is_some_and(Vec::is_empty) {
                return changed(0);
            }
            MarkSegmentsRequest {
                interval: interval.to_string(),
                versions: versions.unwrap_or_default(),
                ..all(name, used)
            }
        }
        Meant {
            interval: None,
            segment_ids: Some(segment_ids),
            versions: None,
        } if !segment_ids.is_empty() => {
            if let Some(id) = segment_ids.iter().find(|id| !is_segment_id(&name, id)) {
                return no_segment_id(&name, id);
            }
            MarkSegmentsRequest {
                segment_ids,
                ..all(name, used)
            }
        }
        _ => {
            return wrong(
                "Invalid request payload. Specify either [interval], with optional [versions], or [segmentIds], but not both"
                    .to_owned(),
            );
        }
    };
    mark(gateway, request).await
}

pub(crate) async fn mark_used(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    mark_meant(&gateway, name, &body, true).await
}

pub(crate) async fn mark_unused(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    body: Bytes,
) -> Response {
    mark_meant(&gateway, name, &body, false).await
}

async fn mark_one(gateway: &Gateway, name: String, id: String, used: bool) -> Response {
    if !is_segment_id(&name, &id) {
        return no_segment_id(&name, &id);
    }
    let request = MarkSegmentsRequest {
        segment_ids: vec![id],
        ..all(name, used)
    };
    mark(gateway, request).await
}

pub(crate) async fn use_segment(
    State(gateway): State<Gateway>,
    Path((name, id)): Path<(String, String)>,
) -> Response {
    mark_one(&gateway, name, id, true).await
}

pub(crate) async fn unuse_segment(
    State(gateway): State<Gateway>,
    Path((name, id)): Path<(String, String)>,
) -> Response {
    mark_one(&gateway, name, id, false).await
}

async fn delete(gateway: &Gateway, name: &str, text: &str) -> Response {
    let Some(interval) = interval(text) else {
        return no_interval(text);
    };
    match gateway.client.delete_unused(name, &interval.to_string()).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(error) => HttpError::from(error).into_response(),
    }
}

/// Unused segments inside the interval are deleted for good.
pub(crate) async fn delete_interval(
    State(gateway): State<Gateway>,
    Path((name, text)): Path<(String, String)>,
) -> Response {
    delete(&gateway, &name, &text).await
}

/// Segments are allocated in the memory of the task that writes them, and go with it: none is pending for good.
pub(crate) async fn delete_pending(Path(_name): Path<String>, Query(query): Params) -> Response {
    let text = query.get("interval").map_or("", String::as_str);
    match interval(text) {
        Some(_) => Json(json!({"numDeleted": 0})).into_response(),
        None => no_interval(text),
    }
}
