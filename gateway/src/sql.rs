//! `POST /druid/v2/sql`: rows in five formats, streamed.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::{Value, json};
use trilith_client::{ClientError, QueryResult};
use trilith_proto::error::ApiError;
use trilith_proto::pb::query::RunQueryRequest;

use crate::Gateway;
use crate::body::SqlRequest;
use crate::error::{HttpError, SqlError};
use crate::format::Writer;
use crate::render::{self, Style};

const SQL_QUERY_ID: HeaderName = HeaderName::from_static("x-druid-sql-query-id");
const QUERY_ID: HeaderName = HeaderName::from_static("x-druid-query-id");
const RESPONSE_CONTEXT: HeaderName = HeaderName::from_static("x-druid-response-context");
const HEADER_INCLUDED: HeaderName = HeaderName::from_static("x-druid-sql-header-included");
/// Trailer: whether all rows have come.
const COMPLETE: HeaderName = HeaderName::from_static("x-druid-response-complete");
/// Trailer: why they have not.
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

pub(crate) async fn run(State(gateway): State<Gateway>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match SqlRequest::read(&headers, &body) {
        Ok(request) => request,
        Err(answer) => return *answer,
    };
    let call = RunQueryRequest {
        sql: request.query.clone(),
        context_json: request.context_json(),
        parameters: request.parameters.clone(),
    };
    let mut response = match gateway.client.query(call).await {
        Ok(result) => answer(&request, result, takes_trailers(&headers)).await,
        Err(error) => SqlError::from(error).into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(request.query_id()) {
        response.headers_mut().insert(SQL_QUERY_ID, id.clone());
        response.headers_mut().insert(QUERY_ID, id);
    }
    response
}

/// The caller reads what comes after the body.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

pub(crate) async fn cancel(State(gateway): State<Gateway>, Path(id): Path<String>) -> Response {
    match gateway.client.cancel_query(&id).await {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(error) => {
            let error = HttpError::from(error);
            if error.is_not_found() {
                StatusCode::NOT_FOUND.into_response()
            } else {
                error.into_response()
            }
        }
    }
}

/// Engines that a statement can ask for.
pub(crate) async fn engines() -> Json<Value> {
    Json(json!({"engines": [{"name": "native"}, {"name": "msq-task"}]}))
}

/// Queries of the engine that Trilith does not have: none.
pub(crate) async fn queries() -> Json<Value> {
    Json(json!({"queries": []}))
}

pub(crate) async fn query_report() -> Response {
    (
        StatusCode::NOT_FOUND,
        Json(json!({"query": null, "report": null})),
    )
        .into_response()
}

/// Where an answer is.
struct Answer {
    rows: BoxStream<'static, Result<arrow::record_batch::RecordBatch, ClientError>>,
    writer: Writer,
    style: Style,
    /// An error after the first byte becomes a row.
    error_as_row: bool,
    /// An error after the first byte is told in a trailer; otherwise the connection is cut.
    trailers: bool,
    stage: Stage,
}

enum Stage {
    Rows,
    Trailers(HeaderMap),
    End,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, ClientError>> {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::End => None,
            Stage::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            Stage::Rows => Some(match self.rows.next().await {
                Some(Ok(batch)) => {
                    let mut out = String::new();
                    for row in render::rows(&batch, self.style) {
                        self.writer.row(&mut out, &row);
                    }
                    self.stage = Stage::Rows;
                    Ok(Frame::data(Bytes::from(out)))
                }
                None => {
                    self.stage = Stage::Trailers(complete(true));
                    Ok(Frame::data(Bytes::from_static(self.writer.end().as_bytes())))
                }
                Some(Err(error)) => self.failed(error),
            }),
        }
    }

    /// What was sent stays without its end, so that the reader knows that it is not complete.
    fn failed(&mut self, error: ClientError) -> Result<Frame<Bytes>, ClientError> {
        if !self.error_as_row && !self.trailers {
            return Err(error);
        }
        let error = SqlError::of_query(error);
        let mut trailers = complete(false);
        // A header has one line.
        let message = error.0.message.replace(['\r', '\n'], " ");
        if let Ok(message) = HeaderValue::from_str(&message) {
            trailers.insert(ERROR_MESSAGE, message);
        }
        let mut out = String::new();
        if self.error_as_row {
            self.writer.error(&mut out, &error.to_json());
            out.push_str(self.writer.end());
        }
        self.stage = Stage::Trailers(trailers);
        Ok(Frame::data(Bytes::from(out)))
    }
}

fn complete(all: bool) -> HeaderMap {
    let value = HeaderValue::from_static(if all { "true" } else { "false" });
    HeaderMap::from_iter([(COMPLETE, value)])
}

async fn answer(request: &SqlRequest, mut result: QueryResult, trailers: bool) -> Response {
    // The first batch decides between an error answer and rows.
    let first = result.rows.next().await;
    if let Some(Err(error)) = first {
        return SqlError::of_query(error).into_response();
    }
    let (writer, start) = Writer::start(request.layout, &result.columns);
    let answer = Answer {
        rows: stream::iter(first).chain(result.rows).boxed(),
        writer,
        style: Style::sql(&request.context),
        error_as_row: is_true(request.context.get("writeExceptionBodyAsResponseRow")),
        trailers,
        stage: Stage::Rows,
    };
    let frames = stream::unfold(answer, |mut answer| async move {
        let frame = answer.next().await?;
        Some((frame, answer))
    });
    let start = stream::iter([Ok(Frame::data(Bytes::from(start)))]);
    let mut response = Response::new(Body::new(StreamBody::new(start.chain(frames))));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(request.layout.format.content_type()),
    );
    headers.insert(RESPONSE_CONTEXT, HeaderValue::from_static("{}"));
    headers.insert(
        header::TRAILER,
        HeaderValue::from_static("X-Druid-Response-Complete, X-Error-Message"),
    );
    if request.layout.header {
        headers.insert(HEADER_INCLUDED, HeaderValue::from_static("yes"));
    }
    response
}

fn is_true(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// Native queries are none of Trilith's.
pub(crate) async fn refuse_native() -> Response {
    let message = "native queries are not supported; write the query in SQL and post it to /druid/v2/sql";
    SqlError(ApiError::unsupported(message)).into_response()
}

/// Druid's JDBC speaks Avatica, JDBC here speaks Flight SQL.
pub(crate) async fn refuse_avatica() -> Response {
    let message = "Avatica is not supported; use Arrow's Flight SQL JDBC driver with \
                   jdbc:arrow-flight-sql://HOST:PORT?useEncryption=false and the gRPC port";
    SqlError(ApiError::unsupported(message)).into_response()
}
