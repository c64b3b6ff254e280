//! Datasources and segments.

use std::collections::HashMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use trilith_client::ClientError;
use trilith_proto::pb::datasource::Segment;

use crate::Gateway;
use crate::error::HttpError;

fn answer(result: Result<Value, ClientError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => HttpError::from(error).into_response(),
    }
}

pub(crate) async fn datasources(State(gateway): State<Gateway>) -> Response {
    let names = gateway.client.list_datasources().await;
    answer(names.map(|all| {
        all.into_iter()
            .map(|datasource| datasource.name)
            .collect::<Vec<_>>()
            .into()
    }))
}

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

pub(crate) async fn segments(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    match gateway.client.segments(&name, false).await {
        Ok(segments) if segments.is_empty() => StatusCode::NOT_FOUND.into_response(),
        Ok(segments) => {
            let full = query.contains_key("full");
            let list: Vec<Value> = segments
                .iter()
                .map(|segment| {
                    if full {
                        segment_json(segment)
                    } else {
                        json!(segment.segment_id)
                    }
                })
                .collect();
            Json(list).into_response()
        }
        Err(error) => HttpError::from(error).into_response(),
    }
}

pub(crate) async fn all_segments(State(gateway): State<Gateway>) -> Response {
    let list = async {
        let mut list = Vec::new();
        for datasource in gateway.client.list_datasources().await? {
            let segments = gateway.client.segments(&datasource.name, true).await?;
            list.extend(segments.iter().map(segment_json));
        }
        Ok(Value::Array(list))
    };
    answer(list.await)
}

/// Published segments can be queried at once: everything is loaded.
pub(crate) async fn load_status(State(gateway): State<Gateway>) -> Response {
    let loaded = gateway.client.list_datasources().await.map(|all| {
        let map: Map<String, Value> = all
            .into_iter()
            .map(|datasource| (datasource.name, json!(100.0)))
            .collect();
        Value::Object(map)
    });
    answer(loaded)
}
