//! What server and worker processes share: memory, exchange, Flight connections.

use std::path::Path;
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use trilith_engine::worker::WorkerConfig;
use trilith_exchange::{Exchange, ExchangeConfig, FlightPool};
use trilith_input::Policy;

/// Memory consumers that an error names.
const NAMED_CONSUMERS: usize = 5;

/// Why a process does not start.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// Builds the shared parts of a process.
pub fn worker_config(
    data_dir: &Path,
    segment_directory: &Path,
    memory_bytes: u64,
    policy: Policy,
    own_address: String,
    token: &str,
) -> Result<WorkerConfig, StartError> {
    let consumers = std::num::NonZeroUsize::new(NAMED_CONSUMERS).ok_or("no consumers to name")?;
    let pool: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(
        FairSpillPool::new(memory_bytes as usize),
        consumers,
    ));
    let spill = data_dir.join("spill");
    let operators = spill.join("operators");
    std::fs::create_dir_all(&operators)?;
    let runtime_env: Arc<RuntimeEnv> = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::clone(&pool))
        .with_disk_manager_builder(
            DiskManagerBuilder::default().with_mode(DiskManagerMode::Directories(vec![operators])),
        )
        .build_arc()?;
    // Half for what stages hand to each other, the rest for what runs.
    let exchange = Exchange::new(ExchangeConfig {
        spill_directory: spill.join("exchange"),
        memory_limit_bytes: memory_bytes / 2,
        pool,
    })?;
    Ok(WorkerConfig {
        exchange: Arc::new(exchange),
        flight_pool: Arc::new(FlightPool::new(Some(token))?),
        runtime_env,
        policy: Arc::new(policy),
        segment_directory: segment_directory.to_owned(),
        own_address,
    })
}
