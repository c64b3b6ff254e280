//! The columns of external data, from a sample.

use std::fs::File;
use std::io::Read;

use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value as Json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use trilith_proto::column::ColumnType;
use trilith_proto::fault::Fault;

use crate::blocks::Compression;
use crate::delimited;
use crate::flatten::Flatten;
use crate::format::{Delimited, Format, LINE_COLUMN};
use crate::json;
use crate::json_value;
use crate::lenient::Features;
use crate::parquet_value::Reader;
use crate::policy::Policy;
use crate::read::{ReadOptions, Reading};
use crate::rows::BYTE_ORDER_MARK;
use crate::source::{Source, SystemField};
use crate::spec::{ExternSpec, SpecError};
use crate::splits::{Split, list_splits};

/// Files that are looked into.
const SAMPLE_FILES: usize = 4;
/// Bytes of text that are looked at in each.
const SAMPLE_BYTES: u64 = 4 << 20;
/// Records that are looked at in each.
const SAMPLE_RECORDS: usize = 1_000;

/// Columns that a sample has.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// In the order in which they appear first.
    pub columns: Vec<(String, ColumnType)>,
    /// Records that were looked at.
    pub records: u64,
}

/// Why there are no columns.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InferError {
    /// The source or the format is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] Fault),
}

/// Reads the first records of a source and says which columns they have. Blocking; call it off the async threads.
pub fn infer(source: &Json, format: &Json, policy: &Policy, handle: &Handle) -> Result<Inferred, InferError> {
    // The name stands for the columns that are not known yet.
    let unknown = [("?".to_owned(), ColumnType::String)];
    let spec = ExternSpec::parse(source, format, &unknown)?;
    let splits = handle.block_on(list_splits(&spec, policy))?;
    let mut sample = Sample::default();
    let options = ReadOptions {
        cancel: CancellationToken::new(),
        ..ReadOptions::default()
    };
    for split in splits.iter().take(SAMPLE_FILES) {
        let (spec, split) = split.resolved(&spec)?;
        let reading = Reading {
            spec: &spec,
            split,
            projection: &[],
            policy,
            options: &options,
            handle,
        };
        match &spec.format {
            Format::Parquet {
                flatten,
                binary_as_string,
            } => sample.parquet(reading.file()?.0, flatten, *binary_as_string, split)?,
            format => {
                let text = sample_text(&reading, &spec)?;
                sample.text(format, &text);
            }
        }
    }
    for field in spec.source.system_fields() {
        if let Some((name, _)) = SystemField::ALL.iter().find(|(_, known)| *known == field) {
            sample.note(name, Kind::Text);
        }
    }
    if sample.columns.is_empty() {
        let message = "EXTERN without a signature: a sample of the data has no columns; add a signature or EXTEND (<column> <type>, ...)";
        return Err(Fault::cannot_parse(message).into());
    }
    Ok(Inferred {
        columns: sample
            .columns
            .into_iter()
            .map(|(name, kind)| typed(name, &kind))
            .collect(),
        records: sample.records,
    })
}

/// The beginning of a split's text, in whole lines.
fn sample_text(reading: &Reading<'_>, spec: &ExternSpec) -> Result<String, Fault> {
    let reader: Box<dyn Read + Send> = match (reading.split, &spec.source) {
        (Split::Inline, Source::Inline { data }) => return Ok(data.clone()),
        (Split::Http { uri }, _) => {
            let file = reading.download(uri, Some(SAMPLE_BYTES))?;
            let name = url::Url::parse(uri)
                .map(|url| url.path().to_owned())
                .unwrap_or_default();
            Compression::of(&name)
                .reader(file)
                .map_err(|error| reading.broken(&error))?
        }
        (Split::File { path, .. }, _) => {
            let (file, _) = reading.file()?;
            let compression = Compression::of(&path.to_string_lossy());
            compression.reader(file).map_err(|error| reading.broken(&error))?
        }
        (Split::Inline | Split::Delegate { .. }, _) => {
            return Err(Fault::unknown("an inline split of a source that is not inline"));
        }
    };
    let mut bytes = Vec::new();
    let read = reader.take(SAMPLE_BYTES).read_to_end(&mut bytes);
    match (read, bytes.is_empty()) {
        // A download that was cut off ends within its compression.
        (Err(error), true) => return Err(reading.broken(&error)),
        (Err(_), false) => {}
        (Ok(read), _) if (read as u64) < SAMPLE_BYTES => {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        (Ok(_), _) => {}
    }
    let end = memchr::memrchr(b'\n', &bytes).map_or(bytes.len(), |last| last + 1);
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// What the values of a column are.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Nothing but null so far.
    Unknown,
    Long,
    Double,
    Float,
    Text,
    List(Box<Kind>),
    Json,
}

impl Kind {
    fn of(value: &Json) -> Kind {
        match value {
            Json::Null => Kind::Unknown,
            Json::Bool(_) => Kind::Long,
            Json::Number(number) if number.is_i64() => Kind::Long,
            Json::Number(_) => Kind::Double,
            Json::String(_) => Kind::Text,
            Json::Object(_) => Kind::Json,
            Json::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => Kind::Json,
            Json::Array(items) => {
                let kinds = items.iter().map(Kind::of);
                Kind::List(Box::new(kinds.fold(Kind::Unknown, Kind::with)))
            }
        }
    }

    /// What a text is that has no other type. Zeros in front are kept, so that is no number.
    fn of_cell(text: &str) -> Kind {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.split(['.', 'e', 'E']).next().unwrap_or_default();
        let padded = whole.len() > 1 && whole.starts_with('0');
        if padded || !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return Kind::Text;
        }
        match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(_), _) => Kind::Long,
            (_, Ok(number)) if number.is_finite() => Kind::Double,
            _ => Kind::Text,
        }
    }

    /// What holds both.
    fn with(self, other: Kind) -> Kind {
        match (self, other) {
            (Kind::Unknown, kind) | (kind, Kind::Unknown) => kind,
            (Kind::Json, _) | (_, Kind::Json) => Kind::Json,
            (Kind::List(one), Kind::List(other)) => Kind::List(Box::new(one.with(*other))),
            (Kind::List(item), scalar) | (scalar, Kind::List(item)) => {
                Kind::List(Box::new(item.with(scalar)))
            }
            (one, other) if one == other => one,
            (Kind::Text, _) | (_, Kind::Text) => Kind::Text,
            _ => Kind::Double,
        }
    }

    fn column_type(&self) -> ColumnType {
        match self {
            Kind::Unknown | Kind::Text => ColumnType::String,
            Kind::Long => ColumnType::Long,
            Kind::Double => ColumnType::Double,
            Kind::Float => ColumnType::Float,
            Kind::List(item) => ColumnType::Array(Box::new(item.column_type())),
            Kind::Json => ColumnType::Complex("json".to_owned()),
        }
    }
}

fn typed(name: String, kind: &Kind) -> (String, ColumnType) {
    // The reader makes milliseconds of it, whatever it is.
    let column_type = match name.as_str() {
        "__time" => ColumnType::Long,
        _ => kind.column_type(),
    };
    (name, column_type)
}

#[derive(Default)]
struct Sample {
    columns: Vec<(String, Kind)>,
    records: u64,
}

impl Sample {
    fn note(&mut self, name: &str, kind: Kind) {
        match self.columns.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = std::mem::replace(known, Kind::Unknown).with(kind),
            None => self.columns.push((name.to_owned(), kind)),
        }
    }

    fn text(&mut self, format: &Format, text: &str) {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let lines = Lines { text, at: 0 };
        match format {
            Format::Json { flatten, features } => {
                let lines = lines.filter(|line| !line.trim().is_empty());
                lines
                    .take(SAMPLE_RECORDS)
                    .for_each(|line| self.json(line, flatten, *features));
            }
            Format::Delimited(format) => self.cells(format, lines),
            Format::Regex(format) => {
                for line in lines.take(SAMPLE_RECORDS) {
                    let Ok(Some(found)) = format.pattern.captures(line) else {
                        continue;
                    };
                    self.records += 1;
                    for (index, name) in format.columns.iter().enumerate() {
                        let kind = found.get(index + 1).map_or(Kind::Unknown, Kind::of_cell);
                        self.note(name, kind);
                    }
                }
            }
            Format::Lines | Format::Parquet { .. } => {
                self.records += lines.take(SAMPLE_RECORDS).count() as u64;
                self.note(LINE_COLUMN, Kind::Text);
            }
        }
    }

    fn json(&mut self, line: &str, flatten: &Flatten, features: Features) {
        let strict = match features.is_strict() {
            true => Some(line.to_owned()),
            false => features.strict(line),
        };
        // Only the first value of the line counts.
        let Some(record) = strict.and_then(|text| json_value::read(&text)) else {
            return;
        };
        self.records += 1;
        if let (true, Json::Object(fields)) = (flatten.discovery, &record) {
            for (name, value) in fields {
                if flatten.names().all(|field| field != name) {
                    self.note(name, Kind::of(value));
                }
            }
        }
        self.deeper(flatten, &record);
    }

    /// Columns of flattenSpec.
    fn deeper(&mut self, flatten: &Flatten, record: &Json) {
        for name in flatten.names() {
            let value = flatten.column(name).evaluate(record);
            self.note(name, value.as_ref().map_or(Kind::Unknown, Kind::of));
        }
    }

    fn cells(&mut self, format: &Delimited, lines: Lines<'_>) {
        let mut names = match format.header {
            true => None,
            false => format.columns.clone(),
        };
        for line in lines.skip(format.skip_rows).take(SAMPLE_RECORDS + 1) {
            let Ok(cells) = delimited::cells(line, format) else {
                continue;
            };
            if line.is_empty() {
                continue;
            }
            let Some(names) = &names else {
                let header = delimited::header(cells).unwrap_or_default();
                header.iter().for_each(|name| self.note(name, Kind::Unknown));
                names = Some(header);
                continue;
            };
            self.records += 1;
            for (index, name) in names.iter().enumerate() {
                let kind = match cells.get(index) {
                    Some(Some(cell)) => Kind::of_cell(cell),
                    _ => Kind::Unknown,
                };
                self.note(name, kind);
            }
        }
    }

    fn parquet(
        &mut self,
        file: File,
        flatten: &Flatten,
        binary_as_string: bool,
        split: &Split,
    ) -> Result<(), Fault> {
        let broken = || Fault::cannot_parse(format!("cannot read {} as Parquet", split.name()));
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(|_| broken())?;
        if flatten.discovery {
            for field in builder.schema().fields() {
                if flatten.names().all(|name| name != field.name()) {
                    self.note(field.name(), of_parquet(field.data_type()));
                }
            }
        }
        let batch = builder
            .with_batch_size(SAMPLE_RECORDS)
            .with_limit(SAMPLE_RECORDS)
            .build()
            .map_err(|_| broken())?
            .next();
        let Some(batch) = batch else { return Ok(()) };
        let batch = batch.map_err(|_| broken())?;
        let schema = batch.schema();
        let values = Reader {
            binary_as_string,
            floats_as_text: false,
        };
        for row in 0..batch.num_rows() {
            self.records += 1;
            if flatten.names().next().is_some() {
                let fields = schema.fields().iter().zip(batch.columns());
                let fields = fields.map(|(field, array)| (field.name().clone(), values.json(array, row)));
                let record = Json::Object(fields.collect::<Map<_, _>>());
                self.deeper(flatten, &record);
            }
        }
        Ok(())
    }
}

fn of_parquet(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Float32 => Kind::Float,
        DataType::Float16 | DataType::Float64 => Kind::Double,
        data_type if data_type.is_decimal() => Kind::Double,
        data_type if data_type.is_integer() || *data_type == DataType::Boolean => Kind::Long,
        DataType::Interval(_) => Kind::Text,
        data_type if data_type.is_temporal() => Kind::Long,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            match of_parquet(item.data_type()) {
                Kind::Json | Kind::List(_) => Kind::Json,
                item => Kind::List(Box::new(item)),
            }
        }
        DataType::Struct(_) | DataType::Map(..) => Kind::Json,
        _ => Kind::Text,
    }
}

struct Lines<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Iterator for Lines<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.at >= self.text.len() {
            return None;
        }
        let (line, next) = json::line(self.text, self.at);
        self.at = next;
        Some(line)
    }
}
