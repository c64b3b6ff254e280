//! What the metadata store knows of a segment.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trilith_proto::column::ColumnType;
use trilith_proto::interval::{Interval, iso};

use crate::shard_spec::ShardSpec;

/// A published segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentRecord {
    /// Datasource.
    pub datasource: String,
    /// Time chunk.
    pub interval: Interval,
    /// Higher text wins.
    pub version: String,
    /// Place within the chunk.
    pub shard_spec: ShardSpec,
    /// Bytes of the file; 1 for a tombstone.
    pub size_bytes: u64,
    /// Rows.
    pub row_count: u64,
    /// File below the segment directory; none for a tombstone.
    pub path: Option<String>,
    /// Columns that are not metrics, without `__time`.
    pub dimensions: Vec<String>,
    /// Metrics of a rollup.
    pub metrics: Vec<String>,
    /// All columns but `__time`, in the order of the file.
    pub columns: Vec<(String, ColumnType)>,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: i64,
    /// How its rows were placed; empty in records of older versions.
    #[serde(default)]
    pub layout: Layout,
}

/// How the rows of a segment were placed, for whoever rewrites it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Layout {
    /// Stored columns of CLUSTERED BY.
    pub clustered_by: Vec<String>,
    /// Columns that order the rows, `__time` among them.
    pub sort_order: Vec<String>,
    /// Combining aggregators ("longSum"), in the order of the metrics.
    pub aggregators: Vec<String>,
    /// Of a rollup: "DAY", "NONE".
    pub query_granularity: Option<String>,
    /// JSON of Druid's `lastCompactionState`, if the statement had it stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction_state: Option<String>,
}

impl SegmentRecord {
    /// Druid's segment id.
    pub fn segment_id(&self) -> String {
        segment_id(
            &self.datasource,
            &self.interval,
            &self.version,
            self.partition_number(),
        )
    }

    /// Number within the chunk, from 0.
    pub fn partition_number(&self) -> u32 {
        self.shard_spec.partition_number()
    }

    /// It only says that the chunk is empty.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.shard_spec, ShardSpec::Tombstone { .. })
    }

    /// A record that hides older data of a chunk and has no rows.
    pub fn tombstone(datasource: &str, interval: Interval, version: &str, created_ms: i64) -> SegmentRecord {
        SegmentRecord {
            datasource: datasource.to_owned(),
            interval,
            version: version.to_owned(),
            shard_spec: ShardSpec::tombstone(),
            size_bytes: 1,
            row_count: 0,
            path: None,
            dimensions: Vec::new(),
            metrics: Vec::new(),
            columns: Vec::new(),
            created_ms,
            layout: Layout::default(),
        }
    }

    /// Druid's JSON of a segment.
    pub fn to_json(&self) -> Value {
        let load_spec = match &self.path {
            Some(path) => json!({"type": "local", "path": path}),
            None => json!({"type": "tombstone", "path": null}),
        };
        json!({
            "dataSource": self.datasource,
            "interval": self.interval.to_string(),
            "version": self.version,
            "loadSpec": load_spec,
            "dimensions": self.dimensions.join(","),
            "metrics": self.metrics.join(","),
            "shardSpec": self.shard_spec,
            "binaryVersion": 9,
            "size": self.size_bytes,
            "totalRows": self.row_count,
            "identifier": self.segment_id(),
        })
    }
}

/// Druid's segment id: the partition number is left out when it is 0.
pub fn segment_id(datasource: &str, interval: &Interval, version: &str, partition_number: u32) -> String {
    let mut id = format!(
        "{datasource}_{}_{}_{version}",
        iso(interval.start_ms),
        iso(interval.end_ms)
    );
    if partition_number > 0 {
        id.push('_');
        id.push_str(&partition_number.to_string());
    }
    id
}

/// A name as one part of a path: different names stay different.
fn encoded(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02x}");
        }
    }
    out
}

/// Where the file of a new segment goes, relative to the segment directory. Unique by the task that
/// writes it, so that two tasks can never write the same file.
pub fn file_path(datasource: &str, task: &str, interval: &Interval, number: u32) -> String {
    format!(
        "{}/{}/{}-{number:05}.parquet",
        encoded(datasource),
        encoded(task),
        interval.start_ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_have_different_files() {
        let interval = Interval {
            start_ms: 0,
            end_ms: 1,
        };
        let path = |datasource, task| file_path(datasource, task, &interval, 3);
        assert_eq!(path("a b", "query-1"), "a%20b/query-1/0-00003.parquet");
        assert_ne!(path("t", "query-x:1"), path("t", "query-x_1"));
        assert!(!path("..", "..").contains(".."));
    }
}
