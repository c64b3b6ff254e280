//! Task endpoints.

use std::collections::HashMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Value, json};
use trilith_client::ClientError;
use trilith_client::druid_json::{report_json, status_plus_json};
use trilith_proto::interval::{Interval, iso};
use trilith_proto::pb::task as pb;

use crate::Gateway;
use crate::body::SqlRequest;
use crate::error::{ERROR_CLASS, HttpError, plain, status as http_status};
use crate::format::Writer;
use crate::interval;
use crate::json::JavaJson;
use crate::log;
use crate::render::{self, Style};

/// Rows that a report shows of a result in durable storage, as in Druid.
const PREVIEW_ROWS_MAX: usize = 3_000;
/// JSON of rows that a report shows, in bytes; the ticket gives them all.
const REPORT_BYTES_MAX: usize = 64 << 20;

pub(crate) async fn enabled() -> Json<Value> {
    Json(json!({"enabled": true}))
}

pub(crate) async fn submit(State(gateway): State<Gateway>, body: Bytes) -> Response {
    let request = match SqlRequest::read_json(&body) {
        Ok(request) => request,
        Err(answer) => return *answer,
    };
    let call = pb::SubmitTaskRequest {
        sql: request.query.clone(),
        context_json: request.context_json(),
        parameters: request.parameters.clone(),
    };
    match gateway.client.submit(call).await {
        Ok(answer) => match answer.explanation {
            Some(explanation) => explained(&request, &explanation),
            None => {
                let body = json!({"taskId": answer.task_id, "state": "RUNNING"});
                (StatusCode::ACCEPTED, Json(body)).into_response()
            }
        },
        Err(error) => {
            // Newer clients read `error`, older ones the keys beside it.
            let error = error.to_api();
            let body = json!({
                "taskId": request.query_id(),
                "state": "FAILED",
                "error": error.to_json(),
                "errorMessage": error.message,
                "errorClass": ERROR_CLASS,
                "host": null,
            });
            (http_status(&error), Json(body)).into_response()
        }
    }
}

/// The answer to EXPLAIN PLAN FOR: one row in the format that was asked for.
pub(crate) fn explained(request: &SqlRequest, explanation: &pb::Explanation) -> Response {
    let columns = ["PLAN", "RESOURCES", "ATTRIBUTES"].map(|name| pb::ResultColumn {
        name: name.to_owned(),
        r#type: "STRING".to_owned(),
        sql_type: "VARCHAR".to_owned(),
    });
    let (mut writer, mut out) = Writer::start(request.layout, &columns);
    writer.row(
        &mut out,
        &[
            json!(explanation.plan_json),
            json!(explanation.resources_json),
            json!(explanation.attributes_json),
        ],
    );
    out.push_str(writer.end());
    let kind = request.layout.format.content_type();
    ([(header::CONTENT_TYPE, kind)], out).into_response()
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
        Ok(task) => {
            let mut status = status_plus_json(&task);
            // The runner has forgotten a task that has ended; Druid says this here, and NONE in lists.
            if COMPLETE.contains(&task.state()) {
                status["runnerStatusCode"] = json!("WAITING");
            }
            Json(json!({"task": id, "status": status})).into_response()
        }
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
        Some(results) => match shown_rows(&gateway, &id, results).await {
            Ok(rows) => Some(rows),
            Err(error) => return HttpError::from(error).into_response(),
        },
        None => None,
    };
    JavaJson(report_json(&report, rows)).into_response()
}

async fn shown_rows(
    gateway: &Gateway,
    id: &str,
    results: &pb::ResultsReport,
) -> Result<Vec<Value>, ClientError> {
    let task = gateway.client.task(id).await?;
    let context = serde_json::from_str(&task.context_json).unwrap_or_default();
    report_rows(gateway, results, Style::report(&context)).await
}

/// Rows of a result as far as reports show them.
pub(crate) async fn report_rows(
    gateway: &Gateway,
    results: &pb::ResultsReport,
    style: Style,
) -> Result<Vec<Value>, ClientError> {
    let most = if results.pages.is_empty() {
        usize::MAX
    } else {
        PREVIEW_ROWS_MAX
    };
    let mut batches = gateway.client.rows(results.ticket.to_vec()).await?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = batches.next().await {
        for row in render::rows(&batch?, style) {
            bytes += row.iter().map(render::size).sum::<usize>();
            if rows.len() == most || bytes > REPORT_BYTES_MAX {
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

/// Shuts down what runs on a datasource.
pub(crate) async fn shutdown_all(State(gateway): State<Gateway>, Path(name): Path<String>) -> Response {
    let wanted = Wanted {
        datasource: Some(name.clone()),
        ..Wanted::default()
    };
    let active = match found(&gateway, &ACTIVE, &wanted).await {
        Ok(active) => active,
        Err(error) => return HttpError::from(error).into_response(),
    };
    if active.is_empty() {
        return StatusCode::NOT_FOUND.into_response();
    }
    for task in active {
        if let Err(error) = gateway.client.cancel(&task.task_id).await {
            return HttpError::from(error).into_response();
        }
    }
    Json(json!({"dataSource": name})).into_response()
}

const ACTIVE: [pb::State; 3] = [pb::State::Waiting, pb::State::Pending, pb::State::Running];
const COMPLETE: [pb::State; 2] = [pb::State::Success, pb::State::Failed];

/// Which tasks a list shows.
#[derive(Default)]
struct Wanted {
    datasource: Option<String>,
    kind: Option<String>,
    /// Of the complete ones only: when they were created, and how many at most.
    created: Option<Interval>,
    most: Option<usize>,
}

type Parameters = HashMap<String, String>;

impl Wanted {
    fn read(query: &Parameters, most: &str) -> Result<Wanted, Box<Response>> {
        let wrong = |message: String| Box::new((StatusCode::BAD_REQUEST, message).into_response());
        let created = match query.get("createdTimeInterval") {
            None => None,
            Some(text) => Some(interval::parse(text).ok_or_else(|| {
                wrong(format!(
                    "createdTimeInterval [{text}] is no interval; use start_end in ISO 8601"
                ))
            })?),
        };
        let most = match query.get(most) {
            None => None,
            Some(text) => Some(
                text.parse::<usize>()
                    .map_err(|_| wrong(format!("{most} [{text}] is no number of tasks")))?,
            ),
        };
        Ok(Wanted {
            datasource: query.get("datasource").cloned(),
            kind: query.get("type").cloned(),
            created,
            most,
        })
    }

    fn is_of_kind(&self) -> bool {
        self.kind
            .as_deref()
            .is_none_or(|kind| kind.is_empty() || kind == "query_controller")
    }
}

/// Tasks in some states, newest first.
async fn found(
    gateway: &Gateway,
    states: &[pb::State],
    wanted: &Wanted,
) -> Result<Vec<pb::Task>, ClientError> {
    let complete = states.contains(&pb::State::Success);
    let most = wanted.most.filter(|_| complete).unwrap_or(usize::MAX);
    let created = wanted.created.filter(|_| complete);
    let mut found = Vec::new();
    let mut request = pb::ListTasksRequest {
        page_size: 1_000,
        page_token: String::new(),
        states: states.iter().map(|state| (*state).into()).collect(),
        datasource: wanted.datasource.clone().unwrap_or_default(),
    };
    while found.len() < most {
        let page = gateway.client.list(request.clone()).await?;
        found.extend(page.tasks.into_iter().filter(|task| {
            states.contains(&task.state())
                && created
                    .is_none_or(|created| (created.start_ms..created.end_ms).contains(&task.created_time_ms))
        }));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    found.truncate(most);
    Ok(found)
}

/// An entry of a list: of a task that waits or runs it tells when it was queued.
fn listed_json(task: &pb::Task) -> Value {
    let mut status = status_plus_json(task);
    if ACTIVE.contains(&task.state()) {
        status["queueInsertionTime"] = json!(iso(task.created_time_ms));
    }
    status
}

/// Each group of states newest first, one group after the other.
async fn listed(
    gateway: &Gateway,
    groups: &[&[pb::State]],
    wanted: Result<Wanted, Box<Response>>,
) -> Response {
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(answer) => return *answer,
    };
    let mut list = Vec::new();
    for states in groups {
        match found(gateway, states, &wanted).await {
            Ok(tasks) => list.extend(tasks.iter().map(listed_json)),
            Err(error) => return HttpError::from(error).into_response(),
        }
    }
    // After the cut: the most recent tasks of any kind are counted.
    list.retain(|_| wanted.is_of_kind());
    Json(list).into_response()
}

type Params = Query<Parameters>;

pub(crate) async fn list(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    let state = query.get("state").map(|state| state.to_ascii_lowercase());
    let groups: &[&[pb::State]] = match state.as_deref() {
        None => &[&COMPLETE, &ACTIVE],
        Some("running") => &[&[pb::State::Running]],
        Some("pending") => &[&[pb::State::Pending]],
        Some("waiting") => &[&[pb::State::Waiting]],
        Some("complete") => &[&COMPLETE],
        Some(other) => {
            let message =
                format!("Invalid task state : {other}. Must be one of [pending, waiting, running, complete]");
            return (StatusCode::BAD_REQUEST, message).into_response();
        }
    };
    listed(&gateway, groups, Wanted::read(&query, "max")).await
}

pub(crate) async fn running(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    listed(&gateway, &[&[pb::State::Running]], Wanted::read(&query, "max")).await
}

pub(crate) async fn pending(State(gateway): State<Gateway>) -> Response {
    listed(&gateway, &[&[pb::State::Pending]], Ok(Wanted::default())).await
}

pub(crate) async fn waiting(State(gateway): State<Gateway>) -> Response {
    listed(&gateway, &[&[pb::State::Waiting]], Ok(Wanted::default())).await
}

pub(crate) async fn complete(State(gateway): State<Gateway>, Query(query): Params) -> Response {
    listed(&gateway, &[&COMPLETE], Wanted::read(&query, "n")).await
}

pub(crate) async fn statuses(State(gateway): State<Gateway>, body: Bytes) -> Response {
    let ids: Vec<String> = if body.is_empty() {
        Vec::new()
    } else {
        match serde_json::from_slice::<Option<Vec<String>>>(&body) {
            Ok(ids) => ids.unwrap_or_default(),
            Err(error) => {
                return plain(
                    StatusCode::BAD_REQUEST,
                    &format!("the body must be a JSON list of task ids: {error}"),
                );
            }
        }
    };
    if ids.is_empty() {
        return (StatusCode::BAD_REQUEST, "No Task IDs provided.").into_response();
    }
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

/// Tasks of this service are SQL; what Druid takes as native JSON is refused.
pub(crate) async fn submit_native(body: Bytes) -> Response {
    let kind = match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Object(task)) => task.get("type").and_then(Value::as_str).map(str::to_owned),
        Ok(_) => None,
        Err(error) => {
            return plain(
                StatusCode::BAD_REQUEST,
                &format!("the body is not the JSON of a task: {error}"),
            );
        }
    };
    let message = match kind {
        None => "the body must be a JSON object with a task's [type]".to_owned(),
        Some(kind) => format!(
            "tasks of type [{kind}] are not supported; write the statement as SQL and send it to /druid/v2/sql/task"
        ),
    };
    plain(StatusCode::BAD_REQUEST, &message)
}

/// Druid has withdrawn this.
pub(crate) async fn segments(Path(id): Path<String>) -> Response {
    plain(
        StatusCode::NOT_FOUND,
        &format!(
            "Segment IDs committed by a task action are not persisted anymore. Use the metric 'segment/added/bytes' or sys.segments to see what task [{id}] wrote."
        ),
    )
}

/// `?offset=N`: what to leave out at the start; negative: how much to keep at the end.
pub(crate) async fn task_log(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    Query(query): Params,
) -> Response {
    let offset = match query.get("offset").map(|text| text.parse::<i64>()) {
        None => 0,
        Some(Ok(offset)) => offset,
        Some(Err(_)) => return (StatusCode::BAD_REQUEST, "offset is no number of bytes").into_response(),
    };
    let text = match tokio::try_join!(gateway.client.task(&id), gateway.client.report(&id)) {
        Ok((task, report)) => log::text(&task, &report),
        Err(error) => {
            let error = HttpError::from(error);
            if error.is_not_found() {
                let message = format!(
                    "No log was found for this task. The task may not exist, or it may not have begun running yet. [{id}]"
                );
                return (StatusCode::NOT_FOUND, message).into_response();
            }
            return error.into_response();
        }
    };
    log::from(&text, offset).into_response()
}
