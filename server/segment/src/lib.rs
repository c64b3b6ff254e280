//! Segments: their names, their place in time, their files.

mod error;
mod id;
mod prune;
mod reader;
mod record;
mod shard_spec;
mod sweep;
mod timeline;
mod tombstone;
mod writer;

pub use error::SegmentError;
pub use id::{SegmentId, parse_segment_id, segment_id, version_ms, version_text};
pub use prune::{Domain, may_hold};
pub use reader::SegmentReader;
pub use record::{SegmentRecord, file_path};
pub use shard_spec::ShardSpec;
pub use sweep::sweep;
pub use timeline::{subtract, visible};
pub use tombstone::tombstone_intervals;
pub use writer::{SegmentWriter, WrittenSegment};

#[cfg(test)]
mod tests;
