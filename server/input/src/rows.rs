//! Records of text on their way into columns.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use trilith_proto::column::ColumnType;
use trilith_proto::fault::Fault;

use crate::columns::{Column, NullByte, Value};
use crate::delimited;
use crate::format::{Delimited, Groups, LINE_COLUMN};
use crate::json::{self, Scanner};
use crate::json_columns::JsonColumns;
use crate::lenient::Features;
use crate::quality::Unconverted;
use crate::read::{Position, ReadCounters, Reading, WarningSink};
use crate::time::{BadTime, TIME_FIELD, time_ms};

/// Bytes of text of a batch: records may be large.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a line that a message quotes.
const QUOTED_BYTES: usize = 4 * 1024;
pub(crate) const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The beginning of a line.
fn quoted(line: &str) -> &str {
    &line[..line.floor_char_boundary(QUOTED_BYTES)]
}

/// Where the cells of a delimited file go.
pub(crate) struct Table<'f> {
    pub format: &'f Delimited,
    /// For each field that is looked for, its cell; none until the header is read.
    pub cells: Option<Vec<Option<usize>>>,
    pub skip: usize,
}

impl Table<'_> {
    pub(crate) fn columns(&mut self, fields: &[String], found: &[String]) {
        let place = |name: &String| found.iter().position(|other| other == name);
        self.cells = Some(fields.iter().map(place).collect());
    }
}

pub(crate) struct Rows<'a> {
    pub reading: &'a Reading<'a>,
    pub names: Vec<String>,
    /// What a record of text is searched for: the columns, and `__time` after them if it is none of them. A record
    /// whose time cannot be read is bad even if nobody wants the time.
    pub fields: Vec<String>,
    /// Number of `__time` among the fields.
    pub time: usize,
    pub types: Vec<ColumnType>,
    pub schema: SchemaRef,
    pub columns: Vec<Column>,
    /// For each projected column, what the reader itself puts into it. Empty if there is none such.
    pub system: Vec<Option<SystemValue>>,
    pub pending: usize,
    pub pending_bytes: usize,
    pub batch_rows: usize,
    pub largest: u64,
    pub position: &'a mut Position,
    /// Position in the file where this split begins, if it was needed.
    pub before: OnceCell<Position>,
    pub path: Option<String>,
    pub counters: &'a ReadCounters,
    pub warnings: &'a dyn WarningSink,
    pub emit: &'a mut dyn FnMut(RecordBatch) -> ControlFlow<()>,
}

/// A block as text. Almost all are UTF-8, which the vectors of the CPU find out several times as fast; what is not
/// becomes U+FFFD.
fn text_of(block: &[u8]) -> Cow<'_, str> {
    match simdutf8::basic::from_utf8(block) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(block),
    }
}

/// The columns of a statement as the fields of a record, and the number of the time among them.
pub(crate) fn fields(columns: &[String]) -> (Vec<String>, usize) {
    let mut fields = columns.to_vec();
    let time = fields
        .iter()
        .position(|name| name == TIME_FIELD)
        .unwrap_or_else(|| {
            fields.push(TIME_FIELD.to_owned());
            fields.len() - 1
        });
    (fields, time)
}

/// A system field of a file; null where it has none.
pub(crate) type SystemValue = Option<String>;

impl Rows<'_> {
    pub(crate) fn json(
        &mut self,
        places: &JsonColumns,
        features: Features,
        scanner: &mut Scanner,
        block: &[u8],
        bytes: u64,
    ) -> Result<bool, Fault> {
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        let lossy = text_of(block);
        let text = self.without_mark(&lossy);
        let mut values = vec![Value::Null; places.slots()];
        let mut at = 0;
        while at < text.len() {
            let (line, next) = json::line(text, at);
            self.position.lines += 1;
            at = next;
            if line.trim().is_empty() {
                continue;
            }
            if !features.is_strict() {
                match features.strict(line) {
                    Some(strict) => {
                        let mut values = vec![Value::Null; places.slots()];
                        if !self.json_record(places, scanner, &strict, &mut values)? {
                            return Ok(false);
                        }
                    }
                    None => self.bad_line(line)?,
                }
                continue;
            }
            if !self.json_record(places, scanner, line, &mut values)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The one value at the beginning of a line; what follows it counts for nothing.
    fn json_record<'t>(
        &mut self,
        places: &JsonColumns,
        scanner: &mut Scanner,
        line: &'t str,
        values: &mut [Value<'t>],
    ) -> Result<bool, Fault> {
        let Ok(end) = scanner.record(line, 0, values) else {
            self.bad_line(line)?;
            return Ok(true);
        };
        if places.are_fields() {
            return self.row(values, line, end);
        }
        let mut scratch = Vec::new();
        match places.evaluate(&line[..end], values, &mut scratch) {
            Some(values) => self.row(&values, line, end),
            None => self.bad_line(line).map(|()| true),
        }
    }

    /// Lines of a format that has one row for each.
    fn each_line(
        &mut self,
        block: &[u8],
        bytes: u64,
        mut each: impl FnMut(&mut Self, &str) -> Result<bool, Fault>,
    ) -> Result<bool, Fault> {
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        let lossy = text_of(block);
        let text = self.without_mark(&lossy);
        let mut at = 0;
        while at < text.len() {
            let (line, next) = json::line(text, at);
            self.position.lines += 1;
            at = next;
            if !each(self, line)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn lines(&mut self, block: &[u8], bytes: u64) -> Result<bool, Fault> {
        let is_line: Vec<bool> = self.names.iter().map(|name| name == LINE_COLUMN).collect();
        self.each_line(block, bytes, |rows, line| {
            let value = |is_line: &bool| if *is_line { Value::Text(line) } else { Value::Null };
            let values: Vec<Value<'_>> = is_line.iter().map(value).collect();
            rows.row(&values, line, line.len())
        })
    }

    /// `places[i]`: group of the pattern for field `i`.
    pub(crate) fn groups(
        &mut self,
        format: &Groups,
        places: &[Option<usize>],
        block: &[u8],
        bytes: u64,
    ) -> Result<bool, Fault> {
        let mut scratch = vec![String::new(); places.len()];
        self.each_line(block, bytes, |rows, line| {
            let found = format.pattern.captures(line);
            let Ok(Some(found)) = found else {
                let why = match found {
                    Err(why) => why.to_string(),
                    Ok(_) => format!("it does not match the pattern [{}]", format.written),
                };
                rows.warnings.parse_error(&|| {
                    format!("Unable to parse row [{}]: {why}{}", quoted(line), rows.place())
                })?;
                return Ok(true);
            };
            let values: Vec<Value<'_>> = places
                .iter()
                .zip(scratch.iter_mut())
                .map(
                    |(place, scratch)| match place.and_then(|group| found.get(group)) {
                        Some(text) => delimited::cell_value(text, &format.list_delimiter, false, scratch),
                        None => Value::Null,
                    },
                )
                .collect();
            rows.row(&values, line, line.len())
        })
    }

    pub(crate) fn delimited(
        &mut self,
        table: &mut Table<'_>,
        block: &[u8],
        bytes: u64,
    ) -> Result<bool, Fault> {
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        let lossy = text_of(block);
        let text = self.without_mark(&lossy);
        let mut at = 0;
        let mut scratch = vec![String::new(); self.fields.len()];
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
                table.columns(&self.fields, &names);
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

    /// `values`: one for each field. `bytes`: size of the record as text.
    pub(crate) fn row(&mut self, values: &[Value<'_>], line: &str, bytes: usize) -> Result<bool, Fault> {
        if bytes as u64 > self.largest {
            self.largest = bytes as u64;
            self.warnings.large_record(self.largest, &|| self.place());
        }
        if let Some(value) = values.get(self.time)
            && let Err(BadTime(text)) = time_ms(*value)
        {
            self.warnings.parse_error(&|| {
                format!(
                    "Timestamp[{text}] is unparseable! Event: {}{}",
                    quoted(line),
                    self.place()
                )
            })?;
            return Ok(true);
        }
        for (index, value) in values.iter().enumerate() {
            if let Some(column) = self.columns.get_mut(index) {
                let value = match self.system.get(index) {
                    Some(Some(Some(text))) => Value::Text(text),
                    Some(Some(None)) => Value::Null,
                    _ => *value,
                };
                match column.push(value) {
                    Ok(true) => {}
                    Ok(false) => self.unconverted(index, value),
                    Err(found) => return Err(self.null_byte(index, &found)),
                }
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

    /// A value of the record that is read became null.
    pub(crate) fn unconverted(&self, column: usize, value: Value<'_>) {
        let Some(name) = self.names.get(column) else {
            return;
        };
        self.warnings.unconverted(name, &|| Unconverted {
            file: self.path.clone(),
            record: self.record(),
            value: Unconverted::shortened(&value.shown()),
        });
    }

    /// Number of the record that is read, in its file. None in a later piece of a file whose earlier records nobody
    /// has counted.
    fn record(&self) -> Option<u64> {
        let before = match self.reading.split.begins_file() {
            true => Some(0),
            false => self.before.get().map(|before| before.records),
        };
        before.map(|before| before + self.position.records + 1)
    }

    fn bad_line(&self, line: &str) -> Result<(), Fault> {
        self.warnings
            .parse_error(&|| format!("Unable to parse row [{}]{}", quoted(line), self.place()))
    }

    pub(crate) fn null_byte(&self, column: usize, found: &NullByte) -> Fault {
        let source = self.path.as_deref().unwrap_or("inline");
        let record = self.before().records + self.position.records + 1;
        let name = self.names.get(column).map(String::as_str);
        let value = quoted(&found.value);
        Fault::invalid_null_byte(
            Some(source),
            Some(record),
            name,
            Some(value),
            Some(found.position as u64),
        )
    }

    fn before(&self) -> Position {
        *self.before.get_or_init(|| self.reading.before())
    }

    /// Where the current record stands: " (Path: …, Record: …, Line: …)". The record is the next good one.
    pub(crate) fn place(&self) -> String {
        let before = self.before();
        let record = before.records + self.position.records + 1;
        let path = match &self.path {
            Some(path) => format!("Path: {path}, "),
            None => String::new(),
        };
        // A binary file has no lines.
        match before.lines + self.position.lines {
            0 => format!(" ({path}Record: {record})"),
            line => format!(" ({path}Record: {record}, Line: {line})"),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<bool, Fault> {
        if self.pending == 0 {
            return Ok(true);
        }
        let arrays = self.columns.iter_mut().map(Column::finish).collect();
        let rows = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.send(arrays, rows)
    }

    /// Hands on a batch of finished columns.
    pub(crate) fn send(&mut self, arrays: Vec<ArrayRef>, rows: usize) -> Result<bool, Fault> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|error| Fault::unknown(format!("rows of EXTERN: {error}")))?;
        self.counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        Ok((self.emit)(batch).is_continue())
    }
}
