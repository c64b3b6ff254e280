//! Datasources and segments, as the Coordinator shows them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use trilith_client::ClientError;
use trilith_proto::error::ApiError;
use trilith_proto::interval::{ETERNITY, Interval, iso};
use trilith_proto::pb::datasource::Segment;

use crate::Gateway;
use crate::error::{HttpError, plain};
use crate::interval::parse as interval;

/// The one tier: every server reads all segments.
const TIER: &str = "_default_tier";
/// Without an interval, load status looks this far back, in milliseconds.
const LOAD_STATUS_MS: i64 = 14 * 86_400_000;

pub(crate) type Params = Query<HashMap<String, String>>;

pub(crate) fn answer(result: Result<Value, ClientError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => HttpError::from(error).into_response(),
    }
}

pub(crate) fn no_interval(text: &str) -> Response {
    plain(
        StatusCode::BAD_REQUEST,
        &format!("[{text}] is no interval; use start_end in ISO 8601"),
    )
}

/// Druid's `DataSegment`.
fn segment_json(segment: &Segment) -> Value {
    let load_spec = if segment.tombstone {
        json!({"type": "tombstone", "path": null})
    } else {
        json!({"type": "local", "path": segment.path})
    };
    json!({
        "dataSource": segment.datasource,
        "interval": segment.interval,
        "version": segment.version,
        "loadSpec": load_spec,
        "dimensions": segment.dimensions.join(","),
        "metrics": segment.metrics.join(","),
        "shardSpec": serde_json::from_str::<Value>(&segment.shard_spec_json).unwrap_or(Value::Null),
        "binaryVersion": 9,
        "size": segment.size_bytes,
        "totalRows": segment.row_count,
        "identifier": segment.segment_id,
    })
}

fn span(segment: &Segment) -> Interval {
    Interval::parse(&segment.interval).unwrap_or(ETERNITY)
}

/// Used segments by datasource, overshadowed ones as well.
async fn by_datasource(gateway: &Gateway) -> Result<BTreeMap<String, Vec<Segment>>, ClientError> {
    let mut all: BTreeMap<String, Vec<Segment>> = BTreeMap::new();
    for segment in gateway.client.segments("", true).await? {
        all.entry(segment.datasource.clone()).or_default().push(segment);
    }
    Ok(all)
}

fn full_json(name: &str, segments: &[Segment]) -> Value {
    json!({
        "name": name,
        "properties": {},
        "segments": segments.iter().map(segment_json).collect::<Vec<_>>(),
    })
}

/// What the visible segments add up to. Nothing is stored twice, so replicated sizes are the sizes.
fn properties(segments: &[Segment]) -> Value {
    let shown: Vec<&Segment> = segments.iter().filter(|segment| !segment.overshadowed).collect();
    let size: u64 = shown.iter().map(|segment| segment.size_bytes).sum();
    let start = shown.iter().map(|segment| span(segment).start_ms).min();
    let end = shown.iter().map(|segment| span(segment).end_ms).max();
    json!({
        "tiers": {TIER: {"size": size, "replicatedSize": size, "segmentCount": shown.len()}},
        "segments": {
            "maxTime": end.map(iso),
            "size": size,
            "minTime": start.map(iso),
            "count": shown.len(),
            "replicatedSize": size,
        },
    })
}

/// Names of datasources that can be queried.
pub(crate) async fn datasources(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    if !query.contains_key("simple") && !query.contains_key("full") {
        return names(&gateway).await;
    }
    let full = query.contains_key("full");
    answer(by_datasource(&gateway).await.map(|all| {
        all.iter()
            .map(|(name, segments)| {
                if full {
                    full_json(name, segments)
                } else {
                    json!({"name": name, "properties": properties(segments)})
                }
            })
            .collect()
    }))
}

async fn names(gateway: &Gateway) -> Response {
    let all = gateway.client.list_datasources().await;
    answer(all.map(|all| all.into_iter().map(|datasource| json!(datasource.name)).collect()))
}

/// Names of datasources with used segments, and with unused ones when they are wanted.
pub(crate) async fn metadata_datasources(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    if query.contains_key("includeUnused") || query.contains_key("includeDisabled") {
        let all = async {
            let mut names: BTreeSet<String> = by_datasource(&gateway).await?.into_keys().collect();
            let unused = gateway.client.unused_segments("").await?;
            names.extend(unused.into_iter().map(|segment| segment.datasource));
            Ok(json!(names))
        };
        return answer(all.await);
    }
    if query.contains_key("full") {
        return answer(by_datasource(&gateway).await.map(|all| {
            all.iter()
                .map(|(name, segments)| full_json(name, segments))
                .collect()
        }));
    }
    names(&gateway).await
}

pub(crate) async fn metadata_datasource(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
) -> Response {
    match gateway.client.segments(&name, true).await {
        Ok(segments) if segments.is_empty() => StatusCode::NOT_FOUND.into_response(),
        Ok(segments) => Json(full_json(&name, &segments)).into_response(),
        Err(error) => HttpError::from(error).into_response(),
    }
}

fn segment_list(segments: &[Segment], full: bool) -> Response {
    let show = |segment: &Segment| {
        if full {
            segment_json(segment)
        } else {
            json!(segment.segment_id)
        }
    };
    Json(segments.iter().map(show).collect::<Vec<_>>()).into_response()
}

pub(crate) async fn metadata_segments(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
) -> Response {
    match gateway.client.segments(&name, false).await {
        Ok(segments) if segments.is_empty() => StatusCode::NOT_FOUND.into_response(),
        Ok(segments) => segment_list(&segments, query.contains_key("full")),
        Err(error) => HttpError::from(error).into_response(),
    }
}

/// Segments that overlap any of the intervals in the body, overshadowed ones as well.
pub(crate) async fn metadata_segments_of(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
    body: Bytes,
) -> Response {
    let texts: Vec<String> = match serde_json::from_slice(&body) {
        Ok(texts) => texts,
        Err(error) => {
            return plain(
                StatusCode::BAD_REQUEST,
                &format!("the body must be a JSON list of intervals: {error}"),
            );
        }
    };
    let mut intervals = Vec::new();
    for text in &texts {
        match interval(text) {
            Some(interval) => intervals.push(interval),
            None => return no_interval(text),
        }
    }
    match gateway.client.segments(&name, true).await {
        Ok(mut segments) => {
            segments.retain(|segment| {
                let span = span(segment);
                intervals.iter().any(|interval| interval.overlaps(&span))
            });
            segment_list(&segments, query.contains_key("full"))
        }
        Err(error) => HttpError::from(error).into_response(),
    }
}

pub(crate) async fn unused_segments(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
) -> Response {
    let within = match query.get("interval") {
        None => ETERNITY,
        Some(text) => match interval(text) {
            Some(interval) => interval,
            None => return no_interval(text),
        },
    };
    let most = query.get("limit").map(|text| text.parse::<usize>());
    let most = match most {
        None => usize::MAX,
        Some(Ok(most)) if most > 0 => most,
        Some(_) => return plain(StatusCode::BAD_REQUEST, "limit must be a number above 0"),
    };
    let order = query.get("sortOrder").map(|order| order.to_ascii_uppercase());
    let descending = match order.as_deref() {
        None | Some("ASC") => false,
        Some("DESC") => true,
        Some(order) => {
            let message =
                format!("Unexpected value[{order}] for SortOrder. Possible values are: [ASC, DESC]");
            return HttpError(ApiError::invalid_input(message)).into_response();
        }
    };
    match gateway.client.unused_segments(&name).await {
        Ok(mut segments) => {
            if descending {
                segments.reverse();
            }
            segments.retain(|segment| within.contains(&span(segment)));
            if let Some(last) = query.get("lastSegmentId") {
                let behind = |id: &String| if descending { id < last } else { id > last };
                segments.retain(|segment| behind(&segment.segment_id));
            }
            segments.truncate(most);
            segment_list(&segments, true)
        }
        Err(error) => HttpError::from(error).into_response(),
    }
}

/// Parses as "datasource_start_end_version…".
pub(crate) fn is_segment_id(datasource: &str, id: &str) -> bool {
    let rest = id
        .strip_prefix(datasource)
        .and_then(|rest| rest.strip_prefix('_'));
    let Some(rest) = rest else { return false };
    let mut parts = rest.splitn(3, '_');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(start), Some(end), Some(version)) => {
            Interval::parse(&format!("{start}/{end}")).is_some() && !version.is_empty()
        }
        _ => false,
    }
}

pub(crate) fn no_segment_id(datasource: &str, id: &str) -> Response {
    plain(
        StatusCode::BAD_REQUEST,
        &format!("Could not parse Segment ID[{id}] for DataSource[{datasource}]"),
    )
}

pub(crate) async fn metadata_segment(
    State(gateway): State<Gateway>,
    Path((name, id)): Path<(String, String)>,
    Query(query): Params,
) -> Response {
    if !is_segment_id(&name, &id) {
        return no_segment_id(&name, &id);
    }
    let unused_too = query
        .get("includeUnused")
        .is_some_and(|value| value.is_empty() || value.eq_ignore_ascii_case("true"));
    let found = async {
        let mut segments = gateway.client.segments(&name, true).await?;
        if unused_too {
            segments.extend(gateway.client.unused_segments(&name).await?);
        }
        Ok::<_, ClientError>(segments.into_iter().find(|segment| segment.segment_id == id))
    };
    match found.await {
        Ok(Some(segment)) => Json(segment_json(&segment)).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => HttpError::from(error).into_response(),
    }
}

/// `?datasources=` may be repeated.
pub(crate) async fn all_segments(
    State(gateway): State<Gateway>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    let given = |name: &str| query.iter().any(|(key, _)| key == name);
    let status = given("includeOvershadowedStatus");
    if given("includeRealtimeSegments") && !status {
        return plain(
            StatusCode::BAD_REQUEST,
            "includeRealtimeSegments is only allowed together with includeOvershadowedStatus",
        );
    }
    let wanted: BTreeSet<&str> = query
        .iter()
        .filter(|(key, _)| key == "datasources")
        .map(|(_, name)| name.as_str())
        .collect();
    let list = gateway.client.segments("", true).await.map(|segments| {
        segments
            .iter()
            .filter(|segment| wanted.is_empty() || wanted.contains(segment.datasource.as_str()))
            .map(|segment| {
                let mut json = segment_json(segment);
                if status {
                    json["overshadowed"] = json!(segment.overshadowed);
                    json["replicationFactor"] = json!(1);
                    json["numRows"] = json!(segment.row_count);
                    json["realtime"] = json!(false);
                }
                json
            })
            .collect()
    });
    answer(list)
}

/// Visible segments of a datasource; no content for one that cannot be queried.
async fn served(gateway: &Gateway, name: &str) -> Result<Vec<Segment>, Box<Response>> {
    match gateway.client.segments(name, false).await {
        Ok(segments) if segments.is_empty() => Err(Box::new(StatusCode::NO_CONTENT.into_response())),
        Ok(segments) => Ok(segments),
        Err(error) => Err(Box::new(HttpError::from(error).into_response())),
    }
}

pub(crate) async fn datasource(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
) -> Response {
    match served(&gateway, &name).await {
        Ok(segments) if query.contains_key("full") => Json(full_json(&name, &segments)).into_response(),
        Ok(segments) => Json(properties(&segments)).into_response(),
        Err(answer) => *answer,
    }
}

pub(crate) async fn datasource_segments(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
) -> Response {
    match served(&gateway, &name).await {
        Ok(segments) => segment_list(&segments, query.contains_key("full")),
        Err(answer) => *answer,
    }
}

pub(crate) async fn datasource_segment(
    State(gateway): State<Gateway>,
    Path((name, id)): Path<(String, String)>,
) -> Response {
    match served(&gateway, &name).await {
        Ok(segments) => match segments.iter().find(|segment| segment.segment_id == id) {
            Some(segment) => {
                Json(json!({"metadata": segment_json(segment), "servers": [TIER]})).into_response()
            }
            None => StatusCode::NO_CONTENT.into_response(),
        },
        Err(answer) => *answer,
    }
}

pub(crate) async fn tiers(State(gateway): State<Gateway>, Path(name): Path<String>) -> Response {
    match served(&gateway, &name).await {
        Ok(_) => Json(json!([TIER])).into_response(),
        Err(answer) => *answer,
    }
}

/// Time chunks with their segments, latest first.
fn chunks(segments: &[Segment]) -> Vec<(String, Vec<&Segment>)> {
    let mut chunks: BTreeMap<(i64, i64), (String, Vec<&Segment>)> = BTreeMap::new();
    for segment in segments {
        let span = span(segment);
        let chunk = chunks
            .entry((span.start_ms, span.end_ms))
            .or_insert_with(|| (segment.interval.clone(), Vec::new()));
        chunk.1.push(segment);
    }
    chunks.into_values().rev().collect()
}

fn chunk_json(segments: &[&Segment], full: bool) -> Value {
    if full {
        let all: Map<String, Value> = segments
            .iter()
            .map(|segment| {
                let about = json!({"metadata": segment_json(segment), "servers": [TIER]});
                (segment.segment_id.clone(), about)
            })
            .collect();
        return Value::Object(all);
    }
    let size: u64 = segments.iter().map(|segment| segment.size_bytes).sum();
    json!({"size": size, "count": segments.len()})
}

pub(crate) async fn intervals(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
) -> Response {
    let segments = match served(&gateway, &name).await {
        Ok(segments) => segments,
        Err(answer) => return *answer,
    };
    let chunks = chunks(&segments);
    if !query.contains_key("simple") && !query.contains_key("full") {
        return Json(
            chunks
                .into_iter()
                .map(|(interval, _)| interval)
                .collect::<Vec<_>>(),
        )
        .into_response();
    }
    let full = query.contains_key("full");
    let all: Map<String, Value> = chunks
        .into_iter()
        .map(|(interval, segments)| (interval, chunk_json(&segments, full)))
        .collect();
    Json(Value::Object(all)).into_response()
}

pub(crate) async fn one_interval(
    State(gateway): State<Gateway>,
    Path((name, text)): Path<(String, String)>,
    Query(query): Params,
) -> Response {
    let Some(within) = interval(&text) else {
        return no_interval(&text);
    };
    let segments = match served(&gateway, &name).await {
        Ok(segments) => segments,
        Err(answer) => return *answer,
    };
    let inside: Vec<Segment> = segments
        .into_iter()
        .filter(|segment| within.contains(&span(segment)))
        .collect();
    if !query.contains_key("simple") && !query.contains_key("full") {
        return segment_list(&inside, false);
    }
    let full = query.contains_key("full");
    let all: Map<String, Value> = chunks(&inside)
        .into_iter()
        .map(|(interval, segments)| (interval, chunk_json(&segments, full)))
        .collect();
    Json(Value::Object(all)).into_response()
}

/// Published segments can be queried at once: nothing is left to load.
pub(crate) async fn datasource_load_status(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Params,
) -> Response {
    if !query.contains_key("forceMetadataRefresh") {
        return (
            StatusCode::BAD_REQUEST,
            "Invalid request. forceMetadataRefresh must be specified",
        )
            .into_response();
    }
    let now = chrono::Utc::now().timestamp_millis();
    let within = match query.get("interval") {
        None => Interval {
            start_ms: now - LOAD_STATUS_MS,
            end_ms: now,
        },
        Some(text) => match interval(text) {
            Some(interval) => interval,
            None => return no_interval(text),
        },
    };
    match gateway.client.segments(&name, false).await {
        Ok(segments) if segments.iter().any(|segment| span(segment).overlaps(&within)) => {
            Json(loaded(&[name], &query)).into_response()
        }
        Ok(_) => (
            [(header::CONTENT_TYPE, "application/json")],
            "No used segment found for the given datasource and interval",
        )
            .into_response(),
        Err(error) => HttpError::from(error).into_response(),
    }
}

fn loaded(names: &[String], query: &HashMap<String, String>) -> Value {
    let each = |value: Value| -> Value {
        let all: Map<String, Value> = names.iter().map(|name| (name.clone(), value.clone())).collect();
        Value::Object(all)
    };
    if query.contains_key("simple") {
        each(json!(0))
    } else if query.contains_key("full") {
        json!({TIER: each(json!(0))})
    } else {
        each(json!(100.0))
    }
}

pub(crate) async fn load_status(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    let all = gateway.client.list_datasources().await;
    answer(all.map(|all| {
        let names: Vec<String> = all.into_iter().map(|datasource| datasource.name).collect();
        loaded(&names, &query)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_ids_are_recognised() {
        let id = "a_b_2000-01-01T00:00:00.000Z_2000-01-02T00:00:00.000Z_2026-01-01T00:00:00.000Z_3";
        assert!(is_segment_id("a_b", id));
        for (name, id) in [("a", id), ("x", id), ("a_b", "a_b"), ("a_b", "a_b_1_2_3")] {
            assert!(!is_segment_id(name, id), "{name} {id}");
        }
    }
}
