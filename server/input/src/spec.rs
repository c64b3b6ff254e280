//! The three arguments of EXTERN.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use trilith_proto::column::{self, ColumnType};

/// What is wrong with an argument of EXTERN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// Names the field and the remedy.
    pub message: String,
}

fn error(message: impl Into<String>) -> SpecError {
    SpecError {
        message: message.into(),
    }
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Source {
    Inline {
        data: String,
    },
    Local {
        base_dir: Option<String>,
        filter: String,
        files: Vec<String>,
    },
    Http {
        uris: Vec<String>,
        user: Option<String>,
        password: Option<String>,
    },
}

/// How they are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Format {
    Json,
    Delimited(Delimited),
}

/// CSV (with quotes) or TSV (any delimiter, no quotes).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delimited {
    pub quoted: bool,
    pub delimiter: char,
    pub list_delimiter: String,
    pub columns: Option<Vec<String>>,
    pub header: bool,
    pub skip_rows: usize,
    pub parse_numbers: bool,
}

/// A checked EXTERN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExternSpec {
    pub(crate) source: Source,
    pub(crate) format: Format,
    signature: Vec<(String, ColumnType)>,
    source_json: Value,
    format_json: Value,
}

impl ExternSpec {
    /// Checks the arguments.
    pub fn parse(
        source: &Value,
        format: &Value,
        signature: &[(String, ColumnType)],
    ) -> Result<ExternSpec, SpecError> {
        let parsed = parse_source(source)?;
        let parsed_format = parse_format(format)?;
        if signature.is_empty() {
            return Err(error("EXTERN needs a signature with at least one column"));
        }
        for (index, (name, column_type)) in signature.iter().enumerate() {
            if signature[..index].iter().any(|(other, _)| other == name) {
                return Err(error(format!(
                    "column [{name}] appears twice in the signature of EXTERN"
                )));
            }
            if name == "__time" && *column_type != ColumnType::Long {
                return Err(error(
                    "EXTERN function with __time column can be used when __time column is of type long. Please change the column name to something other than __time",
                ));
            }
            let supported = match column_type {
                ColumnType::Complex(name) => name == "json",
                ColumnType::Array(item) => {
                    matches!(
                        **item,
                        ColumnType::String | ColumnType::Long | ColumnType::Double | ColumnType::Float
                    )
                }
                _ => true,
            };
            if !supported {
                return Err(error(format!(
                    "column [{name}] of EXTERN has the unsupported type [{column_type}]"
                )));
            }
        }
        Ok(ExternSpec {
            source: parsed,
            format: parsed_format,
            signature: signature.to_vec(),
            source_json: masked(source),
            format_json: echoed_format(format),
        })
    }

    /// Columns as batches have them. `__time` stays a number of milliseconds.
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .signature
            .iter()
            .map(|(name, column_type)| match name.as_str() {
                "__time" => Field::new(name, DataType::Int64, true),
                _ => column::to_field(name, column_type, false),
            })
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// Names and types.
    pub fn signature(&self) -> &[(String, ColumnType)] {
        &self.signature
    }

    /// The input source for reports, secrets masked.
    pub fn source_json(&self) -> &Value {
        &self.source_json
    }

    /// The input format for reports.
    pub fn format_json(&self) -> &Value {
        &self.format_json
    }
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, SpecError> {
    value
        .as_object()
        .ok_or_else(|| error(format!("{what} of EXTERN must be a JSON object")))
}

fn kind<'a>(map: &'a Map<String, Value>, what: &str) -> Result<&'a str, SpecError> {
    map.get("type")
        .and_then(Value::as_str)
        .ok_or_else(|| error(format!("{what} of EXTERN lacks the field [type]")))
}

fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>, SpecError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(error(format!("field [{key}] of EXTERN must be a string"))),
    }
}

fn texts(map: &Map<String, Value>, key: &str) -> Result<Option<Vec<String>>, SpecError> {
    let wrong = || error(format!("field [{key}] of EXTERN must be a list of strings"));
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(one)) => Ok(Some(vec![one.clone()])),
        Some(Value::Array(items)) => {
            let items = items
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong));
            items.collect::<Result<Vec<_>, _>>().map(Some)
        }
        Some(_) => Err(wrong()),
    }
}

fn flag(map: &Map<String, Value>, key: &str) -> Result<Option<bool>, SpecError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(Value::String(text)) if text == "true" => Ok(Some(true)),
        Some(Value::String(text)) if text == "false" => Ok(Some(false)),
        Some(_) => Err(error(format!("field [{key}] of EXTERN must be true or false"))),
    }
}

fn parse_source(value: &Value) -> Result<Source, SpecError> {
    let map = object(value, "the input source")?;
    match kind(map, "the input source")? {
        "inline" => {
            let data =
                text(map, "data")?.ok_or_else(|| error("an inline input source needs the field [data]"))?;
            Ok(Source::Inline { data })
        }
        "local" => {
            let base_dir = text(map, "baseDir")?;
            let files = texts(map, "files")?.unwrap_or_default();
            if base_dir.is_none() && files.is_empty() {
                return Err(error("a local input source needs the field [baseDir] or [files]"));
            }
            let filter = text(map, "filter")?.unwrap_or_else(|| "*".to_owned());
            Ok(Source::Local {
                base_dir,
                filter,
                files,
            })
        }
        "http" => {
            let uris = texts(map, "uris")?.filter(|uris| !uris.is_empty());
            let uris = uris.ok_or_else(|| error("an http input source needs the field [uris]"))?;
            for uri in &uris {
                let url = url::Url::parse(uri).map_err(|cause| error(format!("uri [{uri}]: {cause}")))?;
                if !matches!(url.scheme(), "http" | "https") {
                    return Err(error(format!(
                        "Only [http, https] protocols are allowed, got [{}]",
                        url.scheme()
                    )));
                }
            }
            let user = text(map, "httpAuthenticationUsername")?;
            Ok(Source::Http {
                uris,
                user,
                password: password(map.get("httpAuthenticationPassword"))?,
            })
        }
        other => Err(error(format!(
            "input source type [{other}] is not supported; use inline, local or http"
        ))),
    }
}

fn password(value: Option<&Value>) -> Result<Option<String>, SpecError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Object(map)) => match map.get("type").and_then(Value::as_str) {
            Some("default") => text(map, "password"),
            Some("environment") => {
                let name = text(map, "variable")?.unwrap_or_default();
                std::env::var(&name)
                    .map(Some)
                    .map_err(|_| error(format!("environment variable [{name}] for a password is not set")))
            }
            _ => Err(error(
                "httpAuthenticationPassword must have the type default or environment",
            )),
        },
        Some(_) => Err(error("httpAuthenticationPassword must be a string or an object")),
    }
}

fn parse_format(value: &Value) -> Result<Format, SpecError> {
    let map = object(value, "the input format")?;
    let kind = kind(map, "the input format")?;
    match kind {
        "json" => {
            let newline = flag(map, "assumeNewlineDelimited")?.unwrap_or(false);
            let node = flag(map, "useJsonNodeReader")?.unwrap_or(false);
            if newline && node {
                return Err(error(
                    "useJsonNodeReader and assumeNewlineDelimited cannot be set to true at the same time.",
                ));
            }
            if map.get("flattenSpec").is_some_and(|spec| !spec.is_null()) {
                return Err(error(
                    "flattenSpec is not supported yet; declare COMPLEX<json> and use JSON functions",
                ));
            }
            Ok(Format::Json)
        }
        "csv" | "tsv" => delimited(map, kind == "csv").map(Format::Delimited),
        other => Err(error(format!(
            "input format type [{other}] is not supported; use json, csv or tsv"
        ))),
    }
}

fn delimited(map: &Map<String, Value>, quoted: bool) -> Result<Delimited, SpecError> {
    let columns = texts(map, "columns")?.filter(|columns| !columns.is_empty());
    let header = match flag(map, "findColumnsFromHeader")? {
        Some(header) => header,
        None => match flag(map, "hasHeaderRow")? {
            Some(header) => header,
            None if columns.is_some() => false,
            None => {
                return Err(error(
                    "Cannot construct instance of csv or tsv input format: at least one of [columns] or [findColumnsFromHeader] must be present",
                ));
            }
        },
    };
    if !header && columns.is_none() {
        return Err(error(
            "csv and tsv need [columns] when [findColumnsFromHeader] is false",
        ));
    }
    let delimiter = match text(map, "delimiter")? {
        Some(_) if quoted => ',',
        Some(delimiter) => {
            let mut chars = delimiter.chars();
            match (chars.next(), chars.next()) {
                (Some(one), None) => one,
                _ => return Err(error("field [delimiter] of a tsv format must be one character")),
            }
        }
        None if quoted => ',',
        None => '\t',
    };
    let list_delimiter = text(map, "listDelimiter")?.unwrap_or_else(|| "\u{1}".to_owned());
    if list_delimiter == delimiter.to_string() {
        return Err(error(format!(
            "Cannot have same delimiter and list delimiter of [{delimiter}]"
        )));
    }
    let skip_rows = match map.get("skipHeaderRows") {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| error("field [skipHeaderRows] must be a non-negative integer"))?
            as usize,
    };
    let parse_numbers = flag(map, "tryParseNumbers")?.unwrap_or(false);
    Ok(Delimited {
        quoted,
        delimiter,
        list_delimiter,
        columns,
        header,
        skip_rows,
        parse_numbers,
    })
}

/// The source without its password.
fn masked(source: &Value) -> Value {
    let mut echo = source.clone();
    if let Some(password) = echo.get_mut("httpAuthenticationPassword")
        && !password.is_null()
    {
        *password = json!("<masked>");
    }
    echo
}

/// A JSON format shows its flags even when they are not given.
fn echoed_format(format: &Value) -> Value {
    let mut echo = format.clone();
    if let Some(map) = echo.as_object_mut()
        && map.get("type").and_then(Value::as_str) == Some("json")
    {
        for key in ["keepNullColumns", "assumeNewlineDelimited", "useJsonNodeReader"] {
            map.entry(key).or_insert(json!(false));
        }
    }
    echo
}
