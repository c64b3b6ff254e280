//! Parquet files: columns are converted whole where Arrow's types allow it, value by value elsewhere.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{
    DataType, Date32Type, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value as Json};
use trilith_proto::column::ColumnType;
use trilith_proto::fault::Fault;

use crate::columns::{Column, Value};
use crate::flatten::{Expression, Flatten};
use crate::json_columns::written;
use crate::parquet_value::{Reader, is_text};
use crate::rows::Rows;
use crate::time::{BadTime, TIME_FIELD, time_ms};

const MS_PER_DAY: i64 = 86_400_000;

/// Where a column of the statement is in the batches that are read.
enum Place {
    /// A column of the file.
    Field(usize),
    /// Below one, or made of several.
    Deeper(Expression),
    /// The file does not have it, or the reader fills it in.
    Nowhere,
}

/// Reads a file of `size` bytes. Stops when nobody wants more rows.
pub(crate) fn read(
    rows: &mut Rows<'_>,
    file: File,
    size: u64,
    flatten: &Flatten,
    binary_as_string: bool,
) -> Result<(), Fault> {
    let path = rows.path.clone().unwrap_or_default();
    let broken = |error: &dyn std::fmt::Display| {
        Fault::cannot_parse(format!(
            "cannot read {path} as Parquet: {}",
            plain(&error.to_string())
        ))
    };
    // The types of the file itself, whatever the writer had in memory.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(|error| broken(&error))?;
    let schema = Arc::clone(builder.schema());
    let expressions: Vec<Expression> = rows.names.iter().map(|name| flatten.column(name)).collect();
    let roots = roots(&schema, &expressions);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.iter().copied());
    let total = builder.metadata().file_metadata().num_rows().max(1) as u64;
    let reader = builder
        .with_projection(mask)
        .with_batch_size(rows.batch_rows)
        .build()
        .map_err(|error| broken(&error))?;
    let places = places(rows, &schema, &roots, expressions);
    let file = FileReading {
        places,
        values: Reader {
            binary_as_string,
            floats_as_text: false,
        },
    };
    let (mut seen, mut counted) = (0_u64, 0_u64);
    for batch in reader {
        let batch = batch.map_err(|error| broken(&error))?;
        seen += batch.num_rows() as u64;
        // The file's bytes, spread evenly over its rows.
        let bytes = (u128::from(size) * u128::from(seen.min(total)) / u128::from(total)) as u64;
        rows.counters.bytes.fetch_add(bytes - counted, Ordering::Relaxed);
        counted = bytes;
        if !file.batch(rows, &batch)? {
            return Ok(());
        }
    }
    rows.counters.bytes.fetch_add(size - counted, Ordering::Relaxed);
    Ok(())
}

/// The reason without the name of the library.
fn plain(text: &str) -> &str {
    let text = text
        .trim_start_matches("External: ")
        .trim_start_matches("Parquet error: ");
    text.trim_start_matches("Parquet argument error: ")
}

/// Columns of the file that are needed, ascending.
fn roots(schema: &Schema, expressions: &[Expression]) -> Vec<usize> {
    let mut roots = Vec::new();
    for expression in expressions {
        match expression.first_field() {
            Some(name) => roots.extend(schema.index_of(name)),
            None => roots.extend(0..schema.fields().len()),
        }
    }
    roots.sort_unstable();
    roots.dedup();
    roots
}

fn places(rows: &Rows<'_>, schema: &Schema, roots: &[usize], expressions: Vec<Expression>) -> Vec<Place> {
    let system = |index: usize| rows.system.get(index).is_some_and(Option::is_some);
    expressions
        .into_iter()
        .enumerate()
        .map(|(index, expression)| match expression {
            _ if system(index) => Place::Nowhere,
            Expression::Root(name) => schema
                .index_of(&name)
                .ok()
                .and_then(|field| roots.binary_search(&field).ok())
                .map_or(Place::Nowhere, Place::Field),
            deeper => Place::Deeper(deeper),
        })
        .collect()
}

struct FileReading {
    places: Vec<Place>,
    values: Reader,
}

impl FileReading {
    fn batch(&self, rows: &mut Rows<'_>, batch: &RecordBatch) -> Result<bool, Fault> {
        let good = self.good_rows(rows, batch)?;
        let batch = match &good {
            None => batch.clone(),
            Some(good) => filter_record_batch(batch, good)
                .map_err(|error| Fault::unknown(format!("rows of EXTERN: {error}")))?,
        };
        let numbers = self.records(rows, &batch, false);
        let texts = self.records(rows, &batch, true);
        let mut arrays = Vec::with_capacity(self.places.len());
        for index in 0..self.places.len() {
            let records = match rows.types.get(index).is_some_and(is_text) {
                true => &texts,
                false => &numbers,
            };
            arrays.push(self.column(rows, index, &batch, records)?);
        }
        let count = batch.num_rows();
        let more = count == 0 || rows.send(arrays, count)?;
        rows.position.records += count as u64;
        Ok(more)
    }

    /// Rows whose `__time` can be read, if that is not all of them.
    fn good_rows(&self, rows: &mut Rows<'_>, batch: &RecordBatch) -> Result<Option<BooleanArray>, Fault> {
        let Some(time) = rows.names.iter().position(|name| name == TIME_FIELD) else {
            return Ok(None);
        };
        let Some(Place::Field(field)) = self.places.get(time) else {
            return Ok(None);
        };
        let array = Arc::clone(batch.column(*field));
        if !matches!(array.data_type(), DataType::Utf8 | DataType::Binary) {
            return Ok(None);
        }
        let first = rows.position.records;
        let mut good = Vec::with_capacity(array.len());
        let mut scratch = String::new();
        for row in 0..array.len() {
            let value = self.values.value(&array, row, &ColumnType::Long, &mut scratch);
            if let Err(BadTime(text)) = time_ms(value) {
                rows.warnings
                    .parse_error(&|| format!("Timestamp[{text}] is unparseable!{}", rows.place()))?;
                good.push(false);
            } else {
                rows.position.records += 1;
                good.push(true);
            }
        }
        rows.position.records = first;
        Ok((good.contains(&false)).then(|| BooleanArray::from(good)))
    }

    /// Each row as a record, if a path needs that for columns of text, or for others.
    fn records(&self, rows: &Rows<'_>, batch: &RecordBatch, floats_as_text: bool) -> Vec<Json> {
        let mut columns = self.places.iter().zip(&rows.types);
        let needs = |(place, column_type): (&Place, &ColumnType)| {
            matches!(place, Place::Deeper(_)) && is_text(column_type) == floats_as_text
        };
        if !columns.any(needs) {
            return Vec::new();
        }
        let values = Reader {
            floats_as_text,
            ..self.values
        };
        let schema = batch.schema();
        (0..batch.num_rows())
            .map(|row| {
                let fields = schema.fields().iter().zip(batch.columns());
                let fields = fields.map(|(field, array)| (field.name().clone(), values.json(array, row)));
                Json::Object(fields.collect::<Map<_, _>>())
            })
            .collect()
    }

    fn column(
        &self,
        rows: &mut Rows<'_>,
        index: usize,
        batch: &RecordBatch,
        records: &[Json],
    ) -> Result<ArrayRef, Fault> {
        let is_time = rows.names.get(index).is_some_and(|name| name == TIME_FIELD);
        let column_type = rows.types.get(index).cloned().unwrap_or(ColumnType::String);
        let place = self.places.get(index);
        if let Some(Place::Field(field)) = place
            && !is_time
            && let Some(array) = whole(batch.column(*field), &column_type)
        {
            return Ok(array);
        }
        let start = rows.position.records;
        let count = batch.num_rows();
        let mut scratch = String::new();
        for row in 0..count {
            let value = match place {
                Some(Place::Field(field)) => {
                    self.values
                        .value(batch.column(*field), row, &column_type, &mut scratch)
                }
                Some(Place::Deeper(expression)) => written(
                    records.get(row).and_then(|record| expression.evaluate(record)),
                    &mut scratch,
                ),
                Some(Place::Nowhere) | None => match rows.system.get(index) {
                    Some(Some(Some(text))) => {
                        scratch.clone_from(text);
                        Value::Text(&scratch)
                    }
                    _ => Value::Null,
                },
            };
            rows.position.records = start + row as u64;
            let pushed = rows.columns.get_mut(index).map(|column| column.push(value));
            match pushed {
                Some(Ok(true)) | None => {}
                Some(Ok(false)) => rows.unconverted(index, value),
                Some(Err(found)) => return Err(rows.null_byte(index, &found)),
            }
        }
        rows.position.records = start;
        Ok(rows.columns.get_mut(index).map_or_else(
            || Arc::new(Int64Array::new_null(count)) as ArrayRef,
            Column::finish,
        ))
    }
}

/// A column converted whole; none if it must be looked at value by value.
fn whole(array: &ArrayRef, column_type: &ColumnType) -> Option<ArrayRef> {
    match (array.data_type(), column_type) {
        (
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::Boolean,
            ColumnType::Long,
        ) => cast(array, &DataType::Int64).ok(),
        (DataType::Date32 | DataType::Timestamp(..), ColumnType::Long) => millis(array),
        (
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32
            | DataType::Boolean
            | DataType::Float32
            | DataType::Float64,
            ColumnType::Double,
        ) => cast(array, &DataType::Float64).ok(),
        (DataType::Float32, ColumnType::Float) => Some(Arc::clone(array)),
        (DataType::Utf8, ColumnType::String) => {
            let strings = array.as_string::<i32>();
            // Bytes outside of what the offsets cover may be anything; they cost one look.
            let clean = memchr::memchr(0, strings.value_data()).is_none();
            clean.then(|| Arc::clone(array))
        }
        _ => None,
    }
}

/// Milliseconds since the epoch of a date or time.
fn millis(array: &ArrayRef) -> Option<ArrayRef> {
    let numbers: Int64Array = match array.data_type() {
        DataType::Date32 => array
            .as_primitive::<Date32Type>()
            .unary(|days| i64::from(days) * MS_PER_DAY),
        DataType::Timestamp(TimeUnit::Second, _) => array
            .as_primitive::<TimestampSecondType>()
            .unary(|seconds| seconds.saturating_mul(1_000)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().unary(|ms| ms)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => array
            .as_primitive::<TimestampMicrosecondType>()
            .unary(|us| us / 1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => array
            .as_primitive::<TimestampNanosecondType>()
            .unary(|ns| ns / 1_000_000),
        _ => return None,
    };
    Some(Arc::new(numbers))
}
