//! Sends a stage to its workers, and cuts its output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;
use trilith_exchange::{
    BucketStatistics, CutTarget, PartitionRange, cut_boundaries, merge_statistics, wanted_partitions,
};
use trilith_input::RANGE_BYTES_MIN;
use trilith_proto::fault::Fault;
use trilith_proto::id::{AttemptNumber, StageNumber, WorkOrderId, WorkerNumber};

use super::Controller;
use super::job::{Job, now_ms};
use super::pool::{ProcessId, SlotLease};
use super::state::{StageRun, WorkerState};
use crate::kernel::Attempt;
use crate::limits;
use crate::stage::{self, OutputMode, OutputShuffle, StageSpec};
use crate::trace;
use crate::worker::{OrderSettings, PlanSource, SegmentSink, SegmentTarget, Sink, WorkOrder};

/// The plan or the segments of one worker.
type Share = (Option<Arc<dyn datafusion::physical_plan::ExecutionPlan>>, Sink);

impl Controller {
    /// Assigns inputs and gets slots. Returns the first work orders of the stage, to be sent.
    pub(crate) async fn launch(
        &self,
        job: &Arc<Job>,
        number: StageNumber,
    ) -> Result<Vec<(ProcessId, WorkOrder)>, Fault> {
        let stage = job.stage(number).ok_or_else(|| Fault::unknown("no such stage"))?;
        job.state.lock().stages[number.0 as usize]
            .started_ms
            .get_or_insert(now_ms());
        let context = &job.planned.context;
        let range_bytes = context.min_input_range_bytes().unwrap_or(RANGE_BYTES_MIN);
        let splits = stage::list_external(stage, &self.worker_config.policy, range_bytes).await?;
        job.state.lock().stages[number.0 as usize].splits = splits;
        let files_max = context
            .max_input_files_per_worker()
            .unwrap_or(limits::INPUT_FILES_PER_WORKER_MAX);
        let wanted = match &stage.plan {
            Some(_) => {
                let assignment = self.assignment(job, stage);
                let wanted = assignment.worker_count();
                assignment.check_files(wanted, files_max)?;
                wanted
            }
            None => self.segment_workers(job, stage),
        };
        let workers = self.workers(job, wanted).await?;
        if workers < wanted && stage.plan.is_some() {
            self.assignment(job, stage).check_files(workers, files_max)?;
        }
        job.state.lock().stages[number.0 as usize].worker_count = workers;
        let attempts: Vec<Attempt> = (0..workers)
            .map(|worker| Attempt {
                worker: WorkerNumber(worker),
                number: AttemptNumber(0),
            })
            .collect();
        for attempt in &attempts {
            self.replace_if_lost(job, attempt.worker).await?;
        }
        self.orders(job, stage, &attempts)
    }

    /// Work orders of these attempts, with new slots for workers that were lost.
    pub(crate) async fn relaunch(
        &self,
        job: &Arc<Job>,
        number: StageNumber,
        attempts: &[Attempt],
    ) -> Result<Vec<(ProcessId, WorkOrder)>, Fault> {
        let stage = job.stage(number).ok_or_else(|| Fault::unknown("no such stage"))?;
        for attempt in attempts {
            self.replace_if_lost(job, attempt.worker).await?;
        }
        self.orders(job, stage, attempts)
    }

    /// Work orders of these attempts. From here on only events of these attempts count.
    fn orders(
        &self,
        job: &Arc<Job>,
        stage: &StageSpec,
        attempts: &[Attempt],
    ) -> Result<Vec<(ProcessId, WorkOrder)>, Fault> {
        let shares = match &stage.plan {
            Some(_) => self.plan_shares(job, stage)?,
            None => self.segment_shares(job, stage)?,
        };
        let trace_parent = trace::trace_parent(&Span::current());
        let number = stage.number;
        let mut orders = Vec::with_capacity(attempts.len());
        let mut state = job.state.lock();
        for attempt in attempts {
            let known = state.stages[number.0 as usize].workers.get(&attempt.worker);
            if known.is_some_and(|known| known.attempt > attempt.number) {
                // Finding a slot took so long that another attempt was sent in between.
                continue;
            }
            let index = attempt.worker.0 as usize;
            let (Some(slot), Some((plan, sink))) = (state.workers.get(index), shares.get(index)) else {
                return Err(Fault::unknown("a worker without a slot or a share"));
            };
            let (process, local) = (slot.process, slot.address == self.worker_config.own_address);
            let plan = match plan {
                Some(plan) if local => Some(PlanSource::Local(Arc::clone(plan))),
                Some(plan) => {
                    let bytes = stage::encode_plan(plan).map_err(|error| Fault::from_error(&error))?;
                    Some(PlanSource::Encoded(bytes))
                }
                None => None,
            };
            let id = WorkOrderId {
                task: job.id.clone(),
                stage: number,
                worker: attempt.worker,
                attempt: attempt.number,
                run: job.run,
            };
            state.counters.remove(&(number.0, attempt.worker.0));
            state.stages[number.0 as usize]
                .workers
                .insert(attempt.worker, id.clone());
            let order = WorkOrder {
                id,
                plan,
                sink: of_attempt(sink.clone(), job.run, *attempt),
                settings: self.settings(job, stage),
                trace_parent: trace_parent.clone(),
            };
            orders.push((process, order));
        }
        Ok(orders)
    }

    fn settings(&self, job: &Job, stage: &StageSpec) -> OrderSettings {
        OrderSettings {
            max_parse_exceptions: job.planned.context.max_parse_exceptions(),
            remove_null_bytes: job.planned.context.remove_null_bytes(),
            max_frame_size_bytes: job.planned.context.max_frame_size(),
            durable_output: stage.output == OutputMode::DurableStorage,
        }
    }

    fn assignment<'a>(&self, job: &Job, spec: &'a StageSpec) -> stage::Assignment<'a> {
        let (splits, tables) = {
            let state = job.state.lock();
            let splits = state.stages[spec.number.0 as usize].splits.clone();
            (splits, Arc::clone(&state.tables))
        };
        let segments = stage::list_segments(spec, &tables);
        let outputs = self.stage_outputs(job, spec);
        let context = &job.planned.context;
        let mode = if context.auto_assignment() {
            stage::AssignmentMode::Auto {
                bytes_per_worker: context
                    .max_input_bytes_per_worker()
                    .unwrap_or(stage::AUTO_BYTES_PER_WORKER),
            }
        } else {
            stage::AssignmentMode::Max
        };
        stage::assign(spec, splits, segments, outputs, mode)
    }

    /// What each worker of a stage does.
    fn plan_shares(&self, job: &Job, spec: &StageSpec) -> Result<Vec<Share>, Fault> {
        let workers = job.state.lock().stages[spec.number.0 as usize].worker_count;
        let plans = self
            .assignment(job, spec)
            .plans(workers)
            .map_err(|error| Fault::from_error(&error))?;
        let shuffle = spec.exchange_shuffle().unwrap_or(trilith_exchange::Shuffle::Mix);
        Ok(plans
            .into_iter()
            .map(|plan| {
                let sink = match spec.output {
                    OutputMode::QueryResults { rows_per_page } => Sink::Pages { rows_per_page },
                    _ => Sink::Exchange(shuffle.clone()),
                };
                (Some(plan), sink)
            })
            .collect())
    }

    /// How many workers write segments: no more than there are partitions, and under `auto` no more than
    /// made them.
    fn segment_workers(&self, job: &Job, spec: &StageSpec) -> u32 {
        let most = if job.planned.context.auto_assignment() {
            let outputs = self.stage_outputs(job, spec);
            let producers = outputs.values().map(|output| output.sources.len() as u32);
            producers.max().unwrap_or(1)
        } else {
            spec.max_workers
        };
        input_partitions(job, spec).clamp(1, most.max(1))
    }

    fn stage_outputs(&self, job: &Job, spec: &StageSpec) -> BTreeMap<StageNumber, stage::StageOutputs> {
        let state = job.state.lock();
        spec.input_stages()
            .into_iter()
            .map(|input| {
                let index = input.0 as usize;
                let partitions = state.stages.get(index).map_or(0, |run| run.partition_count());
                let shuffle = job.stage(input).and_then(|stage| stage.shuffle.as_ref());
                (
                    input,
                    stage::StageOutputs::new(state.sources(job, index), partitions, shuffle),
                )
            })
            .collect()
    }

    /// Which segments each worker writes.
    fn segment_shares(&self, job: &Job, spec: &StageSpec) -> Result<Vec<Share>, Fault> {
        let input = spec.input_stages().first().copied().unwrap_or(StageNumber(0));
        let partitions = input_partitions(job, spec);
        let (targets, sources, workers) = {
            let mut state = job.state.lock();
            let run = &mut state.stages[spec.number.0 as usize];
            run.input_partition_count = Some(partitions);
            let workers = run.worker_count;
            (
                state.targets.clone(),
                state.sources(job, input.0 as usize),
                workers,
            )
        };
        let sink = job
            .graph
            .sink
            .clone()
            .ok_or_else(|| Fault::unknown("no segments to write"))?;
        Ok(deal_targets(targets, workers)
            .into_iter()
            .map(|targets| {
                let sink = SegmentSink {
                    sources: sources.clone(),
                    targets,
                    ..sink.clone()
                };
                (None, Sink::Segments(Box::new(sink)))
            })
            .collect())
    }

    /// Puts a worker whose process is gone on another slot: a free one, or else that of another worker of
    /// the job, which then does the work of both.
    async fn replace_if_lost(&self, job: &Job, number: WorkerNumber) -> Result<(), Fault> {
        let requested_ms = now_ms();
        let timeout_ms = self.task_start_timeout.as_millis() as i64;
        let deadline = requested_ms + timeout_ms;
        let mut changes = job.changes.subscribe();
        let mut free = self.pool.try_acquire(1);
        while !replace(job, number, free.pop(), requested_ms)? {
            let patience = deadline - now_ms();
            if patience <= 0 {
                return Err(Fault::task_start_timeout(1, 1, timeout_ms as u64));
            }
            // Another stage of the job, which lost the same workers, may find a slot first.
            free = tokio::select! {
                leases = self.pool.acquire(1, job.planned.context.priority(), Duration::from_millis(patience as u64)) =>
                    leases.unwrap_or_default(),
                _ = changes.changed() => Vec::new(),
            };
        }
        Ok(())
    }

    /// Makes sure that the job has up to `wanted` workers and says how many it got.
    ///
    /// Only the first stage waits for slots: a job that holds slots never waits for more, so two jobs
    /// cannot wait for each other.
    async fn workers(&self, job: &Job, wanted: u32) -> Result<u32, Fault> {
        let have = job.state.lock().workers.len() as u32;
        if have >= wanted {
            return Ok(wanted);
        }
        let missing = (wanted - have) as usize;
        let requested_ms = now_ms();
        let leases = if have == 0 {
            // All that there are will do.
            let possible = missing.min(self.pool.capacity().slots.max(1) as usize);
            job.state.lock().wanted_workers = possible;
            job.changed();
            let patience = self.task_start_timeout;
            let priority = job.planned.context.priority();
            let leases = self.pool.acquire(missing, priority, patience).await;
            job.state.lock().wanted_workers = 0;
            let leases = leases.ok_or_else(|| {
                let total = possible as u32;
                Fault::task_start_timeout(total, total, patience.as_millis() as u64)
            })?;
            self.begin(job).await?;
            leases
        } else {
            self.pool.try_acquire(missing)
        };
        let mut state = job.state.lock();
        for lease in leases {
            let number = WorkerNumber(state.workers.len() as u32);
            let place = (lease.process(), lease.address().to_owned());
            state
                .workers
                .push(worker_state(job, number, 0, place, Some(lease), requested_ms));
        }
        Ok((state.workers.len() as u32).min(wanted))
    }

    /// Merges key statistics and cuts boundaries, which the job keeps. Returns the number of partitions.
    pub(crate) async fn cut_boundaries(&self, job: &Arc<Job>, number: StageNumber) -> Result<u32, Fault> {
        let stage = job.stage(number).ok_or_else(|| Fault::unknown("no such stage"))?;
        let target = match &stage.shuffle {
            Some(OutputShuffle::Chunks { target_rows, .. }) => CutTarget::TargetSize(*target_rows),
            _ => CutTarget::MaxCount(stage.max_workers),
        };
        let statistics: Vec<BucketStatistics> = {
            let mut state = job.state.lock();
            let run = &mut state.stages[number.0 as usize];
            std::mem::take(&mut run.statistics)
                .into_values()
                .flatten()
                .collect()
        };
        let rows: u64 = statistics.iter().map(|bucket| bucket.rows).sum();
        let (buckets, wanted, mut ranges) = tokio::task::spawn_blocking(move || {
            let merged = merge_statistics(statistics);
            let wanted = wanted_partitions(&merged, target);
            (merged.len() as u64, wanted, cut_boundaries(&merged, target))
        })
        .await
        .map_err(|error| Fault::unknown(error.to_string()))?;
        // Each worker counts its own time chunks; together they may have more.
        if buckets > limits::BUCKETS_MAX {
            return Err(Fault::too_many_buckets(limits::BUCKETS_MAX));
        }
        let partitions_max = job
            .planned
            .context
            .max_partitions()
            .unwrap_or(limits::PARTITIONS_MAX);
        if wanted.max(ranges.len() as u64) > partitions_max {
            return Err(Fault::too_many_partitions(partitions_max));
        }
        if stage.feeds_segments && rows == 0 {
            // No rows, no segments.
            ranges.clear();
        }
        if ranges.is_empty() && !stage.feeds_segments {
            // Readers still need one partition to find out that there are no rows.
            ranges.push(PartitionRange {
                bucket_ms: 0,
                start: None,
                end: None,
            });
        }
        let count = ranges.len() as u32;
        job.state.lock().stages[number.0 as usize].ranges = Some(Arc::new(ranges));
        Ok(count)
    }
}

/// Gives a lost worker this slot, or else a share of another worker's. False if there is neither.
fn replace(
    job: &Job,
    number: WorkerNumber,
    lease: Option<SlotLease>,
    requested_ms: i64,
) -> Result<bool, Fault> {
    let mut state = job.state.lock();
    let living = state.workers.iter().find(|worker| worker.state == "RUNNING");
    let shared = living.map(|worker| (worker.process, worker.address.clone()));
    let Some(worker) = state.workers.get_mut(number.0 as usize) else {
        return Err(Fault::unknown("a worker that never was"));
    };
    if worker.state != "FAILED" {
        return Ok(true);
    }
    let own = lease
        .as_ref()
        .map(|lease| (lease.process(), lease.address().to_owned()));
    let Some(place) = own.or(shared) else {
        return Ok(false);
    };
    let next = worker_state(job, number, worker.attempt + 1, place, lease, requested_ms);
    let mut former = std::mem::replace(worker, next);
    former.lease = None;
    state.former_workers.push(former);
    Ok(true)
}

/// Partitions of the stage whose rows become segments.
fn input_partitions(job: &Job, spec: &StageSpec) -> u32 {
    let input = spec.input_stages().first().copied().unwrap_or(StageNumber(0));
    let state = job.state.lock();
    let run = state.stages.get(input.0 as usize);
    run.map_or(0, StageRun::partition_count)
}

/// Every attempt writes files of its own: one that was given up but works on can spoil nothing.
fn of_attempt(mut sink: Sink, run: u32, attempt: Attempt) -> Sink {
    let suffix = match (run, attempt.number.0) {
        (0, 0) => return sink,
        (0, number) => format!("-{number}"),
        // The workers of an earlier server process may not know yet that it has ended.
        (run, number) => format!("-r{run}-{number}"),
    };
    if let Sink::Segments(segments) = &mut sink {
        for target in &mut segments.targets {
            let stem = target.path.trim_end_matches(".parquet");
            target.path = format!("{stem}{suffix}.parquet");
        }
    }
    sink
}

pub(super) fn worker_state(
    job: &Job,
    number: WorkerNumber,
    attempt: u32,
    (process, address): (ProcessId, String),
    lease: Option<SlotLease>,
    requested_ms: i64,
) -> WorkerState {
    WorkerState {
        number,
        attempt,
        task_id: format!("{}-worker{}_{attempt}", job.id, number.0),
        process,
        description: address.clone(),
        address,
        lease,
        requested_ms,
        started_ms: Some(now_ms()),
        ended_ms: None,
        state: "RUNNING",
    }
}

/// Neighbouring segments alternate between workers, so that all end at about the same time.
fn deal_targets(targets: Vec<SegmentTarget>, workers: u32) -> Vec<Vec<SegmentTarget>> {
    let mut shares: Vec<Vec<SegmentTarget>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    let count = shares.len();
    for (index, target) in targets.into_iter().enumerate() {
        shares[index % count].push(target);
    }
    shares
}
