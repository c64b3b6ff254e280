//! Where a segment stands among those of its time chunk.

use serde::{Deserialize, Serialize};

/// Druid's shard spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ShardSpec {
    /// By number only.
    #[serde(rename_all = "camelCase")]
    Numbered {
        /// From 0.
        partition_num: u32,
        /// Core partitions of the chunk; 0 when all were appended.
        partitions: u32,
    },
    /// By ranges of string dimensions: start inclusive, end exclusive, none open.
    #[serde(rename_all = "camelCase")]
    Range {
        /// Leading CLUSTERED BY columns.
        dimensions: Vec<String>,
        /// Null in a tuple sorts first.
        start: Option<Vec<Option<String>>>,
        /// As `start`.
        end: Option<Vec<Option<String>>>,
        /// From 0.
        partition_num: u32,
        /// Core partitions of the chunk.
        num_core_partitions: u32,
    },
    /// Says that a chunk is empty.
    #[serde(rename_all = "camelCase")]
    Tombstone {
        /// Always 0.
        partition_num: u32,
        /// Always 1.
        partitions: u32,
    },
}

impl ShardSpec {
    /// The spec of a tombstone.
    pub fn tombstone() -> ShardSpec {
        ShardSpec::Tombstone {
            partition_num: 0,
            partitions: 1,
        }
    }

    /// Number within the chunk, from 0.
    pub fn partition_number(&self) -> u32 {
        match self {
            ShardSpec::Numbered { partition_num, .. }
            | ShardSpec::Range { partition_num, .. }
            | ShardSpec::Tombstone { partition_num, .. } => *partition_num,
        }
    }

    /// Partitions that must be there before any of the chunk's version is visible.
    pub fn core_partitions(&self) -> u32 {
        match self {
            ShardSpec::Numbered { partitions, .. } | ShardSpec::Tombstone { partitions, .. } => *partitions,
            ShardSpec::Range {
                num_core_partitions, ..
            } => *num_core_partitions,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn writes_druids_json() {
        let range = ShardSpec::Range {
            dimensions: vec!["channel".to_owned()],
            start: None,
            end: Some(vec![Some("#de".to_owned())]),
            partition_num: 0,
            num_core_partitions: 2,
        };
        let text = r##"{"type":"range","dimensions":["channel"],"start":null,"end":["#de"],"partitionNum":0,"numCorePartitions":2}"##;
        assert_eq!(serde_json::to_string(&range).unwrap(), text);
        assert_eq!(serde_json::from_str::<ShardSpec>(text).unwrap(), range);
        let numbered = ShardSpec::Numbered {
            partition_num: 1,
            partitions: 0,
        };
        assert_eq!(
            serde_json::to_string(&numbered).unwrap(),
            r#"{"type":"numbered","partitionNum":1,"partitions":0}"#
        );
    }
}
