//! Memory and disk that outputs hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, RecordBatch};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

/// Totals of one process.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub memory_limit: u64,
    pub memory: AtomicU64,
    pub disk: AtomicU64,
    pub spilled: AtomicU64,
}

impl Usage {
    fn try_take(&self, bytes: u64) -> bool {
        self.memory
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.memory_limit)
            })
            .is_ok()
    }
}

/// Memory that one output holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct HeldMemory {
    usage: Arc<Usage>,
    reservation: MemoryReservation,
}

impl HeldMemory {
    pub fn new(name: String, usage: &Arc<Usage>, pool: &Arc<dyn MemoryPool>) -> HeldMemory {
        HeldMemory {
            usage: Arc::clone(usage),
            reservation: MemoryConsumer::new(name).register(pool),
        }
    }

    /// False when neither the exchange's bound nor the pool has this much left.
    pub fn try_grow(&self, bytes: usize) -> bool {
        if !self.usage.try_take(bytes as u64) {
            return false;
        }
        if self.reservation.try_grow(bytes).is_err() {
            self.usage.memory.fetch_sub(bytes as u64, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Takes memory that work cannot go on without.
    pub fn grow(&self, bytes: usize) {
        self.usage.memory.fetch_add(bytes as u64, Ordering::Relaxed);
        self.reservation.grow(bytes);
    }

    /// Gives some back.
    pub fn shrink(&self, bytes: usize) {
        let bytes = bytes.min(self.reservation.size());
        self.reservation.shrink(bytes);
        self.usage.memory.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.usage
            .memory
            .fetch_sub(self.reservation.size() as u64, Ordering::Relaxed);
    }
}

/// Bytes of the values of a batch, without what its buffers hold beyond them.
pub fn value_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| {
            let data = column.to_data();
            data.get_slice_memory_size()
                .unwrap_or_else(|_overflow| data.get_array_memory_size())
        })
        .sum()
}

/// Bytes to account for while a batch is kept. Slices of larger batches count as themselves: the rest of the
/// buffers is accounted with its own slices.
pub(crate) fn kept_bytes(batch: &RecordBatch) -> usize {
    let values = value_bytes(batch);
    let buffers: usize = batch
        .columns()
        .iter()
        .map(|column| column.get_buffer_memory_size())
        .sum();
    if buffers <= values.saturating_mul(2) {
        buffers
    } else {
        values
    }
}
