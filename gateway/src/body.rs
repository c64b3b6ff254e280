//! The body of a SQL request: JSON, or the statement as text.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use trilith_proto::error::ApiError;
use trilith_proto::pb::task::Parameter;

use crate::error::{SqlError, plain, unreadable};
use crate::format::{Layout, ResultFormat};
use crate::settings;

/// Context key under which a statement has its id.
pub(crate) const SQL_QUERY_ID: &str = "sqlQueryId";

/// A SQL request.
#[derive(Debug, Clone)]
pub(crate) struct SqlRequest {
    pub query: String,
    pub layout: Layout,
    /// SET statements included; always has a `sqlQueryId`.
    pub context: Map<String, Value>,
    pub parameters: Vec<Parameter>,
}

impl SqlRequest {
    /// Reads a request; the error is the answer.
    pub(crate) fn read(headers: &HeaderMap, body: &Bytes) -> Result<SqlRequest, Box<Response>> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| Box::new(plain(StatusCode::BAD_REQUEST, "Missing Content-Type header")))?;
        let text = std::str::from_utf8(body).map_err(|_| wrong("the body is not UTF-8"))?;
        let media = kind.split(';').next().unwrap_or_default().trim();
        if !is_media_type(media) {
            return Err(Box::new(plain(
                StatusCode::BAD_REQUEST,
                &format!("Invalid Content-Type header: Error parsing media type '{kind}'"),
            )));
        }
        match media.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => SqlRequest::from_json(text),
            "text/plain" | "text/*" => SqlRequest::from_text(text),
            // Command-line tools send JSON under this type when they are not told better; SQL has no brace there.
            "application/x-www-form-urlencoded" if text.trim_start().starts_with('{') => {
                SqlRequest::from_json(text)
            }
            "application/x-www-form-urlencoded" => match decoded(text) {
                Some(sql) => SqlRequest::from_text(&sql),
                None => Err(Box::new(plain(
                    StatusCode::BAD_REQUEST,
                    "Unable to decode URL-Encoded SQL query: a % is not followed by two hexadecimal digits of UTF-8 text",
                ))),
            },
            _ => Err(Box::new(plain(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &format!(
                    "Unsupported Content-Type: {kind}. Only application/json, text/plain or application/x-www-form-urlencoded is supported."
                ),
            ))),
        }
    }

    /// Reads a JSON request, whatever the header says; the error is the answer.
    pub(crate) fn read_json(body: &Bytes) -> Result<SqlRequest, Box<Response>> {
        let text = std::str::from_utf8(body).map_err(|_| wrong("the body is not UTF-8"))?;
        SqlRequest::from_json(text)
    }

    fn from_text(text: &str) -> Result<SqlRequest, Box<Response>> {
        if text.trim().is_empty() {
            return Err(Box::new(plain(StatusCode::BAD_REQUEST, "Empty query")));
        }
        Ok(SqlRequest {
            query: text.to_owned(),
            layout: Layout::default(),
            context: effective(Map::new(), text),
            parameters: Vec::new(),
        })
    }

    fn from_json(text: &str) -> Result<SqlRequest, Box<Response>> {
        if text.trim().is_empty() {
            return Err(Box::new(plain(StatusCode::BAD_REQUEST, "Empty query")));
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| wrong(&format!("Malformed SQL query wrapped in JSON: {error}")))?;
        let map = value
            .as_object()
            .ok_or_else(|| wrong("Malformed SQL query wrapped in JSON: the body must be an object"))?;
        let query = match map.get("query") {
            Some(Value::String(query)) if !query.trim().is_empty() => query.clone(),
            _ => return Err(construct("query")),
        };
        let format = match map.get("resultFormat") {
            None | Some(Value::Null) => ResultFormat::Object,
            Some(name) => name.as_str().and_then(ResultFormat::parse).ok_or_else(|| {
                construct(&format!(
                    "resultFormat [{}] is not one of {}",
                    name.as_str().map_or_else(|| name.to_string(), str::to_owned),
                    ResultFormat::NAMES
                ))
            })?,
        };
        let layout = Layout {
            format,
            header: flag(map, "header")?,
            types_header: flag(map, "typesHeader")?,
            sql_types_header: flag(map, "sqlTypesHeader")?,
        };
        for (name, set) in [
            ("typesHeader", layout.types_header),
            ("sqlTypesHeader", layout.sql_types_header),
        ] {
            if set && !layout.header {
                return Err(construct(&format!("Cannot include '{name}' without 'header'")));
            }
        }
        let context = match map.get("context") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(context)) => context.clone(),
            Some(_) => return Err(construct("context must be a JSON object")),
        };
        let parameters = match map.get("parameters") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => (1..)
                .zip(items)
                .map(|(position, item)| parameter(position, item))
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err(construct("parameters must be a list")),
        };
        Ok(SqlRequest {
            layout,
            context: effective(context, &query),
            query,
            parameters,
        })
    }

    /// The context as text.
    pub(crate) fn context_json(&self) -> String {
        Value::Object(self.context.clone()).to_string()
    }

    /// The id that the statement has or would have had.
    pub(crate) fn query_id(&self) -> &str {
        self.context
            .get(SQL_QUERY_ID)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// Two tokens with a slash between them.
fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(allowed)
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// The context with what SET in front of the statement says, and with an id, the caller's or a new one: an error has
/// it as well, before the server knows the statement.
fn effective(mut context: Map<String, Value>, sql: &str) -> Map<String, Value> {
    context.extend(settings::leading(sql));
    if context.get(SQL_QUERY_ID).is_none_or(Value::is_null) {
        let id = uuid::Uuid::new_v4().to_string();
        context.insert(SQL_QUERY_ID.to_owned(), Value::String(id));
    }
    context
}

fn wrong(message: &str) -> Box<Response> {
    Box::new(unreadable(message))
}

/// The words for a JSON object that is no statement.
fn construct(problem: &str) -> Box<Response> {
    wrong(&format!(
        "Cannot construct instance of `org.apache.druid.sql.http.SqlQuery`, problem: {problem}"
    ))
}

fn flag(map: &Map<String, Value>, key: &str) -> Result<bool, Box<Response>> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(other) => Err(construct(&format!("{key} must be true or false, not {other}"))),
    }
}

/// `position` counts from 1.
fn parameter(position: usize, item: &Value) -> Result<Parameter, Box<Response>> {
    match item {
        Value::Object(item) => Ok(Parameter {
            r#type: item
                .get("type")
                .and_then(Value::as_str)
                .unwrap_or("VARCHAR")
                .to_owned(),
            value_json: item.get("value").cloned().unwrap_or(Value::Null).to_string(),
        }),
        Value::Null => {
            let message = format!("No value bound for dynamic parameter position [{position}]");
            Err(Box::new(SqlError(ApiError::sql(message, None)).into_response()))
        }
        _ => Err(construct("parameters must be objects with type and value")),
    }
}

/// URL-encoded text without a key.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.trim_end().bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_decoded() {
        assert_eq!(
            decoded("SELECT+1%2B1%20AS%20%22%C3%B6%22").unwrap(),
            "SELECT 1+1 AS \"ö\""
        );
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decoded(broken), None, "{broken}");
        }
    }
}
