//! Carries rows from stage to stage: outputs of work orders are kept in memory within a bound, or on disk beyond
//! it, and read in place by the same process or with Arrow Flight by others.

mod disk;
mod durable;
mod error;
pub mod flight;
mod gather;
mod hash;
mod keys;
mod memory;
mod merge;
mod output;
mod pieces;
mod read;
mod registry;
mod run;
mod shuffle;
mod sizes;
mod sorter;
mod spill;
mod statistics;
mod writer;

pub use disk::{DiskUse, OrderDisk};
pub use durable::{DurableArea, DurableSettings, DurableStorage, PageWriter, PartList, PartSize};
pub use error::ExchangeError;
pub use flight::client::FlightPool;
pub use keys::decode_key;
pub use memory::value_bytes;
pub use output::StageOutput;
pub use read::{ReadCounters, ReadRequest, read, read_merged};
pub use registry::{Exchange, ExchangeConfig, ExchangeStats};
pub use shuffle::{Bucket, ReadOrder, Shuffle, SortKey, StageSource};
pub use sizes::batch_rows;
pub use statistics::{
    BucketStatistics, CutTarget, PartitionRange, cut_boundaries, merge_statistics, wanted_partitions,
};
pub use writer::{OutputSummary, OutputWriter};

#[cfg(test)]
mod tests;
