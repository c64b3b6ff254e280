//! Sort keys as bytes that compare like the rows they stand for.
//!
//! A key is the row encoding of the key columns and then the row's ordinal in its work order, big-endian, so that
//! equal rows have different keys and a frequent value can be cut.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use arrow::row::{RowConverter, Rows, SortField};
use bytes::{Bytes, BytesMut};
use datafusion::common::ScalarValue;
use trilith_proto::fault::Fault;
use trilith_proto::interval::{Granularity, has_date};

use crate::error::ExchangeError;
use crate::hash;
use crate::shuffle::{Bucket, SortKey};

const ORDINAL_BYTES: usize = 8;

/// Encodes the keys of batches of one schema.
pub(crate) struct KeyCodec {
    converter: Option<RowConverter>,
    columns: Vec<usize>,
    bucket: Option<KeyBucket>,
}

/// What comes before the sort keys.
#[derive(Debug, Clone)]
pub(crate) enum KeyBucket {
    /// The time chunk.
    Time(Bucket),
    /// The partition, by hash of columns.
    Hash { columns: Vec<usize>, partitions: usize },
}

/// Keys of the rows of one batch.
#[derive(Debug)]
pub(crate) struct BatchKeys {
    rows: Option<Rows>,
    buckets: Option<Vec<i64>>,
}

/// Key of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key<'a> {
    pub bucket_ms: i64,
    pub row: &'a [u8],
    pub ordinal: u64,
}

impl KeyCodec {
    pub fn new(
        schema: &Schema,
        keys: &[SortKey],
        bucket: Option<KeyBucket>,
    ) -> Result<KeyCodec, ExchangeError> {
        if let Some(KeyBucket::Time(Bucket { time_column, .. })) = bucket
            && time_column >= schema.fields().len()
        {
            return Err(ExchangeError::BadKeyColumn { column: time_column });
        }
        let converter = if keys.is_empty() {
            None
        } else {
            Some(converter(schema, keys)?)
        };
        Ok(KeyCodec {
            converter,
            columns: keys.iter().map(|key| key.column).collect(),
            bucket,
        })
    }

    /// Fails with `InsertTimeNull` on a row without time, if there are time chunks.
    pub fn encode(&self, batch: &RecordBatch) -> Result<BatchKeys, ExchangeError> {
        let rows = match &self.converter {
            Some(converter) => {
                let columns: Vec<ArrayRef> = self
                    .columns
                    .iter()
                    .map(|column| Arc::clone(batch.column(*column)))
                    .collect();
                Some(converter.convert_columns(&columns)?)
            }
            None => None,
        };
        let buckets = match &self.bucket {
            Some(KeyBucket::Time(bucket)) => Some(bucket_starts(batch.column(bucket.time_column), *bucket)?),
            Some(KeyBucket::Hash { columns, partitions }) => {
                Some(hash::partitions(batch, columns, *partitions)?)
            }
            None => None,
        };
        Ok(BatchKeys { rows, buckets })
    }

    /// Columns that the keys are made of, time included.
    pub fn key_columns(&self) -> &[usize] {
        &self.columns
    }
}

fn converter(schema: &Schema, keys: &[SortKey]) -> Result<RowConverter, ExchangeError> {
    let field = |key: &SortKey| {
        let field = schema
            .fields()
            .get(key.column)
            .ok_or(ExchangeError::BadKeyColumn { column: key.column })?;
        Ok(SortField::new_with_options(
            field.data_type().clone(),
            key.options(),
        ))
    };
    let fields = keys
        .iter()
        .map(field)
        .collect::<Result<Vec<_>, ExchangeError>>()?;
    Ok(RowConverter::new(fields)?)
}

fn bucket_starts(times: &ArrayRef, bucket: Bucket) -> Result<Vec<i64>, ExchangeError> {
    if times.null_count() > 0 {
        return Err(Fault::insert_time_null().into());
    }
    let cast_times;
    let values: &[i64] = match times.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            times.as_primitive::<TimestampMillisecondType>().values()
        }
        DataType::Int64 => times.as_primitive::<Int64Type>().values(),
        _ => {
            cast_times = cast(times, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
            if cast_times.null_count() > 0 {
                return Err(Fault::insert_time_null().into());
            }
            cast_times.as_primitive::<TimestampMillisecondType>().values()
        }
    };
    // ALL is one chunk, whatever the time.
    if bucket.granularity != Granularity::All
        && let Some(ms) = values.iter().find(|ms| !has_date(**ms))
    {
        return Err(Fault::time_without_date(*ms).into());
    }
    // Neighbours are mostly in the same chunk.
    let mut start = 0;
    let mut end = 0;
    let starts = values
        .iter()
        .map(|ms| {
            if *ms < start || *ms >= end {
                let interval = bucket.granularity.bucket(*ms);
                (start, end) = (interval.start_ms, interval.end_ms);
            }
            bucket.granularity_start(start)
        })
        .collect();
    Ok(starts)
}

impl Bucket {
    /// The number that stands for a chunk: its start, but 0 for the chunk of all time.
    fn granularity_start(&self, start_ms: i64) -> i64 {
        match self.granularity {
            Granularity::All => 0,
            _ => start_ms,
        }
    }
}

impl BatchKeys {
    pub fn size(&self) -> usize {
        self.rows.as_ref().map_or(0, Rows::size)
            + self
                .buckets
                .as_ref()
                .map_or(0, |buckets| buckets.len() * size_of::<i64>())
    }

    /// Encoded key columns of a row.
    pub fn row(&self, row: usize) -> &[u8] {
        self.rows.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    /// Chunk of a row.
    pub fn bucket(&self, row: usize) -> i64 {
        self.buckets
            .as_ref()
            .and_then(|buckets| buckets.get(row))
            .copied()
            .unwrap_or(0)
    }

    pub fn buckets(&self) -> Option<&[i64]> {
        self.buckets.as_deref()
    }

    pub fn has_rows(&self) -> bool {
        self.rows.is_some()
    }

    pub fn key(&self, row: usize, ordinal: u64) -> Key<'_> {
        Key {
            bucket_ms: self.bucket(row),
            row: self.row(row),
            ordinal,
        }
    }
}

impl Key<'_> {
    /// As it stands in statistics and boundaries, without the chunk.
    pub fn to_bytes(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.row.len() + ORDINAL_BYTES);
        bytes.extend_from_slice(self.row);
        bytes.extend_from_slice(&self.ordinal.to_be_bytes());
        bytes.freeze()
    }
}

impl<'a> Key<'a> {
    /// The reverse of `to_bytes`.
    pub fn parse(bucket_ms: i64, bytes: &'a [u8]) -> Result<Key<'a>, ExchangeError> {
        match bytes.split_last_chunk::<ORDINAL_BYTES>() {
            Some((row, ordinal)) => Ok(Key {
                bucket_ms,
                row,
                ordinal: u64::from_be_bytes(*ordinal),
            }),
            None => Err(ExchangeError::BadKey { length: bytes.len() }),
        }
    }
}

/// The part of a key that equal rows share.
pub(crate) fn row(key: &[u8]) -> &[u8] {
    key.split_last_chunk::<ORDINAL_BYTES>()
        .map_or(key, |(row, _)| row)
}

/// The least key of all rows that equal this one.
pub(crate) fn first_of_equals(key: &[u8]) -> Bytes {
    let row = row(key);
    let mut bytes = BytesMut::with_capacity(row.len() + ORDINAL_BYTES);
    bytes.extend_from_slice(row);
    bytes.extend_from_slice(&0_u64.to_be_bytes());
    bytes.freeze()
}

/// Values of the key columns in a key of statistics or boundaries, in the order of `keys`.
pub fn decode_key(key: &[u8], schema: &Schema, keys: &[SortKey]) -> Result<Vec<ScalarValue>, ExchangeError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let parsed = Key::parse(0, key)?;
    let converter = converter(schema, keys)?;
    let parser = converter.parser();
    let columns = converter.convert_rows(std::iter::once(parser.parse(parsed.row)))?;
    columns
        .iter()
        .map(|column| Ok(ScalarValue::try_from_array(column, 0)?))
        .collect()
}
