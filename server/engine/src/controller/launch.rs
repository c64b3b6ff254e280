//! Sends a stage to its workers, and cuts its output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::Span;
use trilith_exchange::{BucketStatistics, CutTarget, PartitionRange, cut_boundaries, merge_statistics};
use trilith_proto::fault::Fault;
use trilith_proto::id::{AttemptNumber, StageNumber, WorkOrderId, WorkerNumber};

use super::Controller;
use super::job::{Job, now_ms};
use super::pool::SlotLease;
use super::state::WorkerState;
use crate::limits;
use crate::stage::{self, OutputShuffle, StageSpec};
use crate::trace;
use crate::worker::{OrderSettings, PlanSource, SegmentSink, SegmentTarget, Sink, WorkOrder, WorkerCommand};

impl Controller {
    /// Assigns inputs, gets slots, sends work orders. Returns the workers of the stage.
    pub(crate) async fn launch(
        &self,
        job: &Arc<Job>,
        number: StageNumber,
    ) -> Result<Vec<WorkerNumber>, Fault> {
        let stage = job.stage(number).ok_or_else(|| Fault::unknown("no such stage"))?;
        job.state.lock().stages[number.0 as usize]
            .started_ms
            .get_or_insert(now_ms());
        let orders = match &stage.plan {
            Some(_) => self.plan_orders(job, stage).await?,
            None => self.segment_orders(job, stage).await?,
        };
        let workers: Vec<WorkerNumber> = (0..orders.len() as u32).map(WorkerNumber).collect();
        let mut sends = Vec::with_capacity(orders.len());
        let trace_parent = trace::trace_parent(&Span::current());
        {
            let mut state = job.state.lock();
            for (worker, (plan, sink)) in workers.iter().zip(orders) {
                let Some(slot) = state.workers.get(worker.0 as usize) else {
                    return Err(Fault::unknown("a worker without a slot"));
                };
                let process = slot.process;
                let local = slot.address == self.worker_config.own_address;
                let attempt = AttemptNumber(0);
                let id = WorkOrderId {
                    task: job.id.clone(),
                    stage: number,
                    worker: *worker,
                    attempt,
                };
                let plan = match plan {
                    Some(plan) if local => Some(PlanSource::Local(plan)),
                    Some(plan) => {
                        let bytes = stage::encode_plan(&plan).map_err(|error| Fault::from_error(&error))?;
                        Some(PlanSource::Encoded(bytes))
                    }
                    None => None,
                };
                state.stages[number.0 as usize]
                    .workers
                    .insert(*worker, id.clone());
                let order = WorkOrder {
                    id,
                    plan,
                    sink,
                    settings: self.settings(job),
                    trace_parent: trace_parent.clone(),
                };
                sends.push((process, order));
            }
        }
        for (process, order) in sends {
            let task = order.id.worker_task_id();
            let command = WorkerCommand::Start(Box::new(order));
            if self.pool.send(process, command).await.is_err() {
                return Err(Fault::worker_failed(&task, Some("the worker process is gone")));
            }
        }
        Ok(workers)
    }

    fn settings(&self, job: &Job) -> OrderSettings {
        OrderSettings {
            max_parse_exceptions: job.planned.context.max_parse_exceptions(),
            remove_null_bytes: job.planned.context.remove_null_bytes(),
            max_frame_size_bytes: job.planned.context.max_frame_size(),
        }
    }

    async fn plan_orders(
        &self,
        job: &Arc<Job>,
        spec: &StageSpec,
    ) -> Result<Vec<(Option<Arc<dyn datafusion::physical_plan::ExecutionPlan>>, Sink)>, Fault> {
        let splits = stage::list_external(spec, &self.worker_config.policy).await?;
        let files: usize = splits.values().map(Vec::len).sum();
        self.check_input_files(files, spec)?;
        let outputs = self.stage_outputs(job, spec);
        let assignment = stage::assign(spec, splits, outputs, job.planned.context.auto_assignment());
        let workers = self.workers(job, assignment.worker_count()).await?;
        let plans = assignment
            .plans(workers)
            .map_err(|error| Fault::from_error(&error))?;
        let shuffle = spec
            .exchange_shuffle(spec.max_workers)
            .unwrap_or(trilith_exchange::Shuffle::Mix);
        Ok(plans
            .into_iter()
            .map(|plan| (Some(plan), Sink::Exchange(shuffle.clone())))
            .collect())
    }

    fn check_input_files(&self, files: usize, spec: &StageSpec) -> Result<(), Fault> {
        let max = limits::INPUT_FILES_PER_WORKER_MAX * u64::from(spec.max_workers);
        if files as u64 > max {
            let min_workers = (files as u64).div_ceil(limits::INPUT_FILES_PER_WORKER_MAX);
            return Err(Fault::too_many_input_files(files as u64, max, min_workers));
        }
        Ok(())
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
                    stage::StageOutputs::new(state.sources(index), partitions, shuffle),
                )
            })
            .collect()
    }

    async fn segment_orders(
        &self,
        job: &Arc<Job>,
        spec: &StageSpec,
    ) -> Result<Vec<(Option<Arc<dyn datafusion::physical_plan::ExecutionPlan>>, Sink)>, Fault> {
        let input = spec.input_stages().first().copied().unwrap_or(StageNumber(0));
        let (targets, sources, partitions) = {
            let mut state = job.state.lock();
            let partitions = state.stages[input.0 as usize].partition_count();
            state.stages[spec.number.0 as usize].input_partition_count = Some(partitions);
            (state.targets.clone(), state.sources(input.0 as usize), partitions)
        };
        let wanted = partitions.clamp(1, spec.max_workers.max(1));
        let workers = self.workers(job, wanted).await?;
        let sink = job
            .graph
            .sink
            .clone()
            .ok_or_else(|| Fault::unknown("no segments to write"))?;
        Ok(deal_targets(targets, workers)
            .into_iter()
            .map(|targets| {
                (
                    None,
                    Sink::Segments(Box::new(SegmentSink {
                        sources: sources.clone(),
                        targets,
                        ..sink.clone()
                    })),
                )
            })
            .collect())
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
            let count = missing.min(self.pool.capacity().slots.max(1) as usize);
            job.state.lock().wanted_workers = count;
            job.changed();
            let patience = Duration::from_millis(limits::TASK_START_TIMEOUT_MS as u64);
            let leases = self.pool.acquire(count, patience).await;
            job.state.lock().wanted_workers = 0;
            leases.ok_or_else(|| {
                let total = count as u32;
                Fault::task_start_timeout(total, total, limits::TASK_START_TIMEOUT_MS as u64)
            })?
        } else {
            self.pool.try_acquire(missing)
        };
        let mut state = job.state.lock();
        for lease in leases {
            let number = WorkerNumber(state.workers.len() as u32);
            state.workers.push(worker_state(job, number, lease, requested_ms));
        }
        Ok((state.workers.len() as u32).min(wanted))
    }

    /// Merges key statistics, cuts boundaries, sends them. Returns the number of partitions.
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
        let mut ranges =
            tokio::task::spawn_blocking(move || cut_boundaries(&merge_statistics(statistics), target))
                .await
                .map_err(|error| Fault::unknown(error.to_string()))?;
        if ranges.len() as u64 > limits::PARTITIONS_MAX {
            return Err(Fault::too_many_partitions(limits::PARTITIONS_MAX));
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
        let ranges = Arc::new(ranges);
        let orders: Vec<_> = {
            let mut state = job.state.lock();
            state.stages[number.0 as usize].ranges = Some(Arc::clone(&ranges));
            let run = &state.stages[number.0 as usize];
            run.workers
                .iter()
                .filter_map(|(worker, id)| Some((state.workers.get(worker.0 as usize)?.process, id.clone())))
                .collect()
        };
        for (process, id) in orders {
            let task = id.worker_task_id();
            let command = WorkerCommand::SetBoundaries {
                id,
                ranges: Arc::clone(&ranges),
            };
            if self.pool.send(process, command).await.is_err() {
                return Err(Fault::worker_failed(&task, Some("the worker process is gone")));
            }
        }
        Ok(count)
    }
}

fn worker_state(job: &Job, number: WorkerNumber, lease: SlotLease, requested_ms: i64) -> WorkerState {
    let address = lease.address().to_owned();
    WorkerState {
        number,
        task_id: format!("{}-worker{}_0", job.id, number.0),
        process: lease.process(),
        description: address.clone(),
        address,
        lease: Some(lease),
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
