//! Reads one split into batches.

use std::cell::OnceCell;
use std::fs::File;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Scope;

use arrow::record_batch::RecordBatch;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use trilith_proto::fault::Fault;

use crate::blocks::{Blocks, Compression, LINE_BYTES_MAX, Lines};
use crate::columns::Column;
use crate::fetch;
use crate::format::{Delimited, Format};
use crate::header;
use crate::json::Scanner;
use crate::json_columns::JsonColumns;
use crate::parquet_file;
use crate::policy::Policy;
use crate::quality::Unconverted;
use crate::ranges::{self, ByteRange};
use crate::rows::{self, Rows, SystemValue, Table};
use crate::source::{Source, SystemField};
use crate::spec::ExternSpec;
use crate::splits::Split;

/// Told of every record that cannot be parsed.
pub trait WarningSink: Send + Sync {
    /// Counts a parse error; an error means stop now. `message` is dear to make in the middle of a file: the
    /// numbers of line and record are counted from its beginning.
    fn parse_error(&self, message: &dyn Fn() -> String) -> Result<(), Fault>;

    /// Hears of each record that is larger than all before it, beyond `ReadOptions::large_record_bytes`.
    fn large_record(&self, _bytes: u64, _place: &dyn Fn() -> String) {}

    /// Hears of each value that became null because it does not convert to the type of its column.
    fn unconverted(&self, _column: &str, _example: &dyn Fn() -> Unconverted) {}
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
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
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
    let (spec, split) = split.resolved(spec)?;
    let reading = Reading {
        spec: &spec,
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
pub(crate) struct Position {
    /// Records that became rows.
    pub records: u64,
    pub lines: u64,
}

/// What to read, and how.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub spec: &'a ExternSpec,
    pub split: &'a Split,
    pub projection: &'a [usize],
    pub policy: &'a Policy,
    pub options: &'a ReadOptions,
    pub handle: &'a Handle,
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
        let names: Vec<String> = projection
            .iter()
            .filter_map(|index| Some(spec.signature().get(*index)?.0.clone()))
            .collect();
        let (fields, time) = rows::fields(&names);
        let mut rows = Rows {
            reading: self,
            names,
            fields,
            time,
            types: projection
                .iter()
                .filter_map(|index| Some(spec.signature().get(*index)?.1.clone()))
                .collect(),
            schema: Arc::new(schema),
            columns,
            system: self.system_values(),
            pending: 0,
            pending_bytes: 0,
            batch_rows: options.batch_rows.max(1),
            largest: options.large_record_bytes,
            position,
            before: OnceCell::new(),
            path: self.split.uri(),
            counters,
            warnings,
            emit,
        };
        if let Format::Parquet {
            flatten,
            binary_as_string,
        } = &spec.format
        {
            let (file, size) = self.file()?;
            return parquet_file::read(&mut rows, file, size, flatten, *binary_as_string);
        }
        std::thread::scope(|scope| {
            let broken = |error| self.broken(&error);
            let mut lines = Lines::new(self.blocks(scope)?);
            let more = match &spec.format {
                Format::Json { flatten, features } => {
                    let places = JsonColumns::new(&rows.fields, flatten);
                    let mut scanner = Scanner::new(places.fields());
                    let read =
                        |block: &[u8], bytes| rows.json(&places, *features, &mut scanner, block, bytes);
                    lines.for_each(read, broken)?
                }
                Format::Delimited(format) => {
                    let mut table = Table {
                        format,
                        cells: None,
                        skip: format.skip_rows,
                    };
                    if !self.split.begins_file() {
                        table.skip = 0;
                        table.columns(&rows.fields, &self.header(format)?);
                    } else if !format.header {
                        table.columns(&rows.fields, format.columns.as_deref().unwrap_or_default());
                    }
                    lines.for_each(|block, bytes| rows.delimited(&mut table, block, bytes), broken)?
                }
                Format::Regex(format) => {
                    // Group 0 is the whole line.
                    let place =
                        |name: &String| Some(format.columns.iter().position(|other| other == name)? + 1);
                    let places: Vec<Option<usize>> = rows.fields.iter().map(place).collect();
                    lines.for_each(|block, bytes| rows.groups(format, &places, block, bytes), broken)?
                }
                // Parquet was read before: its files have no lines.
                Format::Lines | Format::Parquet { .. } => {
                    lines.for_each(|block, bytes| rows.lines(block, bytes), broken)?
                }
            };
            if more {
                rows.flush()?;
            }
            Ok(())
        })
    }

    /// What the reader itself puts into the projected columns; empty if there is none such.
    fn system_values(&self) -> Vec<Option<SystemValue>> {
        let wanted = self.spec.source.system_fields();
        if wanted.is_empty() {
            return Vec::new();
        }
        let value = |index: &usize| {
            let (name, _) = self.spec.signature().get(*index)?;
            let field = SystemField::of(name).filter(|field| wanted.contains(field))?;
            Some(match (field, self.split) {
                (SystemField::Bucket, _) | (_, Split::Inline | Split::Delegate { .. }) => None,
                (SystemField::Uri, split) => split.uri(),
                (SystemField::Path, Split::File { path, .. }) => Some(path.display().to_string()),
                (SystemField::Path, Split::Http { uri }) => {
                    url::Url::parse(uri).ok().map(|url| url.path().to_owned())
                }
            })
        };
        self.projection.iter().map(value).collect()
    }

    /// The split as a file, which can be read in any order, and its size.
    pub(crate) fn file(&self) -> Result<(File, u64), Fault> {
        let file = match self.split {
            Split::Inline | Split::Delegate { .. } => {
                return Err(Fault::unknown("inline data cannot be read as a file"));
            }
            Split::File { path, .. } => {
                // Checked again: a worker may be another process, and links may have changed.
                let real = self.policy.local(path)?;
                File::open(&real).map_err(|error| self.broken(&error))?
            }
            Split::Http { uri } => self.download(uri, None)?,
        };
        let size = file.metadata().map_err(|error| self.broken(&error))?.len();
        Ok((file, size))
    }

    /// `most`: bytes that are enough.
    pub(crate) fn download(&self, uri: &str, most: Option<u64>) -> Result<File, Fault> {
        let request = match &self.spec.source {
            Source::Http {
                user,
                password,
                headers,
                ..
            } => fetch::Request {
                uri,
                credentials: user.as_deref().map(|user| (user, password.as_deref())),
                headers,
                most,
            },
            _ => fetch::Request {
                uri,
                credentials: None,
                headers: &[],
                most,
            },
        };
        fetch::download(request, self.policy, &self.options.cancel, self.handle)
    }

    pub(crate) fn broken(&self, error: &std::io::Error) -> Fault {
        let path = self.split.name();
        if error.kind() == std::io::ErrorKind::FileTooLarge {
            let mut fault = Fault::row_too_large(LINE_BYTES_MAX as u64);
            fault.message = format!("{path} has a line of more than {LINE_BYTES_MAX} bytes.");
            return fault;
        }
        Fault::cannot_parse(format!("cannot read {path}: {error}"))
    }

    fn blocks<'scope>(&self, scope: &'scope Scope<'scope, '_>) -> Result<Blocks<'scope>, Fault> {
        let (reader, compression) = match self.split {
            Split::Inline | Split::Delegate { .. } => match &self.spec.source {
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
                let file = self.download(uri, None)?;
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
    pub(crate) fn before(&self) -> Position {
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
