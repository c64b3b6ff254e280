//! Threads for operators, apart from those that answer clients and other processes.

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tracing::debug;

/// Niceness 4.
const PRIORITY: u8 = 37;

/// A runtime with a thread for each core. Operators keep a thread for long; who asks for a status meanwhile must not
/// wait for them.
pub struct Compute {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Compute {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Compute> {
        let runtime = Builder::new_multi_thread()
            .thread_name("compute")
            .on_thread_start(give_way)
            .enable_all()
            .build()?;
        Ok(Compute {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where operators are spawned.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

/// Threads that answer others go first when they have something to do.
fn give_way() {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let lower = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    let Ok(lower) = lower else { return };
    // It works without as well.
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), lower, policy) {
        debug!(?error, "threads of operators have no lower priority");
    }
}

impl Drop for Compute {
    /// Whoever drops it has waited for what must end; a thread that reads a file for nobody keeps no process.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
