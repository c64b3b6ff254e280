//! How the rows of a stage are divided among its readers.

use arrow::compute::SortOptions;
use serde::{Deserialize, Serialize};
use trilith_proto::id::WorkOrderId;
use trilith_proto::interval::Granularity;

/// One column of a sort order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    /// Position in the schema, from 0.
    pub column: usize,
    /// Largest first.
    pub descending: bool,
    /// Nulls before all values.
    pub nulls_first: bool,
}

impl SortKey {
    /// Smallest first, nulls before all values.
    pub fn ascending(column: usize) -> SortKey {
        SortKey {
            column,
            descending: false,
            nulls_first: true,
        }
    }

    pub(crate) fn options(&self) -> SortOptions {
        SortOptions {
            descending: self.descending,
            nulls_first: self.nulls_first,
        }
    }
}

/// Rows of one time chunk stay together, ahead of all sort keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Column with milliseconds since the epoch, as a timestamp or a 64-bit integer.
    pub time_column: usize,
    /// Size of a chunk.
    pub granularity: Granularity,
}

/// How the rows of a stage are divided among its readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shuffle {
    /// One partition, in the order of arrival.
    Mix,
    /// The writer names the partition.
    None,
    /// Rows with equal values go to the same partition, in every process.
    Hash {
        /// Hashed columns.
        columns: Vec<usize>,
        /// Number of partitions.
        partitions: u32,
        /// Order inside a partition; empty when there is none.
        #[serde(default)]
        keys: Vec<SortKey>,
    },
    /// Sorted rows.
    Sort {
        /// Order; rows that tie keep the order of arrival.
        keys: Vec<SortKey>,
        /// Time chunks come before the keys. Needs `statistics`.
        bucket: Option<Bucket>,
        /// Gather key statistics, so that the rows can be cut at boundaries; else there is one partition.
        statistics: bool,
        /// Only the first rows of every sorted run are of interest to readers.
        limit: Option<u64>,
    },
}

impl Shuffle {
    /// The column that decides about the time chunk, if one does.
    pub fn time_column(&self) -> Option<usize> {
        match self {
            Shuffle::Sort {
                bucket: Some(bucket), ..
            } => Some(bucket.time_column),
            _ => None,
        }
    }

    /// Whether partitions are known only once boundaries were set.
    pub fn gathers_statistics(&self) -> bool {
        matches!(self, Shuffle::Sort { statistics: true, .. })
    }

    /// The order of the rows inside a partition; empty when there is none.
    pub fn keys(&self) -> &[SortKey] {
        match self {
            Shuffle::Sort { keys, .. } | Shuffle::Hash { keys, .. } => keys,
            Shuffle::Mix | Shuffle::None => &[],
        }
    }
}

/// Where the output of one work order is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageSource {
    /// "host:port" of the process that keeps it; none for this process.
    pub address: Option<String>,
    /// Whose output.
    pub id: WorkOrderId,
    /// It is in durable storage, where every process finds it, whatever became of the one that made it.
    #[serde(default)]
    pub durable: bool,
}

impl StageSource {
    /// An output of this process.
    pub fn local(id: WorkOrderId) -> StageSource {
        StageSource {
            address: None,
            id,
            durable: false,
        }
    }
}

/// In which order a reader wants the rows of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadOrder {
    /// Source after source, each as it is kept.
    Any,
    /// Merged by the keys of the shuffle.
    Keys,
    /// Sorted by other keys.
    By(Vec<SortKey>),
}
