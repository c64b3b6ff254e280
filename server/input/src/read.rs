//! Reads one split into batches.

use std::cell::OnceCell;
use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use trilith_proto::fault::Fault;

use crate::blocks::{Blocks, Compression, LINE_BYTES_MAX, Lines};
use crate::columns::{BadTime, Column, NullByte, Value};
use crate::delimited;
use crate::fetch;
use crate::header;
use crate::json::{self, Scanner};
use crate::policy::Policy;
use crate::ranges::{self, ByteRange};
use crate::spec::{Delimited, ExternSpec, Format, Source};
use crate::splits::Split;

/// Bytes of text of a batch: records may be large.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a line that a message quotes.
const QUOTED_BYTES: usize = 4 * 1024;
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Told of every record that cannot be parsed.
pub trait WarningSink: Send + Sync {
    /// Counts a parse error; an error means stop now. `message` is dear to make in the middle of a file: the
    /// numbers of line and record are counted from its beginning.
    fn parse_error(&self, message: &dyn Fn() -> String) -> Result<(), Fault>;

    /// Hears of each record that is larger than all before it, beyond `ReadOptions::large_record_bytes`.
    fn large_record(&self, _bytes: u64, _place: &dyn Fn() -> String) {}
}

/// For reading what others report.
struct Unheard;

impl WarningSink for Unheard {
    fn parse_error(&self, _message: &dyn Fn() -> String) -> Result<(), Fault> {
        Ok(())
    }
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
    /// A larger record is reported to the sink.
    pub large_record_bytes: u64,
    /// Stops a download.
    pub cancel: CancellationToken,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions {
            batch_rows: 8_192,
            remove_null_bytes: false,
            large_record_bytes: u64::MAX,
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
    let reading = Reading {
        spec,
        split,
        projection,
        policy,
        options,
        handle,
    };
    reading.run(&mut Position::default(), counters, warnings, emit)
}

/// How far a reader is.
#[derive(Debug, Default, Clone, Copy)]
struct Position {
    /// Records that became rows.
    records: u64,
    lines: u64,
}

/// What to read, and how.
#[derive(Clone, Copy)]
struct Reading<'a> {
    spec: &'a ExternSpec,
    split: &'a Split,
    projection: &'a [usize],
    policy: &'a Policy,
    options: &'a ReadOptions,
    handle: &'a Handle,
}

impl Reading<'_> {
    fn run(
        &self,
        position: &mut Position,
        counters: &ReadCounters,
        warnings: &dyn WarningSink,
        emit: &mut dyn FnMut(RecordBatch) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let Reading {
            spec,
            projection,
            options,
            ..
        } = *self;
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
            reading: self,
            names: projection
                .iter()
                .filter_map(|index| Some(spec.signature().get(*index)?.0.clone()))
                .collect(),
            schema: Arc::new(schema),
            columns,
            pending: 0,
            pending_bytes: 0,
            batch_rows: options.batch_rows.max(1),
            largest: options.large_record_bytes,
            position,
            before: OnceCell::new(),
            path: path_text(self.split),
            counters,
            warnings,
            emit,
        };
        std::thread::scope(|scope| {
            let broken = |error| self.broken(&error);
            let mut lines = Lines::new(self.blocks(scope)?);
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
                    if !self.split.begins_file() {
                        table.skip = 0;
                        table.columns(&rows.names, self.header(format)?);
                    } else if !format.header {
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

    fn broken(&self, error: &std::io::Error) -> Fault {
        let path = path_text(self.split).unwrap_or_else(|| "inline data".to_owned());
        if error.kind() == std::io::ErrorKind::FileTooLarge {
            let mut fault = Fault::row_too_large(LINE_BYTES_MAX as u64);
            fault.message = format!("{path} has a line of more than {LINE_BYTES_MAX} bytes.");
            return fault;
        }
        Fault::cannot_parse(format!("cannot read {path}: {error}"))
    }

    fn blocks<'scope>(&self, scope: &'scope Scope<'scope, '_>) -> Result<Blocks<'scope>, Fault> {
        let (reader, compression) = match self.split {
            Split::Inline => match &self.spec.source {
                Source::Inline { data } => return Ok(Blocks::text(data.clone())),
                _ => return Err(Fault::unknown("an inline split of a source that is not inline")),
            },
            Split::File { path, range, .. } => {
                // Checked again: a worker may be another process, and links may have changed.
                let real = self.policy.local(path)?;
                let compression = Compression::of(&path.to_string_lossy());
                let reader = match range {
                    Some(range) => ranges::reader(&real, *range, compression),
                    None => File::open(&real).and_then(|file| compression.reader(file)),
                };
                (reader, compression)
            }
            Split::Http { uri } => {
                let credentials = match &self.spec.source {
                    Source::Http {
                        user: Some(user),
                        password,
                        ..
                    } => Some((user.as_str(), password.as_deref())),
                    _ => None,
                };
                let file = fetch::download(uri, credentials, self.policy, &self.options.cancel, self.handle)?;
                let name = url::Url::parse(uri)
                    .map(|url| url.path().to_owned())
                    .unwrap_or_default();
                let compression = Compression::of(&name);
                (compression.reader(file), compression)
            }
        };
        let reader = reader.map_err(|error| self.broken(&error))?;
        Ok(Blocks::file(reader, compression, scope))
    }

    /// Columns of the file of which a later piece is read.
    fn header(&self, format: &Delimited) -> Result<Vec<String>, Fault> {
        let Split::File { path, .. } = self.split else {
            return Err(Fault::unknown("a piece of something that is not a file"));
        };
        let real = self.policy.local(path)?;
        let compression = Compression::of(&path.to_string_lossy());
        let header = File::open(&real)
            .and_then(|file| compression.reader(file))
            .and_then(|mut reader| header::read(reader.as_mut(), format))
            .map_err(|error| self.broken(&error))?;
        match header {
            Some(header) => Ok(header.names),
            None => Err(Fault::cannot_parse(format!(
                "file:{} has changed while it was being read: its header is gone",
                path.display()
            ))),
        }
    }

    /// Lines and records of the file before this piece of it. Reads all of them.
    fn before(&self) -> Position {
        let mut position = Position::default();
        if let Split::File {
            path,
            range: Some(range),
            ..
        } = self.split
            && range.start > 0
        {
            let split = Split::File {
                path: path.clone(),
                size: range.start,
                range: Some(ByteRange {
                    start: 0,
                    end: Some(range.start),
                }),
            };
            let reading = Reading {
                split: &split,
                ..*self
            };
            let mut emit = |_| match self.options.cancel.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            // A fault there is for those who read that piece; up to it the numbers are right.
            let _reported = reading.run(&mut position, &ReadCounters::default(), &Unheard, &mut emit);
        }
        position
    }
}

/// The beginning of a line.
fn quoted(line: &str) -> &str {
    &line[..line.floor_char_boundary(QUOTED_BYTES)]
}

fn path_text(split: &Split) -> Option<String> {
    match split {
        Split::Inline => None,
        Split::File { path, .. } => Some(format!("file:{}", path.display())),
        Split::Http { uri } => Some(uri.clone()),
    }
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
    reading: &'a Reading<'a>,
    names: Vec<String>,
    schema: SchemaRef,
    columns: Vec<Column>,
    pending: usize,
    pending_bytes: usize,
    batch_rows: usize,
    largest: u64,
    position: &'a mut Position,
    /// Position in the file where this split begins, if it was needed.
    before: OnceCell<Position>,
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
            self.position.lines += 1;
            at = next;
            if line.trim().is_empty() {
                continue;
            }
            let mut from = 0;
            // Objects may follow each other on a line.
            loop {
                match scanner.record(line, from, &mut values) {
                    Ok(end) => {
                        if !self.row(&values, line, end - from)? {
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
            self.position.lines += 1;
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
                    .map_err(|reason| Fault::cannot_parse(format!("{reason}{}", self.place())))?;
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
            if !self.row(&values, line, line.len())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn without_mark<'t>(&self, text: &'t str) -> &'t str {
        if self.position.lines == 0 && self.reading.split.begins_file() {
            text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
        } else {
            text
        }
    }

    /// `bytes`: size of the record as text.
    fn row(&mut self, values: &[Value<'_>], line: &str, bytes: usize) -> Result<bool, Fault> {
        if bytes as u64 > self.largest {
            self.largest = bytes as u64;
            self.warnings.large_record(self.largest, &|| self.place());
        }
        for (column, value) in self.columns.iter().zip(values) {
            if let Err(BadTime(text)) = column.check(*value) {
                self.warnings.parse_error(&|| {
                    format!(
                        "Timestamp[{text}] is unparseable! Event: {}{}",
                        quoted(line),
                        self.place()
                    )
                })?;
                return Ok(true);
            }
        }
        for (index, value) in values.iter().enumerate() {
            if let Some(column) = self.columns.get_mut(index)
                && let Err(NullByte) = column.push(*value)
            {
                return Err(self.null_byte(index));
            }
        }
        self.position.records += 1;
        self.pending += 1;
        self.pending_bytes += bytes;
        if self.pending < self.batch_rows && self.pending_bytes < BATCH_BYTES {
            Ok(true)
        } else {
            self.flush()
        }
    }

    fn bad_line(&self, line: &str) -> Result<(), Fault> {
        self.warnings
            .parse_error(&|| format!("Unable to parse row [{}]{}", quoted(line), self.place()))
    }

    fn null_byte(&self, column: usize) -> Fault {
        let source = self.path.as_deref().unwrap_or("inline");
        let record = self.before().records + self.position.records + 1;
        let name = self.names.get(column).map(String::as_str);
        Fault::invalid_null_byte(Some(source), Some(record), name, None, None)
    }

    fn before(&self) -> Position {
        *self.before.get_or_init(|| self.reading.before())
    }

    /// Where the current line stands: " (Path: …, Record: …, Line: …)". The record is the next good one.
    fn place(&self) -> String {
        let before = self.before();
        let record = before.records + self.position.records + 1;
        let line = before.lines + self.position.lines;
        match &self.path {
            Some(path) => format!(" (Path: {path}, Record: {record}, Line: {line})"),
            None => format!(" (Record: {record}, Line: {line})"),
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
        self.pending_bytes = 0;
        Ok((self.emit)(batch).is_continue())
    }
}
