#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use trilith_proto::interval::Interval;

use crate::{SegmentReader, SegmentWriter, sweep};

fn batch(start: i64, count: i64) -> RecordBatch {
    let times = TimestampMillisecondArray::from_iter_values(start..start + count).with_timezone("UTC");
    let names = StringArray::from_iter_values((start..start + count).map(|n| format!("row {n}")));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("__time", Arc::new(times)),
        ("name", Arc::new(names)),
        ("n", Arc::new(Int64Array::from_iter_values(start..start + count))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn writes_and_reads_back_by_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = batch(0, 1000);
    let mut writer =
        SegmentWriter::create(directory.path(), "t/task/0.parquet", first.schema(), Vec::new()).unwrap();
    writer.write(&first).unwrap();
    writer.write(&batch(1000, 1000)).unwrap();
    let written = writer.finish().unwrap();
    assert_eq!(written.rows, 2000);
    let path = directory.path().join("t/task/0.parquet");
    assert_eq!(written.size_bytes, path.metadata().unwrap().len());

    let reader = SegmentReader::open(&path).unwrap();
    assert_eq!(reader.row_count(), 2000);
    let range = Interval {
        start_ms: 990,
        end_ms: 1010,
    };
    let rows: Vec<RecordBatch> = reader
        .read(&[2], 128, Some(range))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let values: Vec<i64> = rows
        .iter()
        .flat_map(|rows| {
            assert_eq!(rows.num_columns(), 1);
            rows.column(0)
                .as_any()
                .downcast_ref::<Int64Array>()
                .unwrap()
                .values()
                .to_vec()
        })
        .collect();
    assert_eq!(values, (990..1010).collect::<Vec<_>>());
}

#[test]
fn an_unfinished_file_never_appears() {
    let directory = tempfile::tempdir().unwrap();
    let rows = batch(0, 10);
    let mut writer =
        SegmentWriter::create(directory.path(), "t/a.parquet", rows.schema(), Vec::new()).unwrap();
    writer.write(&rows).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(directory.path().join("t")).unwrap().count(), 0);
}

#[test]
fn sweeps_what_nobody_refers_to() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["t/x/0.parquet", "t/x/1.parquet", "t/y/2.parquet.tmp"] {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    }
    let referenced = HashSet::from(["t/x/0.parquet".to_owned()]);
    assert_eq!(sweep(directory.path(), &referenced).unwrap(), 2);
    assert!(directory.path().join("t/x/0.parquet").exists());
    assert!(!directory.path().join("t/y").exists());
}
