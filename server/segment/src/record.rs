//! What the metadata store knows of a segment.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trilith_proto::column::ColumnType;
use trilith_proto::interval::Interval;

use crate::id::segment_id;
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
}

impl SegmentRecord {
    /// Druid's segment id.
    pub fn segment_id(&self) -> String {
        segment_id(&self.datasource, &self.interval, &self.version, self.partition_number())
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

/// Where the file of a new segment goes, relative to the segment directory. Different arguments give
/// different paths, whatever the names hold, and none leads out of the directory: so two tasks can never
/// write the same file.
pub fn file_path(datasource: &str, task: &str, interval: &Interval, number: u32) -> String {
    let (datasource, task) = (file_name(datasource), file_name(task));
    format!("{datasource}/{task}/{}-{number:05}.parquet", interval.start_ms)
}

/// Longest name in bytes that is kept as it is; file systems end at 255.
const FILE_NAME_MAX: usize = 200;

/// A name as one component of a path: letters, digits, `-`, `_` and inner dots stay, other bytes become
/// `%` and two digits. A name that would be too long ends in a hash.
fn file_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if index > 0 => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > FILE_NAME_MAX {
        // FNV-1a in 128 bits.
        let hash = text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        });
        name.truncate(FILE_NAME_MAX - 34);
        name.push_str(&format!("%%{hash:032x}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_distinct_and_stay_inside() {
        let day = Interval { start_ms: 0, end_ms: 86_400_000 };
        let long = "x".repeat(300);
        let longer = "x".repeat(301);
        let names = ["a", "a b", "a_b", "a:b", "a%20b", "..", ".", ".a", "a/../b", "é", "\0", &long, &longer];
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            for other in names {
                let path = file_path(name, other, &day, 0);
                let parts: Vec<&str> = path.split('/').collect();
                assert_eq!(parts.len(), 3, "{path}");
                assert!(parts.iter().all(|part| !part.starts_with('.') && part.len() < 255), "{path}");
                assert!(seen.insert(path));
            }
        }
        assert_eq!(file_path("wiki-1", "query-a_b", &day, 7), "wiki-1/query-a_b/0-00007.parquet");
    }
}
