//! `POST /druid/v2/sql`: rows in five formats, streamed.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::{Map, Value, json};
use trilith_client::{ClientError, QueryResult};
use trilith_proto::pb::query::RunQueryRequest;
use trilith_proto::pb::task::ResultColumn;

use crate::Gateway;
use crate::body::{ResultFormat, SqlRequest};
use crate::error::HttpError;
use crate::render::{self, Style, csv};

pub(crate) async fn run(State(gateway): State<Gateway>, headers: HeaderMap, body: Bytes) -> Response {
    let request = match SqlRequest::read(&headers, &body) {
        Ok(request) => request,
        Err(answer) => return *answer,
    };
    let stringify = match request.context.get("sqlStringifyArrays") {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => true,
    };
    let call = RunQueryRequest {
        sql: request.query.clone(),
        context_json: Value::Object(request.context.clone()).to_string(),
        parameters: request.parameters.clone(),
    };
    let result = match gateway.client.query(call).await {
        Ok(result) => result,
        Err(error) => return HttpError::from(error).into_response(),
    };
    answer(request, result, Style::Sql { stringify }).await
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

/// Writes one format.
struct Writer {
    format: ResultFormat,
    names: Vec<String>,
    first: bool,
}

impl Writer {
    fn start(&mut self, request: &SqlRequest, columns: &[ResultColumn]) -> String {
        let mut out = String::new();
        if matches!(self.format, ResultFormat::Object | ResultFormat::Array) {
            out.push('[');
        }
        if !request.header {
            return out;
        }
        let names = || {
            columns
                .iter()
                .map(|column| Value::from(column.name.clone()))
                .collect::<Vec<_>>()
        };
        let types = || {
            columns
                .iter()
                .map(|column| Value::from(column.r#type.clone()))
                .collect::<Vec<_>>()
        };
        let sql_types = || {
            columns
                .iter()
                .map(|column| Value::from(column.sql_type.clone()))
                .collect::<Vec<_>>()
        };
        if matches!(self.format, ResultFormat::Object | ResultFormat::ObjectLines) {
            let header: Map<String, Value> = columns
                .iter()
                .map(|column| {
                    let mut about = Map::new();
                    if request.types_header {
                        about.insert("type".to_owned(), json!(column.r#type));
                    }
                    if request.sql_types_header {
                        about.insert("sqlType".to_owned(), json!(column.sql_type));
                    }
                    let about = if about.is_empty() {
                        Value::Null
                    } else {
                        Value::Object(about)
                    };
                    (column.name.clone(), about)
                })
                .collect();
            self.entry(&mut out, &Value::Object(header).to_string());
            return out;
        }
        let mut lines = vec![names()];
        if request.types_header {
            lines.push(types());
        }
        if request.sql_types_header {
            lines.push(sql_types());
        }
        for line in lines {
            self.line(&mut out, line);
        }
        out
    }

    fn line(&mut self, out: &mut String, values: Vec<Value>) {
        match self.format {
            ResultFormat::Csv => {
                out.push_str(&values.iter().map(csv).collect::<Vec<_>>().join(","));
                out.push('\n');
            }
            _ => self.entry(out, &Value::Array(values).to_string()),
        }
    }

    fn entry(&mut self, out: &mut String, text: &str) {
        match self.format {
            ResultFormat::Object | ResultFormat::Array => {
                if !self.first {
                    out.push(',');
                }
                self.first = false;
                out.push_str(text);
            }
            _ => {
                out.push_str(text);
                out.push('\n');
            }
        }
    }

    fn row(&mut self, out: &mut String, values: Vec<Value>) {
        match self.format {
            ResultFormat::Object | ResultFormat::ObjectLines => {
                let object: Map<String, Value> = self.names.iter().cloned().zip(values).collect();
                self.entry(out, &Value::Object(object).to_string());
            }
            _ => self.line(out, values),
        }
    }

    /// The trailer: lines and CSV end with an empty line, so that a reader knows that all has come.
    fn end(&self) -> &'static str {
        match self.format {
            ResultFormat::Object | ResultFormat::Array => "]\n",
            _ => "\n",
        }
    }
}

async fn answer(request: SqlRequest, mut result: QueryResult, style: Style) -> Response {
    // The first batch decides between an error answer and rows.
    let first = result.rows.next().await;
    if let Some(Err(error)) = first {
        return HttpError::from(error).into_response();
    }
    let mut writer = Writer {
        format: request.format,
        names: result.columns.iter().map(|column| column.name.clone()).collect(),
        first: true,
    };
    let start = writer.start(&request, &result.columns);
    let id = result.query_id.clone();
    let rows = stream::iter(first).chain(result.rows);
    let text = stream::unfold((rows, Some(writer)), move |(mut rows, writer)| async move {
        let mut writer = writer?;
        match rows.next().await {
            Some(Ok(batch)) => {
                let mut out = String::new();
                for row in render::rows(&batch, style) {
                    writer.row(&mut out, row);
                }
                Some((Ok(Bytes::from(out)), (rows, Some(writer))))
            }
            // Cutting the answer short tells the reader that it is not complete.
            Some(Err(error)) => Some((Err::<Bytes, ClientError>(error), (rows, None))),
            None => Some((Ok(Bytes::from_static(writer.end().as_bytes())), (rows, None))),
        }
    });
    let body = Body::from_stream(stream::iter([Ok(Bytes::from(start))]).chain(text));
    let kind = match request.format {
        ResultFormat::Object | ResultFormat::Array => "application/json",
        ResultFormat::ObjectLines | ResultFormat::ArrayLines => "text/plain",
        ResultFormat::Csv => "text/csv",
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-druid-sql-query-id"), id.clone());
        headers.insert(HeaderName::from_static("x-druid-query-id"), id);
    }
    headers.insert(
        HeaderName::from_static("x-druid-response-context"),
        HeaderValue::from_static("{}"),
    );
    if request.header {
        headers.insert(
            HeaderName::from_static("x-druid-sql-header-included"),
            HeaderValue::from_static("yes"),
        );
    }
    response
}
