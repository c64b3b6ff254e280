//! Metadata: tasks, reports, segments, locks.

mod allocator;
mod change;
mod error;
mod locks;
mod mark;
mod memory_store;
mod records;
mod sled_store;
mod store;
mod view;

pub use allocator::{Allocation, Allocator, Covered};
pub use change::{Append, Change, Replace};
pub use error::MetadataError;
pub use locks::{
    ActiveLock, LockKind, LockLease, LockManager, LockOwner, LockRequest, PendingLock, PublishPermit,
};
pub use mark::Selection;
pub use memory_store::MemoryStore;
pub use records::{Publish, TaskFilter, TaskPage, TaskRecord, TaskState};
pub use sled_store::SledStore;
pub use store::MetadataStore;
pub use view::{SegmentView, SegmentViews, UsedSegment, VisibleSegment};

#[cfg(test)]
mod tests;
