//! What can go wrong with a segment file.

use std::path::PathBuf;

/// An error of a segment file, with its path.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file system refused.
    #[error("segment file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The content is not what it should be.
    #[error("segment file {path}: {source}")]
    Parquet {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// A batch could not be filtered.
    #[error("segment file {path}: {source}")]
    Arrow {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: arrow::error::ArrowError,
    },
}

impl SegmentError {
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> SegmentError {
        SegmentError::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn parquet(path: &std::path::Path, source: parquet::errors::ParquetError) -> SegmentError {
        SegmentError::Parquet {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn arrow(path: &std::path::Path, source: arrow::error::ArrowError) -> SegmentError {
        SegmentError::Arrow {
            path: path.to_owned(),
            source,
        }
    }
}
