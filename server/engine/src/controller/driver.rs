//! Drives a job: events in, kernel, actions out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{Instrument, Span, debug, info, info_span, warn};
use trilith_metadata::PendingLock;
use trilith_proto::fault::Fault;
use trilith_proto::id::{StageNumber, WorkOrderId, WorkerNumber};

use super::Controller;
use super::checkpoint::Resumable;
use super::job::{Job, JobEvent, now_ms};
use super::pool::ProcessId;
use super::publish::PublishError;
use super::state::JobState;
use crate::kernel::{Action, Attempt, Event, Held, HeldStep, Outcome};
use crate::limits;
use crate::worker::{HeldOrder, WorkOrder, WorkerCommand, WorkerEvent};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);

/// Drives a job to its end and records the outcome.
pub(crate) async fn run(
    controller: Arc<Controller>,
    job: Arc<Job>,
    mut queue: mpsc::Receiver<JobEvent>,
    locks: Option<PendingLock>,
) {
    let mut driver = Driver {
        controller,
        job,
        work: JoinSet::new(),
        done: None,
        left: false,
        takes_over: true,
        keeps_outputs: false,
    };
    driver.lock_and_start(locks);
    let mut locked = true;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while driver.done.is_none() && !driver.left {
        tokio::select! {
            Some(event) = queue.recv() => driver.outside(event).await,
            Some(finished) = driver.work.join_next() => match finished {
                Ok(Done::Event(event)) => driver.kernel(event).await,
                Ok(Done::Orders { stage, first, orders }) => driver.send(stage, first, orders).await,
                Ok(Done::Locked(found)) => driver.start(found).await,
                Err(error) => {
                    let fault = Fault::unknown(format!("the controller failed: {error}"));
                    driver.kernel(Event::ControllerFailed { fault }).await;
                }
            },
            () = driver.job.revoked.cancelled(), if locked => {
                locked = false;
                let fault = Fault::insert_lock_preempted();
                driver.kernel(Event::ControllerFailed { fault }).await;
            }
            _ = tick.tick() => driver.kernel(Event::Tick).await,
        }
    }
    driver.work.shutdown().await;
    match driver.done.take() {
        Some(outcome) => driver.controller.clone().finish(&driver.job, outcome).await,
        None => driver.controller.leave(&driver.job),
    }
    debug!(task = %driver.job.id, "job ended");
}

enum Done {
    Event(Event),
    /// Work orders that wait to be sent.
    Orders {
        stage: StageNumber,
        first: bool,
        orders: Vec<(ProcessId, WorkOrder)>,
    },
    Locked(Resumable),
}

struct Driver {
    controller: Arc<Controller>,
    job: Arc<Job>,
    /// The controller's own work for the job: never more than a handful at once.
    work: JoinSet<Done>,
    done: Option<Outcome>,
    /// The process stops; the task goes on in the next one.
    left: bool,
    /// The job has not started: what workers hold may be of an earlier run.
    takes_over: bool,
    /// A finished stage could not be noted: what it has read stays.
    keeps_outputs: bool,
}

impl Driver {
    fn lock_and_start(&mut self, locks: Option<PendingLock>) {
        let (controller, job) = (Arc::clone(&self.controller), Arc::clone(&self.job));
        self.work.spawn(async move {
            let locked = async {
                let clustered_by_max = job.planned.context.max_clustered_by_columns();
                job.graph
                    .check(clustered_by_max.unwrap_or(limits::CLUSTERED_BY_COLUMNS_MAX))?;
                controller.lock(&job, locks).await?;
                controller.resumable(&job).await
            };
            match locked.await {
                Ok(found) => Done::Locked(found),
                Err(fault) => Done::Event(Event::ControllerFailed { fault }),
            }
        });
    }

    async fn start(&mut self, found: Resumable) {
        self.takes_over = false;
        let stages = self.controller.take_over(&self.job, found);
        self.job.state.lock().started_ms = Some(now_ms());
        if !stages.is_empty() {
            self.kernel(Event::Resumed { stages }).await;
        }
        self.kernel(Event::Started).await;
    }

    async fn outside(&mut self, event: JobEvent) {
        match event {
            JobEvent::Worker(event) => self.worker(event).await,
            JobEvent::Held { process, orders } => self.held(process, orders).await,
            JobEvent::ProcessLost { process, reason } => {
                self.process_lost(process, Vec::new(), &reason).await
            }
            JobEvent::Cancel(reason) => self.kernel(Event::Cancel { reason }).await,
            // What is being published is seen through.
            JobEvent::Leave => self.left = !self.job.state.lock().kernel.is_publishing(),
        }
    }

    /// Notes who holds outputs of an earlier run.
    fn claim(&self, process: ProcessId, orders: Vec<HeldOrder>) {
        let mut state = self.job.state.lock();
        let finished = orders
            .into_iter()
            .filter(|order| order.step == HeldStep::OutputReady);
        for order in finished {
            state.claims.insert(order.id, process);
        }
    }

    /// Answers go to the process that holds the orders: their workers may be elsewhere by now.
    async fn held(&mut self, process: ProcessId, orders: Vec<HeldOrder>) {
        if self.takes_over {
            self.claim(process, orders);
            self.job.changed();
            return;
        }
        let (actions, ranges) = {
            let mut state = self.job.state.lock();
            let (current, stale): (Vec<_>, Vec<_>) = orders
                .into_iter()
                .partition(|order| state.is_current(&order.id, process));
            for HeldOrder { id, .. } in stale {
                self.controller
                    .pool
                    .try_send(process, WorkerCommand::Release { id });
            }
            let orders = current.iter().map(|held| Held {
                stage: held.id.stage,
                order: attempt(&held.id),
                step: held.step,
            });
            let orders = orders.collect();
            let actions = state.kernel.on_event(Event::Held { orders }, now_ms());
            let ranges: Vec<_> = state.stages.iter().map(|run| run.ranges.clone()).collect();
            (actions, ranges)
        };
        for action in actions {
            let command = match action {
                Action::CancelOrder { stage, order } => WorkerCommand::Release {
                    id: order_id(&self.job, stage, order),
                },
                Action::AskAgain { stage, order } => WorkerCommand::Repeat {
                    id: order_id(&self.job, stage, order),
                },
                Action::SendBoundaries { stage, order } => match ranges.get(stage.0 as usize) {
                    Some(Some(ranges)) => WorkerCommand::SetBoundaries {
                        id: order_id(&self.job, stage, order),
                        ranges: Arc::clone(ranges),
                    },
                    _ => continue,
                },
                other => {
                    self.act(other).await;
                    continue;
                }
            };
            self.controller.pool.try_send(process, command);
        }
    }

    /// A process is gone, with all workers that it ran; `unsent` are some of them that could not get their orders.
    async fn process_lost(&mut self, process: ProcessId, unsent: Vec<WorkerNumber>, reason: &str) {
        let mut lost = unsent;
        let mut worker_task_id = None;
        {
            let mut state = self.job.state.lock();
            state.claims.retain(|_, holder| *holder != process);
            for worker in &mut state.workers {
                if worker.process == process && worker.state == "RUNNING" {
                    worker.state = "FAILED";
                    worker.ended_ms.get_or_insert(now_ms());
                    lost.push(worker.number);
                }
                if lost.contains(&worker.number) {
                    worker_task_id.get_or_insert_with(|| worker.task_id.clone());
                }
            }
        }
        if let Some(worker_task_id) = worker_task_id {
            self.kernel(Event::WorkersLost {
                workers: lost,
                worker_task_id,
                reason: reason.to_owned(),
            })
            .await;
        }
    }

    /// Tells the kernel of work orders, then sends them: no worker can answer before the kernel knows.
    async fn send(&mut self, stage: StageNumber, first: bool, orders: Vec<(ProcessId, WorkOrder)>) {
        let attempts: Vec<Attempt> = orders.iter().map(|(_, order)| attempt(&order.id)).collect();
        self.kernel(if first {
            let workers = attempts.iter().map(|attempt| attempt.worker).collect();
            Event::Launched { stage, workers }
        } else {
            Event::Relaunched {
                stage,
                orders: attempts,
            }
        })
        .await;
        let mut gone: BTreeMap<ProcessId, Vec<WorkerNumber>> = BTreeMap::new();
        for (process, order) in orders {
            let attempt = attempt(&order.id);
            let wanted = {
                let state = self.job.state.lock();
                let progress = state.kernel.stages().get(stage.0 as usize);
                progress.is_some_and(|progress| progress.is_sent(attempt))
            };
            let command = WorkerCommand::Start(Box::new(order));
            if wanted && self.controller.pool.send(process, command).await.is_err() {
                gone.entry(process).or_default().push(attempt.worker);
            }
        }
        for (process, workers) in gone {
            self.process_lost(process, workers, "the worker process is gone")
                .await;
        }
    }

    async fn worker(&mut self, event: WorkerEvent) {
        let id = event.id().clone();
        let event = {
            let mut state = self.job.state.lock();
            let index = id.stage.0 as usize;
            // An order of an older attempt, or of nobody, changes nothing.
            if state
                .stages
                .get(index)
                .and_then(|run| run.workers.get(&id.worker))
                != Some(&id)
            {
                return;
            }
            match event {
                WorkerEvent::InputRead {
                    buckets,
                    has_multiple_values,
                    ..
                } => {
                    let run = &mut state.stages[index];
                    // Said again, after the boundaries were cut.
                    let buckets = if run.ranges.is_some() { Vec::new() } else { buckets };
                    run.statistics.insert(id.worker, buckets);
                    run.has_multiple_values |= has_multiple_values;
                    Some(Event::InputRead {
                        stage: id.stage,
                        order: attempt(&id),
                    })
                }
                WorkerEvent::OutputReady {
                    partition_rows,
                    segments,
                    ..
                } => {
                    state.stages[index]
                        .partition_rows
                        .insert(id.worker, partition_rows);
                    if !segments.is_empty() {
                        state.segments.insert(id.worker, segments);
                    }
                    Some(Event::OutputReady {
                        stage: id.stage,
                        order: attempt(&id),
                    })
                }
                WorkerEvent::Failed { fault, .. } => {
                    state.error_task_id = Some(id.worker_task_id());
                    state.error_host = state
                        .workers
                        .get(id.worker.0 as usize)
                        .map(|worker| worker.address.clone());
                    Some(Event::OrderFailed {
                        stage: id.stage,
                        order: attempt(&id),
                        fault,
                    })
                }
                WorkerEvent::Counters {
                    sequence,
                    counters,
                    warnings,
                    ..
                } => {
                    state.warnings.extend(warnings);
                    let known = state.counters.entry((id.stage.0, id.worker.0)).or_default();
                    if known.0 < sequence {
                        *known = (sequence, counters);
                    }
                    None
                }
            }
        };
        match event {
            Some(event) => self.kernel(event).await,
            None => self.job.changed(),
        }
    }

    async fn kernel(&mut self, event: Event) {
        let actions = {
            let mut state = self.job.state.lock();
            let tick = matches!(event, Event::Tick);
            let actions = state.kernel.on_event(event, now_ms());
            if tick && actions.is_empty() {
                return;
            }
            stamp_ready(&mut state);
            actions
        };
        // Before anything that was read is removed.
        self.keeps_outputs |= !self.controller.note_finished(&self.job).await;
        for action in actions {
            self.act(action).await;
        }
        self.job.changed();
    }

    /// Sends a command to the process of a worker. One that is gone has nothing left to obey with.
    async fn command(&self, worker: WorkerNumber, command: WorkerCommand) {
        let process = {
            let state = self.job.state.lock();
            state.workers.get(worker.0 as usize).map(|worker| worker.process)
        };
        if let Some(process) = process {
            let _gone = self.controller.pool.send(process, command).await;
        }
    }

    async fn act(&mut self, action: Action) {
        let (controller, job) = (Arc::clone(&self.controller), Arc::clone(&self.job));
        match action {
            Action::Launch { stage } => {
                let launch = async move {
                    match controller.launch(&job, stage).await {
                        Ok(orders) => Done::Orders {
                            stage,
                            first: true,
                            orders,
                        },
                        Err(fault) => Done::Event(Event::StageFailed { stage, fault }),
                    }
                };
                self.work.spawn(launch.instrument(Span::current()));
            }
            Action::Relaunch { stage, orders } => {
                info!(task = %job.id, stage = stage.0, orders = orders.len(), "lost work runs again");
                let relaunch = async move {
                    match controller.relaunch(&job, stage, &orders).await {
                        Ok(orders) => Done::Orders {
                            stage,
                            first: false,
                            orders,
                        },
                        Err(fault) => Done::Event(Event::StageFailed { stage, fault }),
                    }
                };
                self.work.spawn(relaunch.instrument(Span::current()));
            }
            Action::CancelOrder { stage, order } => {
                let id = order_id(&job, stage, order);
                self.command(order.worker, WorkerCommand::Release { id }).await;
            }
            Action::AskAgain { stage, order } => {
                let id = order_id(&job, stage, order);
                self.command(order.worker, WorkerCommand::Repeat { id }).await;
            }
            Action::SendBoundaries { stage, order } => {
                let ranges = job.state.lock().stages[stage.0 as usize].ranges.clone();
                let id = order_id(&job, stage, order);
                if let Some(ranges) = ranges {
                    let command = WorkerCommand::SetBoundaries { id, ranges };
                    self.command(order.worker, command).await;
                }
            }
            Action::CutBoundaries { stage } => {
                self.work.spawn(async move {
                    Done::Event(match controller.cut_boundaries(&job, stage).await {
                        Ok(partition_count) => Event::BoundariesCut {
                            stage,
                            partition_count,
                        },
                        Err(fault) => Event::StageFailed { stage, fault },
                    })
                });
            }
            Action::AllocateSegments { stage } => {
                self.work.spawn(async move {
                    Done::Event(match controller.allocate_segments(&job, stage).await {
                        Ok(()) => Event::SegmentsAllocated { stage },
                        Err(fault) => Event::ControllerFailed { fault },
                    })
                });
            }
            Action::Release { stage } if self.keeps_outputs => {
                debug!(task = %job.id, stage = stage.0, "the output of a stage remains until the task ends");
            }
            Action::Release { stage } => {
                controller.release_durable(&job, stage);
                let orders: Vec<_> = {
                    let state = job.state.lock();
                    let Some(run) = state.stages.get(stage.0 as usize) else {
                        return;
                    };
                    run.workers
                        .iter()
                        .filter_map(|(number, id)| {
                            Some((state.workers.get(number.0 as usize)?.process, id.clone()))
                        })
                        .collect()
                };
                for (process, id) in orders {
                    // A process that is gone holds nothing.
                    let _gone = controller.pool.send(process, WorkerCommand::Release { id }).await;
                }
            }
            Action::Publish => {
                let publish = async move {
                    Done::Event(match controller.publish(&job).await {
                        Ok(()) => Event::Published,
                        Err(PublishError::Refused(fault)) => Event::ControllerFailed { fault },
                        Err(PublishError::Ended(fault) | PublishError::Unknown(fault)) => {
                            Event::PublishUnknown { fault }
                        }
                    })
                };
                self.work.spawn(publish.instrument(info_span!("publish")));
            }
            Action::SettlePublish { fault } => {
                warn!(task = %job.id, %fault, "whether the task is published is asked of the store");
                self.work.spawn(async move {
                    Done::Event(match controller.settle(&job, fault).await {
                        Ok(published) => Event::PublishSettled { published },
                        Err(fault) => Event::PublishUnknown { fault },
                    })
                });
            }
            Action::StopWorkers => controller.pool.cancel_everywhere(&job.id).await,
            Action::Finish(outcome) => {
                match &outcome {
                    Outcome::Success => info!(task = %job.id, "task succeeded"),
                    Outcome::Failed { fault, .. } => {
                        Span::current()
                            .record("otel.status_code", "ERROR")
                            .record("otel.status_description", fault.to_string());
                        info!(task = %job.id, %fault, "task failed");
                    }
                }
                self.done = Some(outcome);
            }
        }
    }
}

fn attempt(id: &WorkOrderId) -> Attempt {
    Attempt {
        worker: id.worker,
        number: id.attempt,
    }
}

fn order_id(job: &Job, stage: StageNumber, order: Attempt) -> WorkOrderId {
    let state = job.state.lock();
    let run = state.stages.get(stage.0 as usize);
    let known = run.and_then(|run| run.workers.get(&order.worker));
    // It may be of an earlier run.
    if let Some(id) = known.filter(|id| id.attempt == order.number) {
        return id.clone();
    }
    WorkOrderId {
        task: job.id.clone(),
        stage,
        worker: order.worker,
        attempt: order.number,
        run: job.run,
    }
}

/// Notes when stages became ready.
fn stamp_ready(state: &mut JobState) {
    use crate::kernel::Phase;
    let now = now_ms();
    let phases: Vec<Phase> = state.kernel.stages().iter().map(|stage| stage.phase).collect();
    for (run, phase) in state.stages.iter_mut().zip(phases) {
        match phase {
            Phase::New => {}
            Phase::ResultsReady | Phase::Finished | Phase::Failed => {
                if run.started_ms.is_some() {
                    run.ended_ms.get_or_insert(now);
                }
            }
            _ => {
                run.started_ms.get_or_insert(now);
            }
        }
    }
}
