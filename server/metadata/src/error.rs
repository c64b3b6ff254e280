//! What can go wrong with metadata.

/// An error of the metadata store.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// A task with this id exists.
    #[error("task [{0}] exists already")]
    AlreadyExists(String),
    /// No task with this id.
    #[error("task [{0}] does not exist")]
    NotFound(String),
    /// The task has ended, so nothing can be published for it.
    #[error("task [{0}] has ended")]
    Ended(String),
    /// The task was taken up again by another server process.
    #[error("run {run} of task [{id}] is over; run {current} has taken its place")]
    OtherRun {
        /// Which task.
        id: String,
        /// The run that wanted to end it.
        run: u32,
        /// The run that may.
        current: u32,
    },
    /// A segment with this id is published already.
    #[error("segment [{0}] exists already")]
    Conflict(String),
    /// The locks of the task do not cover the segment.
    #[error("the task holds no lock on the time chunk of segment [{0}]")]
    NotLocked(String),
    /// The change leaves more tombstones than this.
    #[error("more than {0} tombstones")]
    TooManyTombstones(usize),
    /// The store failed.
    #[error("metadata store: {0}")]
    Store(#[from] sled::Error),
    /// A record cannot be read or written.
    #[error("metadata record {key}: {source}")]
    Record {
        /// Key of the record.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The record was written by a newer release.
    #[error("metadata record {key} has version {version}, which this release does not know")]
    Version {
        /// Key of the record.
        key: String,
        /// Its version.
        version: u8,
    },
}
