//! The three arguments of EXTERN.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trilith_proto::column::{self, ColumnType};

use crate::format::{Format, echoed_format};
use crate::source::{Source, masked};
use crate::splits::Split;

/// What is wrong with an argument of EXTERN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SpecError {
    /// Names the field and the remedy.
    pub message: String,
}

pub(crate) fn error(message: impl Into<String>) -> SpecError {
    SpecError {
        message: message.into(),
    }
}

/// A checked EXTERN.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct ExternSpec {
    pub(crate) source: Source,
    pub(crate) format: Format,
    signature: Vec<(String, ColumnType)>,
    source_json: Value,
    format_json: Value,
}

/// How it travels: the format as it was written, since patterns and paths are made of it.
#[derive(Serialize, Deserialize)]
struct Written {
    source: Source,
    signature: Vec<(String, ColumnType)>,
    source_json: Value,
    format_json: Value,
}

impl From<ExternSpec> for Written {
    fn from(spec: ExternSpec) -> Written {
        Written {
            source: spec.source,
            signature: spec.signature,
            source_json: spec.source_json,
            format_json: spec.format_json,
        }
    }
}

impl TryFrom<Written> for ExternSpec {
    type Error = SpecError;

    fn try_from(written: Written) -> Result<ExternSpec, SpecError> {
        Ok(ExternSpec {
            source: written.source,
            format: Format::parse(&written.format_json)?,
            signature: written.signature,
            source_json: written.source_json,
            format_json: written.format_json,
        })
    }
}

/// A factor of `taskAssignment=auto`: a byte of Parquet is as much work as so many bytes of text.
const PARQUET_WEIGHT: u64 = 8;

impl ExternSpec {
    /// Checks the arguments.
    pub fn parse(
        source: &Value,
        format: &Value,
        signature: &[(String, ColumnType)],
    ) -> Result<ExternSpec, SpecError> {
        let parsed = Source::parse(source)?;
        let parsed_format = Format::parse(format)?;
        if parsed.has_inline() && !parsed_format.is_text() {
            return Err(error(
                "inline data are text and cannot be parquet; use a local or http input source",
            ));
        }
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
                ColumnType::Complex(name) => name == "json" || trilith_functions::is_binary_kind(name),
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

    /// The first header of an http source that `allowed` does not have, in any case.
    pub fn refused_header(&self, allowed: &[String]) -> Option<&str> {
        let known = |name: &str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        self.source.header_names().find(|name| !known(name))
    }

    /// Bytes of a split as `taskAssignment=auto` weighs them; 0 if unknown.
    pub fn weighted_bytes(&self, split: &Split) -> u64 {
        match self.format {
            Format::Parquet { .. } => split.size_bytes().unwrap_or(0).saturating_mul(PARQUET_WEIGHT),
            _ => split.weighted_bytes(),
        }
    }

    /// Columns as batches have them; `__time` is a TIMESTAMP.
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self
            .signature
            .iter()
            .map(|(name, column_type)| column::to_field(name, column_type, name == "__time"))
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

pub(crate) fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, SpecError> {
    value
        .as_object()
        .ok_or_else(|| error(format!("{what} of EXTERN must be a JSON object")))
}

pub(crate) fn kind<'a>(map: &'a Map<String, Value>, what: &str) -> Result<&'a str, SpecError> {
    map.get("type")
        .and_then(Value::as_str)
        .ok_or_else(|| error(format!("{what} of EXTERN lacks the field [type]")))
}

pub(crate) fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>, SpecError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(error(format!("field [{key}] of EXTERN must be a string"))),
    }
}

pub(crate) fn texts(map: &Map<String, Value>, key: &str) -> Result<Option<Vec<String>>, SpecError> {
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

pub(crate) fn flag(map: &Map<String, Value>, key: &str) -> Result<Option<bool>, SpecError> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(Value::String(text)) if text == "true" => Ok(Some(true)),
        Some(Value::String(text)) if text == "false" => Ok(Some(false)),
        Some(_) => Err(error(format!("field [{key}] of EXTERN must be true or false"))),
    }
}
