//! What server and worker processes share: memory, exchange, Flight connections.

use std::path::Path;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use tokio::runtime::Handle;
use trilith_engine::worker::{MemoryBounds, WorkerConfig};
use trilith_exchange::{DurableSettings, DurableStorage, Exchange, ExchangeConfig, FlightPool};
use trilith_input::Policy;

use crate::machine;
use crate::memory_pool::ProcessPool;

/// Why a process does not start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// What a process may use.
#[derive(Debug, Clone)]
pub struct ProcessLimits {
    /// Memory of operators and stage outputs.
    pub memory: MemoryBounds,
    /// Files of one task; none without a limit.
    pub task_disk_bytes: Option<u64>,
    /// Where operators run.
    pub compute: Handle,
}

/// Bounds of this process. A server that leaves all work to worker processes still answers queries, one at a time
/// for this purpose.
pub fn memory_bounds(limit_bytes: u64, slots: u32) -> MemoryBounds {
    MemoryBounds {
        limit_bytes,
        machine_bytes: machine::memory_bytes(),
        slots: slots.max(1),
        threads: machine::cores(),
    }
}

/// Builds the shared parts of a process.
pub fn worker_config(
    data_dir: &Path,
    segment_directory: &Path,
    limits: ProcessLimits,
    policy: Policy,
    own_address: String,
    token: &str,
    durable: Option<&DurableSettings>,
) -> Result<WorkerConfig, StartError> {
    let pool: Arc<dyn MemoryPool> = Arc::new(ProcessPool::new(limits.memory.limit_bytes as usize));
    let spill = data_dir.join("spill");
    let operators = spill.join("operators");
    // Of statements that run at once; what an earlier process left is of no use.
    match std::fs::remove_dir_all(&operators) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => std::fs::create_dir_all(&operators)?,
    }
    let runtime_env: Arc<RuntimeEnv> = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::clone(&pool))
        .with_disk_manager_builder(
            DiskManagerBuilder::default()
                .with_mode(DiskManagerMode::Directories(vec![operators]))
                .with_max_temp_directory_size(u64::MAX),
        )
        .build_arc()?;
    // Half for what stages hand to each other, the rest for what runs.
    let exchange = Exchange::new(ExchangeConfig {
        spill_directory: spill.join("exchange"),
        memory_limit_bytes: limits.memory.limit_bytes / 2,
        task_disk_limit_bytes: limits.task_disk_bytes,
        pool,
        durable: durable.map(DurableStorage::open).transpose()?.map(Arc::new),
    })?;
    Ok(WorkerConfig {
        exchange: Arc::new(exchange),
        flight_pool: Arc::new(FlightPool::new(Some(token))?),
        runtime_env,
        memory: limits.memory,
        policy: Arc::new(policy),
        segment_directory: segment_directory.to_owned(),
        own_address,
        compute: limits.compute,
    })
}
