#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use futures::TryStreamExt;
use trilith_proto::id::{AttemptNumber, StageNumber, TaskId, WorkOrderId, WorkerNumber};

use crate::*;

const HOUR_MS: i64 = 3_600_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Int64, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
    ]))
}

/// Rows in an order that no sort gives; keys repeat, one of them very often, some are null.
fn batches(count: i64) -> Vec<RecordBatch> {
    let key = |n: i64| match n % 10 {
        0..=5 => Some("heavy".to_owned()),
        6 => None,
        _ => Some(format!("key {}", (n * 7919) % 997)),
    };
    (0..count)
        .collect::<Vec<_>>()
        .chunks(500)
        .map(|numbers| {
            let times: Int64Array = numbers
                .iter()
                .map(|n| Some((n * 31) % 3 * HOUR_MS + n % 1000))
                .collect();
            let keys: StringArray = numbers.iter().map(|n| key(*n)).collect();
            let values: Int64Array = numbers.iter().map(|n| Some(*n)).collect();
            RecordBatch::try_new(schema(), vec![Arc::new(times), Arc::new(keys), Arc::new(values)]).unwrap()
        })
        .collect()
}

fn id(worker: u32) -> WorkOrderId {
    WorkOrderId {
        task: TaskId::from("t"),
        stage: StageNumber(0),
        worker: WorkerNumber(worker),
        attempt: AttemptNumber(0),
        run: 0,
    }
}

struct Bench {
    exchange: Arc<Exchange>,
    _directory: tempfile::TempDir,
}

fn bench(memory_limit_bytes: u64) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let exchange = Exchange::new(ExchangeConfig {
        spill_directory: directory.path().join("spill"),
        memory_limit_bytes,
        pool: Arc::new(UnboundedMemoryPool::default()),
        task_disk_limit_bytes: None,
        durable: None,
    })
    .unwrap();
    Bench {
        exchange: Arc::new(exchange),
        _directory: directory,
    }
}

type Row = (i64, Option<String>, i64);

fn rows(batches: &[RecordBatch]) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let long = |index: usize| {
            batch
                .column(index)
                .as_any()
                .downcast_ref::<Int64Array>()
                .unwrap()
                .clone()
        };
        let (times, values) = (long(0), long(2));
        let keys = batch.column(1).as_any().downcast_ref::<StringArray>().unwrap();
        for row in 0..batch.num_rows() {
            let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
            rows.push((times.value(row), key, values.value(row)));
        }
    }
    rows
}

async fn read_all(
    bench: &Bench,
    workers: u32,
    partition: u32,
    order: ReadOrder,
    keys: Vec<SortKey>,
) -> Vec<Row> {
    let request = ReadRequest {
        schema: schema(),
        sources: (0..workers)
            .map(|worker| StageSource::local(id(worker)))
            .collect(),
        partition,
        order,
        keys,
        counters: Arc::default(),
    };
    let client = Arc::new(FlightPool::new(None).unwrap());
    let context = Arc::new(TaskContext::default());
    let stream = read(&bench.exchange, &client, &context, request).unwrap();
    rows(&stream.try_collect::<Vec<_>>().await.unwrap())
}

fn sort_shuffle(bucketed: bool) -> Shuffle {
    use trilith_proto::interval::Granularity;
    Shuffle::Sort {
        keys: vec![SortKey::ascending(1)],
        bucket: bucketed.then_some(Bucket {
            time_column: 0,
            granularity: Granularity::Hour,
        }),
        statistics: true,
        limit: None,
    }
}

/// Two workers sort, boundaries are cut from the statistics of both; returns the rows of each partition.
async fn partitions(bench: &Bench, count: i64, target: CutTarget) -> Vec<(i64, Vec<Row>)> {
    let all = batches(count);
    let mut statistics = Vec::new();
    for worker in 0..2 {
        let mut writer = bench
            .exchange
            .create(id(worker), schema(), sort_shuffle(true), 1_000_000)
            .unwrap();
        for batch in all.iter().skip(worker as usize).step_by(2) {
            writer.write(0, batch.clone()).unwrap();
        }
        statistics.extend(writer.finish().unwrap().buckets);
    }
    let ranges = cut_boundaries(&merge_statistics(statistics), target);
    let mut counted = vec![0; ranges.len()];
    for worker in 0..2 {
        let found = bench
            .exchange
            .set_boundaries(&id(worker), ranges.clone())
            .unwrap();
        for (sum, rows) in counted.iter_mut().zip(found) {
            *sum += rows as usize;
        }
    }
    let mut out = Vec::new();
    for (partition, range) in ranges.iter().enumerate() {
        let order = ReadOrder::By(vec![SortKey::ascending(0)]);
        let found = read_all(bench, 2, partition as u32, order, Vec::new()).await;
        assert_eq!(found.len(), counted[partition]);
        out.push((range.bucket_ms, found));
    }
    out
}

#[tokio::test]
async fn ranges_hold_every_row_once_and_never_cross_a_time_chunk() {
    let count = 20_000;
    let found = partitions(&bench(u64::MAX >> 1), count, CutTarget::TargetSize(1_000)).await;
    let mut seen: Vec<i64> = Vec::new();
    let mut last: BTreeMap<i64, Option<String>> = BTreeMap::new();
    for (bucket, rows) in &found {
        // Heavy keys are cut as well.
        assert!(rows.len() <= 1_500, "{}", rows.len());
        assert!(rows.is_sorted_by_key(|row| row.0));
        assert!(
            rows.iter()
                .all(|row| row.0 >= *bucket && row.0 < bucket + HOUR_MS)
        );
        let keys = rows.iter().map(|row| row.1.clone());
        let (low, high) = (keys.clone().min().unwrap(), keys.max().unwrap());
        if let Some(before) = last.insert(*bucket, high) {
            assert!(before <= low, "{before:?} {low:?}");
        }
        seen.extend(rows.iter().map(|row| row.2));
    }
    assert_eq!(last.len(), 3);
    seen.sort_unstable();
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_group_is_in_one_partition_even_if_every_worker_has_some_of_its_rows() {
    let found = partitions(&bench(u64::MAX >> 1), 20_000, CutTarget::MaxCount(9)).await;
    assert!(found.len() > 3 && found.len() <= 9, "{}", found.len());
    let mut owner = BTreeMap::new();
    for (partition, (bucket, rows)) in found.iter().enumerate() {
        assert!(!rows.is_empty());
        for row in rows {
            let first = *owner.entry((*bucket, row.1.clone())).or_insert(partition);
            assert_eq!(first, partition, "{row:?}");
        }
    }
    let rows: usize = found.iter().map(|(_, rows)| rows.len()).sum();
    assert_eq!(rows, 20_000);
}

#[tokio::test]
async fn spilled_output_gives_the_same_rows_as_output_in_memory() {
    let memory = partitions(&bench(u64::MAX >> 1), 60_000, CutTarget::TargetSize(5_000)).await;
    let small = bench(64 * 1024);
    let spilled = partitions(&small, 60_000, CutTarget::TargetSize(5_000)).await;
    assert!(small.exchange.stats().spilled_bytes > 0);
    let sorted = |partitions: Vec<(i64, Vec<Row>)>| {
        let mut all: Vec<Row> = partitions.into_iter().flat_map(|(_, rows)| rows).collect();
        all.sort();
        all
    };
    assert_eq!(sorted(spilled), sorted(memory));
    small.exchange.release_task(&TaskId::from("t"));
    let stats = small.exchange.stats();
    assert_eq!((stats.outputs, stats.memory_bytes, stats.disk_bytes), (0, 0, 0));
}

#[tokio::test]
async fn merged_reads_are_sorted_and_hashes_keep_keys_together() {
    let bench = bench(u64::MAX >> 1);
    let all = batches(5_000);
    let keys = vec![
        SortKey::ascending(1),
        SortKey {
            column: 2,
            descending: true,
            nulls_first: false,
        },
    ];
    for worker in 0..2 {
        let shuffle = Shuffle::Sort {
            keys: keys.clone(),
            bucket: None,
            statistics: false,
            limit: None,
        };
        let mut writer = bench
            .exchange
            .create(id(worker), schema(), shuffle, 1_000_000)
            .unwrap();
        for batch in all.iter().skip(worker as usize).step_by(2) {
            writer.write(0, batch.clone()).unwrap();
        }
        writer.finish().unwrap();
    }
    let found = read_all(&bench, 2, 0, ReadOrder::Keys, keys).await;
    let mut expected = rows(&all);
    expected.sort_by(|a, b| (&a.1, std::cmp::Reverse(a.2)).cmp(&(&b.1, std::cmp::Reverse(b.2))));
    assert_eq!(found, expected);

    let shuffle = Shuffle::Hash {
        keys: Vec::new(),
        columns: vec![1],
        partitions: 4,
    };
    let mut writer = bench
        .exchange
        .create(id(7), schema(), shuffle, 1_000_000)
        .unwrap();
    for batch in &all {
        writer.write(0, batch.clone()).unwrap();
    }
    let summary = writer.finish().unwrap();
    assert_eq!(summary.partition_rows.iter().sum::<u64>(), 5_000);
    let output = bench.exchange.find(&id(7)).unwrap();
    assert_eq!(output.partitions().len(), 4);
}

/// Every partition sorted, equal keys together, the same division as without an order, memory or disk.
#[tokio::test]
async fn hash_partitions_can_be_sorted() {
    let keys = vec![SortKey::ascending(1)];
    let shuffle = |keys: &[SortKey]| Shuffle::Hash {
        columns: vec![1],
        partitions: 3,
        keys: keys.to_vec(),
    };
    for limit in [u64::MAX, 400_000] {
        let sorted = bench(limit);
        let plain = bench(u64::MAX);
        let mut plain_rows = 0;
        for worker in 0..2 {
            for (bench, keys) in [(&sorted, keys.as_slice()), (&plain, &[])] {
                let mut writer = bench
                    .exchange
                    .create(id(worker), schema(), shuffle(keys), u64::MAX)
                    .unwrap();
                for batch in batches(40_000) {
                    writer.write(0, batch).unwrap();
                }
                let summary = writer.finish().unwrap();
                assert_eq!(summary.partition_rows.len(), 3);
                assert_eq!(summary.partition_rows.iter().sum::<u64>(), 40_000);
            }
        }
        assert_eq!(sorted.exchange.stats().spilled_bytes > 0, limit < u64::MAX);
        for partition in 0..3 {
            let found = read_all(&sorted, 2, partition, ReadOrder::Keys, keys.clone()).await;
            assert!(found.is_sorted_by(|left, right| left.1 <= right.1));
            let mut expected = read_all(&plain, 2, partition, ReadOrder::Any, Vec::new()).await;
            plain_rows += expected.len();
            let mut found = found;
            found.sort();
            expected.sort();
            assert!(found == expected, "partition {partition}");
        }
        assert_eq!(plain_rows, 80_000);
        // All three as one.
        let request = ReadRequest {
            schema: schema(),
            sources: (0..2).map(|worker| StageSource::local(id(worker))).collect(),
            partition: 0,
            order: ReadOrder::Keys,
            keys: keys.clone(),
            counters: Arc::default(),
        };
        let client = Arc::new(FlightPool::new(None).unwrap());
        let merged = read_merged(&sorted.exchange, &client, &request, &[0, 1, 2], |_, _| {}).unwrap();
        let merged = rows(&merged.try_collect::<Vec<_>>().await.unwrap());
        assert_eq!(merged.len(), 80_000);
        assert!(merged.is_sorted_by(|left, right| left.1 <= right.1));
    }
}

/// The bound counts what outputs and operators write; what is dropped no longer counts.
#[tokio::test]
async fn files_of_a_task_are_bounded_counted_and_removed() {
    use datafusion::execution::disk_manager::DiskManagerBuilder;
    use std::io::Write;

    let directory = tempfile::tempdir().unwrap();
    let spill = directory.path().join("spill");
    let open = || {
        Exchange::new(ExchangeConfig {
            spill_directory: spill.clone(),
            memory_limit_bytes: 0,
            pool: Arc::new(UnboundedMemoryPool::default()),
            task_disk_limit_bytes: Some(1_000_000),
            durable: None,
        })
        .unwrap()
    };
    let files = || std::fs::read_dir(&spill).unwrap().count();
    let exchange = open();
    let disk = exchange.disk(&id(0));
    let builder = DiskManagerBuilder::default().with_temp_file_factory(disk.operator_files());
    let operators = Arc::new(builder.build().unwrap());
    let file = operators.create_tmp_file("test").unwrap();
    let mut writer = file.open_writer().unwrap();
    writer.write_all(&[7; 300_000]).unwrap();
    writer.finish().unwrap();
    let read: Vec<bytes::Bytes> = file.read_stream().unwrap().try_collect().await.unwrap();
    assert_eq!(read.concat(), vec![7; 300_000]);
    let mut output = exchange.create(id(0), schema(), Shuffle::Mix, u64::MAX).unwrap();
    for batch in batches(20_000) {
        output.write(0, batch).unwrap();
    }
    output.finish().unwrap();
    let size = disk.size();
    let spilled = size.bytes - 300_000;
    assert!(size.files_written > 1 && spilled > 50_000, "{size:?}");
    // A file that turned out to hold nothing is gone again.
    assert!(size.bytes_written >= size.bytes, "{size:?}");
    assert_eq!(exchange.find(&id(0)).unwrap().disk_bytes(), spilled);
    // Another work order of the same task shares its bound.
    let other = exchange
        .disk(&id(1))
        .operator_files()
        .create_temp_file("test")
        .unwrap();
    let mut more = other.open_writer().unwrap();
    let error = more.write_all(&[7; 700_000]).unwrap_err();
    let fault = trilith_proto::fault::Fault::find(&error).unwrap();
    assert_eq!(fault.code.as_str(), "NotEnoughTemporaryStorageFault");
    assert!(fault.to_string().contains("--task-disk-limit"), "{fault}");
    exchange.release_all();
    assert_eq!(disk.size().bytes, 300_000);
    drop((writer, file, more, other));
    assert_eq!(
        (disk.size().bytes, exchange.stats().disk_bytes, files()),
        (0, 0, 0)
    );
    assert_eq!(disk.size().bytes_written, size.bytes_written);
    // What a killed process left goes at the start of the next.
    std::mem::forget(operators.create_tmp_file("test").unwrap());
    assert_eq!(files(), 1);
    open();
    assert_eq!(files(), 0);
}
