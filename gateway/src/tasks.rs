//! Task endpoints.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use trilith_client::ClientError;
use trilith_client::druid_json::{report_json, status_plus_json};
use trilith_proto::pb::task as pb;

use crate::Gateway;
use crate::body::SqlRequest;
use crate::error::{HttpError, status as http_status};
use crate::render::{self, Style};

/// Rows that a report shows, as in Druid.
const REPORT_ROWS_MAX: usize = 3_000;

pub(crate) async fn enabled() -> Json<Value> {
    Json(json!({"enabled": true}))
}

pub(crate) async fn submit(State(gateway): State<Gateway>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match SqlRequest::read(&headers, &body) {
        Ok(request) => request,
        Err(answer) => return *answer,
    };
    let call = pb::SubmitTaskRequest {
        sql: request.query,
        context_json: Value::Object(request.context.clone()).to_string(),
        parameters: request.parameters,
    };
    match gateway.client.submit(call).await {
        Ok(answer) => match answer.explanation {
            Some(explanation) => Json(json!([{
                "PLAN": explanation.plan_json,
                "RESOURCES": explanation.resources_json,
                "ATTRIBUTES": explanation.attributes_json,
            }]))
            .into_response(),
            None => {
                let body = json!({"taskId": answer.task_id, "state": "RUNNING"});
                (StatusCode::ACCEPTED, Json(body)).into_response()
            }
        },
        Err(error) => {
            let error = error.to_api();
            let given = request
                .context
                .get("sqlQueryId")
                .and_then(Value::as_str)
                .map(str::to_owned);
            let id = given.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            let body = json!({"taskId": id, "state": "FAILED", "error": error.to_json()});
            (http_status(&error), Json(body)).into_response()
        }
    }
}

/// The answer for an id that no task has: plain text.
fn missing(id: &str) -> Response {
    (
        StatusCode::NOT_FOUND,
        format!("Cannot find any task with id: [{id}]"),
    )
        .into_response()
}

pub(crate) async fn status(State(gateway): State<Gateway>, Path(id): Path<String>) -> Response {
    match gateway.client.task(&id).await {
        Ok(task) => Json(json!({"task": id, "status": status_plus_json(&task)})).into_response(),
        Err(error) => {
            let error = HttpError::from(error);
            if error.is_not_found() {
                return missing(&id);
            }
            error.into_response()
        }
    }
}

pub(crate) async fn payload(State(gateway): State<Gateway>, Path(id): Path<String>) -> Response {
    match gateway.client.task(&id).await {
        Ok(task) => {
            let payload: Value = serde_json::from_str(&task.payload_json).unwrap_or(Value::Null);
            Json(json!({"task": id, "payload": payload})).into_response()
        }
        Err(error) => {
            let error = HttpError::from(error);
            if error.is_not_found() {
                missing(&id)
            } else {
                error.into_response()
            }
        }
    }
}

pub(crate) async fn reports(State(gateway): State<Gateway>, Path(id): Path<String>) -> Response {
    let report = match gateway.client.report(&id).await {
        Ok(report) => report,
        Err(error) => {
            let error = HttpError::from(error);
            if error.is_not_found() {
                return missing(&id);
            }
            return error.into_response();
        }
    };
    let rows = match &report.results {
        Some(results) => match report_rows(&gateway, results.ticket.to_vec()).await {
            Ok(rows) => Some(rows),
            Err(error) => return HttpError::from(error).into_response(),
        },
        None => None,
    };
    Json(report_json(&report, rows)).into_response()
}

async fn report_rows(gateway: &Gateway, ticket: Vec<u8>) -> Result<Vec<Value>, ClientError> {
    let mut batches = gateway.client.rows(ticket).await?;
    let mut rows = Vec::new();
    while let Some(batch) = batches.next().await {
        for row in render::rows(&batch?, Style::Report) {
            if rows.len() == REPORT_ROWS_MAX {
                return Ok(rows);
            }
            rows.push(Value::Array(row));
        }
    }
    Ok(rows)
}

pub(crate) async fn shutdown(State(gateway): State<Gateway>, Path(id): Path<String>) -> Response {
    match gateway.client.cancel(&id).await {
        Ok(_) => Json(json!({"task": id})).into_response(),
        Err(error) => {
            let error = HttpError::from(error);
            if error.is_not_found() {
                return missing(&id);
            }
            error.into_response()
        }
    }
}

async fn tasks(
    gateway: &Gateway,
    states: Vec<pb::State>,
    query: &HashMap<String, String>,
) -> Result<Vec<pb::Task>, ClientError> {
    let most = query
        .get("max")
        .and_then(|text| text.parse::<usize>().ok())
        .unwrap_or(usize::MAX);
    let datasource = query.get("datasource").cloned().unwrap_or_default();
    let mut found = Vec::new();
    let mut request = pb::ListTasksRequest {
        page_size: 1_000,
        page_token: String::new(),
        states: states.iter().map(|state| (*state).into()).collect(),
        datasource,
    };
    loop {
        let page = gateway.client.list(request.clone()).await?;
        let wanted = |task: &pb::Task| states.is_empty() || states.contains(&task.state());
        found.extend(page.tasks.into_iter().filter(wanted));
        if page.next_page_token.is_empty() || found.len() >= most {
            found.truncate(most);
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

async fn listed(gateway: Gateway, states: Vec<pb::State>, query: HashMap<String, String>) -> Response {
    let kind_matches = query.get("type").is_none_or(|kind| kind == "query_controller");
    match tasks(&gateway, states, &query).await {
        Ok(found) => {
            let found: Vec<Value> = found
                .iter()
                .filter(|_| kind_matches)
                .map(status_plus_json)
                .collect();
            Json(found).into_response()
        }
        Err(error) => HttpError::from(error).into_response(),
    }
}

type Params = Query<HashMap<String, String>>;

pub(crate) async fn list(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    let states = match query.get("state").map(String::as_str) {
        None => Vec::new(),
        Some("running") => vec![pb::State::Running],
        Some("pending") => vec![pb::State::Pending],
        Some("waiting") => vec![pb::State::Waiting],
        Some("complete") => vec![pb::State::Success, pb::State::Failed],
        Some(other) => {
            let message =
                format!("Invalid task state : {other}. Must be one of [complete, running, waiting, pending]");
            return (StatusCode::BAD_REQUEST, message).into_response();
        }
    };
    listed(gateway, states, query).await
}

pub(crate) async fn running(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    listed(gateway, vec![pb::State::Running], query).await
}

pub(crate) async fn pending(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    listed(gateway, vec![pb::State::Pending], query).await
}

pub(crate) async fn waiting(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    listed(gateway, vec![pb::State::Waiting], query).await
}

pub(crate) async fn complete(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    listed(gateway, vec![pb::State::Success, pb::State::Failed], query).await
}

pub(crate) async fn statuses(State(gateway): State<Gateway>, Json(ids): Json<Vec<String>>) -> Response {
    let mut out = serde_json::Map::new();
    for id in ids {
        match gateway.client.task(&id).await {
            Ok(task) => {
                let plus = status_plus_json(&task);
                let status = json!({
                    "id": id,
                    "status": plus["status"],
                    "duration": plus["duration"],
                    "errorMsg": plus["errorMsg"],
                    "location": plus["location"],
                });
                out.insert(id, status);
            }
            Err(error) => {
                let error = HttpError::from(error);
                if !error.is_not_found() {
                    return error.into_response();
                }
            }
        }
    }
    Json(Value::Object(out)).into_response()
}
