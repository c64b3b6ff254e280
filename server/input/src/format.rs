//! Input formats: how the rows of EXTERN are written.

use serde_json::{Map, Value, json};
use trilith_functions::JavaPattern;

use crate::flatten::{Flatten, Paths};
use crate::lenient::Features;
use crate::spec::{SpecError, error, flag, kind, object, text, texts};

/// How rows are written.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    Json {
        flatten: Flatten,
        features: Features,
    },
    Delimited(Delimited),
    /// Each line is a row with the one column `line`.
    Lines,
    Regex(Box<Groups>),
    Parquet {
        flatten: Flatten,
        binary_as_string: bool,
    },
}

/// CSV (with quotes) or TSV (any delimiter, no quotes).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delimited {
    pub quoted: bool,
    /// Any text but an empty one; a comma if there are quotes.
    pub delimiter: String,
    pub list_delimiter: String,
    pub columns: Option<Vec<String>>,
    pub header: bool,
    pub skip_rows: usize,
    pub parse_numbers: bool,
}

/// Lines that a pattern matches; its groups are the columns.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    /// For the whole line.
    pub pattern: JavaPattern,
    /// As it was given.
    pub written: String,
    pub columns: Vec<String>,
    pub list_delimiter: String,
}

const LIST_DELIMITER: &str = "\u{1}";
/// The column of a file of lines.
pub(crate) const LINE_COLUMN: &str = "line";

impl Format {
    /// Reads an input format.
    pub(crate) fn parse(value: &Value) -> Result<Format, SpecError> {
        let map = object(value, "the input format")?;
        let kind = kind(map, "the input format")?;
        match kind {
            "json" => json_format(map),
            "csv" | "tsv" => delimited(map, kind == "csv").map(Format::Delimited),
            "lines" => Ok(Format::Lines),
            "regex" => groups(map).map(|groups| Format::Regex(Box::new(groups))),
            "parquet" => Ok(Format::Parquet {
                flatten: Flatten::parse(map.get("flattenSpec"), Paths::PathOnly)?,
                binary_as_string: flag(map, "binaryAsString")?.unwrap_or(false),
            }),
            other => Err(error(refusal(other))),
        }
    }

    /// Rows are lines of text, so that a file can be read in pieces.
    pub(crate) fn is_text(&self) -> bool {
        !matches!(self, Format::Parquet { .. })
    }
}

/// Why a format cannot be read, and what to use instead.
fn refusal(kind: &str) -> String {
    match kind {
        "orc" | "avro_ocf" => format!(
            "input format type [{kind}] is not supported yet; use parquet, json, csv, tsv, lines or regex"
        ),
        "kafka" | "kinesis" | "avro_stream" | "protobuf" | "thrift" | "influx" => format!(
            "input format type [{kind}] is for streams and cannot be used in EXTERN; use json, csv, tsv, lines, regex or parquet"
        ),
        other => {
            format!("input format type [{other}] is unknown; use json, csv, tsv, lines, regex or parquet")
        }
    }
}

fn json_format(map: &Map<String, Value>) -> Result<Format, SpecError> {
    let newline = flag(map, "assumeNewlineDelimited")?.unwrap_or(false);
    let node = flag(map, "useJsonNodeReader")?.unwrap_or(false);
    if newline && node {
        return Err(error(
            "useJsonNodeReader and assumeNewlineDelimited cannot be set to true at the same time.",
        ));
    }
    Ok(Format::Json {
        flatten: Flatten::parse(map.get("flattenSpec"), Paths::Json)?,
        features: Features::parse(map.get("featureSpec"))?,
    })
}

fn groups(map: &Map<String, Value>) -> Result<Groups, SpecError> {
    let written =
        text(map, "pattern")?.ok_or_else(|| error("a regex input format needs the field [pattern]"))?;
    let pattern = JavaPattern::whole(&written)
        .map_err(|why| error(format!("field [pattern] of the regex format: {why}")))?;
    let count = pattern.captures_len() - 1;
    let columns = match texts(map, "columns")?.filter(|columns| !columns.is_empty()) {
        Some(columns) => unique(columns)?,
        None => (1..=count).map(|number| format!("column_{number}")).collect(),
    };
    Ok(Groups {
        pattern,
        written,
        columns,
        list_delimiter: text(map, "listDelimiter")?.unwrap_or_else(|| LIST_DELIMITER.to_owned()),
    })
}

/// Names of columns, each once.
fn unique(columns: Vec<String>) -> Result<Vec<String>, SpecError> {
    for (index, name) in columns.iter().enumerate() {
        if columns[..index].contains(name) {
            return Err(error(format!("column [{name}] appears twice in [columns]")));
        }
    }
    Ok(columns)
}

fn delimited(map: &Map<String, Value>, quoted: bool) -> Result<Delimited, SpecError> {
    let columns = texts(map, "columns")?.filter(|columns| !columns.is_empty());
    let columns = columns.map(unique).transpose()?;
    let header = has_header(map, columns.is_some())?;
    let delimiter = match text(map, "delimiter")? {
        _ if quoted => ",".to_owned(),
        Some(delimiter) if delimiter.is_empty() => {
            return Err(error("field [delimiter] of a tsv format must not be empty"));
        }
        Some(delimiter) => delimiter,
        None => "\t".to_owned(),
    };
    let list_delimiter = text(map, "listDelimiter")?.unwrap_or_else(|| LIST_DELIMITER.to_owned());
    if list_delimiter == delimiter {
        return Err(error(format!(
            "Cannot have same delimiter and list delimiter of [{delimiter}]"
        )));
    }
    let mut names = columns.iter().flatten();
    if let Some(name) = names.find(|name| name.contains(&delimiter)) {
        return Err(error(format!(
            "Column[{name}] cannot have the delimiter[{delimiter}] in its name"
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

/// Whether the first line has the names of the columns.
fn has_header(map: &Map<String, Value>, has_columns: bool) -> Result<bool, SpecError> {
    let flags = (flag(map, "findColumnsFromHeader")?, flag(map, "hasHeaderRow")?);
    let header = match flags {
        (Some(_), Some(_)) if !has_columns => {
            return Err(error(
                "Cannot accept both [findColumnsFromHeader] and [hasHeaderRow]",
            ));
        }
        (Some(header), _) | (None, Some(header)) => header,
        (None, None) if has_columns => false,
        (None, None) => {
            return Err(error(
                "Cannot construct instance of csv or tsv input format: at least one of [columns] or [findColumnsFromHeader] must be present",
            ));
        }
    };
    if !header && !has_columns {
        return Err(error(
            "csv and tsv need [columns] when [findColumnsFromHeader] is false",
        ));
    }
    Ok(header)
}

/// A JSON format shows its flags even when they are not given.
pub(crate) fn echoed_format(format: &Value) -> Value {
    let mut echo = format.clone();
    if let Some(map) = echo.as_object_mut()
        && map.get("type").and_then(Value::as_str) == Some("json")
    {
        let flattened = map.get("flattenSpec").is_some_and(|spec| {
            !spec.is_null() && spec.get("useFieldDiscovery").and_then(Value::as_bool) != Some(false)
        });
        map.entry("keepNullColumns").or_insert(json!(flattened));
        for key in ["assumeNewlineDelimited", "useJsonNodeReader"] {
            map.entry(key).or_insert(json!(false));
        }
    }
    echo
}
