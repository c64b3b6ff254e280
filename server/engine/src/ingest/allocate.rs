//! Which segments a job writes: one for each partition of the last shuffle.

use arrow::datatypes::Schema;
use datafusion::common::ScalarValue;
use trilith_exchange::{PartitionRange, SortKey, decode_key};
use trilith_proto::column::ColumnType;
use trilith_proto::fault::Fault;
use trilith_proto::interval::{ETERNITY, Granularity, Interval};

use crate::controller::stored_type;

/// Partitions of one time chunk, in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The chunk.
    pub interval: Interval,
    /// Numbers of the partitions.
    pub partitions: Vec<u32>,
}

/// Groups partitions by time chunk.
pub fn chunks(ranges: &[PartitionRange], granularity: Granularity) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (number, range) in ranges.iter().enumerate() {
        let interval = match granularity {
            Granularity::All => ETERNITY,
            _ => granularity.bucket(range.bucket_ms),
        };
        match chunks.last_mut() {
            Some(chunk) if chunk.interval == interval => chunk.partitions.push(number as u32),
            _ => chunks.push(Chunk {
                interval,
                partitions: vec![number as u32],
            }),
        }
    }
    chunks
}

/// How a REPLACE may shard: by ranges of the leading string keys, or only by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shards {
    /// Output names of the leading string keys; empty: by number.
    pub dimensions: Vec<String>,
    /// Positions of those keys among the sort keys.
    pub keys: usize,
    /// Druid's explanation.
    pub details: String,
}

impl Shards {
    /// "range" or "numbered".
    pub fn kind(&self) -> &'static str {
        if self.dimensions.is_empty() {
            "NumberedShardSpec"
        } else {
            "DimensionRangeShardSpec"
        }
    }
}

/// Decides how to shard, by the keys and by what the rows turned out to be.
pub fn shards(
    keys: &[SortKey],
    schema: &Schema,
    output_name: impl Fn(usize) -> Option<String>,
    has_multiple_values: bool,
) -> Shards {
    let numbered = |details: String| Shards {
        dimensions: Vec::new(),
        keys: 0,
        details,
    };
    let names = |columns: &[SortKey]| {
        columns
            .iter()
            .map(|key| schema.field(key.column).name().clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    if keys.is_empty() {
        return numbered("CLUSTERED BY clause is empty.".to_owned());
    }
    if has_multiple_values {
        return numbered(format!(
            "Using 'numbered' because a CLUSTERED BY field may hold multiple values: [{}].",
            names(keys)
        ));
    }
    let mut dimensions = Vec::new();
    for key in keys {
        let next = schema.field(key.column).name();
        let used = format!(
            "Using[{}] CLUSTERED BY columns for 'range' shard specs, since the next column",
            dimensions.len()
        );
        let stopped = match (stored_type(schema, key.column), output_name(key.column)) {
            (ColumnType::String, Some(name)) => {
                dimensions.push(name);
                continue;
            }
            (ColumnType::String, None) => {
                format!(
                    "Using only[{}] CLUSTERED BY columns for 'range' shard specs, since the next column was not mapped to an output column.",
                    dimensions.len()
                )
            }
            (other, _) => format!(
                "{used} is of type[{other}]. Only string columns are included in 'range' shard specs."
            ),
        };
        tracing::debug!(next, "range sharding stops");
        return Shards {
            keys: dimensions.len(),
            dimensions,
            details: stopped,
        };
    }
    let details = "Using 'range' shard specs with all CLUSTERED BY fields.".to_owned();
    Shards {
        keys: dimensions.len(),
        dimensions,
        details,
    }
}

/// The leading string keys of a boundary.
pub fn boundary(
    key: Option<&bytes::Bytes>,
    schema: &Schema,
    keys: &[SortKey],
    count: usize,
) -> Result<Option<Vec<Option<String>>>, Fault> {
    let Some(key) = key else { return Ok(None) };
    let values = decode_key(key, schema, keys).map_err(Fault::from)?;
    Ok(Some(
        values
            .into_iter()
            .take(count)
            .map(|value| match value {
                ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => text,
                other => Some(other.to_string()),
            })
            .collect(),
    ))
}
