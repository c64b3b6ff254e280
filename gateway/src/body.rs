//! The body of a SQL request: JSON, or the statement as plain text.

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use serde_json::{Map, Value};
use trilith_proto::pb::task::Parameter;

use crate::error::unreadable;

/// Rows' format on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResultFormat {
    Object,
    ObjectLines,
    Array,
    ArrayLines,
    Csv,
}

/// A SQL request.
#[derive(Debug, Clone)]
pub(crate) struct SqlRequest {
    pub query: String,
    pub format: ResultFormat,
    pub header: bool,
    pub types_header: bool,
    pub sql_types_header: bool,
    pub context: Map<String, Value>,
    pub parameters: Vec<Parameter>,
}

impl SqlRequest {
    /// Reads a request; the error is the answer.
    pub(crate) fn read(headers: &HeaderMap, body: &Bytes) -> Result<SqlRequest, Box<Response>> {
        let wrong = |message: String| Box::new(unreadable(&message));
        let text = std::str::from_utf8(body).map_err(|_| wrong("the body is not UTF-8".to_owned()))?;
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if kind.starts_with("text/plain") {
            return Ok(SqlRequest {
                query: text.to_owned(),
                format: ResultFormat::Object,
                header: false,
                types_header: false,
                sql_types_header: false,
                context: Map::new(),
                parameters: Vec::new(),
            });
        }
        let value: Value =
            serde_json::from_str(text).map_err(|error| wrong(format!("the body is not JSON: {error}")))?;
        let map = value
            .as_object()
            .ok_or_else(|| wrong("the body must be a JSON object".to_owned()))?;
        let query = match map.get("query") {
            Some(Value::String(query)) if !query.trim().is_empty() => query.clone(),
            _ => {
                return Err(wrong(
                    "Cannot construct instance of `org.apache.druid.sql.http.SqlQuery`, problem: query"
                        .to_owned(),
                ));
            }
        };
        let format = match map
            .get("resultFormat")
            .and_then(Value::as_str)
            .unwrap_or("object")
        {
            "object" => ResultFormat::Object,
            "objectLines" => ResultFormat::ObjectLines,
            "array" => ResultFormat::Array,
            "arrayLines" => ResultFormat::ArrayLines,
            "csv" => ResultFormat::Csv,
            other => {
                return Err(wrong(format!(
                    "resultFormat [{other}] is not one of object, objectLines, array, arrayLines, csv"
                )));
            }
        };
        let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or(false);
        let context = match map.get("context") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(context)) => context.clone(),
            Some(_) => return Err(wrong("context must be a JSON object".to_owned())),
        };
        let (types_header, sql_types_header) = (flag("typesHeader"), flag("sqlTypesHeader"));
        let header = flag("header");
        if (types_header || sql_types_header) && !header {
            return Err(wrong(
                "typesHeader and sqlTypesHeader need header to be true".to_owned(),
            ));
        }
        let parameters = match map.get("parameters") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| match item {
                    Value::Object(item) => Ok(Parameter {
                        r#type: item
                            .get("type")
                            .and_then(Value::as_str)
                            .unwrap_or("VARCHAR")
                            .to_owned(),
                        value_json: item.get("value").cloned().unwrap_or(Value::Null).to_string(),
                    }),
                    Value::Null => Ok(Parameter {
                        r#type: "VARCHAR".to_owned(),
                        value_json: "null".to_owned(),
                    }),
                    _ => Err(wrong("parameters must be objects with type and value".to_owned())),
                })
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err(wrong("parameters must be a list".to_owned())),
        };
        Ok(SqlRequest {
            query,
            format,
            header,
            types_header,
            sql_types_header,
            context,
            parameters,
        })
    }
}
