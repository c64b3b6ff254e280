//! Reads one split into batches.

use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use trilith_proto::fault::Fault;

use crate::blocks::{Blocks, Compression, Lines};
use crate::columns::{BadTime, Column, Value};
use crate::delimited;
use crate::fetch;
use crate::json::{self, Scanner};
use crate::policy::Policy;
use crate::spec::{Delimited, ExternSpec, Format, Source};
use crate::splits::Split;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Told of every record that cannot be parsed.
pub trait WarningSink: Send + Sync {
    /// Counts a parse error; an error means stop now.
    fn parse_error(&self, message: String) -> Result<(), Fault>;
}

/// What has been read.
#[derive(Debug, Default)]
pub struct ReadCounters {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl ReadCounters {
    /// Records that became rows.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes after decompression.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Rows of a batch.
    pub batch_rows: usize,
    /// Drop byte 0 from text instead of failing.
    pub remove_null_bytes: bool,
    /// Stops a download.
    pub cancel: CancellationToken,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions {
            batch_rows: 8_192,
            remove_null_bytes: false,
            cancel: CancellationToken::new(),
        }
    }
}

/// Reads the given columns of the signature and hands batches to `emit` until that says stop. Blocking.
/// No thread is left behind.
#[allow(clippy::too_many_arguments)]
pub fn read_split(
    spec: &ExternSpec,
    split: &Split,
    projection: &[usize],
    policy: &Policy,
    options: &ReadOptions,
    counters: &ReadCounters,
    warnings: &dyn WarningSink,
    handle: &Handle,
    emit: &mut dyn FnMut(RecordBatch) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let schema = spec
        .schema()
        .project(projection)
        .map_err(|error| Fault::unknown(format!("columns of EXTERN: {error}")))?;
    let columns: Vec<Column> = projection
        .iter()
        .filter_map(|index| spec.signature().get(*index))
        .map(|(name, column_type)| Column::new(name, column_type, options.remove_null_bytes))
        .collect();
    let mut rows = Rows {
        names: projection
            .iter()
            .filter_map(|index| Some(spec.signature().get(*index)?.0.clone()))
            .collect(),
        schema: Arc::new(schema),
        columns,
        pending: 0,
        batch_rows: options.batch_rows.max(1),
        records: 0,
        lines: 0,
        path: path_text(split),
        counters,
        warnings,
        emit,
    };
    std::thread::scope(|scope| {
        let broken = |error: std::io::Error| {
            let path = rows_path(split);
            Fault::cannot_parse(format!("cannot read {path}: {error}"))
        };
        let blocks = match split {
            Split::Inline => match &spec.source {
                Source::Inline { data } => Blocks::text(data.clone()),
                _ => return Err(Fault::unknown("an inline split of a source that is not inline")),
            },
            Split::File { path, .. } => {
                // Checked again: a worker may be another process, and links may have changed.
                let real = policy.local(path)?;
                let file = File::open(&real).map_err(broken)?;
                Blocks::file(file, Compression::of(&path.to_string_lossy()), scope).map_err(broken)?
            }
            Split::Http { uri } => {
                let credentials = match &spec.source {
                    Source::Http {
                        user: Some(user),
                        password,
                        ..
                    } => Some((user.as_str(), password.as_deref())),
                    _ => None,
                };
                let file = fetch::download(uri, credentials, policy, &options.cancel, handle)?;
                let name = url::Url::parse(uri)
                    .map(|url| url.path().to_owned())
                    .unwrap_or_default();
                Blocks::file(file, Compression::of(&name), scope).map_err(broken)?
            }
        };
        let mut lines = Lines::new(blocks);
        let more = match &spec.format {
            Format::Json => {
                let mut scanner = Scanner::new(rows.names.clone().iter().map(String::as_str));
                lines.for_each(|block, bytes| rows.json(&mut scanner, block, bytes), broken)?
            }
            Format::Delimited(format) => {
                let mut table = Table {
                    format,
                    cells: None,
                    skip: format.skip_rows,
                };
                if !format.header {
                    table.columns(&rows.names, format.columns.clone().unwrap_or_default());
                }
                lines.for_each(|block, bytes| rows.delimited(&mut table, block, bytes), broken)?
            }
        };
        if more {
            rows.flush()?;
        }
        Ok(())
    })
}

fn path_text(split: &Split) -> Option<String> {
    match split {
        Split::Inline => None,
        Split::File { path, .. } => Some(format!("file:{}", path.display())),
        Split::Http { uri } => Some(uri.clone()),
    }
}

fn rows_path(split: &Split) -> String {
    path_text(split).unwrap_or_else(|| "inline data".to_owned())
}

/// Where the cells of a delimited file go.
struct Table<'f> {
    format: &'f Delimited,
    /// For each projected column, its cell; none until the header is read.
    cells: Option<Vec<Option<usize>>>,
    skip: usize,
}

impl Table<'_> {
    fn columns(&mut self, wanted: &[String], found: Vec<String>) {
        let place = |name: &String| found.iter().position(|other| other == name);
        self.cells = Some(wanted.iter().map(place).collect());
    }
}

struct Rows<'a> {
    names: Vec<String>,
    schema: SchemaRef,
    columns: Vec<Column>,
    pending: usize,
    batch_rows: usize,
    records: u64,
    lines: u64,
    path: Option<String>,
    counters: &'a ReadCounters,
    warnings: &'a dyn WarningSink,
    emit: &'a mut dyn FnMut(RecordBatch) -> ControlFlow<()>,
}

impl Rows<'_> {
    fn json(&mut self, scanner: &mut Scanner, block: &[u8], bytes: u64) -> Result<bool, Fault> {
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        let lossy = String::from_utf8_lossy(block);
        let text = self.without_mark(&lossy);
        let mut values = vec![Value::Null; self.columns.len()];
        let mut at = 0;
        while at < text.len() {
            let (line, next) = json::line(text, at);
            self.lines += 1;
            at = next;
            if line.trim().is_empty() {
                continue;
            }
            let mut from = 0;
            // Objects may follow each other on a line.
            loop {
                match scanner.record(line, from, &mut values) {
                    Ok(end) => {
                        if !self.row(&values, line)? {
                            return Ok(false);
                        }
                        from = json::skip_space(line.as_bytes(), end);
                        if line.as_bytes().get(from) != Some(&b'{') {
                            break;
                        }
                    }
                    Err(json::Malformed) => {
                        self.bad_line(line)?;
                        break;
                    }
                }
            }
        }
        Ok(true)
    }

    fn delimited(&mut self, table: &mut Table<'_>, block: &[u8], bytes: u64) -> Result<bool, Fault> {
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        let lossy = String::from_utf8_lossy(block);
        let text = self.without_mark(&lossy);
        let mut at = 0;
        let mut scratch = vec![String::new(); self.columns.len()];
        while at < text.len() {
            let (line, next) = json::line(text, at);
            self.lines += 1;
            at = next;
            if table.skip > 0 {
                table.skip -= 1;
                continue;
            }
            if line.is_empty() {
                continue;
            }
            let Ok(cells) = delimited::cells(line, table.format) else {
                self.bad_line(line)?;
                continue;
            };
            let Some(places) = &table.cells else {
                let names = delimited::header(cells)
                    .map_err(|reason| Fault::cannot_parse(format!("{reason}{}", self.place(1))))?;
                table.columns(&self.names, names);
                continue;
            };
            let values: Vec<Value<'_>> = places
                .iter()
                .zip(scratch.iter_mut())
                .map(
                    |(place, scratch)| match place.and_then(|place| cells.get(place)) {
                        Some(cell) => delimited::value(cell, table.format, scratch),
                        None => Value::Null,
                    },
                )
                .collect();
            if !self.row(&values, line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn without_mark<'t>(&self, text: &'t str) -> &'t str {
        if self.lines == 0 {
            text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
        } else {
            text
        }
    }

    fn row(&mut self, values: &[Value<'_>], line: &str) -> Result<bool, Fault> {
        for (column, value) in self.columns.iter().zip(values) {
            if let Err(BadTime(text)) = column.check(*value) {
                let place = self.place(self.records + 1);
                self.warnings
                    .parse_error(format!("Timestamp[{text}] is unparseable! Event: {line}{place}"))?;
                return Ok(true);
            }
        }
        self.records += 1;
        let source = self.path.as_deref().unwrap_or("inline");
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.push(*value, source, self.records)?;
        }
        self.pending += 1;
        if self.pending < self.batch_rows {
            Ok(true)
        } else {
            self.flush()
        }
    }

    fn bad_line(&self, line: &str) -> Result<(), Fault> {
        self.warnings.parse_error(format!(
            "Unable to parse row [{line}]{}",
            self.place(self.records + 1)
        ))
    }

    /// " (Path: …, Record: …, Line: …)"
    fn place(&self, record: u64) -> String {
        match &self.path {
            Some(path) => format!(" (Path: {path}, Record: {record}, Line: {})", self.lines),
            None => format!(" (Record: {record}, Line: {})", self.lines),
        }
    }

    fn flush(&mut self) -> Result<bool, Fault> {
        if self.pending == 0 {
            return Ok(true);
        }
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.pending));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|error| Fault::unknown(format!("rows of EXTERN: {error}")))?;
        self.counters
            .rows
            .fetch_add(self.pending as u64, Ordering::Relaxed);
        self.pending = 0;
        Ok((self.emit)(batch).is_continue())
    }
}
