//! What surrounds the kernel: time, processes, the controller's own work, the store, and bad luck.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;
use trilith_proto::fault::CancelReason;
use trilith_proto::id::{StageNumber, WorkerNumber};

use super::processes::{Process, Said};
use super::random::Random;
use super::runtime::{Pending, Placed, Store};
use crate::controller::{SlotLease, WorkerPool};
use crate::kernel::{Attempt, Event, Kernel, Outcome, Phase, Shape, StageShape};
use crate::limits;

pub type Row = u32;
/// Stage and attempt.
pub type Key = (usize, Attempt);

const TICK_MS: i64 = 200;
const HEARTBEAT_MS: i64 = 600;
/// Two leases, as in limits.rs.
const SILENCE_MS: i64 = 2 * LEASE_MS;
/// A wide job has so many messages that they queue.
const WIDE_SILENCE_MS: i64 = 600_000;
pub const LEASE_MS: i64 = 3_000;
/// Ticks in which nothing happens before time goes faster.
const IDLE_TICKS: u32 = 60;
const IDLE_STEP_MS: i64 = 30_000;
const WIDE_WORKERS: usize = 60;

pub struct World {
    pub random: Random,
    pub kernel: Kernel,
    pub shape: Shape,
    pub processes: Vec<Process>,
    pub pool: WorkerPool,
    /// Slots that other jobs hold.
    pub others: Vec<SlotLease>,
    /// Workers of the job.
    pub placed: Vec<Placed>,
    /// Workers that each stage asks for, and how many it got.
    pub wanted: Vec<usize>,
    pub got: Vec<usize>,
    /// Partitions of each stage's output.
    pub partitions: Vec<usize>,
    /// Newest attempt of each worker that was sent, by stage.
    pub sent: Vec<BTreeMap<WorkerNumber, Attempt>>,
    /// What each attempt was told to read.
    pub reads: BTreeMap<Key, Vec<Key>>,
    pub pending: Vec<Pending>,
    /// Rows by partition of outputs in durable storage, by the attempt that wrote them.
    pub durable: BTreeMap<Key, Vec<Vec<Row>>>,
    /// Orders whose output the kernel knows to be complete.
    pub completed: BTreeSet<(usize, WorkerNumber)>,
    /// Segments in deep storage, by the attempt that wrote them.
    pub written: BTreeMap<Key, Vec<Row>>,
    /// Segments that the controller was told of, by worker.
    pub accepted: BTreeMap<WorkerNumber, Attempt>,
    pub store: Store,
    pub commits: u32,
    pub settle_failures: u32,
    pub outcome: Option<Outcome>,
    pub history: Vec<String>,
    recording: bool,
    pub now: i64,
    pub steps: usize,
    idle_ticks: u32,
    pub chaos: bool,
    pub troubles: BTreeMap<&'static str, u32>,
    wide: bool,
}

fn random_shape(random: &mut Random, wide: bool) -> Shape {
    let count = if wide { 1 } else { 1 + random.below(4) };
    let publishes = random.one_in(2) && count > 1;
    let durable = random.one_in(3);
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
                durable,
            }
        })
        .collect();
    Shape {
        task: "query-s".to_owned(),
        stages,
        publishes,
        deadline_ms: None,
        max_concurrent_stages: 1 + random.below(3) as u32,
        start_timeout_ms: limits::TASK_START_TIMEOUT_MS,
        lock_timeout_ms: 10_000,
        silence_ms: if wide { WIDE_SILENCE_MS } else { SILENCE_MS },
        fault_tolerant: wide || random.below(4) > 0,
    }
}

impl World {
    pub fn new(seed: u64, recording: bool) -> World {
        let mut random = Random(seed);
        // Enough workers that they can be lost a hundred times, none of them more than twice.
        let wide = random.one_in(400);
        let shape = random_shape(&mut random, wide);
        let workers = if wide { WIDE_WORKERS } else { 0 };
        let wanted: Vec<usize> = shape
            .stages
            .iter()
            .map(|_| workers.max(1 + random.below(3)))
            .collect();
        let chaos = wide || !random.one_in(8);
        let stages = shape.stages.len();
        let mut world = World {
            kernel: Kernel::new(shape.clone()),
            partitions: wanted.iter().map(|_| 1 + random.below(3)).collect(),
            got: vec![0; stages],
            sent: vec![BTreeMap::new(); stages],
            shape,
            processes: Vec::new(),
            pool: WorkerPool::default(),
            others: Vec::new(),
            placed: Vec::new(),
            wanted,
            reads: BTreeMap::new(),
            pending: Vec::new(),
            durable: BTreeMap::new(),
            completed: BTreeSet::new(),
            written: BTreeMap::new(),
            accepted: BTreeMap::new(),
            store: Store::Running,
            commits: 0,
            settle_failures: 0,
            outcome: None,
            history: Vec::new(),
            recording,
            now: 1_000_000,
            steps: 0,
            idle_ticks: 0,
            chaos,
            troubles: BTreeMap::new(),
            wide,
            random,
        };
        for _ in 0..1 + world.random.below(3) {
            world.add_process();
        }
        if world.random.one_in(6) {
            let busy = world.random.below(3);
            world.others = world.pool.try_acquire(busy);
        }
        // The last stage's rows are read as one partition.
        if let Some(last) = world.partitions.last_mut() {
            *last = 1;
        }
        world
    }

    pub fn is_wide(&self) -> bool {
        self.wide
    }

    /// How much longer than usual the history may be.
    pub fn scale(&self) -> usize {
        if self.wide { 40 } else { 1 }
    }

    pub fn add_process(&mut self) {
        let slots = if self.wide {
            WIDE_WORKERS
        } else {
            1 + self.random.below(3)
        };
        let (commands, _queue) = mpsc::channel(1);
        let id = self.pool.add(slots as u32, String::new(), commands);
        // Some are ten times slower than others.
        let slowness = if self.random.one_in(4) { 10 } else { 1 };
        self.processes.push(Process::new(id, slowness, self.now));
    }

    /// Something goes wrong, once in `n`.
    pub fn trouble(&mut self, n: usize, kind: &'static str) -> bool {
        let happens = self.chaos && (n == 1 || (!self.wide && self.random.one_in(n)));
        if happens {
            *self.troubles.entry(kind).or_default() += 1;
            self.note(|| format!("       ! {kind}"));
        }
        happens
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if self.recording {
            self.history.push(format!("{:>9} {}", self.now, text()));
        }
    }

    pub fn event(&mut self, event: Event) {
        if self.outcome.is_some() {
            return;
        }
        let before: Vec<Phase> = self.kernel.stages().iter().map(|stage| stage.phase).collect();
        if !matches!(event, Event::Tick) {
            self.note(|| format!("event  {event:?}"));
        }
        let actions = self.kernel.on_event(event, self.now);
        if !actions.is_empty() {
            self.idle_ticks = 0;
        }
        self.check_phases(&before);
        self.check_limits();
        for action in actions {
            self.act(action);
        }
    }

    pub fn step(&mut self) {
        self.steps += 1;
        if self.is_idle() && self.random.one_in(2) {
            // Nobody has anything to do but to listen.
            while self.hear() {}
            return self.tick();
        }
        match self.random.below(100) {
            0..=39 => self.process(),
            40..=67 => {
                self.hear();
            }
            68..=87 => self.controller(),
            88..=97 => self.tick(),
            98 if self.chaos && !self.wide && self.random.one_in(3) => self.harm(),
            99 if !self.wide && self.trouble(100, "cancelled") => self.event(Event::Cancel {
                reason: CancelReason::UserRequest,
            }),
            99 if !self.wide && self.trouble(60, "clock jumped") => self.jump(20_000),
            _ => {}
        }
    }

    /// Nothing will happen but time.
    fn is_idle(&self) -> bool {
        let gathers: Vec<bool> = self
            .shape
            .stages
            .iter()
            .map(|stage| stage.gathers_statistics)
            .collect();
        self.pending.iter().all(Pending::is_blocked)
            && self.processes.iter().all(|process| {
                let silent = process.said.iter().all(|said| matches!(said, Said::Heartbeat(_)));
                let asleep = !process.is_awake(self.now);
                silent && (asleep || (process.told.is_empty() && !process.has_work(&gathers)))
            })
    }

    /// Time passes; a long time passes without leases, which are measured by another clock.
    fn jump(&mut self, step: i64) {
        self.now += step;
        if step > TICK_MS {
            for process in &mut self.processes {
                process.heard_ms += step;
            }
        }
    }

    fn tick(&mut self) {
        self.idle_ticks = if self.is_idle() { self.idle_ticks + 1 } else { 0 };
        let step = if self.idle_ticks > IDLE_TICKS {
            IDLE_STEP_MS
        } else {
            TICK_MS
        };
        let beats = self.now / HEARTBEAT_MS;
        self.jump(step);
        if step == IDLE_STEP_MS {
            // Who waits looks again.
            for _ in 0..self.pending.len() {
                self.controller();
            }
        }
        if self.now / HEARTBEAT_MS > beats {
            self.heartbeats();
        }
        self.expire_leases();
        if !self.others.is_empty() && (step == IDLE_STEP_MS || self.random.one_in(10)) {
            self.others.pop();
        }
        self.event(Event::Tick);
    }
}
