//! Metadata: tasks, reports, segments, locks.

mod allocator;
mod error;
mod locks;
mod memory_store;
mod records;
mod sled_store;
mod store;

pub use allocator::{Allocation, AllocationError, Allocator};
pub use error::MetadataError;
pub use locks::{LockKind, LockLease, LockManager};
pub use memory_store::MemoryStore;
pub use records::{Publish, TaskFilter, TaskPage, TaskRecord, TaskState};
pub use sled_store::SledStore;
pub use store::MetadataStore;

#[cfg(test)]
mod tests;
