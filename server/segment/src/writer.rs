//! Writes one segment file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::error::SegmentError;

/// Rows of a row group: the unit of pruning, and what the writer holds encoded in memory.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Numbers of wider tables are written without dictionaries.
const DICTIONARY_COLUMNS_MAX: usize = 256;
const ROWS_PER_PAGE: usize = 20_000;

/// Writes rows under a temporary name; the file appears when it is finished, or never.
pub struct SegmentWriter {
    path: PathBuf,
    partial: PathBuf,
    writer: Option<ArrowWriter<File>>,
    rows: u64,
}

/// A finished file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenSegment {
    /// Bytes.
    pub size_bytes: u64,
    /// Rows.
    pub rows: u64,
}

impl SegmentWriter {
    /// A writer for a file below `directory`. `metadata` becomes key-value metadata of the file.
    pub fn create(
        directory: &Path,
        relative: &str,
        schema: SchemaRef,
        metadata: Vec<(String, String)>,
    ) -> Result<SegmentWriter, SegmentError> {
        let path = directory.join(relative);
        let partial = path.with_extension("parquet.tmp");
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| SegmentError::io(parent, error))?;
        }
        let metadata = metadata
            .into_iter()
            .map(|(key, value)| KeyValue::new(key, value))
            .collect();
        let level = ZstdLevel::try_new(1).map_err(|error| SegmentError::parquet(&path, error))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_data_page_row_count_limit(ROWS_PER_PAGE)
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_key_value_metadata(Some(metadata));
        if schema.fields().len() > DICTIONARY_COLUMNS_MAX {
            // Each dictionary takes some 50 kB from its first value on; numbers gain little by it.
            for field in schema
                .fields()
                .iter()
                .filter(|field| field.data_type().is_primitive())
            {
                let column = ColumnPath::from(field.name().as_str());
                properties = properties.set_column_dictionary_enabled(column, false);
            }
        }
        let properties = properties.build();
        let file = File::create(&partial).map_err(|error| SegmentError::io(&partial, error))?;
        let writer = ArrowWriter::try_new(file, schema, Some(properties))
            .map_err(|error| SegmentError::parquet(&path, error))?;
        Ok(SegmentWriter {
            path,
            partial,
            writer: Some(writer),
            rows: 0,
        })
    }

    /// Adds rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), SegmentError> {
        self.rows += batch.num_rows() as u64;
        match &mut self.writer {
            Some(writer) => writer
                .write(batch)
                .map_err(|error| SegmentError::parquet(&self.path, error)),
            None => Ok(()),
        }
    }

    /// Bytes that the rows of the unfinished row group hold in memory.
    pub fn memory_bytes(&self) -> usize {
        self.writer.as_ref().map_or(0, ArrowWriter::memory_size)
    }

    /// Writes the unfinished row group out.
    pub fn flush(&mut self) -> Result<(), SegmentError> {
        match &mut self.writer {
            Some(writer) => writer
                .flush()
                .map_err(|error| SegmentError::parquet(&self.path, error)),
            None => Ok(()),
        }
    }

    /// Makes the file durable and gives it its name.
    pub fn finish(mut self) -> Result<WrittenSegment, SegmentError> {
        let Some(writer) = self.writer.take() else {
            return Ok(WrittenSegment {
                size_bytes: 0,
                rows: 0,
            });
        };
        let file = writer
            .into_inner()
            .map_err(|error| SegmentError::parquet(&self.path, error))?;
        file.sync_all()
            .map_err(|error| SegmentError::io(&self.partial, error))?;
        let size_bytes = file
            .metadata()
            .map_err(|error| SegmentError::io(&self.partial, error))?
            .len();
        fs::rename(&self.partial, &self.path).map_err(|error| SegmentError::io(&self.path, error))?;
        if let Some(parent) = self.path.parent() {
            sync_directory(parent)?;
        }
        Ok(WrittenSegment {
            size_bytes,
            rows: self.rows,
        })
    }
}

/// Makes the directories durable through which finished files (relative to `root`) are found: all that lie
/// above their own, which the writer has made durable, up to `root`.
pub fn sync_ancestors<'a>(root: &Path, files: impl IntoIterator<Item = &'a str>) -> Result<(), SegmentError> {
    let mut directories = BTreeSet::new();
    for file in files {
        let above = Path::new(file).ancestors().skip(2);
        directories.extend(above.map(Path::to_path_buf));
    }
    directories
        .iter()
        .try_for_each(|directory| sync_directory(&root.join(directory)))
}

fn sync_directory(directory: &Path) -> Result<(), SegmentError> {
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .map_err(|error| SegmentError::io(directory, error))
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            // Given up; what cannot be removed now is swept at the next start.
            let _swept_later = fs::remove_file(&self.partial);
        }
    }
}
