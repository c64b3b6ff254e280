//! The memory pool of a process.

use std::fmt;

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation};
use parking_lot::Mutex;

/// Eighths of what is left that go to those who can spill. The rest is for merging what they spilled.
const SPILLABLE_EIGHTHS: usize = 5;
/// Every consumer may have this much: to refuse a trifle would stop work for nothing.
const TRIFLE_BYTES: usize = 512 * 1024;
/// How a sort's second reservation is called. It asks for as much as it can get, and cannot spill.
const MERGE_NAME: &str = "ExternalSorterMerge";
/// An aggregation of sorted rows holds the groups of a few batches; it says that it spills, but fails when it is
/// refused more while it gives groups away.
const SORTED_AGGREGATION_NAME: &str = "OrderedFinalAggregateStream";
/// Bytes that it may have in any case.
const SORTED_AGGREGATION_BYTES_MIN: usize = 32 << 20;
/// Bytes that a merge may have in any case.
const MERGE_BYTES_MIN: usize = 4 << 20;

/// Gives each consumer that can spill an even share of most of what the others leave, and each of their merges an even
/// share of the rest. A share is granted in any case: a sort that cannot merge cannot go on.
#[derive(Debug)]
pub(crate) struct ProcessPool {
    size: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spilling_consumers: usize,
    spillable: usize,
    merging: usize,
    other: usize,
}

impl ProcessPool {
    /// A pool of `size` bytes.
    pub fn new(size: usize) -> ProcessPool {
        ProcessPool {
            size,
            state: Mutex::default(),
        }
    }
}

impl State {
    fn part(&mut self, consumer: &MemoryConsumer) -> &mut usize {
        if consumer.can_spill() {
            &mut self.spillable
        } else if merges(consumer) {
            &mut self.merging
        } else {
            &mut self.other
        }
    }

    fn sum(&self) -> usize {
        self.spillable + self.merging + self.other
    }
}

fn merges(consumer: &MemoryConsumer) -> bool {
    consumer.name().starts_with(MERGE_NAME)
}

impl MemoryPool for ProcessPool {
    fn name(&self) -> &str {
        "process"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            self.state.lock().spilling_consumers += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if consumer.can_spill() {
            let mut state = self.state.lock();
            state.spilling_consumers = state.spilling_consumers.saturating_sub(1);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        *self.state.lock().part(reservation.consumer()) += additional;
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut state = self.state.lock();
        let part = state.part(reservation.consumer());
        *part = part.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let consumer = reservation.consumer();
        let mut state = self.state.lock();
        let left = self.size.saturating_sub(state.other);
        let spillable = left / 8 * SPILLABLE_EIGHTHS;
        let sharers = state.spilling_consumers.max(1);
        let after = reservation.size().saturating_add(additional);
        let sum = state.sum().saturating_add(additional);
        // Who must not be refused may take more than its share, as long as something is left.
        let roomy = sum <= self.size / 8 * 7;
        let granted = if consumer.name().starts_with(SORTED_AGGREGATION_NAME) {
            after <= (spillable / sharers).max(SORTED_AGGREGATION_BYTES_MIN) || roomy
        } else if consumer.can_spill() {
            after <= spillable / sharers
        } else if merges(consumer) {
            after <= ((left - spillable) / sharers).max(MERGE_BYTES_MIN) || roomy
        } else {
            sum <= self.size
        };
        if !granted && after > TRIFLE_BYTES {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} bytes more for {}, which has {}; spillable {}, merging {}, other {}, of {}",
                additional,
                consumer.name(),
                reservation.size(),
                state.spillable,
                state.merging,
                state.other,
                self.size,
            )));
        }
        *state.part(consumer) += additional;
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.state.lock().sum()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.size)
    }
}

impl fmt::Display for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process pool of {} bytes, {} in use",
            self.size,
            self.reserved()
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MB: usize = 1 << 20;

    #[test]
    fn those_that_spill_and_their_merges_have_even_shares() {
        let pool: Arc<dyn MemoryPool> = Arc::new(ProcessPool::new(160 * MB));
        let output = MemoryConsumer::new("output").register(&pool);
        assert!(output.try_grow(80 * MB).is_ok());
        let sort = |name: &str| MemoryConsumer::new(name).with_can_spill(true).register(&pool);
        let (first, second) = (sort("first"), sort("second"));
        assert!(first.try_grow(25 * MB).is_ok());
        assert!(first.try_grow(1).is_err());
        assert!(second.try_grow(25 * MB).is_ok());
        let merge = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        assert!(merge.try_grow(10 * MB).is_ok());
        // More than its share is left for others to take, and then this much is left to none.
        assert!(output.try_grow(20 * MB).is_ok());
        assert!(output.try_grow(1).is_err());
        assert!(merge.try_grow(2 * MB).is_err());
        // A share is granted in any case.
        let late = MemoryConsumer::new("ExternalSorterMerge[0]").register(&pool);
        assert!(late.try_grow(11 * MB).is_ok());
        first.free();
        second.free();
        assert!(merge.try_grow(15 * MB).is_ok());
        drop((first, second, merge, late, output));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn trifles_are_granted_and_all_is_counted() {
        let pool: Arc<dyn MemoryPool> = Arc::new(ProcessPool::new(8 * MB));
        let output = MemoryConsumer::new("output").register(&pool);
        output.grow(10 * MB);
        assert!(output.try_grow(1).is_err());
        let sum = MemoryConsumer::new("sum").register(&pool);
        assert!(sum.try_grow(0).is_ok());
        assert!(sum.try_grow(TRIFLE_BYTES).is_ok());
        assert!(sum.try_grow(1).is_err());
        assert_eq!(pool.reserved(), 10 * MB + TRIFLE_BYTES);
    }
}
