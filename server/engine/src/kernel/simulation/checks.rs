//! What must be true in every history, at every step and at its end.

use std::collections::BTreeMap;

use trilith_proto::fault::FaultCode;
use trilith_proto::id::{StageNumber, WorkerNumber};

use super::STEPS_MAX;
use super::runtime::{Pending, Store};
use super::world::{Key, Row, World};
use crate::kernel::{Attempt, Outcome, Phase};
use crate::limits;

/// Troubles that may end any job, however few they are.
const HOPELESS: [&str; 7] = [
    "hopeless order failed",
    "cancelled",
    "publish refused",
    "publish answer lost, not committed",
    "answer of the controller lost",
    "output forgotten",
    "store does not answer",
];
/// Troubles that the protocol heals without another attempt.
const HARMLESS: [&str; 5] = [
    "message to the controller twice",
    "command twice",
    "answer of the controller twice",
    "publish answer lost, committed",
    "clock jumped",
];

impl World {
    /// Phases follow each other as the report promises.
    pub fn check_phases(&mut self, before: &[Phase]) {
        for (stage, before) in before.iter().enumerate() {
            let after = self.kernel.stages()[stage].phase;
            if *before == after {
                continue;
            }
            self.note(|| format!("       stage {stage}: {} → {}", before.as_str(), after.as_str()));
            assert!(
                legal(*before, after),
                "illegal phases of stage {stage}: {before:?} → {after:?}"
            );
            if after == Phase::ResultsReady {
                self.check_one_attempt(stage);
            }
        }
    }

    /// All partitions of an output are read from the same attempt: others deal rows to partitions differently.
    fn check_one_attempt(&self, stage: usize) {
        let mut read: BTreeMap<(usize, WorkerNumber), Attempt> = BTreeMap::new();
        for (worker, order) in &self.kernel.stages()[stage].orders {
            let key: Key = (
                stage,
                Attempt {
                    worker: *worker,
                    number: order.attempt,
                },
            );
            for (input, source) in self.reads.get(&key).into_iter().flatten() {
                let known = *read.entry((*input, source.worker)).or_insert(*source);
                assert_eq!(known, *source, "stage {stage} read two attempts of stage {input}");
            }
        }
    }

    /// No stage starts before its inputs are ready.
    pub fn check_inputs(&self, stage: StageNumber) {
        for input in &self.shape.stages[stage.0 as usize].inputs {
            let progress = &self.kernel.stages()[input.0 as usize];
            assert_eq!(
                progress.phase,
                Phase::ResultsReady,
                "stage {stage} starts before its input {input} is ready"
            );
        }
    }

    /// What is complete and outlives its worker is not made again.
    pub fn check_durable(&self, stage: usize, orders: &[Attempt]) {
        let made = |order: &&Attempt| self.completed.contains(&(stage, order.worker));
        let again = orders.iter().find(made);
        assert!(
            again.is_none() || !self.shape.stages[stage].durable,
            "{again:?} of stage {stage} runs again, although its output is durable"
        );
    }

    /// No more stages are active than may be. Segments are allocated first, and a loss meanwhile may bring
    /// earlier stages back.
    pub fn check_concurrency(&self, stage: usize) {
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

    pub fn check_merging(&self, stage: StageNumber) {
        let phase = self.kernel.stages()[stage.0 as usize].phase;
        assert_eq!(
            phase,
            Phase::MergingStatistics,
            "boundaries of stage {stage} are cut too early"
        );
    }

    pub fn relaunches(&self, worker: WorkerNumber) -> u32 {
        self.kernel.relaunches.get(&worker).copied().unwrap_or(0)
    }

    /// Nobody is relaunched more often than the limits say, and nobody without a reason.
    pub fn check_limits(&self) {
        if self.kernel.is_done() {
            return;
        }
        let counts = &self.kernel.relaunches;
        assert!(
            counts
                .values()
                .all(|count| *count <= limits::RELAUNCHES_PER_WORKER_MAX),
            "a worker was relaunched too often: {counts:?}"
        );
        assert!(
            counts.values().sum::<u32>() <= limits::RELAUNCHES_MAX,
            "the job was relaunched too often: {counts:?}"
        );
        assert!(
            counts.is_empty() || self.shape.fault_tolerant,
            "relaunched without fault tolerance"
        );
    }

    /// Each busy slot belongs to somebody, and nobody holds a slot that is not busy.
    pub fn check_slots(&self) {
        let connected = |id| {
            self.processes
                .iter()
                .any(|process| process.connected && process.pool_id == id)
        };
        let leases = self.placed.iter().filter_map(|placed| placed.lease.as_ref());
        let held = leases
            .chain(&self.others)
            .filter(|lease| connected(lease.process()));
        let capacity = self.pool.capacity();
        assert_eq!(capacity.busy as usize, held.count(), "slots leaked");
        assert!(
            capacity.busy <= capacity.slots,
            "more slots are busy than there are"
        );
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

    pub fn check_end(&mut self) {
        // What hung may come to life now.
        for pending in std::mem::take(&mut self.pending) {
            if let Pending::LateCommit(rows) = pending
                && self.store == Store::Running
            {
                self.store = Store::Success(rows);
            }
        }
        let Some(outcome) = self.outcome.clone() else {
            panic!("no end after {STEPS_MAX} steps");
        };
        self.others.clear();
        assert_eq!(self.pool.capacity().busy, 0, "slots leaked at the end");
        assert!(self.commits <= 1, "published {} times", self.commits);
        if let Store::Success(rows) = &self.store {
            assert_eq!(*rows, self.expected(), "the rows are wrong");
        }
        match outcome {
            Outcome::Success => {
                assert!(
                    matches!(self.store, Store::Success(_)),
                    "a success that is not published"
                );
                let finished = |stage: &crate::kernel::StageProgress| stage.phase == Phase::Finished;
                assert!(
                    self.kernel.stages().iter().all(finished),
                    "a success with unfinished stages"
                );
            }
            Outcome::Failed { fault, .. } => {
                // Rows of a SELECT may have been kept in the moment of its failure: then the store has decided, and
                // clients see a success.
                let crossed = !self.shape.publishes;
                assert!(
                    self.store == Store::Failed || crossed,
                    "failed with {fault}, but published"
                );
                self.check_fault(&fault);
            }
        }
    }

    /// Another attempt would fail in the same way: none is made.
    pub fn check_hopeless(&self, fault: &trilith_proto::fault::Fault) {
        let failed = matches!(&self.outcome, Some(Outcome::Failed { fault: known, .. }) if known == fault);
        assert!(failed, "the job goes on after {fault}");
    }

    /// A failure needs a reason that cannot be survived.
    fn check_fault(&self, fault: &trilith_proto::fault::Fault) {
        let count = |kinds: &[&str]| -> u32 {
            self.troubles
                .iter()
                .filter(|(kind, _)| kinds.contains(kind))
                .map(|(_, count)| *count)
                .sum()
        };
        let all: u32 = self.troubles.values().sum();
        let serious = all - count(&HARMLESS);
        // One trouble costs a worker at most one relaunch, and two are allowed.
        let survivable = if self.shape.fault_tolerant {
            limits::RELAUNCHES_PER_WORKER_MAX
        } else {
            0
        };
        let homeless = fault.code == FaultCode::TaskStartTimeout
            && self.processes.iter().all(|process| !process.connected);
        assert!(
            count(&HOPELESS) > 0 || homeless || serious > survivable,
            "{:?} should not end in {fault}",
            self.troubles
        );
        let unanswered = self.troubles.contains_key("answer of the controller lost")
            || self.troubles.contains_key("publish answer lost, not committed");
        let late = fault.to_string().contains("did not end in time");
        assert!(!late || unanswered, "the kernel waited for nothing: {fault}");
        let named = match fault.code {
            FaultCode::Canceled
            | FaultCode::UnknownError
            | FaultCode::InsertTimeNull
            | FaultCode::InsertCannotBeEmpty
            | FaultCode::TaskStartTimeout
            | FaultCode::WorkerRpcFailed => true,
            FaultCode::TooManyAttemptsForWorker | FaultCode::TooManyAttemptsForJob => {
                self.shape.fault_tolerant
            }
            FaultCode::WorkerFailed => !self.shape.fault_tolerant,
            _ => false,
        };
        assert!(named, "{fault}");
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
        // From RESULTS_READY: a finished output went with its worker, and is made again. Druid does not know
        // this, because it keeps the outputs of fault-tolerant jobs in durable storage.
        Retrying => matches!(
            before,
            ReadingInput | MergingStatistics | PostReading | ResultsReady
        ),
        Finished => !matches!(before, Failed),
        Failed => !matches!(before, Finished),
    }
}
