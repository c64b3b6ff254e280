//! Locks on time chunks, held by tasks of this process. They do not outlive it: a task that runs again
//! after a restart asks again, before new tasks can.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trilith_proto::interval::{Interval, iso};

/// Version of an APPEND lock, and of segments that are appended to an empty chunk under it.
const APPEND_VERSION_MS: i64 = 0;

/// Who may share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// With nobody.
    Exclusive,
    /// With other shared locks.
    Shared,
    /// With other appends, and with a replace that covers it.
    Append,
    /// With appends inside it.
    Replace,
}

impl LockKind {
    /// An INSERT asks when it has read its input. A REPLACE asks before it has slots.
    fn is_asked_with_slots(self) -> bool {
        matches!(self, LockKind::Shared | LockKind::Append)
    }
}

/// A task that asks for locks.
#[derive(Debug, Clone)]
pub struct LockOwner {
    /// Its id, which is also the id of its group: locks of one group do not conflict.
    pub task: String,
    /// A higher priority takes locks from a lower one.
    pub priority: i32,
    /// Cancelled when one of its locks is taken away.
    pub revoked: CancellationToken,
}

/// What a task asks for: all of it at once, so that no two tasks can wait for each other.
#[derive(Debug, Clone)]
pub struct LockRequest {
    /// Datasource.
    pub datasource: String,
    /// Disjoint intervals.
    pub intervals: Vec<Interval>,
    /// Who may share.
    pub kind: LockKind,
}

impl LockRequest {
    fn conflicts(&self, held: &LockRequest) -> bool {
        if self.datasource != held.datasource {
            return false;
        }
        let (mut mine, mut theirs) = (self.intervals.iter().peekable(), held.intervals.iter().peekable());
        // Both are in order of time.
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            if a.overlaps(b) && !compatible((held.kind, b), (self.kind, a)) {
                return true;
            }
            if a.end_ms <= b.end_ms {
                mine.next();
            } else {
                theirs.next();
            }
        }
        false
    }
}

/// Whether a lock may be held beside another one on an overlapping interval.
fn compatible(a: (LockKind, &Interval), b: (LockKind, &Interval)) -> bool {
    match (a, b) {
        ((LockKind::Shared, _), (LockKind::Shared, _)) | ((LockKind::Append, _), (LockKind::Append, _)) => {
            true
        }
        ((LockKind::Append, append), (LockKind::Replace, replace))
        | ((LockKind::Replace, replace), (LockKind::Append, append)) => replace.contains(append),
        _ => false,
    }
}

/// A held lock, for those who list them: one for each interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveLock {
    /// Who may share.
    pub kind: LockKind,
    /// The task that holds it.
    pub task: String,
    /// Datasource.
    pub datasource: String,
    /// Interval.
    pub interval: Interval,
    /// When it was granted; the epoch for an append.
    pub version: String,
    /// Of the task.
    pub priority: i32,
    /// Taken away; the task has not yet noticed.
    pub revoked: bool,
}

/// All locks. Clones share them.
#[derive(Clone, Default)]
pub struct LockManager {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    held: Vec<Held>,
    /// In order of priority, then arrival.
    waiting: Vec<Waiting>,
    last_version_ms: i64,
}

struct Waiting {
    number: u64,
    owner: LockOwner,
    wanted: LockRequest,
    /// It was held and lent, and its task has no slots yet: it waits for nothing, and nobody waits for it who has some.
    lent: bool,
}

struct Held {
    number: u64,
    owner: LockOwner,
    lock: LockRequest,
    version: String,
    revoked: bool,
    /// Its task has not begun: it has no slots yet, and gives way to tasks that have some.
    idle: bool,
    /// Permits to publish: the lock cannot be taken away while there are any.
    publishing: u32,
}

/// A lock that is held until it is dropped.
pub struct LockLease {
    held: Arc<Lease>,
}

struct Lease {
    shared: Arc<Shared>,
    number: u64,
    lock: LockRequest,
}

impl LockLease {
    /// Version of the segments that are written under the lock: when it was granted, or the epoch for an
    /// append. None while the lock is lent.
    pub fn version(&self) -> Option<String> {
        let state = self.held.shared.state.lock();
        let mut held = state.held.iter();
        let held = held.find(|held| held.number == self.held.number)?;
        Some(held.version.clone())
    }

    /// The task has its slots and begins. Until now the lock may have been lent to a task that had slots and
    /// could not go on without it; then this waits until it is back. After `patience` the tasks that are in
    /// the way are the error.
    pub async fn begin(&self, patience: Duration) -> Result<(), Vec<String>> {
        self.held.shared.wait(self.held.number, true, patience).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.held.retain(|held| held.number != self.number);
        state.waiting.retain(|waiting| waiting.number != self.number);
        drop(state);
        self.shared.changed.notify_waiters();
    }
}

/// Leave to publish under locks that are held and stay held until the permit is dropped.
#[derive(Clone)]
pub struct PublishPermit {
    inner: Arc<Permit>,
}

struct Permit {
    leases: Vec<Arc<Lease>>,
}

impl PublishPermit {
    /// True when the locks cover an interval of a datasource.
    pub fn covers(&self, datasource: &str, interval: &Interval) -> bool {
        self.inner.leases.iter().any(|lease| {
            let lock = &lease.lock;
            let next = lock
                .intervals
                .partition_point(|locked| locked.end_ms <= interval.start_ms);
            let within = lock.intervals.get(next);
            lock.datasource == datasource && within.is_some_and(|locked| locked.contains(interval))
        })
    }
}

impl std::fmt::Debug for PublishPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<u64> = self.inner.leases.iter().map(|lease| lease.number).collect();
        f.debug_tuple("PublishPermit").field(&numbers).finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for lease in &self.leases {
            let mut state = lease.shared.state.lock();
            if let Some(held) = state.held.iter_mut().find(|held| held.number == lease.number) {
                held.publishing = held.publishing.saturating_sub(1);
            }
            drop(state);
            lease.shared.changed.notify_waiters();
        }
    }
}

/// A request that has its place in the queue, and leaves it when it is dropped.
pub struct PendingLock {
    /// Becomes the lease.
    lease: Lease,
}

impl PendingLock {
    /// Waits until the lock is granted: behind earlier requests of the same or a higher priority that
    /// conflict. After `patience` the tasks that are in the way are the error.
    pub async fn granted(self, patience: Duration) -> Result<LockLease, Vec<String>> {
        let (number, slots) = (self.lease.number, self.lease.lock.kind.is_asked_with_slots());
        self.lease.shared.wait(number, slots, patience).await?;
        Ok(LockLease {
            held: Arc::new(self.lease),
        })
    }
}

impl Shared {
    /// Waits until a lock is held, by a task that has slots or does not have them yet.
    async fn wait(&self, number: u64, slots: bool, patience: Duration) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + patience;
        loop {
            // Listen before looking, so that no release in between is missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let granted = self.state.lock().try_grant(number, slots);
            match granted {
                Some(Granted::Before) => return Ok(()),
                Some(Granted::Now) => {
                    // Whoever waited behind this one may share with it.
                    self.changed.notify_waiters();
                    return Ok(());
                }
                None => {}
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(self.state.lock().in_the_way(number));
            }
        }
    }
}

enum Granted {
    Before,
    Now,
}

impl State {
    fn place(&self, number: u64) -> Option<usize> {
        self.waiting.iter().position(|waiting| waiting.number == number)
    }

    fn enqueue(&mut self, waiting: Waiting) {
        let key = |waiting: &Waiting| (Reverse(waiting.owner.priority), waiting.number);
        let place = self.waiting.partition_point(|other| key(other) < key(&waiting));
        self.waiting.insert(place, waiting);
    }

    fn try_grant(&mut self, number: u64, slots: bool) -> Option<Granted> {
        if let Some(held) = self.held.iter_mut().find(|held| held.number == number) {
            held.idle &= !slots;
            return Some(Granted::Before);
        }
        let place = self.place(number)?;
        self.waiting.get_mut(place)?.lent &= !slots;
        let waiting = self.waiting.get(place)?;
        let (task, priority) = (waiting.owner.task.as_str(), waiting.owner.priority);
        let ahead = self.waiting[..place].iter().any(|other| {
            other.owner.task != task && !(other.lent && slots) && waiting.wanted.conflicts(&other.wanted)
        });
        if ahead {
            return None;
        }
        let in_the_way =
            |held: &Held| !held.revoked && held.owner.task != task && waiting.wanted.conflicts(&held.lock);
        let stays =
            |held: &Held| held.publishing > 0 || (held.owner.priority >= priority && !(held.idle && slots));
        if self.held.iter().any(|held| in_the_way(held) && stays(held)) {
            return None;
        }
        let (taken, kept): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| in_the_way(held) && held.owner.priority >= priority);
        self.held = kept;
        let waiting = self.waiting.remove(place);
        let task = waiting.owner.task.as_str();
        for held in &mut self.held {
            if held.owner.task != task && waiting.wanted.conflicts(&held.lock) && !held.revoked {
                held.revoked = true;
                held.owner.revoked.cancel();
            }
        }
        let version = match waiting.wanted.kind {
            LockKind::Append => iso(APPEND_VERSION_MS),
            _ => self.next_version(),
        };
        self.held.push(Held {
            number,
            idle: !slots,
            owner: waiting.owner,
            lock: waiting.wanted,
            version,
            revoked: false,
            publishing: 0,
        });
        for lent in taken {
            self.enqueue(Waiting {
                number: lent.number,
                owner: lent.owner,
                wanted: lent.lock,
                lent: true,
            });
        }
        Some(Granted::Now)
    }

    /// Tasks that hold what a request waits for, or asked for it before.
    fn in_the_way(&self, number: u64) -> Vec<String> {
        let Some(place) = self.place(number) else {
            return Vec::new();
        };
        let (ahead, mine) = (&self.waiting[..place], &self.waiting[place]);
        let held = self.held.iter().map(|held| (&held.owner, &held.lock));
        let ahead = ahead.iter().map(|other| (&other.owner, &other.wanted));
        let others = held
            .chain(ahead)
            .filter(|(owner, lock)| owner.task != mine.owner.task && mine.wanted.conflicts(lock));
        let tasks: BTreeSet<&String> = others.map(|(owner, _)| &owner.task).collect();
        tasks.into_iter().cloned().collect()
    }

    /// Two locks never have the same version, even within one millisecond.
    fn next_version(&mut self) -> String {
        let now = chrono::Utc::now().timestamp_millis();
        self.last_version_ms = now.max(self.last_version_ms + 1);
        iso(self.last_version_ms)
    }
}

impl LockManager {
    /// Locks whose versions are all above `last_version_ms`, in milliseconds since the epoch.
    pub fn new(last_version_ms: i64) -> LockManager {
        let locks = LockManager::default();
        locks.shared.state.lock().last_version_ms = last_version_ms;
        locks
    }

    /// Takes a place in the queue, at once: before requests of a lower priority, behind all others.
    pub fn request(&self, owner: &LockOwner, mut wanted: LockRequest) -> PendingLock {
        wanted.intervals.sort_unstable();
        let mut state = self.shared.state.lock();
        state.next += 1;
        let number = state.next;
        state.enqueue(Waiting {
            number,
            owner: owner.clone(),
            wanted: wanted.clone(),
            lent: false,
        });
        PendingLock {
            lease: Lease {
                shared: Arc::clone(&self.shared),
                number,
                lock: wanted,
            },
        }
    }

    /// Leave to publish under these locks; none when one of them was taken away. From here on nobody can
    /// take them, until the permit is dropped.
    pub fn permit(&self, leases: &[Arc<LockLease>]) -> Option<PublishPermit> {
        let mut state = self.shared.state.lock();
        let number = |lease: &Arc<LockLease>| lease.held.number;
        let is_held = |lease: &Arc<LockLease>| {
            let mut held = state.held.iter();
            held.any(|held| held.number == number(lease) && !held.revoked)
        };
        if !leases.iter().all(is_held) {
            return None;
        }
        for held in &mut state.held {
            if leases.iter().any(|lease| number(lease) == held.number) {
                held.publishing += 1;
            }
        }
        let leases = leases.iter().map(|lease| Arc::clone(&lease.held)).collect();
        Some(PublishPermit {
            inner: Arc::new(Permit { leases }),
        })
    }

    /// True while a task waits for a lock.
    pub fn is_waiting(&self, task: &str) -> bool {
        let state = self.shared.state.lock();
        state.waiting.iter().any(|waiting| waiting.owner.task == task)
    }

    /// Every lock that is held, in the order of the grants.
    pub fn active(&self) -> Vec<ActiveLock> {
        let state = self.shared.state.lock();
        let of_held = |held: &Held| {
            let lock = |interval: &Interval| ActiveLock {
                kind: held.lock.kind,
                task: held.owner.task.clone(),
                datasource: held.lock.datasource.clone(),
                interval: *interval,
                version: held.version.clone(),
                priority: held.owner.priority,
                revoked: held.revoked,
            };
            held.lock.intervals.iter().map(lock).collect::<Vec<_>>()
        };
        state.held.iter().flat_map(of_held).collect()
    }
}
