//! Divides rows by the hash of their keys.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::error::ExchangeError;

/// The same in every process, and another than the operators' own, so that their tables stay even.
const SEED: u64 = 0x7452_696c_6954_6831;
/// Rows for each partition before batches are cut from what is pending.
const ROWS_PER_PARTITION: usize = 4_096;
/// Bytes that may be pending.
const PENDING_BYTES: usize = 32 * 1024 * 1024;

/// Hash of every row.
fn hash(batch: &RecordBatch, columns: &[usize], hashes: &mut Vec<u64>) -> Result<(), ExchangeError> {
    let columns: Vec<ArrayRef> = columns
        .iter()
        .map(|column| batch.column(*column).clone())
        .collect();
    hashes.clear();
    hashes.resize(batch.num_rows(), 0);
    create_hashes(&columns, &RandomState::with_seed(SEED), hashes)?;
    Ok(())
}

/// The high half of hash × partitions: even without a division.
fn partition(hash: u64, partitions: usize) -> usize {
    ((u128::from(hash) * partitions as u128) >> 64) as usize
}

/// Partition of every row.
pub(crate) fn partitions(
    batch: &RecordBatch,
    columns: &[usize],
    count: usize,
) -> Result<Vec<i64>, ExchangeError> {
    let mut hashes = Vec::new();
    hash(batch, columns, &mut hashes)?;
    Ok(hashes
        .into_iter()
        .map(|hash| partition(hash, count) as i64)
        .collect())
}

/// Rows that wait to be divided.
pub(crate) struct HashDivider {
    columns: Vec<usize>,
    batches: Vec<RecordBatch>,
    bytes: usize,
    rows: usize,
    /// (batch, row) by partition.
    indices: Vec<Vec<(usize, usize)>>,
    hashes: Vec<u64>,
}

impl HashDivider {
    pub fn new(columns: Vec<usize>, partitions: usize) -> HashDivider {
        HashDivider {
            columns,
            batches: Vec::new(),
            bytes: 0,
            rows: 0,
            indices: vec![Vec::new(); partitions],
            hashes: Vec::new(),
        }
    }

    /// Takes a batch of `bytes` bytes.
    pub fn push(&mut self, batch: RecordBatch, bytes: usize) -> Result<(), ExchangeError> {
        let partitions = self.indices.len();
        hash(&batch, &self.columns, &mut self.hashes)?;
        let number = self.batches.len();
        for (row, hash) in self.hashes.iter().enumerate() {
            let partition = partition(*hash, partitions);
            if let Some(indices) = self.indices.get_mut(partition) {
                indices.push((number, row));
            }
        }
        self.rows += batch.num_rows();
        self.bytes += bytes;
        self.batches.push(batch);
        Ok(())
    }

    /// Whether it is time for `flush`.
    pub fn is_full(&self) -> bool {
        self.rows >= ROWS_PER_PARTITION * self.indices.len().max(1) || self.bytes >= PENDING_BYTES
    }

    /// One batch for every partition with rows.
    pub fn flush(&mut self) -> Result<Vec<(usize, RecordBatch)>, ExchangeError> {
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut divided = Vec::new();
        for (partition, indices) in self.indices.iter_mut().enumerate() {
            if !indices.is_empty() {
                divided.push((partition, interleave_record_batch(&batches, indices)?));
                indices.clear();
            }
        }
        self.batches.clear();
        self.bytes = 0;
        self.rows = 0;
        Ok(divided)
    }
}
