//! External data: input sources and formats to Arrow batches.

mod blocks;
mod columns;
mod delimited;
mod fetch;
mod flatten;
mod format;
mod frames;
mod header;
mod infer;
mod json;
mod json_columns;
mod json_path;
mod json_value;
mod lenient;
mod lz4;
mod number;
mod parquet_file;
mod parquet_value;
mod policy;
mod quality;
mod ranges;
mod read;
mod rows;
mod source;
mod spec;
mod splits;
mod time;

pub use infer::{InferError, Inferred, infer};
pub use policy::Policy;
pub use quality::Unconverted;
pub use ranges::{ByteRange, RANGE_BYTES_MIN, split_ranges};
pub use read::{ReadCounters, ReadOptions, WarningSink, read_split};
pub use spec::{ExternSpec, SpecError};
pub use splits::{Split, list_splits};

#[cfg(test)]
mod format_tests;
#[cfg(test)]
mod range_tests;
#[cfg(test)]
mod tests;
