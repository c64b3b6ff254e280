//! One running job, and what reaches it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use trilith_proto::fault::CancelReason;
use trilith_proto::id::{StageNumber, TaskId};
use trilith_proto::interval;
use trilith_sql::{Ingest, Planned};

use super::Controller;
use super::pool::ProcessId;
use super::room::Place;
use super::state::JobState;
use crate::kernel::Shape;
use crate::stage::{StageGraph, StageSpec};
use crate::worker::{HeldOrder, WorkerEvent};
use crate::{limits, report};

/// How much later than the runtime the kernel gives up a wait for locks.
const LOCK_SLACK_MS: i64 = 10_000;

/// What reaches a job from outside its own loop.
pub(crate) enum JobEvent {
    /// From one of its workers.
    Worker(WorkerEvent),
    /// What one of the processes holds of the job.
    Held {
        process: ProcessId,
        orders: Vec<HeldOrder>,
    },
    /// A worker process is gone.
    ProcessLost { process: ProcessId, reason: String },
    /// Somebody asked to stop.
    Cancel(CancelReason),
    /// The process stops, and the next one takes the task up again.
    Leave,
}

/// Which task a job runs.
pub(crate) struct Origin {
    /// Its id.
    pub id: TaskId,
    /// When it was submitted, in milliseconds since the epoch.
    pub created_ms: i64,
    /// How often a restarted server has taken it up.
    pub run: u32,
    /// Its place among the tasks that are taken on.
    pub place: Place,
}

/// A job, from submission to its end.
pub(crate) struct Job {
    pub id: TaskId,
    pub planned: Planned,
    pub graph: StageGraph,
    pub created_ms: i64,
    /// How often a restarted server has taken it up.
    pub run: u32,
    pub state: Mutex<JobState>,
    /// Counts changes for those who watch.
    pub changes: watch::Sender<u64>,
    /// One of its locks was taken away.
    pub revoked: CancellationToken,
    events: mpsc::Sender<JobEvent>,
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

impl Job {
    pub(crate) fn new(
        origin: Origin,
        planned: Planned,
        graph: StageGraph,
        controller: &Controller,
    ) -> (Arc<Job>, mpsc::Receiver<JobEvent>) {
        let (events, queue) = mpsc::channel(limits::TASK_QUEUE_CAPACITY);
        let Origin {
            id,
            created_ms,
            run,
            place,
        } = origin;
        let timeout = planned.context.timeout_ms();
        let mut state = JobState::new(Shape {
            task: id.to_string(),
            deadline_ms: timeout
                .map(|timeout| created_ms.saturating_add(i64::try_from(timeout).unwrap_or(i64::MAX))),
            fault_tolerant: planned.context.fault_tolerance(),
            max_concurrent_stages: planned.context.max_concurrent_stages(),
            // The runtime gives up first, and knows who is in the way.
            lock_timeout_ms: super::publish::lock_patience_ms(&planned.context) as i64
                + controller.worker_lease.as_millis() as i64
                + LOCK_SLACK_MS,
            start_timeout_ms: controller.task_start_timeout.as_millis() as i64,
            silence_ms: limits::ORDER_SILENCE_MS.max(2 * controller.worker_lease.as_millis() as i64),
            ..graph.shape()
        });
        state.place = Some(place);
        let (changes, _) = watch::channel(0);
        let job = Job {
            id,
            planned,
            graph,
            created_ms,
            run,
            state: Mutex::new(state),
            changes,
            revoked: CancellationToken::new(),
            events,
        };
        (Arc::new(job), queue)
    }

    /// Puts an event into the queue of the job; waits while it is full.
    pub(crate) async fn notify(&self, event: JobEvent) {
        // A job that has ended does not listen any more, and nothing is left to tell it.
        let _ended = self.events.send(event).await;
    }

    /// Puts an event into the queue unless it is full: the same will be said again.
    pub(crate) fn try_notify(&self, event: JobEvent) {
        let _later = self.events.try_send(event);
    }

    pub(crate) fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }

    pub(crate) fn stage(&self, number: StageNumber) -> Option<&StageSpec> {
        self.graph.stages.get(number.0 as usize)
    }

    pub(crate) fn ingest(&self) -> Option<&Ingest> {
        self.planned.ingest.as_ref()
    }

    /// The report as of now.
    pub(crate) fn live_report(&self, host: Option<&str>) -> trilith_proto::pb::task::TaskReport {
        let state = self.state.lock();
        let parts = report::ReportParts {
            task: &self.id,
            status: "RUNNING",
            error: None,
            task_context_json: None,
            results: None,
            host,
            now_ms: now_ms(),
        };
        report::build(parts, &self.graph, &state)
    }
}

/// A job as text for logs.
impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.id, interval::iso(self.created_ms))
    }
}
