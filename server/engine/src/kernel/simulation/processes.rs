//! Worker processes: what they hold, what they hear, what they say.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use trilith_proto::fault::{Fault, FaultCode};
use trilith_proto::id::StageNumber;

use super::world::{Key, Row, World};
use crate::controller::ProcessId;
use crate::kernel::{Event, Held, HeldStep};

/// An order as it was sent: where it reads.
#[derive(Clone)]
pub struct Work {
    pub key: Key,
    /// Rows of external input.
    pub rows: Vec<Row>,
    /// Outputs to read (process, attempt), each with the partitions to take.
    pub sources: VecDeque<(usize, Key, Vec<usize>)>,
    pub input_reported: bool,
    pub boundaries: bool,
}

/// Controller to process.
#[derive(Clone)]
pub enum Command {
    Start(Work),
    Boundaries(Key),
    Release(Key),
    Repeat(Key),
    CancelTask,
}

/// Process to controller.
#[derive(Clone)]
pub enum Said {
    Event(Event),
    Heartbeat(Vec<Held>),
}

pub struct Process {
    pub pool_id: ProcessId,
    /// The controller's session with it.
    pub connected: bool,
    pub alive: bool,
    /// SIGSTOP until then.
    pub paused_until: i64,
    /// The controller has heard of it.
    pub heard_ms: i64,
    /// It works at one step in so many.
    pub slowness: usize,
    pub running: BTreeMap<Key, Work>,
    /// Rows by partition.
    pub outputs: BTreeMap<Key, Vec<Vec<Row>>>,
    /// How far each order is, and what it said last.
    pub held: BTreeMap<Key, (HeldStep, Option<Event>)>,
    /// What it has said and the controller has not heard.
    pub said: VecDeque<Said>,
    /// What it was told and has not heard.
    pub told: VecDeque<Command>,
    pub heartbeat_dropped: bool,
}

impl Process {
    pub fn new(pool_id: ProcessId, slowness: usize, now: i64) -> Process {
        Process {
            pool_id,
            connected: true,
            alive: true,
            paused_until: 0,
            heard_ms: now,
            slowness,
            running: BTreeMap::new(),
            outputs: BTreeMap::new(),
            held: BTreeMap::new(),
            said: VecDeque::new(),
            told: VecDeque::new(),
            heartbeat_dropped: false,
        }
    }

    pub fn is_awake(&self, now: i64) -> bool {
        self.alive && self.paused_until <= now
    }

    /// Says it, and remembers that it did.
    fn step(&mut self, key: Key, step: HeldStep, event: Event) {
        if let Some(held) = self.held.get_mut(&key) {
            *held = (step, Some(event.clone()));
        }
        self.say(Said::Event(event));
    }

    pub fn say(&mut self, said: Said) {
        if self.connected {
            self.said.push_back(said);
        }
    }

    fn forget(&mut self, key: Key) {
        self.running.remove(&key);
        self.outputs.remove(&key);
        self.held.remove(&key);
    }

    fn obey(&mut self, command: Command) {
        match command {
            // Sent twice is started once.
            Command::Start(work) => {
                let key = work.key;
                if let Entry::Vacant(vacant) = self.held.entry(key) {
                    vacant.insert((HeldStep::Running, None));
                    self.running.insert(key, work);
                }
            }
            Command::Boundaries(key) => {
                if let Some(work) = self.running.get_mut(&key)
                    && work.input_reported
                    && !work.boundaries
                {
                    work.boundaries = true;
                    self.held.insert(key, (HeldStep::Running, None));
                }
            }
            Command::Release(key) => self.forget(key),
            Command::Repeat(key) => {
                if let Some((_, Some(event))) = self.held.get(&key) {
                    let said = Said::Event(event.clone());
                    self.say(said);
                }
            }
            Command::CancelTask => {
                self.running.clear();
                self.outputs.clear();
                self.held.clear();
            }
        }
    }

    /// Some order could take a step.
    pub fn has_work(&self, gathers: &[bool]) -> bool {
        self.running
            .values()
            .any(|work| !(gathers[work.key.0] && work.input_reported && !work.boundaries))
    }
}

impl World {
    /// A process hears the next command, or takes one step with one of its orders.
    pub fn process(&mut self) {
        let now = self.now;
        let Some(index) = self.pick(|process| {
            process.is_awake(now) && !(process.told.is_empty() && process.running.is_empty())
        }) else {
            return;
        };
        if let Some(command) = self.processes[index].told.pop_front() {
            if self.trouble(90, "command lost") {
                return;
            }
            if self.trouble(60, "command twice") {
                self.processes[index].obey(command.clone());
            }
            return self.processes[index].obey(command);
        }
        let slowness = self.processes[index].slowness;
        if self.processes[index].running.is_empty() || (self.chaos && !self.random.one_in(slowness)) {
            return;
        }
        let keys: Vec<Key> = self.processes[index].running.keys().copied().collect();
        let key = keys[self.random.below(keys.len())];
        self.work_on(index, key);
    }

    /// One of the processes that could do something.
    fn pick(&mut self, can: impl Fn(&Process) -> bool) -> Option<usize> {
        let able: Vec<usize> = (0..self.processes.len())
            .filter(|index| can(&self.processes[*index]))
            .collect();
        (!able.is_empty()).then(|| able[self.random.below(able.len())])
    }

    fn work_on(&mut self, index: usize, key: Key) {
        let stage = StageNumber(key.0 as u32);
        if let Some(fault) = self.bad_luck(key) {
            return self.order_fails(index, key, fault);
        }
        let Some(mut work) = self.processes[index].running.remove(&key) else {
            return;
        };
        if let Some((from, source, partitions)) = work.sources.front().cloned() {
            let process = &self.processes[from];
            let durable = self.durable.get(&source);
            if durable.is_none() && process.alive && process.paused_until > self.now {
                // It does not answer; nor does it refuse.
                self.processes[index].running.insert(key, work);
                return;
            }
            let output = durable.or_else(|| process.outputs.get(&source).filter(|_| process.alive));
            let Some(output) = output else {
                self.processes[index].running.insert(key, work);
                let fault = Fault::worker_rpc_failed("w", "unreachable");
                return self.order_fails(index, key, fault);
            };
            for partition in partitions {
                work.rows.extend(output.get(partition).into_iter().flatten());
            }
            work.sources.pop_front();
            self.processes[index].running.insert(key, work);
            return;
        }
        let gathers = self.shape.stages[key.0].gathers_statistics;
        if gathers && !work.input_reported {
            work.input_reported = true;
            self.processes[index].running.insert(key, work);
            let order = key.1;
            return self.processes[index].step(key, HeldStep::InputRead, Event::InputRead { stage, order });
        }
        if gathers && !work.boundaries {
            self.processes[index].running.insert(key, work);
            return;
        }
        if self.shape.stages[key.0].writes_segments {
            self.written.insert(key, work.rows);
        } else {
            // Another attempt deals rows to partitions differently.
            let mut partitions = vec![Vec::new(); self.partitions[key.0]];
            for row in work.rows {
                let partition = self.random.below(partitions.len());
                partitions[partition].push(row);
            }
            if self.shape.stages[key.0].durable {
                self.durable.insert(key, partitions);
            } else {
                self.processes[index].outputs.insert(key, partitions);
            }
        }
        let order = key.1;
        self.processes[index].step(key, HeldStep::OutputReady, Event::OutputReady { stage, order });
    }

    /// An order may fail by itself.
    fn bad_luck(&mut self, key: Key) -> Option<Fault> {
        let retryable = |random: &mut super::random::Random| match random.one_in(2) {
            true => Fault::unknown("it happens"),
            false => Fault::worker_rpc_failed("w", "it happens"),
        };
        if self.is_wide() {
            // Whoever has failed less than twice fails: only so many failures reach the limit of the job.
            let count = self.relaunches(key.1.worker);
            if self.chaos && count < 2 && !self.random.one_in(20) {
                self.trouble(1, "order failed");
                return Some(retryable(&mut self.random));
            }
            return None;
        }
        if self.trouble(300, "order failed") {
            return Some(retryable(&mut self.random));
        }
        if self.trouble(1_500, "hopeless order failed") {
            return Some(Fault::insert_time_null());
        }
        None
    }

    fn order_fails(&mut self, process: usize, key: Key, fault: Fault) {
        let process = &mut self.processes[process];
        process.running.remove(&key);
        let (stage, order) = (StageNumber(key.0 as u32), key.1);
        process.step(key, HeldStep::Failed, Event::OrderFailed { stage, order, fault });
    }

    /// Every process that is awake says what it holds.
    pub fn heartbeats(&mut self) {
        for index in 0..self.processes.len() {
            let now = self.now;
            let process = &mut self.processes[index];
            if !process.is_awake(now) || !process.connected {
                continue;
            }
            process.heard_ms = now;
            let held = process
                .held
                .iter()
                .map(|((stage, order), (step, _))| Held {
                    stage: StageNumber(*stage as u32),
                    order: *order,
                    step: *step,
                })
                .collect();
            // Two in a row would be silence, which is a loss.
            let dropped = !self.processes[index].heartbeat_dropped && self.trouble(50, "heartbeat lost");
            self.processes[index].heartbeat_dropped = dropped;
            if !dropped {
                self.processes[index].say(Said::Heartbeat(held));
            }
        }
    }

    /// The controller hears the next word of a process. False if nobody has said any.
    pub fn hear(&mut self) -> bool {
        let said = self.pick(|process| !process.said.is_empty());
        let said = said.and_then(|index| Some((index, self.processes[index].said.pop_front()?)));
        let Some((index, said)) = said else {
            return false;
        };
        match said {
            Said::Heartbeat(orders) => self.held(index, orders),
            Said::Event(event) => self.hear_event(index, event),
        }
        true
    }

    fn hear_event(&mut self, index: usize, event: Event) {
        if self.trouble(60, "message to the controller lost") {
            return;
        }
        if self.trouble(40, "message to the controller late") {
            return self.processes[index].said.push_back(Said::Event(event));
        }
        if self.trouble(30, "message to the controller twice") {
            self.processes[index].said.push_back(Said::Event(event.clone()));
        }
        let (Event::InputRead { stage, order }
        | Event::OutputReady { stage, order }
        | Event::OrderFailed { stage, order, .. }) = &event
        else {
            return;
        };
        // The runtime passes on what newest attempts say; the kernel must not rely on it.
        if !self.is_sent(*stage, *order) {
            if self.random.one_in(2) {
                self.event(event);
            }
            return;
        }
        if matches!(event, Event::OutputReady { .. }) {
            if self.shape.stages[stage.0 as usize].writes_segments {
                self.accepted.insert(order.worker, *order);
            }
            // The kernel may have given the attempt up already, with the next one not sent yet.
            if self.kernel.stages()[stage.0 as usize].is_sent(*order) {
                self.completed.insert((stage.0 as usize, order.worker));
            }
        }
        if let Event::OrderFailed { stage, order, fault } = &event
            && fault.code == FaultCode::InsertTimeNull
            && self.kernel.stages()[stage.0 as usize].is_sent(*order)
        {
            let fault = fault.clone();
            self.event(event);
            return self.check_hopeless(&fault);
        }
        self.event(event);
    }

    /// A process is killed, loses its connection, is paused, or forgets an output.
    pub fn harm(&mut self) {
        let index = self.random.below(self.processes.len());
        if !self.processes[index].connected {
            // A new process takes its place, under another address.
            return self.add_process();
        }
        match self.random.below(8) {
            0 => {
                if let Some(key) = self.processes[index].outputs.keys().next().copied() {
                    self.trouble(1, "output forgotten");
                    self.processes[index].forget(key);
                }
            }
            1 | 2 => {
                self.trouble(1, "process paused");
                let pause = [1_000, 2_400, 20_000][self.random.below(3)];
                self.processes[index].paused_until = self.now + pause;
            }
            3 | 4 => {
                self.trouble(1, "connection lost, works on");
                self.disconnect(index);
            }
            _ => {
                self.trouble(1, "process killed");
                self.processes[index].alive = false;
                self.disconnect(index);
            }
        }
    }

    /// The controller notices that a process is gone; others may notice before.
    pub fn disconnect(&mut self, index: usize) {
        let process = &mut self.processes[index];
        process.connected = false;
        process.said.clear();
        process.told.clear();
        if self.random.one_in(2) {
            self.add_process();
        }
        for _ in 0..self.random.below(6) {
            self.process();
        }
        let id = self.processes[index].pool_id;
        self.pool.remove(id);
        self.report_loss(index);
    }

    /// Paused for longer than the lease: given up.
    pub fn expire_leases(&mut self) {
        for index in 0..self.processes.len() {
            let process = &self.processes[index];
            if process.connected && self.now - process.heard_ms > super::world::LEASE_MS {
                self.disconnect(index);
            }
        }
    }
}
