//! Worker processes and their slots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use trilith_proto::id::TaskId;

use crate::worker::WorkerCommand;

/// A worker process of this controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

struct Process {
    slots: u32,
    busy: u32,
    /// Flight address for other processes.
    address: String,
    commands: mpsc::Sender<WorkerCommand>,
}

/// All worker processes. Clones share the same pool.
#[derive(Clone, Default)]
pub struct WorkerPool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    processes: Mutex<BTreeMap<ProcessId, Process>>,
    next: AtomicU64,
    freed: Notify,
}

/// A slot that a job holds; dropping it frees the slot.
pub struct SlotLease {
    shared: Arc<Shared>,
    process: ProcessId,
    address: String,
}

impl SlotLease {
    /// Where the slot is.
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Flight address of the process.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for SlotLease {
    fn drop(&mut self) {
        if let Some(process) = self.shared.processes.lock().get_mut(&self.process) {
            process.busy = process.busy.saturating_sub(1);
        }
        self.shared.freed.notify_waiters();
    }
}

/// Slots of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// All slots.
    pub slots: u32,
    /// Slots in use.
    pub busy: u32,
}

/// The process is gone.
#[derive(Debug, thiserror::Error)]
#[error("worker process is gone")]
pub struct ProcessGone;

impl WorkerPool {
    /// Adds a process and returns its id.
    pub fn add(&self, slots: u32, address: String, commands: mpsc::Sender<WorkerCommand>) -> ProcessId {
        let id = ProcessId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        self.shared.processes.lock().insert(
            id,
            Process {
                slots,
                busy: 0,
                address,
                commands,
            },
        );
        self.shared.freed.notify_waiters();
        id
    }

    /// Forgets a process; its leases stay valid objects but free nothing.
    pub fn remove(&self, id: ProcessId) {
        self.shared.processes.lock().remove(&id);
    }

    /// Slots of all processes.
    pub fn capacity(&self) -> Capacity {
        let processes = self.shared.processes.lock();
        Capacity {
            slots: processes.values().map(|process| process.slots).sum(),
            busy: processes.values().map(|process| process.busy).sum(),
        }
    }

    /// Takes up to `count` free slots, spread over the processes with most free slots.
    pub fn try_acquire(&self, count: usize) -> Vec<SlotLease> {
        let mut processes = self.shared.processes.lock();
        let mut leases = Vec::with_capacity(count);
        while leases.len() < count {
            let freest = processes
                .iter_mut()
                .filter(|(_, process)| process.busy < process.slots)
                .max_by_key(|(id, process)| (process.slots - process.busy, std::cmp::Reverse(**id)));
            let Some((id, process)) = freest else { break };
            process.busy += 1;
            leases.push(SlotLease {
                shared: Arc::clone(&self.shared),
                process: *id,
                address: process.address.clone(),
            });
        }
        leases
    }

    /// Takes exactly `count` slots, waiting until that many are free at once. None after `patience`.
    pub async fn acquire(&self, count: usize, patience: Duration) -> Option<Vec<SlotLease>> {
        let deadline = Instant::now() + patience;
        loop {
            // Listen before looking, so that a slot freed in between is not missed.
            let freed = self.shared.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let leases = self.try_acquire_all(count);
            if leases.is_some() {
                return leases;
            }
            if tokio::time::timeout_at(deadline, freed).await.is_err() {
                return None;
            }
        }
    }

    fn try_acquire_all(&self, count: usize) -> Option<Vec<SlotLease>> {
        let capacity = self.capacity();
        if ((capacity.slots - capacity.busy) as usize) < count {
            return None;
        }
        let leases = self.try_acquire(count);
        (leases.len() == count).then_some(leases)
    }

    /// Sends a command to a process; waits while its queue is full.
    pub async fn send(&self, id: ProcessId, command: WorkerCommand) -> Result<(), ProcessGone> {
        let sender = self
            .shared
            .processes
            .lock()
            .get(&id)
            .map(|process| process.commands.clone());
        match sender {
            Some(sender) => sender.send(command).await.map_err(|_| ProcessGone),
            None => Err(ProcessGone),
        }
    }

    /// Tells every process to drop a task.
    pub async fn cancel_everywhere(&self, task: &TaskId) {
        let senders: Vec<_> = self
            .shared
            .processes
            .lock()
            .values()
            .map(|process| process.commands.clone())
            .collect();
        for sender in senders {
            // A process that is gone has nothing left to cancel.
            let _gone = sender
                .send(WorkerCommand::CancelTask { task: task.clone() })
                .await;
        }
    }
}
