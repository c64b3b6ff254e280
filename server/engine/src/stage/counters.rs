//! Counters of one work order, as they are measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use trilith_exchange::{OrderDisk, PartList, StageOutput};
use trilith_proto::fault::FaultCode;
use trilith_proto::id::WorkOrderId;
use trilith_proto::pb::task as pb;

/// Rows, bytes and batches by partition.
#[derive(Debug, Default)]
pub struct ChannelProgress {
    inner: Mutex<Channel>,
}

#[derive(Debug, Default, Clone)]
struct Channel {
    rows: Vec<i64>,
    bytes: Vec<i64>,
    frames: Vec<i64>,
    files: Option<(i64, i64)>,
}

impl ChannelProgress {
    /// Adds rows of a partition.
    pub fn add(&self, partition: usize, rows: u64, bytes: u64, frames: u64) {
        let mut channel = self.inner.lock();
        if channel.rows.len() <= partition {
            channel.rows.resize(partition + 1, 0);
            channel.bytes.resize(partition + 1, 0);
            channel.frames.resize(partition + 1, 0);
        }
        channel.rows[partition] += rows as i64;
        channel.bytes[partition] += bytes as i64;
        channel.frames[partition] += frames as i64;
    }

    /// Adds a batch of a partition.
    pub fn batch(&self, partition: usize, batch: &RecordBatch) {
        self.add(
            partition,
            batch.num_rows() as u64,
            batch.get_array_memory_size() as u64,
            1,
        );
    }

    /// Says how many files there are to read.
    pub fn total_files(&self, total: usize) {
        self.inner.lock().files.get_or_insert((0, 0)).1 = total as i64;
    }

    /// One file is read.
    pub fn file_done(&self) {
        self.inner.lock().files.get_or_insert((0, 0)).0 += 1;
    }

    /// Adds bytes that were read apart from any batch.
    pub fn add_bytes(&self, bytes: u64) {
        self.add(0, 0, bytes, 0);
    }

    fn report(&self) -> Option<pb::ChannelCounter> {
        let channel = self.inner.lock().clone();
        if channel.rows.is_empty() && channel.files.is_none() {
            return None;
        }
        let (files, total_files) = match channel.files {
            Some((done, total)) => (vec![done], vec![total]),
            None => (Vec::new(), Vec::new()),
        };
        // Files have no frames.
        let frames = if channel.frames.iter().all(|count| *count == 0) {
            Vec::new()
        } else {
            channel.frames
        };
        Some(pb::ChannelCounter {
            rows: channel.rows,
            bytes: channel.bytes,
            frames,
            files,
            total_files,
        })
    }
}

/// All counters of one work order.
#[derive(Debug, Default)]
pub struct StageCounters {
    inputs: Mutex<BTreeMap<usize, Arc<ChannelProgress>>>,
    output: ChannelProgress,
    shuffle: ChannelProgress,
    sort: Mutex<Option<pb::SortProgressCounter>>,
    cpu: Mutex<BTreeMap<String, Duration>>,
    segments: SegmentProgress,
    disk: Option<Arc<OrderDisk>>,
    durable_files: AtomicI64,
    durable_bytes: AtomicI64,
}

/// Rows on their way into segments.
#[derive(Debug, Default)]
pub struct SegmentProgress {
    processed: AtomicI64,
    persisted: AtomicI64,
    merged: AtomicI64,
    pushed: AtomicI64,
    used: std::sync::atomic::AtomicBool,
}

impl SegmentProgress {
    /// Rows were handed to a segment.
    pub fn processed(&self, rows: u64) {
        self.used.store(true, Ordering::Relaxed);
        self.processed.fetch_add(rows as i64, Ordering::Relaxed);
    }

    /// Rows are in a finished file.
    pub fn persisted(&self, rows: u64) {
        self.persisted.fetch_add(rows as i64, Ordering::Relaxed);
        self.merged.fetch_add(rows as i64, Ordering::Relaxed);
    }

    /// Rows are in deep storage.
    pub fn pushed(&self, rows: u64) {
        self.pushed.fetch_add(rows as i64, Ordering::Relaxed);
    }
}

impl StageCounters {
    /// Counters that also tell what is on disk.
    pub fn with_disk(disk: Arc<OrderDisk>) -> StageCounters {
        StageCounters {
            disk: Some(disk),
            ..StageCounters::default()
        }
    }

    /// Files of the work order.
    pub fn disk(&self) -> Option<&Arc<OrderDisk>> {
        self.disk.as_ref()
    }

    /// The counter of an input.
    pub fn input(&self, number: usize) -> Arc<ChannelProgress> {
        Arc::clone(self.inputs.lock().entry(number).or_default())
    }

    /// A batch leaves the operators.
    pub fn output(&self, partition: usize, batch: &RecordBatch) {
        // Operators have one output channel each, whatever their partitions are inside.
        let _ = partition;
        self.output.batch(0, batch);
    }

    /// Time spent in a step.
    pub fn cpu(&self, name: &str, time: Duration) {
        let mut cpu = self.cpu.lock();
        match cpu.get_mut(name) {
            Some(sum) => *sum += time,
            None => {
                cpu.insert(name.to_owned(), time);
            }
        }
    }

    /// The exchange holds the output, cut into partitions.
    pub fn shuffled(&self, output: &StageOutput) {
        let sizes = output.partitions();
        for (partition, size) in sizes.iter().enumerate() {
            self.shuffle.add(partition, size.rows, size.bytes, size.frames);
        }
        if let Some(runs) = output.sorted_runs() {
            let rows: u64 = sizes.iter().map(|size| size.rows).sum();
            let partitions = sizes.len() as i64;
            let mut sort = pb::SortProgressCounter {
                trivially_complete: rows == 0,
                ..Default::default()
            };
            if rows > 0 {
                // Level 0 sorts runs, level 1 merges them into partitions as they are read.
                sort.total_merging_levels = 2;
                sort.level_to_total_batches = [(0, runs as i64), (1, partitions)].into();
                sort.level_to_merged_batches = sort.level_to_total_batches.clone();
                sort.total_mergers_for_ultimate_level = partitions as i32;
                sort.progress_digest = Some(1.0);
            }
            *self.sort.lock() = Some(sort);
        }
    }

    /// Output was written to durable storage.
    pub fn made_durable(&self, written: &PartList) {
        self.durable_files
            .fetch_add(written.files() as i64, Ordering::Relaxed);
        self.durable_bytes
            .fetch_add(written.bytes() as i64, Ordering::Relaxed);
    }

    /// Pages of a result were written.
    pub fn paged(&self, written: &PartList) {
        for (number, page) in written.parts.iter().enumerate() {
            self.shuffle.add(number, page.rows, page.bytes, 1);
        }
        self.made_durable(written);
    }

    /// Progress of segment generation.
    pub fn segments(&self) -> &SegmentProgress {
        &self.segments
    }

    /// Everything measured so far.
    pub fn snapshot(&self, id: &WorkOrderId, parse_errors: u64) -> Vec<pb::Counter> {
        use pb::counter::Value;
        let mut values: Vec<(String, Value)> = Vec::new();
        for (number, input) in self.inputs.lock().iter() {
            if let Some(channel) = input.report() {
                values.push((format!("input{number}"), Value::Channel(channel)));
            }
        }
        if let Some(channel) = self.output.report() {
            values.push(("output".to_owned(), Value::Channel(channel)));
        }
        if let Some(channel) = self.shuffle.report() {
            values.push(("shuffle".to_owned(), Value::Channel(channel)));
        }
        if let Some(sort) = self.sort.lock().clone() {
            values.push(("sortProgress".to_owned(), Value::SortProgress(sort)));
        }
        if self.segments.used.load(Ordering::Relaxed) {
            let progress = pb::SegmentGenerationProgressCounter {
                rows_processed: self.segments.processed.load(Ordering::Relaxed),
                rows_persisted: self.segments.persisted.load(Ordering::Relaxed),
                rows_merged: self.segments.merged.load(Ordering::Relaxed),
                rows_pushed: self.segments.pushed.load(Ordering::Relaxed),
            };
            values.push((
                "segmentGenerationProgress".to_owned(),
                Value::SegmentGenerationProgress(progress),
            ));
        }
        let durable = self.durable_files.load(Ordering::Relaxed);
        let local = self.disk.as_ref().map(|disk| disk.size()).unwrap_or_default();
        if durable > 0 || local.files_written > 0 {
            let storage = pb::StorageCounter {
                local_bytes_reserved: local.bytes as i64,
                local_files_written: local.files_written as i64,
                local_bytes_written: local.bytes_written as i64,
                durable_file_count: durable,
                durable_bytes_written: self.durable_bytes.load(Ordering::Relaxed),
            };
            values.push(("storage".to_owned(), Value::Storage(storage)));
        }
        if parse_errors > 0 {
            let code = FaultCode::CannotParseExternalData.as_str().to_owned();
            let counts = [(code, parse_errors as i64)].into();
            values.push((
                "warnings".to_owned(),
                Value::Warnings(pb::WarningCounter { counts }),
            ));
        }
        values
            .into_iter()
            .map(|(name, value)| pb::Counter {
                stage_number: id.stage.0,
                worker_number: id.worker.0,
                name,
                value: Some(value),
            })
            .collect()
    }
}
