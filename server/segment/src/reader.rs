//! Reads one segment file.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, BooleanArray, Int64Array, Scalar, TimestampMillisecondArray};
use arrow::compute::kernels::cmp::{gt_eq, lt};
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::statistics::Statistics;
use trilith_proto::interval::Interval;

use crate::error::SegmentError;

/// An open segment file.
pub struct SegmentReader {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl SegmentReader {
    /// Opens a file and reads its footer.
    pub fn open(path: &Path) -> Result<SegmentReader, SegmentError> {
        let file = File::open(path).map_err(|error| SegmentError::io(path, error))?;
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
            .map_err(|error| SegmentError::parquet(path, error))?;
        Ok(SegmentReader {
            path: path.to_owned(),
            metadata,
        })
    }

    /// Columns of the file, `__time` first.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// Rows of the file.
    pub fn row_count(&self) -> u64 {
        self.metadata.metadata().file_metadata().num_rows() as u64
    }

    /// Reads columns (by position, in ascending order in the result) of the rows whose `__time` lies in
    /// `range`. Row groups outside the range are not read. Blocking.
    pub fn read(
        &self,
        projection: &[usize],
        batch_rows: usize,
        range: Option<Interval>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch, SegmentError>> + use<>, SegmentError> {
        let time = self.schema().index_of("__time").ok();
        let range = range.filter(|_| time.is_some());
        let mut roots: Vec<usize> = projection.to_vec();
        let extra = match (range, time) {
            (Some(_), Some(time)) if !roots.contains(&time) => {
                roots.push(time);
                true
            }
            _ => false,
        };
        // A file of its own: a clone would share the position with other readers.
        let file = File::open(&self.path).map_err(|error| SegmentError::io(&self.path, error))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let mut builder = builder.with_projection(mask).with_batch_size(batch_rows);
        if let Some(range) = range {
            builder = builder.with_row_groups(self.row_groups(range));
        }
        let reader = builder
            .build()
            .map_err(|error| SegmentError::parquet(&self.path, error))?;
        let path = self.path.clone();
        Ok(reader.map(move |batch| {
            let batch = batch.map_err(|error| SegmentError::arrow(&path, error))?;
            match range {
                Some(range) => {
                    within(&batch, range, extra).map_err(|error| SegmentError::arrow(&path, error))
                }
                None => Ok(batch),
            }
        }))
    }

    /// Row groups that may hold rows of the range.
    fn row_groups(&self, range: Interval) -> Vec<usize> {
        let groups = self.metadata.metadata().row_groups();
        let outside = |statistics: &Statistics| match statistics {
            Statistics::Int64(values) => match (values.min_opt(), values.max_opt()) {
                (Some(min), Some(max)) => *max < range.start_ms || *min >= range.end_ms,
                _ => false,
            },
            _ => false,
        };
        (0..groups.len())
            .filter(|index| {
                let column = groups[*index]
                    .columns()
                    .iter()
                    .find(|column| column.column_path().string() == "__time");
                !column.and_then(|column| column.statistics()).is_some_and(outside)
            })
            .collect()
    }
}

/// Rows of a batch whose `__time` lies in the range; drops `__time` if it was read for this only.
fn within(
    batch: &RecordBatch,
    range: Interval,
    drop_time: bool,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let index = batch.schema_ref().index_of("__time")?;
    let times = batch.column(index);
    let mask: BooleanArray = match times.as_any().downcast_ref::<TimestampMillisecondArray>() {
        Some(times) => {
            let times: Int64Array = times.reinterpret_cast();
            let start = Scalar::new(Int64Array::from(vec![range.start_ms]));
            let end = Scalar::new(Int64Array::from(vec![range.end_ms]));
            and(&gt_eq(&times, &start)?, &lt(&times, &end)?)?
        }
        None => BooleanArray::from(vec![true; batch.num_rows()]),
    };
    let all = mask.true_count() == batch.num_rows();
    let batch = if all {
        batch.clone()
    } else {
        filter_record_batch(batch, &mask)?
    };
    if !drop_time {
        return Ok(batch);
    }
    let rest: Vec<usize> = (0..batch.num_columns())
        .filter(|column| *column != index)
        .collect();
    batch.project(&rest)
}
