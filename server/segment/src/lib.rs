//! Segments: their names, their place in time, their files.

mod coverage;
mod error;
mod reader;
mod record;
mod shard_spec;
mod sweep;
mod timeline;
mod tombstone;
mod writer;

pub use coverage::Coverage;
pub use error::SegmentError;
pub use reader::SegmentReader;
pub use record::{Layout, SegmentRecord, file_path, segment_id};
pub use shard_spec::ShardSpec;
pub use sweep::sweep;
pub use timeline::visible;
pub use tombstone::tombstone_intervals;
pub use writer::{SegmentWriter, WrittenSegment, sync_ancestors};

#[cfg(test)]
mod tests;
