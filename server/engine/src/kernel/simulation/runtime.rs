//! What the controller's runtime does for the kernel.

use std::collections::BTreeMap;

use trilith_proto::fault::Fault;
use trilith_proto::id::{AttemptNumber, StageNumber, WorkerNumber};

use super::processes::{Command, Work};
use super::world::{Key, Row, World};
use crate::controller::SlotLease;
use crate::kernel::{Action, Attempt, Event, Held, Outcome};
use crate::limits;

/// A worker of the job.
pub struct Placed {
    pub process: usize,
    pub lease: Option<SlotLease>,
    /// The controller knows that its process is gone.
    pub failed: bool,
}

/// Work of the controller that is under way.
pub enum Pending {
    Launch {
        stage: usize,
        since: i64,
        blocked: bool,
    },
    Relaunch {
        stage: usize,
        orders: Vec<Attempt>,
        since: i64,
        blocked: bool,
    },
    Boundaries(usize),
    Allocate(usize),
    Publish {
        blocked: bool,
    },
    /// A transaction that hung is committed after all.
    LateCommit(Vec<Row>),
    Settle,
    /// The controller hears of a lost process.
    Loss(usize),
    /// An answer that comes once more.
    Echo(Event),
}

impl Pending {
    /// Waits for slots, or for a process that sleeps.
    pub fn is_blocked(&self) -> bool {
        match self {
            Pending::Launch { blocked, .. }
            | Pending::Relaunch { blocked, .. }
            | Pending::Publish { blocked } => *blocked,
            _ => false,
        }
    }
}

/// The task in the metadata store.
#[derive(Debug, Clone, PartialEq)]
pub enum Store {
    Running,
    Success(Vec<Row>),
    Failed,
}

impl World {
    pub fn act(&mut self, action: Action) {
        self.note(|| format!("action {action:?}"));
        assert!(self.outcome.is_none(), "an action after the end");
        let since = self.now;
        let blocked = false;
        match action {
            Action::Launch { stage } => {
                self.check_inputs(stage);
                let stage = stage.0 as usize;
                self.check_concurrency(stage);
                self.pending.push(Pending::Launch {
                    stage,
                    since,
                    blocked,
                });
            }
            Action::Relaunch { stage, orders } => {
                self.check_inputs(stage);
                let stage = stage.0 as usize;
                self.check_durable(stage, &orders);
                self.pending.push(Pending::Relaunch {
                    stage,
                    orders,
                    since,
                    blocked,
                });
            }
            Action::CancelOrder { stage, order } => {
                let process = self.placed[order.worker.0 as usize].process;
                self.tell(process, Command::Release((stage.0 as usize, order)));
            }
            Action::AskAgain { stage, order } => {
                let process = self.placed[order.worker.0 as usize].process;
                self.tell(process, Command::Repeat((stage.0 as usize, order)));
            }
            Action::SendBoundaries { stage, order } => {
                let process = self.placed[order.worker.0 as usize].process;
                self.tell(process, Command::Boundaries((stage.0 as usize, order)));
            }
            Action::CutBoundaries { stage } => {
                self.check_merging(stage);
                self.pending.push(Pending::Boundaries(stage.0 as usize));
            }
            Action::AllocateSegments { stage } => {
                self.check_inputs(stage);
                self.pending.push(Pending::Allocate(stage.0 as usize));
            }
            Action::Release { stage } => self.release(stage.0 as usize),
            Action::Publish => self.pending.push(Pending::Publish { blocked }),
            Action::SettlePublish { .. } => self.pending.push(Pending::Settle),
            Action::StopWorkers => {
                for process in 0..self.processes.len() {
                    self.tell(process, Command::CancelTask);
                }
            }
            Action::Finish(outcome) => self.finish(outcome),
        }
    }

    /// Slots are given back; the store hears of a failure, if it knows no end yet.
    fn finish(&mut self, outcome: Outcome) {
        // A transaction that has begun cannot be stopped.
        let publishing = self
            .pending
            .iter()
            .any(|pending| matches!(pending, Pending::Publish { .. }));
        if publishing
            && self.shape.publishes
            && self.random.one_in(2)
            && let Some(Ok(mut rows)) = self.rows_to_publish()
        {
            rows.sort_unstable();
            self.commit(rows);
        }
        if outcome != Outcome::Success && self.store == Store::Running {
            self.store = Store::Failed;
        }
        self.placed.clear();
        self.outcome = Some(outcome);
    }

    fn release(&mut self, stage: usize) {
        self.durable.retain(|(owner, _), _| *owner != stage);
        let sent: Vec<Attempt> = self.sent[stage].values().copied().collect();
        for order in sent {
            let process = self.placed[order.worker.0 as usize].process;
            self.tell(process, Command::Release((stage, order)));
        }
    }

    fn tell(&mut self, process: usize, command: Command) {
        let process = &mut self.processes[process];
        if process.connected {
            process.told.push_back(command);
        }
    }

    /// A heartbeat. Answers go to the process that sent it.
    pub fn held(&mut self, process: usize, orders: Vec<Held>) {
        if self.outcome.is_some() {
            return;
        }
        let actions = self.kernel.on_event(Event::Held { orders }, self.now);
        for action in actions {
            self.note(|| format!("answer {action:?} to process {process}"));
            let command = match action {
                Action::CancelOrder { stage, order } => Command::Release((stage.0 as usize, order)),
                Action::AskAgain { stage, order } => Command::Repeat((stage.0 as usize, order)),
                Action::SendBoundaries { stage, order } => Command::Boundaries((stage.0 as usize, order)),
                other => {
                    self.act(other);
                    continue;
                }
            };
            self.tell(process, command);
        }
    }

    pub fn report_loss(&mut self, process: usize) {
        if self.random.one_in(2) {
            return self.pending.push(Pending::Loss(process));
        }
        self.workers_lost(process, &[]);
    }

    fn workers_lost(&mut self, process: usize, unsent: &[usize]) {
        let mut workers = Vec::new();
        for (index, placed) in self.placed.iter_mut().enumerate() {
            if (placed.process == process && !placed.failed) || unsent.contains(&index) {
                placed.failed = true;
                workers.push(WorkerNumber(index as u32));
            }
        }
        if !workers.is_empty() {
            self.event(Event::WorkersLost {
                workers,
                worker_task_id: format!("process {process}"),
                reason: "the connection broke".to_owned(),
            });
        }
    }

    fn process_of(&self, lease: &SlotLease) -> usize {
        let same = |index: &usize| self.processes[*index].pool_id == lease.process();
        (0..self.processes.len()).find(same).unwrap_or(0)
    }

    /// Makes sure that the job has workers, as `Controller::workers` does. None: it has to wait.
    fn workers(&mut self, wanted: usize) -> Option<usize> {
        let have = self.placed.len();
        if have >= wanted {
            return Some(wanted);
        }
        let missing = wanted - have;
        let capacity = self.pool.capacity();
        let leases = if have == 0 {
            let count = missing.min(capacity.slots.max(1) as usize);
            if ((capacity.slots - capacity.busy) as usize) < count {
                return None;
            }
            self.pool.try_acquire(count)
        } else {
            self.pool.try_acquire(missing)
        };
        for lease in leases {
            let process = self.process_of(&lease);
            self.placed.push(Placed {
                process,
                lease: Some(lease),
                failed: false,
            });
        }
        Some(self.placed.len().min(wanted))
    }

    /// A new slot for a lost worker, as `Controller::replace_if_lost` finds it. False: it has to wait.
    fn replace_if_lost(&mut self, worker: usize) -> bool {
        if !self.placed[worker].failed {
            return true;
        }
        let lease = self.pool.try_acquire(1).pop();
        let shared = self.placed.iter().find(|placed| !placed.failed);
        let process = match &lease {
            Some(lease) => Some(self.process_of(lease)),
            None => shared.map(|placed| placed.process),
        };
        let Some(process) = process else { return false };
        self.placed[worker] = Placed {
            process,
            lease,
            failed: false,
        };
        true
    }

    /// The controller goes on with something.
    pub fn controller(&mut self) {
        if self.pending.is_empty() || self.outcome.is_some() {
            return;
        }
        let index = self.random.below(self.pending.len());
        match self.pending.swap_remove(index) {
            Pending::Launch { stage, since, .. } => match self.workers(self.wanted[stage]) {
                Some(workers) if (0..workers).all(|worker| self.replace_if_lost(worker)) => {
                    self.launched(stage, workers);
                }
                _ => self.wait_for_slots(
                    stage,
                    since,
                    Pending::Launch {
                        stage,
                        since,
                        blocked: true,
                    },
                ),
            },
            Pending::Relaunch {
                stage, orders, since, ..
            } => {
                let placed = orders
                    .iter()
                    .all(|order| self.replace_if_lost(order.worker.0 as usize));
                match placed {
                    true => self.relaunched(stage, orders),
                    false => {
                        let blocked = true;
                        let again = Pending::Relaunch {
                            stage,
                            orders,
                            since,
                            blocked,
                        };
                        self.wait_for_slots(stage, since, again);
                    }
                }
            }
            Pending::Boundaries(stage) => {
                let partition_count = self.partitions[stage] as u32;
                let stage = StageNumber(stage as u32);
                self.answer(Event::BoundariesCut {
                    stage,
                    partition_count,
                });
            }
            Pending::Allocate(stage) => {
                let stage = StageNumber(stage as u32);
                self.answer(Event::SegmentsAllocated { stage });
            }
            Pending::Publish { .. } => self.publish(),
            Pending::LateCommit(rows) => self.commit(rows),
            Pending::Settle => self.settle(),
            Pending::Loss(process) => self.workers_lost(process, &[]),
            Pending::Echo(event) => self.event(event),
        }
        self.check_slots();
    }

    fn wait_for_slots(&mut self, stage: usize, since: i64, again: Pending) {
        if self.now - since < limits::TASK_START_TIMEOUT_MS {
            return self.pending.push(again);
        }
        let timeout = limits::TASK_START_TIMEOUT_MS as u64;
        let fault = Fault::task_start_timeout(1, 1, timeout);
        let stage = StageNumber(stage as u32);
        self.event(Event::StageFailed { stage, fault });
    }

    /// An answer to the kernel, which may be lost, or come twice. True if it came.
    fn answer(&mut self, event: Event) -> bool {
        if self.trouble(400, "answer of the controller lost") {
            return false;
        }
        if self.trouble(40, "answer of the controller twice") {
            self.pending.push(Pending::Echo(event.clone()));
        }
        self.event(event);
        true
    }

    fn launched(&mut self, stage: usize, workers: usize) {
        self.got[stage] = workers;
        let orders: Vec<Attempt> = (0..workers as u32)
            .map(|worker| Attempt {
                worker: WorkerNumber(worker),
                number: AttemptNumber(0),
            })
            .collect();
        let works = self.works(stage, &orders);
        let event = Event::Launched {
            stage: StageNumber(stage as u32),
            workers: orders.iter().map(|order| order.worker).collect(),
        };
        if self.answer(event) {
            self.send(stage, works);
        }
    }

    fn relaunched(&mut self, stage: usize, orders: Vec<Attempt>) {
        let works = self.works(stage, &orders);
        let event = Event::Relaunched {
            stage: StageNumber(stage as u32),
            orders,
        };
        if self.answer(event) {
            self.send(stage, works);
        }
    }

    /// Work orders, each with its process, as `Controller::orders` makes them.
    fn works(&mut self, stage: usize, orders: &[Attempt]) -> Vec<(usize, Work)> {
        let mut works = Vec::new();
        for order in orders {
            let known = self.sent[stage].get(&order.worker);
            if known.is_some_and(|known| known.number > order.number) {
                continue;
            }
            let process = self.placed[order.worker.0 as usize].process;
            works.push((process, self.work((stage, *order))));
            self.sent[stage].insert(order.worker, *order);
        }
        works
    }

    fn work(&mut self, key: Key) -> Work {
        let (stage, attempt) = key;
        let (worker, workers) = (attempt.worker.0 as usize, self.got[stage]);
        let inputs = self.shape.stages[stage].inputs.clone();
        let mut sources = Vec::new();
        for input in inputs {
            let input = input.0 as usize;
            let mine: Vec<usize> = (0..self.partitions[input])
                .filter(|partition| partition % workers == worker)
                .collect();
            for source in self.sent[input].values() {
                let process = self.placed[source.worker.0 as usize].process;
                sources.push((process, (input, *source), mine.clone()));
            }
        }
        let reads = sources.iter().map(|(_, source, _)| *source).collect();
        self.reads.insert(key, reads);
        let external = self.shape.stages[stage].inputs.is_empty();
        let rows = World::source_rows(stage).filter(|row| external && *row as usize % workers == worker);
        Work {
            key,
            rows: rows.collect(),
            sources: sources.into(),
            input_reported: false,
            boundaries: false,
        }
    }

    pub fn source_rows(stage: usize) -> impl Iterator<Item = Row> {
        (0..12).map(move |row| stage as Row * 100 + row)
    }

    fn send(&mut self, stage: usize, works: Vec<(usize, Work)>) {
        let mut lost = BTreeMap::new();
        for (process, work) in works {
            let order = work.key.1;
            let wanted = self.kernel.stages()[stage].is_sent(order);
            if !wanted || self.outcome.is_some() {
                continue;
            }
            if self.processes[process].connected {
                self.tell(process, Command::Start(work));
            } else {
                lost.entry(process)
                    .or_insert_with(Vec::new)
                    .push(order.worker.0 as usize);
            }
        }
        for (process, unsent) in lost {
            self.workers_lost(process, &unsent);
        }
    }

    /// The rows as they are now; none if a process has to be waited for.
    fn rows_to_publish(&self) -> Option<Result<Vec<Row>, Fault>> {
        let last = self.shape.stages.len() - 1;
        if self.shape.publishes {
            let written = |attempt| self.written[&(last, attempt)].iter().copied();
            return Some(Ok(self.accepted.values().copied().flat_map(written).collect()));
        }
        let mut rows = Vec::new();
        for order in self.sent[last].values() {
            let process = &self.processes[self.placed[order.worker.0 as usize].process];
            let durable = self.durable.get(&(last, *order));
            if durable.is_none() && process.connected && !process.is_awake(self.now) {
                return None;
            }
            let output = process.outputs.get(&(last, *order));
            let output = durable.or_else(|| output.filter(|_| process.is_awake(self.now)));
            let Some(output) = output else {
                return Some(Err(Fault::worker_rpc_failed("worker", "unreachable")));
            };
            rows.extend(output.iter().flatten().copied());
        }
        Some(Ok(rows))
    }

    fn publish(&mut self) {
        let mut rows = match self.rows_to_publish() {
            None => return self.pending.push(Pending::Publish { blocked: true }),
            Some(Err(fault)) => return self.event(Event::ControllerFailed { fault }),
            Some(Ok(rows)) => rows,
        };
        rows.sort_unstable();
        if self.trouble(40, "publish refused") {
            let fault = Fault::insert_cannot_be_empty("t");
            return self.event(Event::ControllerFailed { fault });
        }
        let unknown = Event::PublishUnknown {
            fault: Fault::unknown("the disk does not answer"),
        };
        if self.store != Store::Running {
            return self.event(unknown);
        }
        if self.trouble(20, "publish answer lost, committed") {
            self.commit(rows);
            if self.random.one_in(2) {
                self.event(unknown);
            }
            return;
        }
        if self.trouble(20, "publish answer lost, not committed") {
            if self.random.one_in(2) {
                self.pending.push(Pending::LateCommit(rows));
            }
            if self.random.one_in(2) {
                self.event(unknown);
            }
            return;
        }
        self.commit(rows);
        let answer = Event::Published;
        if self.trouble(20, "answer of the controller twice") {
            self.pending.push(Pending::Echo(answer.clone()));
        }
        self.event(answer);
    }

    /// The transaction, which only a running task may make.
    fn commit(&mut self, rows: Vec<Row>) {
        if self.store == Store::Running {
            self.commits += 1;
            self.note(|| "       committed".to_owned());
            self.store = Store::Success(rows);
        }
    }

    fn settle(&mut self) {
        if self.settle_failures < 3 && self.trouble(3, "store does not answer") {
            self.settle_failures += 1;
            if self.random.one_in(2) {
                let fault = Fault::unknown("the disk still does not answer");
                self.event(Event::PublishUnknown { fault });
            }
            return;
        }
        if self.store == Store::Running {
            self.store = Store::Failed;
        }
        let published = self.store != Store::Failed;
        self.event(Event::PublishSettled { published });
    }

    pub fn is_sent(&self, stage: StageNumber, order: Attempt) -> bool {
        self.sent[stage.0 as usize].get(&order.worker) == Some(&order)
    }
}
