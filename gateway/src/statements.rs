//! `/druid/v2/sql/statements`: SQL as a task whose state and rows are asked for later.

use std::collections::HashMap;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::{Map, Value, json};
use trilith_client::ClientError;
use trilith_client::druid_json::{fault_json, report_json};
use trilith_proto::error::{ApiError, Category, Persona};
use trilith_proto::interval::iso;
use trilith_proto::pb::task as pb;

use crate::Gateway;
use crate::body::SqlRequest;
use crate::error::SqlError;
use crate::format::{Layout, ResultFormat, Writer};
use crate::json::JavaJson;
use crate::render::{self, Style};
use crate::tasks::{explained, report_rows};

/// Context key under which a statement keeps the format that was asked for.
const RESULT_FORMAT: &str = "__resultFormat";
const EXECUTION_MODE: &str = "executionMode";
/// Characters of a file name for downloads.
const FILE_NAME_MAX: usize = 255;

pub(crate) async fn submit(State(gateway): State<Gateway>, headers: HeaderMap, body: Bytes) -> Response {
    let mut request = match SqlRequest::read(&headers, &body) {
        Ok(request) => request,
        Err(answer) => return *answer,
    };
    if let Err(error) = check(&request.context) {
        return SqlError(error).into_response();
    }
    let format = Value::from(request.layout.format.name());
    request.context.insert(RESULT_FORMAT.to_owned(), format);
    let call = pb::SubmitTaskRequest {
        sql: request.query.clone(),
        context_json: request.context_json(),
        parameters: request.parameters.clone(),
    };
    let submitted = match gateway.client.submit(call).await {
        Ok(submitted) => submitted,
        Err(error) => return SqlError::from(error).into_response(),
    };
    if let Some(explanation) = submitted.explanation {
        return explained(&request, &explanation);
    }
    match result(&gateway, &submitted.task_id, false).await {
        Ok(result) => JavaJson(result).into_response(),
        Err(error) => error.into_response(),
    }
}

fn check(context: &Map<String, Value>) -> Result<(), ApiError> {
    if context.contains_key(RESULT_FORMAT) {
        return Err(ApiError::invalid_input(format!(
            "Query context parameter [{RESULT_FORMAT}] is not allowed; use the field [resultFormat] of the request"
        )));
    }
    match context.get(EXECUTION_MODE).and_then(Value::as_str) {
        Some(mode) if mode.eq_ignore_ascii_case("ASYNC") => Ok(()),
        Some(mode) => Err(ApiError::invalid_input(format!(
            "The sql statement api currently does not support the provided execution mode [{mode}]. \
             Please set [{EXECUTION_MODE}] to [ASYNC] in the query context"
        ))),
        None => Err(ApiError::invalid_input(format!(
            "Execution mode is not provided to the sql statement api. \
             Please set [{EXECUTION_MODE}] to [ASYNC] in the query context"
        ))),
    }
}

pub(crate) async fn enabled() -> Json<Value> {
    Json(json!({"enabled": true}))
}

type Params = Query<HashMap<String, String>>;

pub(crate) async fn status(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    Query(query): Params,
) -> Response {
    let detail = query
        .get("detail")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match result(&gateway, &id, detail).await {
        Ok(result) => JavaJson(result).into_response(),
        Err(error) => error.into_response(),
    }
}

pub(crate) async fn cancel(State(gateway): State<Gateway>, Path(id): Path<String>) -> Response {
    let task = match task(&gateway, &id).await {
        Ok(task) => task,
        Err(error) => return error.into_response(),
    };
    if matches!(task.state(), pb::State::Success | pb::State::Failed) {
        return StatusCode::OK.into_response();
    }
    match gateway.client.cancel(&id).await {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(error) => SqlError::from(error).into_response(),
    }
}

async fn task(gateway: &Gateway, id: &str) -> Result<pb::Task, SqlError> {
    gateway.client.task(id).await.map_err(|error| {
        let error = SqlError::from(error);
        if error.0.category == Category::NotFound {
            return SqlError(ApiError::not_found(format!(
                "Query [{id}] was not found. The query details are no longer present or might not be of the type \
                 [query_controller]. Verify that the id is correct."
            )));
        }
        error
    })
}

/// Druid's word for where a statement is.
fn state(task: &pb::Task) -> &'static str {
    match task.state() {
        pb::State::Success => "SUCCESS",
        pb::State::Failed => "FAILED",
        pb::State::Running => "RUNNING",
        _ => "ACCEPTED",
    }
}

fn parsed(text: &str) -> Map<String, Value> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// `SqlStatementResult`.
async fn result(gateway: &Gateway, id: &str, detail: bool) -> Result<Value, SqlError> {
    let task = task(gateway, id).await?;
    let report = match task.state() {
        pb::State::Success | pb::State::Failed => Some(gateway.client.report(id).await?),
        _ if detail => Some(gateway.client.report(id).await?),
        _ => None,
    };
    let mut out = Map::new();
    out.insert("queryId".to_owned(), json!(id));
    out.insert("state".to_owned(), json!(state(&task)));
    out.insert("createdAt".to_owned(), json!(iso(task.created_time_ms)));
    let select = task.statement_type() == pb::StatementType::Select;
    if select && task.state() != pb::State::Failed {
        out.insert("schema".to_owned(), schema(&task));
    }
    out.insert("durationMs".to_owned(), json!(task.duration_ms));
    if let (pb::State::Success, Some(report)) = (task.state(), &report) {
        out.insert("result".to_owned(), outcome(gateway, &task, report).await?);
    }
    if task.state() == pb::State::Failed {
        out.insert("errorDetails".to_owned(), failure(&task));
    }
    if let Some(report) = report.filter(|_| detail) {
        let mut report = report_json(&report, None);
        let payload = &mut report["multiStageQuery"]["payload"];
        for key in ["stages", "counters"] {
            out.insert(key.to_owned(), payload[key].take());
        }
        let warnings = payload["status"]["warnings"].take();
        out.insert(
            "warnings".to_owned(),
            if warnings.is_null() { json!([]) } else { warnings },
        );
    }
    Ok(Value::Object(out))
}

/// Columns of the rows, from the payload of the task.
fn schema(task: &pb::Task) -> Value {
    let payload = Value::Object(parsed(&task.payload_json));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let names = list(&payload["spec"]["columnMappings"]);
    let types = list(&payload["sqlTypeNames"]);
    let native = list(&payload["nativeTypeNames"]);
    names
        .into_iter()
        .zip(types)
        .zip(native)
        .map(|((mapping, sql_type), native)| {
            json!({"name": mapping["outputColumn"], "type": sql_type, "nativeType": native})
        })
        .collect()
}

/// `errorDetails`: the fault, with its fields as text.
fn failure(task: &pb::Task) -> Value {
    let Some(fault) = &task.fault else {
        let message = task.error_message.clone().unwrap_or_default();
        return ApiError::new(Category::Uncategorized, Persona::Developer, "general", message).to_json();
    };
    let mut error = ApiError::new(
        Category::Uncategorized,
        Persona::User,
        &fault.error_code,
        fault.error_message.clone(),
    );
    if let Value::Object(fields) = fault_json(fault) {
        for (key, value) in fields {
            if key != "errorCode" && key != "errorMessage" {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                error = error.with(&key, text);
            }
        }
    }
    error.to_json()
}

/// Rows and bytes of the last stage, summed over its workers: what it put out, or pushed as segments.
fn totals(report: &pb::TaskReport) -> Option<(i64, i64, i64)> {
    let last = report.stages.iter().map(|stage| stage.stage_number).max()?;
    let (mut rows, mut bytes, mut pushed) = (0, 0, 0);
    for counter in &report.counters {
        if counter.stage_number != last {
            continue;
        }
        match &counter.value {
            Some(pb::counter::Value::Channel(channel)) if counter.name == "output" => {
                rows += channel.rows.iter().sum::<i64>();
                bytes += channel.bytes.iter().sum::<i64>();
            }
            Some(pb::counter::Value::SegmentGenerationProgress(progress)) => pushed += progress.rows_pushed,
            _ => {}
        }
    }
    Some((rows, bytes, pushed))
}

/// `result`: how many rows, a sample of them, and pages.
async fn outcome(gateway: &Gateway, task: &pb::Task, report: &pb::TaskReport) -> Result<Value, SqlError> {
    let mut out = Map::new();
    let (_, bytes, pushed) = totals(report).unwrap_or_default();
    let Some(results) = &report.results else {
        out.insert("numTotalRows".to_owned(), json!(pushed));
        out.insert("totalSizeInBytes".to_owned(), json!(0));
        out.insert("dataSource".to_owned(), json!(task.datasource));
        return Ok(Value::Object(out));
    };
    let durable = parsed(&task.payload_json)
        .get("spec")
        .is_some_and(|spec| spec["destination"]["type"] == "durableStorage");
    let pages: Vec<Value> = if results.pages.is_empty() && !durable {
        vec![json!({"id": 0, "numRows": results.row_count, "sizeInBytes": bytes})]
    } else {
        (0..)
            .zip(&results.pages)
            .map(|(id, page): (u32, _)| {
                json!({"id": id, "numRows": page.row_count, "sizeInBytes": page.size_bytes})
            })
            .collect()
    };
    let size: i64 = if results.pages.is_empty() && !durable {
        bytes
    } else {
        results.pages.iter().map(|page| page.size_bytes).sum()
    };
    let style = Style::report(&parsed(&task.context_json));
    let rows = report_rows(gateway, results, style).await?;
    out.insert("numTotalRows".to_owned(), json!(results.row_count));
    out.insert("totalSizeInBytes".to_owned(), json!(size));
    out.insert("dataSource".to_owned(), json!(task.datasource));
    out.insert("sampleRecords".to_owned(), Value::Array(rows));
    out.insert("pages".to_owned(), Value::Array(pages));
    Ok(Value::Object(out))
}

pub(crate) async fn results(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    Query(query): Params,
) -> Response {
    match rows(&gateway, &id, &query).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// The page that a caller wants; all pages when it names none.
fn page(query: &HashMap<String, String>) -> Result<Option<usize>, ApiError> {
    let Some(text) = query.get("page") else {
        return Ok(None);
    };
    match text.parse::<i64>() {
        Ok(page) if page < 0 => Err(ApiError::invalid_input(
            "Page cannot be negative. Please pass a positive number.",
        )),
        Ok(page) => usize::try_from(page)
            .map(Some)
            .map_err(|_too_large| ApiError::invalid_input(format!("Invalid page id [{page}] passed."))),
        Err(_) => Err(ApiError::invalid_input(format!(
            "Invalid page id [{text}] passed."
        ))),
    }
}

/// `Content-Disposition` for a download.
fn disposition(name: &str) -> Result<HeaderValue, ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid_input("Filename cannot be empty."));
    }
    if name.chars().count() > FILE_NAME_MAX {
        return Err(ApiError::invalid_input(format!(
            "Filename cannot be longer than {FILE_NAME_MAX} characters."
        )));
    }
    let value = format!("attachment; filename=\"{name}\"");
    if name.contains(['/', '\\', ':', '*', '?', '"', '<', '>', '|', '\0', '\n', '\r']) {
        return Err(ApiError::invalid_input(
            "Filename contains invalid characters. (/, \\, :, *, ?, \", <, >, |, \\0, \\n, or \\r)",
        ));
    }
    HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| ApiError::invalid_input("Filename contains control characters."))
}

async fn rows(gateway: &Gateway, id: &str, query: &HashMap<String, String>) -> Result<Response, SqlError> {
    let page = page(query)?;
    let disposition = query.get("filename").map(|name| disposition(name)).transpose()?;
    let asked = match query.get("resultFormat") {
        None => None,
        Some(name) => Some(ResultFormat::parse(name).ok_or_else(|| {
            ApiError::invalid_input(format!(
                "resultFormat [{name}] is not one of {}",
                ResultFormat::NAMES
            ))
        })?),
    };
    let task = task(gateway, id).await?;
    match task.state() {
        pb::State::Success => {}
        pb::State::Failed => {
            return Err(SqlError(ApiError::invalid_input(format!(
                "Query[{id}] failed. Check the status api for more details."
            ))));
        }
        _ => {
            return Err(SqlError(ApiError::invalid_input(format!(
                "Query[{id}] is currently in [{}] state. Please wait for it to complete.",
                state(&task)
            ))));
        }
    }
    let context = parsed(&task.context_json);
    let kept = context.get(RESULT_FORMAT).and_then(Value::as_str);
    let format = asked
        .or_else(|| kept.and_then(ResultFormat::parse))
        .unwrap_or_default();
    let body = match gateway.client.report(id).await?.results {
        None => Body::empty(),
        Some(results) => page_body(gateway, &results, page, format, Style::report(&context)).await?,
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    if let Some(disposition) = disposition {
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

/// The rows of one page, or of all, without a header.
async fn page_body(
    gateway: &Gateway,
    results: &pb::ResultsReport,
    page: Option<usize>,
    format: ResultFormat,
    style: Style,
) -> Result<Body, SqlError> {
    let ticket = match page {
        None => &results.ticket,
        Some(0) if results.pages.is_empty() => &results.ticket,
        Some(number) => results
            .pages
            .get(number)
            .map(|page| &page.ticket)
            .ok_or_else(|| ApiError::invalid_input(format!("Invalid page id [{number}] passed.")))?,
    };
    let mut rows = gateway.client.rows(ticket.to_vec()).await?;
    let first = match rows.next().await {
        Some(Err(error)) => return Err(error.into()),
        first => first,
    };
    let layout = Layout {
        format,
        ..Layout::default()
    };
    let (writer, start) = Writer::start(layout, &results.columns);
    let rows = stream::iter(first).chain(rows);
    let text = stream::unfold((rows, Some(writer)), move |(mut rows, writer)| async move {
        let mut writer = writer?;
        match rows.next().await {
            Some(Ok(batch)) => {
                let mut out = String::new();
                for row in render::rows(&batch, style) {
                    writer.row(&mut out, &row);
                }
                Some((Ok(Bytes::from(out)), (rows, Some(writer))))
            }
            // Cutting the answer short tells the reader that it is not complete.
            Some(Err(error)) => Some((Err::<Bytes, ClientError>(error), (rows, None))),
            None => Some((Ok(Bytes::from_static(writer.end().as_bytes())), (rows, None))),
        }
    });
    Ok(Body::from_stream(
        stream::iter([Ok(Bytes::from(start))]).chain(text),
    ))
}
