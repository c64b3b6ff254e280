//! What surrounds the kernel: workers, their outputs, the controller's own work, and bad luck.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use trilith_proto::fault::{CancelReason, Fault, FaultCode};
use trilith_proto::id::{AttemptNumber, StageNumber, WorkerNumber};

use crate::kernel::{Action, Attempt, Event, Kernel, Outcome, Phase, Shape, StageShape};

use super::STEPS_MAX;
use super::random::Random;

type Row = u32;
type Key = (usize, Attempt);

/// An order as it was sent: where it reads.
#[derive(Clone)]
struct Work {
    key: Key,
    /// Rows of external input.
    rows: Vec<Row>,
    /// Outputs to read, each with the partitions to take.
    sources: VecDeque<(usize, Key, Vec<usize>)>,
    input_reported: bool,
    boundaries: bool,
}

struct Process {
    /// The controller's session with it.
    connected: bool,
    alive: bool,
    running: BTreeMap<Key, Work>,
    /// Rows by partition.
    outputs: BTreeMap<Key, Vec<Vec<Row>>>,
    /// What it has said and the controller has not heard.
    said: VecDeque<Event>,
}

/// Work of the controller that is under way.
enum Pending {
    Launch {
        stage: usize,
        sources: Vec<Key>,
    },
    Relaunch {
        stage: usize,
        orders: Vec<Attempt>,
        sources: Vec<Key>,
    },
    Boundaries(usize),
    Allocate(usize),
    Publish,
}

pub struct World {
    random: Random,
    kernel: Kernel,
    pub shape: Shape,
    processes: Vec<Process>,
    /// Process of each worker.
    placed: Vec<usize>,
    stage_workers: Vec<usize>,
    pending: Vec<Pending>,
    /// Segments in deep storage, by the attempt that wrote them.
    written: BTreeMap<Key, Vec<Row>>,
    /// Segments that the controller was told of, by worker.
    accepted: BTreeMap<WorkerNumber, Attempt>,
    published: Vec<Vec<Row>>,
    pub outcome: Option<Outcome>,
    pub history: Vec<String>,
    now: i64,
    pub chaos: bool,
    /// Something went wrong that may fail any job.
    hurt: bool,
    /// Processes lost, which a fault-tolerant job survives.
    pub losses: usize,
}

fn random_shape(random: &mut Random) -> Shape {
    let count = 1 + random.below(4);
    let publishes = random.one_in(2) && count > 1;
    let mut unread: Vec<usize> = Vec::new();
    let stages = (0..count)
        .map(|index| {
            let is_last = index + 1 == count;
            // A tree: each output has one reader, and the last stage reads all that are left.
            let inputs: Vec<usize> = if is_last {
                std::mem::take(&mut unread)
            } else if !unread.is_empty() && random.one_in(2) {
                vec![unread.remove(random.below(unread.len()))]
            } else {
                Vec::new()
            };
            unread.push(index);
            let gathers_statistics = random.one_in(2) && !is_last;
            StageShape {
                inputs: inputs
                    .into_iter()
                    .map(|input| StageNumber(input as u32))
                    .collect(),
                sorts: gathers_statistics,
                gathers_statistics,
                writes_segments: publishes && is_last,
            }
        })
        .collect();
    Shape {
        stages,
        publishes,
        deadline_ms: None,
        fault_tolerant: random.below(4) > 0,
        max_concurrent_stages: 1 + random.below(3) as u32,
        start_timeout_ms: 600_000,
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let shape = random_shape(&mut random);
        let processes = 1 + random.below(3);
        let stage_workers = shape.stages.iter().map(|_| 1 + random.below(3)).collect();
        let chaos = !random.one_in(8);
        World {
            kernel: Kernel::new(shape.clone()),
            shape,
            processes: (0..processes).map(|_| Process::new()).collect(),
            placed: Vec::new(),
            stage_workers,
            pending: Vec::new(),
            written: BTreeMap::new(),
            accepted: BTreeMap::new(),
            published: Vec::new(),
            outcome: None,
            history: Vec::new(),
            now: 0,
            chaos,
            hurt: false,
            losses: 0,
            random,
        }
    }

    fn note(&mut self, text: String) {
        self.history.push(format!("{:>7} {text}", self.now));
    }

    fn source_rows(stage: usize) -> impl Iterator<Item = Row> {
        (0..12).map(move |row| stage as Row * 100 + row)
    }

    fn expected(&self) -> Vec<Row> {
        let leaves = self.shape.stages.iter().enumerate();
        let mut rows: Vec<Row> = leaves
            .filter(|(_, stage)| stage.inputs.is_empty())
            .flat_map(|(index, _)| World::source_rows(index))
            .collect();
        rows.sort_unstable();
        rows
    }

    /// Partitions of the output of a stage.
    fn partitions(&self, stage: usize) -> usize {
        (stage + 1..self.shape.stages.len())
            .find(|reader| {
                self.shape.stages[*reader]
                    .inputs
                    .contains(&StageNumber(stage as u32))
            })
            .map_or(1, |reader| self.stage_workers[reader])
    }

    pub fn event(&mut self, event: Event) {
        let before: Vec<Phase> = self.kernel.stages().iter().map(|stage| stage.phase).collect();
        self.note(format!("event  {event:?}"));
        let actions = self.kernel.on_event(event, self.now);
        let after: Vec<Phase> = self.kernel.stages().iter().map(|stage| stage.phase).collect();
        for (stage, (before, after)) in before.iter().zip(&after).enumerate() {
            if before != after {
                self.note(format!(
                    "       stage {stage}: {} → {}",
                    before.as_str(),
                    after.as_str()
                ));
                assert!(legal(*before, *after), "stage {stage}: {before:?} → {after:?}");
            }
        }
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        self.note(format!("action {action:?}"));
        assert!(self.outcome.is_none(), "an action after the end");
        match action {
            Action::Launch { stage } => {
                let sources = self.check_inputs(stage);
                let stage = stage.0 as usize;
                self.check_concurrency(stage);
                self.pending.push(Pending::Launch { stage, sources });
            }
            Action::Relaunch { stage, orders } => {
                let sources = self.check_inputs(stage);
                let stage = stage.0 as usize;
                self.pending.push(Pending::Relaunch {
                    stage,
                    orders,
                    sources,
                });
            }
            Action::CancelOrder { stage, order } => self.drop_order((stage.0 as usize, order)),
            Action::SendBoundaries { stage, order } => self.send_boundaries(stage.0 as usize, order),
            Action::CutBoundaries { stage } => {
                let stage = stage.0 as usize;
                assert_eq!(self.kernel.stages()[stage].phase, Phase::MergingStatistics);
                self.pending.push(Pending::Boundaries(stage));
            }
            Action::AllocateSegments { stage } => {
                self.check_inputs(stage);
                self.pending.push(Pending::Allocate(stage.0 as usize));
            }
            Action::Release { stage } => {
                for process in &mut self.processes {
                    process.outputs.retain(|(owner, _), _| *owner != stage.0 as usize);
                }
            }
            Action::Publish => self.pending.push(Pending::Publish),
            Action::StopWorkers => {
                for process in self.processes.iter_mut().filter(|process| process.connected) {
                    process.running.clear();
                    process.outputs.clear();
                }
            }
            Action::Finish(outcome) => self.outcome = Some(outcome),
        }
    }

    /// No more stages are active than may be. Segments are allocated first, and a loss meanwhile may bring
    /// earlier stages back.
    fn check_concurrency(&self, stage: usize) {
        let active = self.kernel.stages().iter().filter(|stage| {
            let phase = stage.phase;
            !matches!(
                phase,
                Phase::New | Phase::ResultsReady | Phase::Finished | Phase::Failed
            )
        });
        let (active, most) = (active.count(), self.shape.max_concurrent_stages as usize);
        assert!(
            active <= most || self.shape.stages[stage].writes_segments,
            "{active} active stages"
        );
    }

    /// No stage starts before its inputs are ready. Returns the attempts that made them.
    fn check_inputs(&self, stage: StageNumber) -> Vec<Key> {
        let inputs = &self.shape.stages[stage.0 as usize].inputs;
        let mut sources = Vec::new();
        for input in inputs {
            let progress = &self.kernel.stages()[input.0 as usize];
            assert_eq!(progress.phase, Phase::ResultsReady, "{stage:?} reads {input:?}");
            for (worker, order) in &progress.orders {
                let attempt = Attempt {
                    worker: *worker,
                    number: order.attempt,
                };
                sources.push((input.0 as usize, attempt));
            }
        }
        sources
    }

    fn drop_order(&mut self, key: Key) {
        for process in self.processes.iter_mut().filter(|process| process.connected) {
            process.running.remove(&key);
            process.outputs.remove(&key);
        }
    }

    fn send_boundaries(&mut self, stage: usize, order: Attempt) {
        let process = &mut self.processes[self.placed[order.worker.0 as usize]];
        if let Some(work) = process.running.get_mut(&(stage, order)) {
            work.boundaries = true;
        }
    }

    fn free_process(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.processes.len())
            .filter(|index| self.processes[*index].connected)
            .collect();
        (!up.is_empty()).then(|| up[self.random.below(up.len())])
    }

    fn work(&self, key: Key, sources: &[Key]) -> Work {
        let (stage, attempt) = key;
        let (worker, workers) = (attempt.worker.0 as usize, self.stage_workers[stage]);
        let external = self.shape.stages[stage].inputs.is_empty();
        Work {
            key,
            rows: if external {
                World::source_rows(stage)
                    .filter(|row| *row as usize % workers == worker)
                    .collect()
            } else {
                Vec::new()
            },
            sources: sources
                .iter()
                .map(|source| {
                    let process = self.placed[source.1.worker.0 as usize];
                    (process, *source, vec![worker])
                })
                .collect(),
            input_reported: false,
            boundaries: false,
        }
    }

    fn send(&mut self, stage: usize, orders: &[Attempt], sources: &[Key]) {
        let mut lost = BTreeSet::new();
        for order in orders {
            if !self.kernel.stages()[stage].is_sent(*order) {
                continue;
            }
            let process = self.placed[order.worker.0 as usize];
            if self.processes[process].connected {
                let work = self.work((stage, *order), sources);
                self.processes[process].running.insert(work.key, work);
            } else {
                lost.insert(process);
            }
        }
        for process in lost {
            self.report_loss(process);
        }
    }

    fn report_loss(&mut self, process: usize) {
        let workers: Vec<WorkerNumber> = (0..self.placed.len())
            .filter(|worker| self.placed[*worker] == process)
            .map(|worker| WorkerNumber(worker as u32))
            .collect();
        if !workers.is_empty() && self.outcome.is_none() {
            self.event(Event::WorkersLost {
                workers,
                worker_task_id: format!("process {process}"),
                reason: "the connection broke".to_owned(),
            });
        }
    }

    fn controller(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let index = self.random.below(self.pending.len());
        match self.pending.remove(index) {
            Pending::Launch { stage, sources } => {
                let wanted = self.stage_workers[stage];
                while self.placed.len() < wanted {
                    let Some(process) = self.free_process() else {
                        let fault = Fault::task_start_timeout(1, 1, 0);
                        let stage = StageNumber(stage as u32);
                        return self.event(Event::StageFailed { stage, fault });
                    };
                    self.placed.push(process);
                }
                let orders: Vec<Attempt> = (0..wanted as u32)
                    .map(|worker| Attempt {
                        worker: WorkerNumber(worker),
                        number: AttemptNumber(0),
                    })
                    .collect();
                self.event(Event::Launched {
                    stage: StageNumber(stage as u32),
                    workers: orders.iter().map(|order| order.worker).collect(),
                });
                self.send(stage, &orders, &sources);
            }
            Pending::Relaunch {
                stage,
                orders,
                sources,
            } => {
                for order in &orders {
                    let worker = order.worker.0 as usize;
                    if !self.processes[self.placed[worker]].connected {
                        let Some(process) = self.free_process() else {
                            let fault = Fault::task_start_timeout(1, 1, 0);
                            let stage = StageNumber(stage as u32);
                            return self.event(Event::StageFailed { stage, fault });
                        };
                        self.placed[worker] = process;
                    }
                }
                self.event(Event::Relaunched {
                    stage: StageNumber(stage as u32),
                    orders: orders.clone(),
                });
                self.send(stage, &orders, &sources);
            }
            Pending::Boundaries(stage) => {
                let partition_count = self.partitions(stage) as u32;
                self.event(Event::BoundariesCut {
                    stage: StageNumber(stage as u32),
                    partition_count,
                });
            }
            Pending::Allocate(stage) => self.event(Event::SegmentsAllocated {
                stage: StageNumber(stage as u32),
            }),
            Pending::Publish => self.publish(),
        }
    }

    fn publish(&mut self) {
        if self.chaos && self.random.one_in(20) {
            self.hurt = true;
            let fault = Fault::unknown("the metadata store failed");
            return self.event(Event::ControllerFailed { fault });
        }
        let last = self.shape.stages.len() - 1;
        let mut rows = Vec::new();
        if self.shape.publishes {
            for attempt in self.accepted.values() {
                rows.extend(self.written[&(last, *attempt)].iter().copied());
            }
        } else {
            let orders: Vec<Attempt> = self.kernel.stages()[last]
                .orders
                .iter()
                .map(|(worker, order)| Attempt {
                    worker: *worker,
                    number: order.attempt,
                })
                .collect();
            for order in orders {
                let process = &self.processes[self.placed[order.worker.0 as usize]];
                let output = process.outputs.get(&(last, order)).filter(|_| process.alive);
                let Some(output) = output else {
                    let fault = Fault::worker_rpc_failed("worker", "unreachable");
                    return self.event(Event::ControllerFailed { fault });
                };
                rows.extend(output.iter().flatten().copied());
            }
        }
        rows.sort_unstable();
        self.published.push(rows);
        self.event(Event::Published);
    }

    /// A worker takes one step with one of its orders.
    fn worker(&mut self) {
        let index = self.random.below(self.processes.len());
        if !self.processes[index].alive || self.processes[index].running.is_empty() {
            return;
        }
        let keys: Vec<Key> = self.processes[index].running.keys().copied().collect();
        let key = keys[self.random.below(keys.len())];
        let stage = StageNumber(key.0 as u32);
        if self.chaos && self.random.one_in(200) {
            self.hurt = true;
            let fault = match self.random.below(3) {
                0 => Fault::unknown("it happens"),
                1 => Fault::worker_rpc_failed("w", "it happens"),
                _ => Fault::insert_time_null(),
            };
            return self.order_fails(index, key, fault);
        }
        let Some(mut work) = self.processes[index].running.remove(&key) else {
            return;
        };
        if let Some((from, source, partitions)) = work.sources.pop_front() {
            let process = &self.processes[from];
            let output = process.outputs.get(&source).filter(|_| process.alive);
            let Some(output) = output else {
                self.processes[index].running.insert(key, work);
                let fault = Fault::worker_rpc_failed("w", "unreachable");
                return self.order_fails(index, key, fault);
            };
            for partition in partitions {
                work.rows.extend(output.get(partition).into_iter().flatten());
            }
            self.processes[index].running.insert(key, work);
            return;
        }
        let gathers = self.shape.stages[key.0].gathers_statistics;
        if gathers && !work.input_reported {
            work.input_reported = true;
            let order = key.1;
            self.processes[index].say(Event::InputRead { stage, order });
            self.processes[index].running.insert(key, work);
            return;
        }
        if gathers && !work.boundaries {
            self.processes[index].running.insert(key, work);
            return;
        }
        if self.shape.stages[key.0].writes_segments {
            self.written.insert(key, work.rows);
        } else {
            // Another attempt deals rows to partitions differently.
            let mut partitions = vec![Vec::new(); self.partitions(key.0)];
            for row in work.rows {
                let partition = self.random.below(partitions.len());
                partitions[partition].push(row);
            }
            self.processes[index].outputs.insert(key, partitions);
        }
        let order = key.1;
        self.processes[index].say(Event::OutputReady { stage, order });
    }

    fn order_fails(&mut self, process: usize, key: Key, fault: Fault) {
        self.processes[process].running.remove(&key);
        let (stage, order) = (StageNumber(key.0 as u32), key.1);
        self.processes[process].say(Event::OrderFailed { stage, order, fault });
    }

    /// The controller hears the next word of a process, perhaps twice.
    fn hear(&mut self) {
        let index = self.random.below(self.processes.len());
        let Some(event) = self.processes[index].said.pop_front() else {
            return;
        };
        let again = self.chaos && self.random.one_in(10);
        for _ in 0..1 + usize::from(again) {
            if self.outcome.is_some() {
                return;
            }
            if let Event::OutputReady { stage, order } = &event
                && self.shape.stages[stage.0 as usize].writes_segments
                && self.kernel.stages()[stage.0 as usize].is_sent(*order)
            {
                self.accepted.insert(order.worker, *order);
            }
            self.event(event.clone());
        }
    }

    fn lose(&mut self) {
        let index = self.random.below(self.processes.len());
        if !self.processes[index].connected {
            // A new process takes its place, under another address.
            self.processes.push(Process::new());
            return;
        }
        self.losses += 1;
        // Half of them only lose their connection and work on: whatever they write must not count.
        let zombie = self.random.one_in(2);
        self.note(format!(
            "       process {index} lost{}",
            if zombie { ", works on" } else { "" }
        ));
        let process = &mut self.processes[index];
        process.connected = false;
        process.alive = zombie;
        process.said.clear();
        if self.random.one_in(2) {
            self.processes.push(Process::new());
        }
        // Others may notice before the controller does.
        for _ in 0..self.random.below(6) {
            self.worker();
        }
        self.report_loss(index);
    }

    pub fn step(&mut self) {
        match self.random.below(100) {
            0..=39 => self.worker(),
            40..=69 => self.hear(),
            70..=89 => self.controller(),
            90..=97 => {
                self.now += 200;
                self.event(Event::Tick);
            }
            98 if self.chaos && self.random.one_in(3) => self.lose(),
            99 if self.chaos && self.random.one_in(150) => {
                self.hurt = true;
                let reason = CancelReason::UserRequest;
                self.event(Event::Cancel { reason });
            }
            _ => {}
        }
    }

    pub fn check_end(&self) {
        match self.outcome.as_ref() {
            None => panic!("no end after {STEPS_MAX} steps"),
            Some(Outcome::Success) => {
                assert_eq!(self.published, [self.expected()], "the rows are wrong");
                assert!(
                    self.kernel
                        .stages()
                        .iter()
                        .all(|stage| stage.phase == Phase::Finished)
                );
            }
            Some(Outcome::Failed { fault, .. }) => {
                assert!(self.published.is_empty(), "failed, but published");
                let homeless = self.processes.iter().all(|process| !process.connected);
                // A loss costs a worker one relaunch, and two are allowed.
                let survivable = if self.shape.fault_tolerant { 2 } else { 0 };
                assert!(
                    self.hurt || homeless || self.losses > survivable,
                    "{} losses should not end in {fault}",
                    self.losses
                );
                let tolerated = [
                    FaultCode::Canceled,
                    FaultCode::UnknownError,
                    FaultCode::InsertTimeNull,
                    FaultCode::TaskStartTimeout,
                    FaultCode::WorkerRpcFailed,
                    if self.shape.fault_tolerant {
                        FaultCode::TooManyAttemptsForWorker
                    } else {
                        FaultCode::WorkerFailed
                    },
                ];
                assert!(tolerated.contains(&fault.code), "{fault}");
                let timed_out = fault.to_string().contains("did not end in time");
                assert!(!timed_out, "the kernel waited for nothing");
            }
        }
    }
}

impl Process {
    fn new() -> Process {
        Process {
            connected: true,
            alive: true,
            running: BTreeMap::new(),
            outputs: BTreeMap::new(),
            said: VecDeque::new(),
        }
    }

    fn say(&mut self, event: Event) {
        if self.connected {
            self.said.push_back(event);
        }
    }
}

/// One event may take a stage through several phases at once; each of them must be legal.
fn legal(before: Phase, after: Phase) -> bool {
    use Phase::{
        Failed, Finished, MergingStatistics, New, PostReading, ReadingInput, ResultsReady, Retrying,
    };
    match after {
        New => false,
        ReadingInput => matches!(before, New | Retrying),
        MergingStatistics => before == ReadingInput,
        PostReading => matches!(before, ReadingInput | MergingStatistics),
        ResultsReady => matches!(before, ReadingInput | PostReading),
        Retrying => matches!(
            before,
            ReadingInput | MergingStatistics | PostReading | ResultsReady
        ),
        Finished => !matches!(before, Failed),
        Failed => !matches!(before, Finished),
    }
}
