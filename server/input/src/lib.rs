//! External data: input sources and formats to Arrow batches.

mod blocks;
mod columns;
mod delimited;
mod fetch;
mod frames;
mod header;
mod json;
mod policy;
mod ranges;
mod read;
mod spec;
mod splits;

pub use policy::Policy;
pub use ranges::{ByteRange, RANGE_BYTES_MIN, split_ranges};
pub use read::{ReadCounters, ReadOptions, WarningSink, read_split};
pub use spec::{ExternSpec, SpecError};
pub use splits::{Split, list_splits};

#[cfg(test)]
mod range_tests;
#[cfg(test)]
mod tests;
