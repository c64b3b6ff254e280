//! Table functions with arguments of their own, for example `TABLE(INLINE(data => ARRAY['a,1'], format => 'csv'))`:
//! another way to write the input source and input format of EXTERN.

use serde_json::{Map, Value, json};
use trilith_proto::column::ColumnType;

/// A table function that reads external data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableFunction {
    Inline,
    Http,
    LocalFiles,
    /// Object stores: known by name, so that the refusal can say more than "not found".
    ObjectStore(&'static str),
}

const FORMAT_ARGUMENTS: [&str; 5] = [
    "format",
    "listDelimiter",
    "skipHeaderRows",
    "delimiter",
    "keepNulls",
];

impl TableFunction {
    /// By name, in any case.
    pub(crate) fn of(name: &str) -> Option<TableFunction> {
        const OBJECT_STORES: [&str; 4] = ["S3", "GOOGLE", "AZURESTORAGE", "HDFS"];
        match name.to_ascii_uppercase().as_str() {
            "INLINE" => Some(TableFunction::Inline),
            "HTTP" => Some(TableFunction::Http),
            "LOCALFILES" => Some(TableFunction::LocalFiles),
            other => OBJECT_STORES
                .into_iter()
                .find(|store| *store == other)
                .map(TableFunction::ObjectStore),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            TableFunction::Inline => "INLINE",
            TableFunction::Http => "HTTP",
            TableFunction::LocalFiles => "LOCALFILES",
            TableFunction::ObjectStore(name) => name,
        }
    }

    fn own_arguments(self) -> &'static [&'static str] {
        match self {
            TableFunction::Inline => &["data"],
            TableFunction::Http => &["uris", "userName", "password", "passwordEnvVar", "headers"],
            TableFunction::LocalFiles => &["baseDir", "filter", "files"],
            TableFunction::ObjectStore(_) => &[],
        }
    }

    /// The argument of that name as it is documented, whatever its case.
    pub(crate) fn argument(self, name: &str) -> Result<&'static str, String> {
        if let TableFunction::ObjectStore(store) = self {
            return Err(format!(
                "Table function [{store}] is not available: object stores cannot be read yet. Use HTTP with URLs, or LOCALFILES"
            ));
        }
        let known = self.own_arguments().iter().chain(&FORMAT_ARGUMENTS);
        known
            .clone()
            .find(|known| known.eq_ignore_ascii_case(name))
            .copied()
            .ok_or_else(|| {
                let names: Vec<&str> = known.copied().collect();
                format!(
                    "Table function [{}] has no argument [{name}]; use {}",
                    self.name(),
                    names.join(", ")
                )
            })
    }

    /// Input source and input format of EXTERN that mean the same.
    pub(crate) fn source_and_format(
        self,
        arguments: &Map<String, Value>,
        columns: Option<&[(String, ColumnType)]>,
    ) -> Result<(Value, Value), String> {
        let Some(columns) = columns else {
            return Err(format!(
                "Table function [{0}] requires a schema: TABLE({0}(...)) EXTEND (<column> <type>, ...)",
                self.name()
            ));
        };
        let arguments = Arguments {
            function: self.name(),
            map: arguments,
        };
        let source = match self {
            TableFunction::Inline => inline(&arguments)?,
            TableFunction::Http => http(&arguments)?,
            TableFunction::LocalFiles => local_files(&arguments)?,
            TableFunction::ObjectStore(_) => return self.argument("").map(|_| (Value::Null, Value::Null)),
        };
        Ok((source, format(&arguments, columns)?))
    }
}

struct Arguments<'a> {
    function: &'static str,
    map: &'a Map<String, Value>,
}

impl Arguments<'_> {
    fn given(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        match self.given(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(name, "must be a string")),
        }
    }

    /// A list, or one text with commas.
    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        match self.given(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => {
                let items = text.split(',').map(|item| item.trim().to_owned());
                Ok(items.filter(|item| !item.is_empty()).collect())
            }
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| self.wrong(name, "must be a list of strings")),
            Some(_) => Err(self.wrong(name, "must be a list of strings, ARRAY['...']")),
        }
    }

    fn wrong(&self, name: &str, why: &str) -> String {
        format!("Argument [{name}] of table function [{}] {why}", self.function)
    }
}

fn inline(arguments: &Arguments<'_>) -> Result<Value, String> {
    let data = match arguments.given("data") {
        Some(Value::String(text)) => text.clone(),
        _ => arguments.texts("data")?.join("\n"),
    };
    if data.is_empty() {
        return Err(arguments.wrong("data", "is missing: INLINE requires one or more rows of data"));
    }
    Ok(json!({"type": "inline", "data": data}))
}

fn http(arguments: &Arguments<'_>) -> Result<Value, String> {
    let mut source = Map::new();
    source.insert("type".to_owned(), json!("http"));
    source.insert("uris".to_owned(), json!(arguments.texts("uris")?));
    if let Some(user) = arguments.text("userName")? {
        source.insert("httpAuthenticationUsername".to_owned(), json!(user));
    }
    let password = match (arguments.text("password")?, arguments.text("passwordEnvVar")?) {
        (Some(_), Some(_)) => {
            return Err(arguments.wrong("password", "and passwordEnvVar are both given: use one of them"));
        }
        (Some(password), None) => Some(json!({"type": "default", "password": password})),
        (None, Some(variable)) => Some(json!({"type": "environment", "variable": variable})),
        (None, None) => None,
    };
    if let Some(password) = password {
        source.insert("httpAuthenticationPassword".to_owned(), password);
    }
    if let Some(headers) = arguments.text("headers")? {
        let headers: Map<String, Value> = serde_json::from_str(&headers)
            .map_err(|_| arguments.wrong("headers", "must be the text of a JSON object"))?;
        source.insert("requestHeaders".to_owned(), Value::Object(headers));
    }
    Ok(Value::Object(source))
}

fn local_files(arguments: &Arguments<'_>) -> Result<Value, String> {
    let base = arguments.text("baseDir")?;
    let files = arguments.texts("files")?;
    let filter = arguments.text("filter")?;
    match (base, files.is_empty(), filter) {
        (None, true, _) => Err(arguments.wrong("baseDir", "or files must be given")),
        (None, false, Some(_)) => Err(arguments.wrong("filter", "needs baseDir as well")),
        (Some(_), false, Some(_)) => {
            Err(arguments.wrong("filter", "and files are both given: use one of them"))
        }
        (None, false, None) => Ok(json!({"type": "local", "files": files})),
        (Some(base), false, None) => {
            let paths = files
                .iter()
                .map(|file| std::path::Path::new(&base).join(file).display().to_string());
            Ok(json!({"type": "local", "files": paths.collect::<Vec<_>>()}))
        }
        (Some(base), true, filter) => {
            let filter = filter.unwrap_or_else(|| "*".to_owned());
            Ok(json!({"type": "local", "baseDir": base, "filter": filter}))
        }
    }
}

fn format(arguments: &Arguments<'_>, columns: &[(String, ColumnType)]) -> Result<Value, String> {
    let kind = arguments
        .text("format")?
        .ok_or_else(|| arguments.wrong("format", "is missing: use 'csv', 'tsv' or 'json'"))?;
    let mut format = Map::new();
    match kind.as_str() {
        "csv" | "tsv" | "delimited" => {
            let quoted = kind == "csv";
            format.insert("type".to_owned(), json!(if quoted { "csv" } else { "tsv" }));
            let names: Vec<&String> = columns.iter().map(|(name, _)| name).collect();
            format.insert("columns".to_owned(), json!(names));
            format.insert("findColumnsFromHeader".to_owned(), json!(false));
            format.insert("skipHeaderRows".to_owned(), json!(skipped_rows(arguments)?));
            if let Some(delimiter) = arguments.text("listDelimiter")? {
                format.insert("listDelimiter".to_owned(), json!(delimiter));
            }
            if let Some(delimiter) = arguments.text("delimiter")?.filter(|_| !quoted) {
                format.insert("delimiter".to_owned(), json!(delimiter));
            }
        }
        "json" => {
            format.insert("type".to_owned(), json!("json"));
            if let Some(keep) = arguments.given("keepNulls") {
                format.insert("keepNullColumns".to_owned(), keep.clone());
            }
        }
        "parquet" | "lines" => {
            format.insert("type".to_owned(), json!(kind));
        }
        other => {
            return Err(format!(
                "Format type [{other}] for property [format] is not valid; use 'csv', 'tsv', 'json', 'lines' or 'parquet'"
            ));
        }
    }
    Ok(Value::Object(format))
}

/// A number of rows, or true for one.
fn skipped_rows(arguments: &Arguments<'_>) -> Result<u64, String> {
    let count = match arguments.given("skipHeaderRows") {
        None => Some(0),
        Some(Value::Bool(skip)) => Some(u64::from(*skip)),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Some(1),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    count.ok_or_else(|| arguments.wrong("skipHeaderRows", "must be true, false or a number of rows"))
}
