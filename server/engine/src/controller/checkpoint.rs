//! Finished stages of fault-tolerant tasks: noted when they finish, and taken over by the next run of the task after a
//! restart of the server, if their outputs are still there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::physical_plan::displayable;
use prost::Message;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use trilith_exchange::{DurableArea, ExchangeError, PartitionRange};
use trilith_proto::fault::Fault;
use trilith_proto::id::{StageNumber, WorkOrderId, WorkerNumber};
use trilith_proto::pb::task as pb;

use super::Controller;
use super::job::{Job, now_ms};
use super::launch::worker_state;
use super::pool::{ProcessId, SlotLease};
use super::state::{JobState, StageRun};
use crate::kernel::{Attempt, FinishedStage, Phase};
use crate::stage::{OutputMode, Source, StageSpec};

/// One finished stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// What the job does and reads: another plan, or other segments, cannot use these outputs.
    fingerprint: u64,
    stage: StageNumber,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
    worker_count: u32,
    /// Whose outputs make up the output of the stage, by worker.
    orders: Vec<WorkOrderId>,
    /// Whose outputs they have read.
    inputs: Vec<WorkOrderId>,
    /// Flight addresses of the processes that hold them, by worker.
    addresses: Vec<String>,
    partition_rows: BTreeMap<WorkerNumber, Vec<u64>>,
    ranges: Option<Vec<PartitionRange>>,
    has_multiple_values: bool,
    /// Counters and warnings, as a report in base64.
    counters: String,
}

/// What a new run of a job takes over.
#[derive(Default)]
pub(super) struct Resumable {
    /// Finished stages whose outputs can be read.
    ready: Vec<Checkpoint>,
    /// Finished stages whose outputs nobody needs any more.
    read: Vec<Checkpoint>,
    /// Slots of the processes that hold outputs, by worker; none when durable storage has them.
    leases: Vec<SlotLease>,
}

impl Checkpoint {
    fn number(&self) -> usize {
        self.stage.0 as usize
    }

    fn finished(&self, outputs: bool) -> FinishedStage {
        let attempt = |id: &WorkOrderId| Attempt {
            worker: id.worker,
            number: id.attempt,
        };
        FinishedStage {
            stage: self.stage,
            outputs: outputs.then(|| self.orders.iter().map(attempt).collect()),
            partition_count: self.ranges.as_ref().map_or(0, |ranges| ranges.len() as u32),
        }
    }

    /// Puts it back into the state of a job.
    fn restore(self, state: &mut JobState) {
        let bytes = STANDARD.decode(&self.counters).unwrap_or_default();
        let report = pb::TaskReport::decode(bytes.as_slice()).unwrap_or_default();
        for counter in report.counters {
            let known = state
                .counters
                .entry((counter.stage_number, counter.worker_number));
            known.or_default().1.push(counter);
        }
        state.warnings.extend(report.status.unwrap_or_default().warnings);
        if let Some(run) = state.stages.get_mut(self.stage.0 as usize) {
            *run = StageRun {
                started_ms: self.started_ms,
                ended_ms: self.ended_ms,
                worker_count: self.worker_count,
                noted: self.orders.clone(),
                workers: self.orders.into_iter().map(|id| (id.worker, id)).collect(),
                has_multiple_values: self.has_multiple_values,
                ranges: self.ranges.map(Arc::new),
                partition_rows: self.partition_rows,
                ..StageRun::default()
            };
        }
    }
}

/// What a job does, and the segments that it reads, as one number; the same in every process of a release.
fn fingerprint(job: &Job, state: &JobState) -> u64 {
    let mut text = format!("{}\n{}\n", env!("CARGO_PKG_VERSION"), job.planned.sql);
    for stage in &job.graph.stages {
        // Writing to a String cannot fail.
        let _written = match &stage.plan {
            Some(plan) => write!(text, "{}", displayable(plan.as_ref()).indent(true)),
            None => write!(text, "segments"),
        };
        let _written = writeln!(
            text,
            "{:?} {:?} {}",
            stage.shuffle, stage.output, stage.max_workers
        );
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let inputs = job.graph.stages.iter().flat_map(|stage| &stage.inputs);
    let datasources: BTreeSet<&String> = inputs
        .filter_map(|input| match input {
            Source::Segments { datasource, .. } => Some(datasource),
            _ => None,
        })
        .collect();
    for datasource in datasources {
        let view = state.tables.get(datasource);
        let mut segments: Vec<&String> = view
            .iter()
            .flat_map(|view| view.used())
            .map(|segment| &segment.id)
            .collect();
        segments.sort_unstable();
        (datasource, segments).hash(&mut hasher);
    }
    hasher.finish()
}

impl Controller {
    /// Notes the stages that have finished since the last call. False if that failed: then nothing that they have read
    /// may be removed.
    pub(super) async fn note_finished(&self, job: &Arc<Job>) -> bool {
        if !job.planned.context.fault_tolerance() {
            return true;
        }
        let notes = finished(job);
        if notes.is_empty() {
            return true;
        }
        let (store, task) = (Arc::clone(&self.store), job.id.to_string());
        let noted = tokio::task::spawn_blocking(move || {
            for note in &notes {
                let bytes = serde_json::to_vec(note).map_err(|error| error.to_string())?;
                store
                    .put_checkpoint(&task, note.stage.0, &bytes)
                    .map_err(|error| error.to_string())?;
            }
            Ok::<(), String>(())
        });
        let noted = noted.await.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = &noted {
            warn!(task = %job.id, error, "a restarted server could not take over what the task has finished");
        }
        noted.is_ok()
    }

    /// What this run of a job can take over from the one before it. Waits up to a lease for worker processes that held
    /// outputs when the server stopped.
    pub(super) async fn resumable(&self, job: &Job) -> Result<Resumable, Fault> {
        let known = self.noted(job).await;
        if known.is_empty() {
            return Ok(Resumable::default());
        }
        let mut found = self.choose(job, &known).await;
        let mut places: BTreeMap<WorkerNumber, ProcessId> = BTreeMap::new();
        {
            let state = job.state.lock();
            for id in found.ready.iter().flat_map(|note| &note.orders) {
                if let (false, Some(process)) = (is_durable(job, id.stage), state.claims.get(id)) {
                    places.insert(id.worker, *process);
                }
            }
        }
        if !places.is_empty() {
            // Workers are numbered without gaps.
            let leases: Option<Vec<SlotLease>> = (0..places.len() as u32)
                .map(|number| self.pool.try_acquire_at(*places.get(&WorkerNumber(number))?))
                .collect();
            let Some(leases) = leases else {
                info!(task = %job.id, "a process that holds outputs has no slot for the task; all of it runs again");
                return Ok(Resumable::default());
            };
            found.leases = leases;
            self.begin(job).await?;
            if known
                .values()
                .any(|note| note.fingerprint != fingerprint(job, &job.state.lock()))
            {
                // Another task had the lock for a while.
                return Ok(Resumable::default());
            }
        }
        info!(
            task = %job.id,
            stages = found.ready.len() + found.read.len(),
            "stages that were finished before the server stopped are not run again"
        );
        Ok(found)
    }

    /// What was noted, by stage, if this run does the same.
    async fn noted(&self, job: &Job) -> BTreeMap<usize, Checkpoint> {
        if job.run == 0 {
            return BTreeMap::new();
        }
        let (store, task) = (Arc::clone(&self.store), job.id.to_string());
        let noted = tokio::task::spawn_blocking(move || store.checkpoints(&task)).await;
        let noted = match noted {
            Ok(Ok(noted)) => noted,
            Ok(Err(error)) => {
                warn!(task = %job.id, %error, "what the task had finished cannot be read; all of it runs again");
                Vec::new()
            }
            Err(_stopped) => Vec::new(),
        };
        let wanted = fingerprint(job, &job.state.lock());
        noted
            .iter()
            .filter_map(|bytes| serde_json::from_slice::<Checkpoint>(bytes).ok())
            .filter(|note| note.fingerprint == wanted)
            .map(|note| (note.number(), note))
            .collect()
    }

    async fn choose(&self, job: &Job, known: &BTreeMap<usize, Checkpoint>) -> Resumable {
        let in_processes = known
            .values()
            .filter(|note| !is_durable(job, note.stage) && !self.was_held_here(note));
        self.wait_for_holders(job, in_processes.flat_map(|note| &note.orders).collect())
            .await;
        let mut ready: BTreeMap<usize, &Checkpoint> = BTreeMap::new();
        let mut places: BTreeMap<WorkerNumber, ProcessId> = BTreeMap::new();
        for (number, note) in known {
            let Some(spec) = job.stage(note.stage) else {
                continue;
            };
            let usable = match spec.output {
                OutputMode::DurableStorage => self.is_complete(DurableArea::Intermediate, note).await,
                OutputMode::QueryResults { .. } => self.is_complete(DurableArea::Results, note).await,
                OutputMode::LocalStorage => {
                    has_read(spec, note, &ready) && is_held(note, &job.state.lock().claims, &mut places)
                }
            };
            if usable {
                ready.insert(*number, note);
            }
        }
        let mut read: BTreeMap<usize, &Checkpoint> = BTreeMap::new();
        for (number, note) in known.iter().rev() {
            let mut readers = job
                .graph
                .stages
                .iter()
                .filter(|stage| stage.input_stages().contains(&note.stage))
                .map(|stage| stage.number.0 as usize)
                .peekable();
            let has_readers = readers.peek().is_some();
            if !ready.contains_key(number)
                && has_readers
                && readers.all(|reader| ready.contains_key(&reader) || read.contains_key(&reader))
            {
                read.insert(*number, note);
            }
        }
        Resumable {
            ready: ready.into_values().cloned().collect(),
            read: read.into_values().cloned().collect(),
            leases: Vec::new(),
        }
    }

    /// The slots of the server's own process lose their outputs with it.
    fn was_held_here(&self, note: &Checkpoint) -> bool {
        note.addresses.contains(&self.worker_config.own_address)
    }

    async fn is_complete(&self, area: DurableArea, note: &Checkpoint) -> bool {
        let Ok(storage) = self.worker_config.exchange.durable() else {
            return false;
        };
        for id in &note.orders {
            match storage.parts(area, id).await {
                Ok(_) => {}
                Err(ExchangeError::OutputMissing { .. }) => return false,
                Err(error) => {
                    warn!(%id, %error, "whether an output is still there cannot be found out; it is made again");
                    return false;
                }
            }
        }
        true
    }

    /// Waits until processes have said that they hold these outputs.
    async fn wait_for_holders(&self, job: &Job, wanted: Vec<&WorkOrderId>) {
        let mut changes = job.changes.subscribe();
        let all_claimed = async {
            loop {
                {
                    let state = job.state.lock();
                    if wanted.iter().all(|id| state.claims.contains_key(*id)) {
                        return;
                    }
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let patience = self.worker_lease.max(REJOIN_MIN);
        if tokio::time::timeout(patience, all_claimed).await.is_err() {
            info!(task = %job.id, "not every worker that held outputs has come back");
        }
    }

    /// Takes over what an earlier run finished. Says what the kernel must know of it.
    pub(super) fn take_over(&self, job: &Job, mut found: Resumable) -> Vec<FinishedStage> {
        let mut state = job.state.lock();
        state.claims.clear();
        if found.leases.iter().any(|lease| !self.pool.has(lease.process())) {
            // Gone again.
            found = Resumable::default();
        }
        for (number, lease) in (0..).map(WorkerNumber).zip(found.leases) {
            let attempts = found.ready.iter().flat_map(|note| &note.orders);
            let attempt = attempts.filter(|id| id.worker == number).map(|id| id.attempt.0);
            let place = (lease.process(), lease.address().to_owned());
            let attempt = attempt.max().unwrap_or(0);
            let worker = worker_state(job, number, attempt, place, Some(lease), now_ms());
            state.workers.push(worker);
        }
        let ready = found.ready.iter().map(|note| note.finished(true));
        let stages = ready
            .chain(found.read.iter().map(|note| note.finished(false)))
            .collect();
        for note in found.ready.into_iter().chain(found.read) {
            note.restore(&mut state);
        }
        stages
    }
}

/// A worker that is told of the loss of its server late, or is slow to find it again, still comes in time.
const REJOIN_MIN: Duration = Duration::from_secs(1);

fn is_durable(job: &Job, stage: StageNumber) -> bool {
    job.stage(stage).is_some_and(|spec| spec.output.is_durable())
}

/// A stage has read exactly these outputs: should it be lost in part, the rest would read them once more.
fn has_read(spec: &StageSpec, note: &Checkpoint, ready: &BTreeMap<usize, &Checkpoint>) -> bool {
    let mut inputs = Vec::new();
    for input in spec.input_stages() {
        match ready.get(&(input.0 as usize)) {
            Some(input) => inputs.extend(&input.orders),
            None => return false,
        }
    }
    inputs.sort_unstable();
    inputs.into_iter().eq(&note.inputs)
}

/// Each of its outputs is held by the process that also holds the other outputs of the same worker.
fn is_held(
    note: &Checkpoint,
    claims: &BTreeMap<WorkOrderId, ProcessId>,
    places: &mut BTreeMap<WorkerNumber, ProcessId>,
) -> bool {
    let mut all = places.clone();
    let held = note.orders.iter().all(|id| {
        let claim = claims.get(id);
        claim.is_some_and(|process| all.entry(id.worker).or_insert(*process) == process)
    });
    if held {
        *places = all;
    }
    held
}

/// Stages that are finished and not noted yet, with these outputs.
fn finished(job: &Job) -> Vec<Checkpoint> {
    let mut state = job.state.lock();
    let mut notes = Vec::new();
    let mut wanted = None;
    for (index, spec) in job.graph.stages.iter().enumerate() {
        let phase = state.kernel.stages().get(index).map(|progress| progress.phase);
        // Segments are written once more: their places may be taken by now.
        let counts = matches!(phase, Some(Phase::ResultsReady | Phase::Finished)) && spec.plan.is_some();
        let orders: Vec<WorkOrderId> = state.stages[index].workers.values().cloned().collect();
        if !counts || state.stages[index].noted == orders {
            continue;
        }
        let fingerprint = *wanted.get_or_insert_with(|| fingerprint(job, &state));
        notes.push(note(&state, spec, orders.clone(), fingerprint));
        state.stages[index].noted = orders;
    }
    notes
}

fn note(state: &JobState, spec: &StageSpec, orders: Vec<WorkOrderId>, fingerprint: u64) -> Checkpoint {
    let stage = spec.number;
    let run = &state.stages[stage.0 as usize];
    let mut inputs: Vec<WorkOrderId> = spec
        .input_stages()
        .iter()
        .filter_map(|input| state.stages.get(input.0 as usize))
        .flat_map(|input| input.workers.values().cloned())
        .collect();
    inputs.sort_unstable();
    let address = |id: &WorkOrderId| Some(state.workers.get(id.worker.0 as usize)?.address.clone());
    let of_stage = state.counters.range((stage.0, 0)..=(stage.0, u32::MAX));
    let report = pb::TaskReport {
        counters: of_stage.flat_map(|(_, (_, counters))| counters.clone()).collect(),
        status: Some(pb::StatusReport {
            warnings: state
                .warnings
                .iter()
                .filter(|warning| warning.stage_number == Some(stage.0))
                .cloned()
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    Checkpoint {
        fingerprint,
        stage,
        started_ms: run.started_ms,
        ended_ms: run.ended_ms,
        worker_count: run.worker_count,
        addresses: orders.iter().filter_map(address).collect(),
        orders,
        inputs,
        partition_rows: run.partition_rows.clone(),
        ranges: run.ranges.as_ref().map(|ranges| ranges.to_vec()),
        has_multiple_values: run.has_multiple_values,
        counters: STANDARD.encode(report.encode_to_vec()),
    }
}
