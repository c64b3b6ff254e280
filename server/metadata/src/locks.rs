//! Locks on time chunks, held by tasks of this process. They do not outlive it: at a restart every
//! running task is ended, so nobody holds any.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use trilith_proto::interval::{Interval, iso};

/// Who may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// With other shared locks.
    Shared,
    /// With nobody.
    Exclusive,
}

/// All locks. Clones share them.
#[derive(Clone, Default)]
pub struct LockManager {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    held: Vec<Lock>,
    /// Requests in order of priority, then arrival.
    waiting: Vec<Lock>,
    last_version_ms: i64,
}

#[derive(Debug, Clone)]
struct Lock {
    number: u64,
    task: String,
    datasource: String,
    intervals: Vec<Interval>,
    kind: LockKind,
    priority: i32,
}

impl Lock {
    fn conflicts(&self, other: &Lock) -> bool {
        self.task != other.task
            && self.datasource == other.datasource
            && (self.kind == LockKind::Exclusive || other.kind == LockKind::Exclusive)
            && self
                .intervals
                .iter()
                .any(|mine| other.intervals.iter().any(|theirs| mine.overlaps(theirs)))
    }
}

/// A lock that is held until it is dropped.
pub struct LockLease {
    shared: Arc<Shared>,
    number: u64,
    version: String,
}

impl LockLease {
    /// Version of the segments that are written under the lock: when it was granted.
    pub fn version(&self) -> &str {
        &self.version
    }
}

impl Drop for LockLease {
    fn drop(&mut self) {
        self.shared
            .state
            .lock()
            .held
            .retain(|lock| lock.number != self.number);
        self.shared.released.notify_waiters();
    }
}

/// A request that leaves the queue when it is dropped.
struct Waiting {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        let before = state.waiting.len();
        state.waiting.retain(|lock| lock.number != self.number);
        if state.waiting.len() != before {
            drop(state);
            self.shared.released.notify_waiters();
        }
    }
}

impl LockManager {
    /// Locks whose versions are all above `last_version_ms`, in milliseconds since the epoch.
    pub fn new(last_version_ms: i64) -> LockManager {
        let locks = LockManager::default();
        locks.shared.state.lock().last_version_ms = last_version_ms;
        locks
    }

    /// Waits for a lock on intervals of a datasource, behind earlier requests of the same or a higher
    /// priority that conflict. None after `patience`.
    pub async fn acquire(
        &self,
        task: &str,
        datasource: &str,
        intervals: &[Interval],
        kind: LockKind,
        priority: i32,
        patience: Duration,
    ) -> Option<LockLease> {
        let deadline = Instant::now() + patience;
        let number = {
            let mut state = self.shared.state.lock();
            state.next += 1;
            let number = state.next;
            let lock = Lock {
                number,
                task: task.to_owned(),
                datasource: datasource.to_owned(),
                intervals: intervals.to_vec(),
                kind,
                priority,
            };
            let place = state.waiting.iter().position(|other| other.priority < priority);
            let place = place.unwrap_or(state.waiting.len());
            state.waiting.insert(place, lock);
            number
        };
        let _waiting = Waiting {
            shared: Arc::clone(&self.shared),
            number,
        };
        loop {
            let released = self.shared.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            if let Some(version) = self.try_grant(number) {
                return Some(LockLease {
                    shared: Arc::clone(&self.shared),
                    number,
                    version,
                });
            }
            if tokio::time::timeout_at(deadline, released).await.is_err() {
                return None;
            }
        }
    }

    fn try_grant(&self, number: u64) -> Option<String> {
        let mut state = self.shared.state.lock();
        let place = state.waiting.iter().position(|lock| lock.number == number)?;
        let lock = state.waiting.get(place)?;
        let blocked = state
            .held
            .iter()
            .chain(&state.waiting[..place])
            .any(|other| lock.conflicts(other));
        if blocked {
            return None;
        }
        let lock = state.waiting.remove(place);
        state.held.push(lock);
        // Two locks never have the same version, even within one millisecond.
        let version = chrono::Utc::now()
            .timestamp_millis()
            .max(state.last_version_ms + 1);
        state.last_version_ms = version;
        drop(state);
        // Whoever waited behind this one may share with it.
        self.shared.released.notify_waiters();
        Some(iso(version))
    }

    /// True while a task waits for a lock.
    pub fn is_waiting(&self, task: &str) -> bool {
        self.shared
            .state
            .lock()
            .waiting
            .iter()
            .any(|lock| lock.task == task)
    }
}
