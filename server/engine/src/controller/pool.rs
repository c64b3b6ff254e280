//! Worker processes and their slots, and the queue of those who wait for slots.
//!
//! Who waits is served by priority, then by arrival. Somebody who wants few slots may overtake somebody who
//! waits for many, if the free slots are enough; but only so often, so that the large one is served too: from
//! then on free slots are kept until they are enough for it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use trilith_proto::id::TaskId;

use super::job::now_ms;
use crate::limits;
use crate::worker::WorkerCommand;

/// A worker process of this controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

struct Process {
    slots: u32,
    busy: u32,
    /// Flight address for other processes.
    address: String,
    /// When a slot was last given back; at first, when the process joined.
    idle_since_ms: i64,
    commands: mpsc::Sender<WorkerCommand>,
}

/// All worker processes. Clones share the same pool.
#[derive(Clone, Default)]
pub struct WorkerPool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    slots: Mutex<Slots>,
    next: AtomicU64,
}

#[derive(Default)]
struct Slots {
    processes: BTreeMap<ProcessId, Process>,
    /// First served first.
    waiting: BTreeMap<Place, Waiter>,
}

/// Place in the queue: high priority first, then by arrival.
type Place = (Reverse<i32>, u64);

struct Waiter {
    /// As many slots as were asked for; all that there are will do.
    count: usize,
    /// How often others were served first although they came later.
    overtaken: u32,
    served: oneshot::Sender<Vec<SlotLease>>,
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
        {
            let mut slots = self.shared.slots.lock();
            if let Some(process) = slots.processes.get_mut(&self.process) {
                process.busy = process.busy.saturating_sub(1);
                process.idle_since_ms = now_ms();
            }
        }
        serve(&self.shared);
    }
}

impl Slots {
    fn capacity(&self) -> Capacity {
        Capacity {
            slots: self.processes.values().map(|process| process.slots).sum(),
            busy: self.processes.values().map(|process| process.busy).sum(),
        }
    }

    /// Takes up to `count` free slots, spread over the processes with most free slots.
    fn take(&mut self, shared: &Arc<Shared>, count: usize) -> Vec<SlotLease> {
        let mut leases = Vec::new();
        while leases.len() < count {
            let freest = self
                .processes
                .iter_mut()
                .filter(|(_, process)| process.busy < process.slots)
                .max_by_key(|(id, process)| (process.slots - process.busy, Reverse(**id)));
            let Some((id, process)) = freest else { break };
            process.busy += 1;
            leases.push(SlotLease {
                shared: Arc::clone(shared),
                process: *id,
                address: process.address.clone(),
            });
        }
        leases
    }

    /// The next one to be served, if the free slots are enough for somebody.
    fn next(&mut self) -> Option<Place> {
        let Capacity { slots, busy } = self.capacity();
        let (slots, free) = (slots as usize, slots.saturating_sub(busy) as usize);
        let mut found = None;
        for (place, waiter) in &self.waiting {
            if free > 0 && waiter.count.min(slots) <= free {
                found = Some(*place);
                break;
            }
            if waiter.overtaken >= limits::SLOT_OVERTAKES_MAX {
                return None;
            }
        }
        let found = found?;
        for (_, waiter) in self.waiting.range_mut(..found) {
            waiter.overtaken += 1;
        }
        Some(found)
    }
}

/// Serves all those who wait and can be served.
fn serve(shared: &Arc<Shared>) {
    loop {
        let (waiter, leases) = {
            let mut slots = shared.slots.lock();
            let Some(place) = slots.next() else { return };
            let Some(waiter) = slots.waiting.remove(&place) else {
                return;
            };
            let leases = slots.take(shared, waiter.count);
            (waiter, leases)
        };
        // Whoever does not wait any more leaves the slots to the next one: dropping them serves again.
        let _left = waiter.served.send(leases);
    }
}

/// A place in the queue; dropping it gives it up.
struct Queued {
    shared: Arc<Shared>,
    place: Place,
}

impl Drop for Queued {
    fn drop(&mut self) {
        let left = self.shared.slots.lock().waiting.remove(&self.place);
        if left.is_some() {
            // It may have held up those behind it.
            serve(&self.shared);
        }
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

/// A worker process as it is now.
#[derive(Debug, Clone)]
pub struct ProcessView {
    /// Which one.
    pub id: ProcessId,
    /// Flight address.
    pub address: String,
    /// All slots.
    pub slots: u32,
    /// Slots in use.
    pub busy: u32,
    /// When a slot was last given back; milliseconds since the epoch.
    pub idle_since_ms: i64,
}

/// The process is gone.
#[derive(Debug, thiserror::Error)]
#[error("worker process is gone")]
pub struct ProcessGone;

impl WorkerPool {
    /// Adds a process and returns its id.
    pub fn add(&self, slots: u32, address: String, commands: mpsc::Sender<WorkerCommand>) -> ProcessId {
        let id = ProcessId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        let process = Process {
            slots,
            busy: 0,
            address,
            idle_since_ms: now_ms(),
            commands,
        };
        self.shared.slots.lock().processes.insert(id, process);
        serve(&self.shared);
        id
    }

    /// Forgets a process and returns its address; its leases stay valid objects but free nothing.
    pub fn remove(&self, id: ProcessId) -> Option<String> {
        let removed = self.shared.slots.lock().processes.remove(&id);
        // What is left may be all that there is.
        serve(&self.shared);
        removed.map(|process| process.address)
    }

    /// Every process, in the order in which they joined.
    pub fn processes(&self) -> Vec<ProcessView> {
        let slots = self.shared.slots.lock();
        let views = slots.processes.iter().map(|(id, process)| ProcessView {
            id: *id,
            address: process.address.clone(),
            slots: process.slots,
            busy: process.busy,
            idle_since_ms: process.idle_since_ms,
        });
        views.collect()
    }

    /// Slots of all processes.
    pub fn capacity(&self) -> Capacity {
        self.shared.slots.lock().capacity()
    }

    /// Takes up to `count` free slots at once, if nobody waits for them.
    pub fn try_acquire(&self, count: usize) -> Vec<SlotLease> {
        let mut slots = self.shared.slots.lock();
        if slots.waiting.is_empty() {
            slots.take(&self.shared, count)
        } else {
            Vec::new()
        }
    }

    /// Takes a slot of this process, if one is free: its outputs are worth more than a place in the queue.
    pub fn try_acquire_at(&self, id: ProcessId) -> Option<SlotLease> {
        let mut slots = self.shared.slots.lock();
        let process = slots.processes.get_mut(&id)?;
        if process.busy == process.slots {
            return None;
        }
        process.busy += 1;
        Some(SlotLease {
            shared: Arc::clone(&self.shared),
            process: id,
            address: process.address.clone(),
        })
    }

    /// The process is there.
    pub fn has(&self, id: ProcessId) -> bool {
        self.shared.slots.lock().processes.contains_key(&id)
    }

    /// Takes `count` slots, or all that there are if that is less, as soon as that many are free at once and
    /// nobody comes first. None after `patience`. Dropping the future gives the place in the queue up.
    pub async fn acquire(&self, count: usize, priority: i32, patience: Duration) -> Option<Vec<SlotLease>> {
        let (served, mut leases) = oneshot::channel();
        let place = (
            Reverse(priority),
            self.shared.next.fetch_add(1, Ordering::Relaxed),
        );
        let waiter = Waiter {
            count: count.max(1),
            overtaken: 0,
            served,
        };
        let _queued = Queued {
            shared: Arc::clone(&self.shared),
            place,
        };
        self.shared.slots.lock().waiting.insert(place, waiter);
        serve(&self.shared);
        match tokio::time::timeout(patience, &mut leases).await {
            Ok(leases) => leases.ok(),
            // Served in the last moment.
            Err(_elapsed) => leases.try_recv().ok(),
        }
    }

    /// Sends a command to a process; waits while its queue is full.
    pub async fn send(&self, id: ProcessId, command: WorkerCommand) -> Result<(), ProcessGone> {
        let sender = self
            .shared
            .slots
            .lock()
            .processes
            .get(&id)
            .map(|process| process.commands.clone());
        match sender {
            Some(sender) => sender.send(command).await.map_err(|_| ProcessGone),
            None => Err(ProcessGone),
        }
    }

    /// Sends a command that is sent again if it gets lost.
    pub fn try_send(&self, id: ProcessId, command: WorkerCommand) {
        if let Some(process) = self.shared.slots.lock().processes.get(&id) {
            // A full queue: the next heartbeat tries again.
            let _later = process.commands.try_send(command);
        }
    }

    /// Waits until a process is gone.
    pub async fn gone(&self, id: ProcessId) {
        let commands = self
            .shared
            .slots
            .lock()
            .processes
            .get(&id)
            .map(|process| process.commands.clone());
        if let Some(commands) = commands {
            // Its session reads them as long as it lasts.
            commands.closed().await;
        }
    }

    /// Tells every process to drop a task.
    pub async fn cancel_everywhere(&self, task: &TaskId) {
        let senders: Vec<_> = self
            .shared
            .slots
            .lock()
            .processes
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn pool(slots: u32) -> WorkerPool {
        let pool = WorkerPool::default();
        add(&pool, slots);
        pool
    }

    fn add(pool: &WorkerPool, slots: u32) -> ProcessId {
        pool.add(slots, "w".to_owned(), mpsc::channel(1).0)
    }

    type Waiting<'a> = BoxFuture<'a, Option<Vec<SlotLease>>>;

    /// Queues up.
    fn ask(pool: &WorkerPool, count: usize, priority: i32) -> Waiting<'_> {
        let mut waiting = pool.acquire(count, priority, LONG).boxed();
        if let Some(leases) = (&mut waiting).now_or_never() {
            return std::future::ready(leases).boxed();
        }
        waiting
    }

    fn served(waiting: &mut Waiting<'_>) -> Option<Vec<SlotLease>> {
        waiting.now_or_never().flatten()
    }

    #[tokio::test]
    async fn a_small_task_takes_what_a_large_one_leaves() {
        let pool = pool(4);
        let large = ask(&pool, 3, 50).await.unwrap();
        let mut second = ask(&pool, 3, 50);
        assert!(served(&mut second).is_none());
        // One slot is free, and one is enough for this.
        let small = ask(&pool, 1, 50).await.unwrap();
        assert_eq!(pool.capacity().busy, 4);
        drop(large);
        assert_eq!(second.await.unwrap().len(), 3);
        drop(small);
        assert_eq!(pool.capacity(), Capacity { slots: 4, busy: 0 });
    }

    #[tokio::test]
    async fn priority_comes_first_then_arrival() {
        let pool = pool(1);
        let held = ask(&pool, 1, 50).await.unwrap();
        let mut low = ask(&pool, 1, 10);
        let mut first = ask(&pool, 1, 50);
        let mut later = ask(&pool, 1, 50);
        let mut high = ask(&pool, 1, 90);
        drop(held);
        for (waiting, others) in [
            (&mut high, "high"),
            (&mut first, "first"),
            (&mut later, "later"),
            (&mut low, "low"),
        ] {
            let leases = served(waiting).unwrap_or_else(|| panic!("{others} is not next"));
            drop(leases);
        }
    }

    #[tokio::test]
    async fn a_large_task_is_not_overtaken_for_ever() {
        let pool = pool(2);
        let mut held = ask(&pool, 1, 50).await.unwrap();
        let mut large = ask(&pool, 2, 50);
        assert!(served(&mut large).is_none());
        let mut rounds = 0;
        let mut blocked = loop {
            let mut small = ask(&pool, 1, 50);
            match served(&mut small) {
                // The next one always comes before this one goes.
                Some(leases) => held = leases,
                None => break small,
            }
            rounds += 1;
        };
        assert_eq!(rounds, limits::SLOT_OVERTAKES_MAX);
        // A job that runs gets no more while the large one waits.
        assert!(pool.try_acquire(1).is_empty());
        drop(held);
        assert_eq!(served(&mut large).unwrap().len(), 2);
        assert_eq!(served(&mut blocked).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_task_that_gives_up_frees_its_place() {
        let pool = pool(2);
        let held = ask(&pool, 1, 50).await.unwrap();
        let mut large = ask(&pool, 2, 90);
        assert!(served(&mut large).is_none());
        pool.shared
            .slots
            .lock()
            .waiting
            .values_mut()
            .for_each(|waiter| waiter.overtaken = u32::MAX);
        let mut small = ask(&pool, 1, 50);
        assert!(served(&mut small).is_none());
        drop(large);
        assert_eq!(served(&mut small).unwrap().len(), 1);
        drop(held);
        // Served, and given up before it looked.
        let held = ask(&pool, 2, 50).await.unwrap();
        let waiting = ask(&pool, 2, 50);
        drop(held);
        drop(waiting);
        assert_eq!(pool.capacity(), Capacity { slots: 2, busy: 0 });
    }

    #[tokio::test]
    async fn whoever_wants_more_than_there_is_takes_all_there_is() {
        let pool = WorkerPool::default();
        let mut many = ask(&pool, 10, 50);
        assert!(served(&mut many).is_none());
        let first = add(&pool, 2);
        assert_eq!(served(&mut many).unwrap().len(), 2);
        let held = ask(&pool, 2, 50).await.unwrap();
        add(&pool, 1);
        let mut three = ask(&pool, 3, 50);
        assert!(served(&mut three).is_none());
        // Its process is lost: one slot is all that is left.
        pool.remove(first);
        assert_eq!(served(&mut three).unwrap().len(), 1);
        drop(held);
        assert_eq!(pool.capacity(), Capacity { slots: 1, busy: 0 });
    }

    #[tokio::test]
    async fn a_slot_of_one_process_only() {
        let pool = WorkerPool::default();
        let (first, second) = (add(&pool, 1), add(&pool, 3));
        let held = pool.try_acquire_at(first).unwrap();
        assert_eq!(held.process(), first);
        assert!(pool.try_acquire_at(first).is_none());
        let mut all = ask(&pool, 4, 50);
        assert!(served(&mut all).is_none());
        assert!(pool.try_acquire_at(second).is_some());
        drop(held);
        assert_eq!(served(&mut all).unwrap().len(), 4);
        pool.remove(first);
        assert!(!pool.has(first) && pool.has(second));
        assert!(pool.try_acquire_at(first).is_none());
    }

    #[tokio::test]
    async fn patience_ends() {
        let pool = pool(1);
        let _held = ask(&pool, 1, 50).await.unwrap();
        assert!(pool.acquire(1, 50, Duration::from_millis(1)).await.is_none());
        assert!(pool.shared.slots.lock().waiting.is_empty());
    }
}
