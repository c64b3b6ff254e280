//! All outputs of one process.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trilith_proto::id::{TaskId, WorkOrderId};

use crate::disk::{Disk, OrderDisk};
use crate::durable::{DurableStorage, PartList};
use crate::error::ExchangeError;
use crate::memory::{HeldMemory, Usage};
use crate::output::StageOutput;
use crate::shuffle::Shuffle;
use crate::statistics::PartitionRange;
use crate::writer::OutputWriter;

/// An output spills only if this much comes of it, so that a full pool does not make a file of every batch.
const SPILL_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// Where the exchange keeps rows.
#[derive(Debug, Clone)]
pub struct ExchangeConfig {
    /// Files go here. The directory belongs to one process: what is left of an earlier one is removed.
    pub spill_directory: PathBuf,
    /// Rows of all outputs in memory, at most (about).
    pub memory_limit_bytes: u64,
    /// Memory is also reserved here.
    pub pool: Arc<dyn MemoryPool>,
    /// Bytes of files of one task in this process; above it `NotEnoughTemporaryStorageFault`. None: no bound.
    pub task_disk_limit_bytes: Option<u64>,
    /// For outputs that outlive this process.
    pub durable: Option<Arc<DurableStorage>>,
}

/// All outputs of one process.
pub struct Exchange {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    outputs: Mutex<HashMap<WorkOrderId, Arc<StageOutput>>>,
    usage: Arc<Usage>,
    pool: Arc<dyn MemoryPool>,
    pub disk: Disk,
    pub durable: Option<Arc<DurableStorage>>,
    pub served: Served,
}

/// What other processes read.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub batches: AtomicU64,
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
}

/// Totals of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExchangeStats {
    /// Outputs that can be read now.
    pub outputs: u64,
    /// Memory held now.
    pub memory_bytes: u64,
    /// Size of all files now.
    pub disk_bytes: u64,
    /// Bytes written to files since the start.
    pub spilled_bytes: u64,
    /// Batches sent to other processes since the start.
    pub flight_batches_served: u64,
    /// Rows sent to other processes since the start.
    pub flight_rows_served: u64,
    /// Bytes sent to other processes since the start.
    pub flight_bytes_served: u64,
}

impl Exchange {
    /// Makes the spill directory, or empties it.
    pub fn new(config: ExchangeConfig) -> Result<Exchange, ExchangeError> {
        let usage = Arc::new(Usage {
            memory_limit: config.memory_limit_bytes,
            ..Usage::default()
        });
        let disk = Disk::open(&config.spill_directory, config.task_disk_limit_bytes, &usage)?;
        let shared = Shared {
            outputs: Mutex::new(HashMap::new()),
            usage,
            pool: config.pool,
            disk,
            durable: config.durable,
            served: Served::default(),
        };
        Ok(Exchange {
            shared: Arc::new(shared),
        })
    }

    /// Starts an output. A row of more than `max_frame_bytes` bytes fails it.
    pub fn create(
        &self,
        id: WorkOrderId,
        schema: SchemaRef,
        shuffle: Shuffle,
        max_frame_bytes: u64,
    ) -> Result<OutputWriter, ExchangeError> {
        if self.shared.outputs.lock().contains_key(&id) {
            return Err(ExchangeError::OutputExists { id });
        }
        OutputWriter::new(Arc::clone(&self.shared), id, schema, shuffle, max_frame_bytes)
    }

    /// Cuts sorted output. Returns rows by partition. Repeated calls change nothing. May read from disk.
    pub fn set_boundaries(
        &self,
        id: &WorkOrderId,
        ranges: Vec<PartitionRange>,
    ) -> Result<Vec<u64>, ExchangeError> {
        self.get(id)?.set_boundaries(&ranges)
    }

    /// The account of the files of a work order, operators' files included.
    pub fn disk(&self, id: &WorkOrderId) -> Arc<OrderDisk> {
        self.shared.disk.order(id)
    }

    /// Where outputs outlive this process, if there is such a place.
    pub fn durable(&self) -> Result<&Arc<DurableStorage>, ExchangeError> {
        self.shared.durable()
    }

    /// Moves a finished output, whose boundaries are set, to durable storage.
    pub async fn make_durable(
        &self,
        id: &WorkOrderId,
        cancel: &CancellationToken,
    ) -> Result<PartList, ExchangeError> {
        let output = self.get(id)?;
        let written = self.shared.durable()?.write_output(&output, cancel).await;
        self.release(id);
        written
    }

    /// A finished output.
    pub fn find(&self, id: &WorkOrderId) -> Option<Arc<StageOutput>> {
        self.shared.outputs.lock().get(id).cloned()
    }

    pub(crate) fn get(&self, id: &WorkOrderId) -> Result<Arc<StageOutput>, ExchangeError> {
        self.find(id)
            .ok_or_else(|| ExchangeError::OutputMissing { id: id.clone() })
    }

    /// Forgets an output. Who reads it now may go on.
    pub fn release(&self, id: &WorkOrderId) {
        let released = self.shared.outputs.lock().remove(id);
        // Files are removed here, after the lock.
        drop(released);
    }

    /// Forgets all outputs of all tasks.
    pub fn release_all(&self) {
        let released = std::mem::take(&mut *self.shared.outputs.lock());
        drop(released);
    }

    /// Forgets all outputs of a task.
    pub fn release_task(&self, task: &TaskId) {
        let released: Vec<_> = self
            .shared
            .outputs
            .lock()
            .extract_if(|id, _| id.task == *task)
            .collect();
        drop(released);
    }

    /// Totals.
    pub fn stats(&self) -> ExchangeStats {
        let usage = &self.shared.usage;
        let served = &self.shared.served;
        ExchangeStats {
            outputs: self.shared.outputs.lock().len() as u64,
            memory_bytes: usage.memory.load(Ordering::Relaxed),
            disk_bytes: usage.disk.load(Ordering::Relaxed),
            spilled_bytes: usage.spilled.load(Ordering::Relaxed),
            flight_batches_served: served.batches.load(Ordering::Relaxed),
            flight_rows_served: served.rows.load(Ordering::Relaxed),
            flight_bytes_served: served.bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    pub fn hold_memory(&self, id: &WorkOrderId) -> HeldMemory {
        HeldMemory::new(format!("output {id}"), &self.usage, &self.pool)
    }

    pub fn durable(&self) -> Result<&Arc<DurableStorage>, ExchangeError> {
        self.durable.as_ref().ok_or(ExchangeError::NoDurableStorage)
    }

    pub fn spill_minimum(&self) -> usize {
        SPILL_BYTES_MIN.min(self.usage.memory_limit / 4) as usize
    }

    pub fn publish(&self, output: Arc<StageOutput>) -> Result<(), ExchangeError> {
        let mut outputs = self.outputs.lock();
        if outputs.contains_key(output.id()) {
            return Err(ExchangeError::OutputExists {
                id: output.id().clone(),
            });
        }
        outputs.insert(output.id().clone(), output);
        Ok(())
    }

    /// Memory for a reader; none when there is too little.
    pub fn try_reserve(&self, name: &str, bytes: usize) -> Option<MemoryReservation> {
        let reservation = MemoryConsumer::new(name).register(&self.pool);
        reservation.try_grow(bytes).is_ok().then_some(reservation)
    }
}
