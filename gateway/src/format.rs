//! Rows in the five formats of Druid's SQL API, byte for byte.

use serde_json::{Map, Value, json};
use trilith_proto::pb::task::ResultColumn;

use crate::json::{push, text as json_text};

/// Rows' format on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ResultFormat {
    #[default]
    Object,
    ObjectLines,
    Array,
    ArrayLines,
    Csv,
}

impl ResultFormat {
    /// All names, for messages.
    pub(crate) const NAMES: &str = "object, objectLines, array, arrayLines, csv";

    /// Reads a name in any case.
    pub(crate) fn parse(name: &str) -> Option<ResultFormat> {
        Some(match name.to_ascii_lowercase().as_str() {
            "object" => ResultFormat::Object,
            "objectlines" => ResultFormat::ObjectLines,
            "array" => ResultFormat::Array,
            "arraylines" => ResultFormat::ArrayLines,
            "csv" => ResultFormat::Csv,
            _ => return None,
        })
    }

    /// As Druid writes the name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ResultFormat::Object => "object",
            ResultFormat::ObjectLines => "objectLines",
            ResultFormat::Array => "array",
            ResultFormat::ArrayLines => "arrayLines",
            ResultFormat::Csv => "csv",
        }
    }

    /// As documented for the format.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            ResultFormat::Object | ResultFormat::Array => "application/json",
            ResultFormat::ObjectLines | ResultFormat::ArrayLines => "text/plain",
            ResultFormat::Csv => "text/csv",
        }
    }

    fn is_list(self) -> bool {
        matches!(self, ResultFormat::Object | ResultFormat::Array)
    }

    fn has_names(self) -> bool {
        matches!(self, ResultFormat::Object | ResultFormat::ObjectLines)
    }
}

/// What of a result is written, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    pub format: ResultFormat,
    /// Names of the columns come first.
    pub header: bool,
    /// Then native types.
    pub types_header: bool,
    /// Then SQL types.
    pub sql_types_header: bool,
}

/// Writes the rows of one result.
pub(crate) struct Writer {
    format: ResultFormat,
    /// Names as JSON text.
    names: Vec<String>,
    empty: bool,
}

impl Writer {
    /// A writer, and how its text begins.
    pub(crate) fn start(layout: Layout, columns: &[ResultColumn]) -> (Writer, String) {
        let mut writer = Writer {
            format: layout.format,
            names: columns
                .iter()
                .map(|column| Value::from(column.name.as_str()).to_string())
                .collect(),
            empty: true,
        };
        let mut out = String::new();
        if writer.format.is_list() {
            out.push('[');
        }
        if layout.header {
            writer.header(&mut out, layout, columns);
        }
        (writer, out)
    }

    fn header(&mut self, out: &mut String, layout: Layout, columns: &[ResultColumn]) {
        if self.format.has_names() {
            let about = |column: &ResultColumn| {
                let mut about = Map::new();
                if layout.types_header {
                    about.insert("type".to_owned(), json!(column.r#type));
                }
                if layout.sql_types_header {
                    about.insert("sqlType".to_owned(), json!(column.sql_type));
                }
                if about.is_empty() {
                    Value::Null
                } else {
                    Value::Object(about)
                }
            };
            self.row(out, &columns.iter().map(about).collect::<Vec<_>>());
            return;
        }
        let line = |of: fn(&ResultColumn) -> &String| {
            columns
                .iter()
                .map(|column| Value::from(of(column).as_str()))
                .collect::<Vec<_>>()
        };
        self.row(out, &line(|column| &column.name));
        if layout.types_header {
            self.row(out, &line(|column| &column.r#type));
        }
        if layout.sql_types_header {
            self.row(out, &line(|column| &column.sql_type));
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, out: &mut String, values: &[Value]) {
        if self.format.is_list() && !self.empty {
            out.push(',');
        }
        self.empty = false;
        match self.format {
            ResultFormat::Csv => csv_line(out, values),
            ResultFormat::Array | ResultFormat::ArrayLines => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push(out, value);
                }
                out.push(']');
            }
            // Two columns of one name are two keys.
            ResultFormat::Object | ResultFormat::ObjectLines => {
                out.push('{');
                for (index, (name, value)) in self.names.iter().zip(values).enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(name);
                    out.push(':');
                    push(out, value);
                }
                out.push('}');
            }
        }
        if !self.format.is_list() {
            out.push('\n');
        }
    }

    /// Adds an error as the last row.
    pub(crate) fn error(&mut self, out: &mut String, error: &Value) {
        if self.format == ResultFormat::Csv {
            self.row(out, std::slice::from_ref(error));
            return;
        }
        if self.format.is_list() && !self.empty {
            out.push(',');
        }
        self.empty = false;
        let wrapped = matches!(self.format, ResultFormat::Array | ResultFormat::ArrayLines);
        if wrapped {
            out.push_str(&json!([error]).to_string());
        } else {
            out.push_str(&error.to_string());
        }
        if !self.format.is_list() {
            out.push('\n');
        }
    }

    /// How the text ends: lines and CSV end with an empty line, so that a reader knows that all has come.
    pub(crate) fn end(&self) -> &'static str {
        match self.format {
            ResultFormat::Object | ResultFormat::Array => "]\n",
            ResultFormat::ObjectLines | ResultFormat::ArrayLines if self.empty => "\n\n",
            _ => "\n",
        }
    }
}

/// A value as Java's `toString` has it: lists and maps without quotes.
fn java_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            trilith_proto::java::double(number.as_f64().unwrap_or_default())
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(java_text).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) => {
            let entries = entries
                .iter()
                .map(|(key, item)| format!("{key}={}", java_text(item)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A line of CSV: quoted where it must be; a null is empty.
fn csv_line(out: &mut String, values: &[Value]) {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let text = match value {
            Value::Null => String::new(),
            Value::Object(_) => json_text(value),
            value => java_text(value),
        };
        // Without quotes it would look like the end.
        let alone = text.is_empty() && values.len() == 1;
        if alone || text.contains(['"', ',', '\n', '\r']) {
            out.push('"');
            out.push_str(&text.replace('"', "\"\""));
            out.push('"');
        } else {
            out.push_str(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(layout: Layout, rows: &[Vec<Value>]) -> String {
        let columns: Vec<ResultColumn> = [("t", "LONG", "TIMESTAMP"), ("s", "STRING", "VARCHAR")]
            .iter()
            .map(|(name, native, sql)| ResultColumn {
                name: (*name).to_owned(),
                r#type: (*native).to_owned(),
                sql_type: (*sql).to_owned(),
            })
            .collect();
        let (mut writer, mut out) = Writer::start(layout, &columns);
        for row in rows {
            writer.row(&mut out, row);
        }
        out.push_str(writer.end());
        out
    }

    #[test]
    fn bytes_of_each_format() {
        let rows = [vec![json!(1), json!("a,\"b")], vec![Value::Null, json!("")]];
        let full = |format| Layout {
            format,
            header: true,
            types_header: true,
            sql_types_header: true,
        };
        let bare = |format| Layout {
            format,
            ..Layout::default()
        };
        let cases = [
            (
                full(ResultFormat::Object),
                "[{\"t\":{\"type\":\"LONG\",\"sqlType\":\"TIMESTAMP\"},\"s\":{\"type\":\"STRING\",\"sqlType\":\"VARCHAR\"}},{\"t\":1,\"s\":\"a,\\\"b\"},{\"t\":null,\"s\":\"\"}]\n",
            ),
            (
                full(ResultFormat::Array),
                "[[\"t\",\"s\"],[\"LONG\",\"STRING\"],[\"TIMESTAMP\",\"VARCHAR\"],[1,\"a,\\\"b\"],[null,\"\"]]\n",
            ),
            (
                Layout {
                    header: true,
                    ..bare(ResultFormat::ObjectLines)
                },
                "{\"t\":null,\"s\":null}\n{\"t\":1,\"s\":\"a,\\\"b\"}\n{\"t\":null,\"s\":\"\"}\n\n",
            ),
            (bare(ResultFormat::ArrayLines), "[1,\"a,\\\"b\"]\n[null,\"\"]\n\n"),
            (
                full(ResultFormat::Csv),
                "t,s\nLONG,STRING\nTIMESTAMP,VARCHAR\n1,\"a,\"\"b\"\n,\n\n",
            ),
        ];
        for (layout, expected) in cases {
            assert_eq!(text(layout, &rows), expected, "{layout:?}");
        }
        for (format, expected) in [
            (ResultFormat::Object, "[]\n"),
            (ResultFormat::ArrayLines, "\n\n"),
            (ResultFormat::ObjectLines, "\n\n"),
            (ResultFormat::Csv, "\n"),
        ] {
            assert_eq!(text(bare(format), &[]), expected, "{format:?}");
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        for name in ResultFormat::NAMES.split(", ") {
            let format = ResultFormat::parse(&name.to_uppercase()).unwrap();
            assert_eq!(format.name(), name);
        }
        assert_eq!(ResultFormat::parse("xml"), None);
    }
}
