//! External data: input sources and formats to Arrow batches.

mod blocks;
mod columns;
mod delimited;
mod fetch;
mod json;
mod policy;
mod read;
mod spec;
mod splits;

pub use policy::Policy;
pub use read::{ReadCounters, ReadOptions, WarningSink, read_split};
pub use spec::{ExternSpec, SpecError};
pub use splits::{Split, list_splits};

#[cfg(test)]
mod tests;
