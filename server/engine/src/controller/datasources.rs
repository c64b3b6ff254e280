//! Segments that are put aside, brought back, or deleted.

use std::path::Path;
use std::sync::Arc;

use tracing::{debug, info, warn};
use trilith_metadata::{MetadataError, Selection};
use trilith_proto::error::ApiError;
use trilith_proto::interval::Interval;
use trilith_segment::SegmentRecord;

use super::Controller;

fn store_error(error: MetadataError) -> ApiError {
    ApiError::internal(error.to_string())
}

impl Controller {
    /// Marks segments of a datasource as used or unused. Returns how many changed.
    pub async fn mark_segments(
        &self,
        datasource: String,
        selection: Selection,
        used: bool,
    ) -> Result<usize, ApiError> {
        let store = Arc::clone(&self.store);
        let changed = tokio::task::spawn_blocking(move || {
            let changed = if used {
                store.mark_used(&datasource, &selection)
            } else {
                store.mark_unused(&datasource, &selection)
            }?;
            info!(datasource, used, changed, "segments marked");
            Ok(changed)
        });
        changed
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(store_error)
    }

    /// Segments of a datasource, or of all, that were marked as unused.
    pub async fn unused_segments(&self, datasource: Option<String>) -> Result<Vec<SegmentRecord>, ApiError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.unused(datasource.as_deref()))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(store_error)
    }

    /// Deletes unused segments of a datasource inside an interval, with their files. Returns how many.
    pub async fn delete_unused(&self, datasource: String, interval: Interval) -> Result<usize, ApiError> {
        let store = Arc::clone(&self.store);
        let directory = self.worker_config.segment_directory.clone();
        let deleted = tokio::task::spawn_blocking(move || {
            // The records first: a file without a record goes at the next start, a record without a file never.
            let gone = store.forget_unused(&datasource, interval)?;
            remove_files(&directory, gone.iter().filter_map(|record| record.path.as_ref()));
            info!(datasource, segments = gone.len(), "unused segments deleted");
            Ok(gone.len())
        });
        deleted
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
            .map_err(store_error)
    }
    /// Removes files of segments that were replaced, once nobody reads them.
    pub(super) async fn remove_replaced(&self) {
        let files = self.store.take_unread_files();
        if files.is_empty() {
            return;
        }
        let directory = self.worker_config.segment_directory.clone();
        let removed = tokio::task::spawn_blocking(move || {
            debug!(files = files.len(), "files of replaced segments removed");
            remove_files(&directory, &files);
        });
        if let Err(error) = removed.await {
            warn!(%error, "files of replaced segments stay until the next start");
        }
    }
}

/// Removes files of segments, and folders that they leave empty.
fn remove_files<'a>(directory: &Path, files: impl IntoIterator<Item = &'a String>) {
    for file in files {
        let path = directory.join(file);
        if let Err(error) = std::fs::remove_file(&path) {
            warn!(%error, path = %path.display(), "a segment's file stays until the next start");
        }
        if let Some(folder) = path.parent() {
            // Fails while something is left inside, as it should.
            let _not_empty = std::fs::remove_dir(folder);
        }
    }
}
