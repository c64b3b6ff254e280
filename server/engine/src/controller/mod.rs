//! The controller: accepts statements, runs them as jobs on worker slots, records how they ended.

mod catalog;
mod checkpoint;
mod datasources;
mod driver;
mod durable;
mod explain;
mod infer;
mod job;
mod launch;
mod pages;
mod planning;
mod pool;
mod publish;
mod query;
mod restart;
mod results;
mod room;
pub(crate) mod state;
mod submit;
mod system;
mod view;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{Instrument, Span, info};
use trilith_metadata::{
    Allocator, LockManager, MetadataError, MetadataStore, TaskFilter, TaskRecord, TaskState,
};
use trilith_proto::error::ApiError;
use trilith_proto::fault::CancelReason;
use trilith_proto::id::TaskId;
use trilith_proto::interval::parse_instant;

use crate::limits;
use crate::worker::{HeldOrder, WorkerCommand, WorkerConfig, WorkerEvent, WorkerRuntime};
use job::{Job, JobEvent};

pub use pages::{ResultInfo, ResultPage};
pub(crate) use planning::stored_type;
pub use pool::{Capacity, ProcessId, ProcessView, SlotLease, WorkerPool};
pub use query::RunningQuery;
pub use results::ResultTicket;
pub use submit::{Accepted, Progress, Submission};
pub use view::DatasourceView;

/// What a controller takes on at a time; more is refused with the request to come back later.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    /// Tasks that run or wait.
    pub tasks: u32,
    /// Statements that run at once, from their planning to their last row.
    pub queries: u32,
}

/// What a controller needs.
pub struct ControllerConfig {
    /// Exchange, memory, policy and segment directory of this process.
    pub worker: WorkerConfig,
    /// Slots of this process; 0 leaves all work to worker processes.
    pub slots: u32,
    /// Where rows of SELECT tasks are kept.
    pub results_directory: PathBuf,
    /// Tasks, reports, segments.
    pub store: Arc<dyn MetadataStore>,
    /// How long a task waits for its first worker slots; then `TaskStartTimeout`.
    pub task_start_timeout: Duration,
    /// What is taken on at a time.
    pub capacity: AdmissionLimits,
    /// Without a sign of life for this long a worker process is given up.
    pub worker_lease: Duration,
    /// Host and port that clients know.
    pub host: String,
    /// See `host`.
    pub port: u16,
}

/// One for each server process.
pub struct Controller {
    worker_config: WorkerConfig,
    results_directory: PathBuf,
    store: Arc<dyn MetadataStore>,
    locks: LockManager,
    allocator: Allocator,
    pool: WorkerPool,
    worker_lease: Duration,
    jobs: Mutex<HashMap<TaskId, Arc<Job>>>,
    /// Tasks of an earlier process that run again once `resume` is called, oldest first.
    interrupted: Mutex<Vec<TaskRecord>>,
    queries: query::Queries,
    /// Places for tasks.
    room: room::Room,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    /// Tasks that start from now on are told at once to end.
    stopping: AtomicBool,
    task_start_timeout: Duration,
    host: String,
    port: u16,
    started_ms: i64,
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Metadata cannot be read.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Files cannot be swept.
    #[error(transparent)]
    Segments(#[from] trilith_segment::SegmentError),
    /// The results directory cannot be used.
    #[error("results directory {path}: {source}")]
    Results {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Controller {
    /// Ends what an earlier process left running and cannot run again, sweeps its files, and starts. Blocking.
    pub fn start(config: ControllerConfig) -> Result<Arc<Controller>, StartError> {
        std::fs::create_dir_all(&config.results_directory).map_err(|source| StartError::Results {
            path: config.results_directory.clone(),
            source,
        })?;
        let interrupted = restart::interrupted(config.store.as_ref())?;
        let views = config.store.all_segments();
        let used = || {
            views
                .values()
                .flat_map(|view| view.used())
                .map(|segment| &segment.record)
        };
        // A clock that went back must not make new segments older than those that are there.
        let newest = used().filter_map(|record| parse_instant(&record.version)).max();
        let mut referenced: HashSet<String> = used().filter_map(|record| record.path.clone()).collect();
        let unused = config.store.unused(None)?;
        let aside = unused
            .iter()
            .filter_map(|record| parse_instant(&record.version))
            .max();
        let newest = newest.max(aside);
        referenced.extend(unused.into_iter().filter_map(|record| record.path));
        let swept = trilith_segment::sweep(&config.worker.segment_directory, &referenced)?;
        if swept > 0 {
            info!(files = swept, "removed segment files that were never published");
        }
        let controller = Arc::new(Controller {
            worker_config: config.worker,
            results_directory: config.results_directory,
            store: config.store,
            locks: LockManager::new(newest.unwrap_or(0)),
            allocator: Allocator::default(),
            pool: WorkerPool::default(),
            worker_lease: config.worker_lease,
            jobs: Mutex::new(HashMap::new()),
            interrupted: Mutex::new(interrupted),
            queries: query::Queries::new(config.capacity.queries),
            room: room::Room::new(config.capacity.tasks),
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            stopping: AtomicBool::new(false),
            task_start_timeout: config.task_start_timeout,
            host: config.host,
            port: config.port,
            started_ms: job::now_ms(),
        });
        if config.slots > 0 {
            controller.start_local_worker(config.slots);
        }
        controller.sweep_results()?;
        controller.sweep_durable();
        Ok(controller)
    }

    /// Runs CPU work where it does not keep the server from answering others. It stops when the caller goes away.
    pub(crate) async fn computed<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let work = self.worker_config.compute.spawn(work.instrument(Span::current()));
        AbortOnDropHandle::new(work)
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
    }

    fn start_local_worker(self: &Arc<Controller>, slots: u32) {
        let (commands, queue) = mpsc::channel(limits::WORKER_QUEUE_CAPACITY);
        let (events, mut reports) = mpsc::channel(limits::WORKER_QUEUE_CAPACITY);
        let runtime = WorkerRuntime::new(self.worker_config.clone(), events, self.shutdown.child_token());
        let process = self
            .pool
            .add(slots, self.worker_config.own_address.clone(), commands);
        self.tracker.spawn(Arc::clone(&runtime).serve(queue));
        let controller = Arc::clone(self);
        self.tracker.spawn(async move {
            let mut beat = tokio::time::interval(heartbeat_interval(controller.worker_lease));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !runtime.has_stopped() {
                tokio::select! {
                    event = reports.recv() => match event {
                        Some(event) => controller.on_worker_event(event).await,
                        None => break,
                    },
                    _ = beat.tick() => controller.on_heartbeat(process, runtime.held()),
                }
            }
        });
    }

    /// How long a worker process may be silent.
    pub fn worker_lease(&self) -> Duration {
        self.worker_lease
    }

    /// Adds a worker process that is reached through `commands`.
    pub fn add_process(
        &self,
        slots: u32,
        address: String,
        commands: mpsc::Sender<WorkerCommand>,
    ) -> ProcessId {
        info!(address, slots, "worker process joined");
        self.pool.add(slots, address, commands)
    }

    /// Forgets a worker process and tells the jobs that ran there.
    pub async fn process_lost(&self, process: ProcessId, reason: &str) {
        info!(?process, reason, "worker process lost");
        if let Some(address) = self.pool.remove(process) {
            // The one that comes back under it has a connection of its own.
            self.worker_config.flight_pool.forget(&address);
        }
        for job in self.running() {
            job.notify(JobEvent::ProcessLost {
                process,
                reason: reason.to_owned(),
            })
            .await;
        }
    }

    /// Hands an event of a worker to its job.
    pub async fn on_worker_event(&self, event: WorkerEvent) {
        let job = self.jobs.lock().get(&event.id().task).cloned();
        if let Some(job) = job {
            job.notify(JobEvent::Worker(event)).await;
        }
    }

    /// Compares what a process holds with what its jobs know, and has it drop what belongs to no job.
    pub fn on_heartbeat(&self, process: ProcessId, held: Vec<HeldOrder>) {
        let mut by_task: HashMap<TaskId, Vec<HeldOrder>> = HashMap::new();
        for order in held {
            by_task.entry(order.id.task.clone()).or_default().push(order);
        }
        for (task, orders) in by_task {
            let job = self.jobs.lock().get(&task).cloned();
            match job {
                Some(job) => job.try_notify(JobEvent::Held { process, orders }),
                None => self.pool.try_send(process, WorkerCommand::CancelTask { task }),
            }
        }
    }

    fn running(&self) -> Vec<Arc<Job>> {
        self.jobs.lock().values().cloned().collect()
    }

    /// Slots of all worker processes.
    pub fn capacity(&self) -> Capacity {
        self.pool.capacity()
    }

    /// Every worker process, with the worker tasks that hold its slots.
    pub fn worker_processes(&self) -> Vec<(ProcessView, Vec<String>)> {
        let mut holders: HashMap<ProcessId, Vec<String>> = HashMap::new();
        for job in self.running() {
            for worker in &job.state.lock().workers {
                if worker.lease.is_some() {
                    let tasks = holders.entry(worker.process).or_default();
                    tasks.push(worker.task_id.clone());
                }
            }
        }
        let processes = self.pool.processes().into_iter();
        let with_tasks = processes.map(|process| {
            let mut tasks = holders.remove(&process.id).unwrap_or_default();
            tasks.sort();
            (process, tasks)
        });
        with_tasks.collect()
    }

    /// The shared parts of this process's worker.
    pub fn worker_config(&self) -> &WorkerConfig {
        &self.worker_config
    }

    /// Tasks, reports, segments.
    pub fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.store
    }

    /// "host:port" that clients know.
    pub fn location(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn host_and_port(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// All tasks, newest first, with live durations.
    pub(crate) fn task_records(&self) -> Result<Vec<TaskRecord>, MetadataError> {
        Ok(self.store.tasks(&TaskFilter::default())?.tasks)
    }

    /// Druid's word for how far a task is: WAITING for locks, PENDING for slots, RUNNING, NONE at the end.
    pub fn runner_status(&self, task: &TaskRecord) -> &'static str {
        if task.state != TaskState::Running {
            return "NONE";
        }
        let job = self.jobs.lock().get(&TaskId::from(task.id.as_str())).cloned();
        match job {
            None => "NONE",
            Some(job) => {
                let state = job.state.lock();
                if state.started_ms.is_none() {
                    if self.locks.is_waiting(job.id.as_str()) {
                        "WAITING"
                    } else {
                        "PENDING"
                    }
                } else if state.workers.is_empty() && state.wanted_workers > 0 {
                    "PENDING"
                } else {
                    "RUNNING"
                }
            }
        }
    }

    /// Ends every job and stops the local worker. Tasks that the next process can take up again stay as they are;
    /// the others are cancelled, and their ends recorded.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for job in self.running() {
            job.notify(last_event(&job)).await;
        }
        self.tracker.close();
        while let Some(job) = self.running().pop() {
            let mut changes = job.changes.subscribe();
            while self.jobs.lock().contains_key(&job.id) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        }
        self.shutdown.cancel();
        self.tracker.wait().await;
    }
}

/// What a job hears when its process stops.
fn last_event(job: &Job) -> JobEvent {
    match restart::can_run_again(&job.planned) {
        true => JobEvent::Leave,
        false => JobEvent::Cancel(CancelReason::TaskShutdown),
    }
}

/// How often a process says what it holds, so that a few lost messages do not cost it its lease.
pub fn heartbeat_interval(lease: Duration) -> Duration {
    (lease / 5).max(Duration::from_millis(10))
}
