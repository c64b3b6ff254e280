//! Turns the sorted output of a stage into segments: which ones, where, and their files.

mod allocate;
mod columns;
mod write;

pub use allocate::{Chunk, Shards, boundary, chunks, shards};
pub(crate) use columns::check_columns;
pub(crate) use write::write_segments;
