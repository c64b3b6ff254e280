//! Deals the inputs of a stage out to its workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use trilith_exchange::StageSource;
use trilith_input::{Policy, Split};
use trilith_proto::fault::Fault;
use trilith_proto::id::StageNumber;

use super::graph::{OutputShuffle, StageSpec};
use super::source::{SegmentSlice, Source, SourceExec};

/// Bytes of input that `taskAssignment=auto` gives to one worker.
const AUTO_BYTES_PER_WORKER: u64 = 512 * 1024 * 1024;
/// Files that `taskAssignment=auto` gives to one worker.
const AUTO_FILES_PER_WORKER: usize = 10_000;

/// Everything that the assignment of one stage depends on.
pub struct Assignment<'a> {
    /// The stage.
    pub stage: &'a StageSpec,
    /// Files of its external inputs, by input number.
    pub splits: BTreeMap<usize, Vec<Split>>,
    /// Outputs and number of partitions of the stages that it reads.
    pub outputs: BTreeMap<StageNumber, StageOutputs>,
    /// `taskAssignment=auto`: no more workers than the input is worth.
    pub auto: bool,
}

/// Where the output of a finished stage is.
#[derive(Debug, Clone)]
pub struct StageOutputs {
    /// One for each worker of that stage.
    pub sources: Vec<StageSource>,
    /// Partitions of each.
    pub partitions: u32,
    /// Neighbouring partitions hold neighbouring keys.
    pub ordered: bool,
}

impl StageOutputs {
    /// Outputs of a stage with this shuffle.
    pub fn new(sources: Vec<StageSource>, partitions: u32, shuffle: Option<&OutputShuffle>) -> StageOutputs {
        let ordered = !matches!(shuffle, Some(OutputShuffle::Hash { .. }));
        StageOutputs {
            sources,
            partitions,
            ordered,
        }
    }
}

/// Lists the files of every external input of a stage.
pub async fn list_external(
    stage: &StageSpec,
    policy: &Policy,
) -> std::result::Result<BTreeMap<usize, Vec<Split>>, Fault> {
    let mut splits = BTreeMap::new();
    for (number, input) in stage.inputs.iter().enumerate() {
        if let Source::External { spec, .. } = input {
            splits.insert(number, trilith_input::list_splits(spec, policy).await?);
        }
    }
    Ok(splits)
}

impl Assignment<'_> {
    /// How many workers the stage can use.
    pub fn worker_count(&self) -> u32 {
        if self.stage.single {
            return 1;
        }
        let wanted = self
            .stage
            .inputs
            .iter()
            .enumerate()
            .map(|(number, input)| match input {
                Source::External { .. } => self.external_workers(number),
                Source::Segments { segments, .. } => self.segment_workers(segments),
                Source::Stage { broadcast: true, .. } => 1,
                Source::Stage { stage, .. } => self.outputs.get(stage).map_or(1, |output| output.partitions),
            })
            .max()
            .unwrap_or(1);
        wanted.clamp(1, self.stage.max_workers.max(1))
    }

    fn external_workers(&self, number: usize) -> u32 {
        let splits = self.splits.get(&number).map_or(&[][..], Vec::as_slice);
        if !self.auto {
            return splits.len() as u32;
        }
        let bytes: u64 = splits.iter().map(split_bytes).sum();
        let by_bytes = bytes.div_ceil(AUTO_BYTES_PER_WORKER) as u32;
        let by_files = splits.len().div_ceil(AUTO_FILES_PER_WORKER) as u32;
        by_bytes.max(by_files).min(splits.len() as u32)
    }

    fn segment_workers(&self, segments: &[SegmentSlice]) -> u32 {
        if !self.auto {
            return segments.len() as u32;
        }
        let bytes: u64 = segments.iter().map(|slice| slice.record.size_bytes).sum();
        (bytes.div_ceil(AUTO_BYTES_PER_WORKER) as u32).min(segments.len() as u32)
    }

    /// One plan for each of `workers` workers.
    pub fn plans(&self, workers: u32) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let Some(plan) = &self.stage.plan else {
            return Ok(Vec::new());
        };
        let shares: Vec<Vec<Source>> = self
            .stage
            .inputs
            .iter()
            .enumerate()
            .map(|(number, input)| self.share(number, input, workers))
            .collect();
        (0..workers as usize)
            .map(|worker| {
                instantiate(Arc::clone(plan), &|leaf| match shares
                    .get(leaf.input())
                    .and_then(|all| all.get(worker))
                {
                    Some(source) => leaf.assigned(source.clone()),
                    None => leaf.assigned(leaf.source().clone()),
                })
            })
            .collect()
    }

    fn share(&self, number: usize, input: &Source, workers: u32) -> Vec<Source> {
        let count = workers.max(1) as usize;
        match input {
            Source::External { spec, projection, .. } => {
                let splits = self.splits.get(&number).cloned().unwrap_or_default();
                deal(splits, count, split_bytes)
                    .into_iter()
                    .map(|splits| Source::External {
                        spec: Arc::clone(spec),
                        projection: projection.clone(),
                        splits,
                    })
                    .collect()
            }
            Source::Segments {
                datasource,
                segments,
                time_range,
            } => deal(segments.clone(), count, |slice| slice.record.size_bytes)
                .into_iter()
                .map(|segments| Source::Segments {
                    datasource: datasource.clone(),
                    segments,
                    time_range: *time_range,
                })
                .collect(),
            Source::Stage {
                stage,
                merge,
                broadcast,
                ..
            } => {
                let output = self.outputs.get(stage);
                let sources = output.map(|output| output.sources.clone()).unwrap_or_default();
                let total = output.map_or(0, |output| output.partitions);
                let ordered = output.is_none_or(|output| output.ordered);
                (0..workers.max(1))
                    .map(|worker| Source::Stage {
                        stage: *stage,
                        merge: *merge,
                        broadcast: *broadcast,
                        sources: sources.clone(),
                        partitions: if *broadcast {
                            (0..total).collect()
                        } else {
                            partitions_of(worker, workers.max(1), total, ordered)
                        },
                    })
                    .collect()
            }
        }
    }
}

/// Partitions of one worker: neighbours if order matters, else every n-th.
pub fn partitions_of(worker: u32, workers: u32, total: u32, ordered: bool) -> Vec<u32> {
    if !ordered {
        return (worker..total).step_by(workers as usize).collect();
    }
    let cut = |index: u32| (u64::from(index) * u64::from(total) / u64::from(workers)) as u32;
    // One partition must be with the first worker, which is the only one of a single stage.
    if total < workers {
        return if worker < total { vec![worker] } else { Vec::new() };
    }
    (cut(worker)..cut(worker + 1)).collect()
}

fn split_bytes(split: &Split) -> u64 {
    match split {
        Split::File { size, .. } => *size,
        Split::Inline | Split::Http { .. } => 1,
    }
}

/// Largest first, each to the worker with the least; within a worker the original order stays.
fn deal<T>(items: Vec<T>, workers: usize, weight: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(weight(&items[*index])));
    let mut loads = vec![(0_u64, 0_usize); workers];
    let mut owner = vec![0; items.len()];
    for index in order {
        let lightest = (0..workers)
            .min_by_key(|worker| (loads[*worker], *worker))
            .unwrap_or(0);
        loads[lightest].0 += weight(&items[index]);
        loads[lightest].1 += 1;
        owner[index] = lightest;
    }
    let mut shares: Vec<Vec<T>> = (0..workers).map(|_| Vec::new()).collect();
    for (item, owner) in items.into_iter().zip(owner) {
        shares[owner].push(item);
    }
    shares
}

/// Replaces every leaf. Fresh operators come out, so plans share no state between workers.
fn instantiate(
    plan: Arc<dyn ExecutionPlan>,
    leaf: &dyn Fn(&SourceExec) -> SourceExec,
) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(source) = plan.downcast_ref::<SourceExec>() {
        return Ok(Arc::new(leaf(source)));
    }
    let children: Vec<_> = plan.children().into_iter().cloned().collect();
    if children.is_empty() {
        return Ok(plan);
    }
    let children = children
        .into_iter()
        .map(|child| instantiate(child, leaf))
        .collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(plan, children)
}

/// A plan that one worker runs alone, all in one process.
pub fn assign_all(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    instantiate(plan, &|leaf| leaf.assigned(leaf.source().clone()))
}

/// Files of an external input, dealt out.
pub fn assign<'a>(
    stage: &'a StageSpec,
    splits: BTreeMap<usize, Vec<Split>>,
    outputs: BTreeMap<StageNumber, StageOutputs>,
    auto: bool,
) -> Assignment<'a> {
    Assignment {
        stage,
        splits,
        outputs,
        auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_worker() {
        for total in [0_u32, 1, 2, 5, 17] {
            for workers in [1_u32, 2, 3, 8] {
                for ordered in [true, false] {
                    let mut seen: Vec<u32> = (0..workers)
                        .flat_map(|worker| partitions_of(worker, workers, total, ordered))
                        .collect();
                    if ordered {
                        assert!(seen.is_sorted(), "{total} over {workers}");
                    }
                    seen.sort_unstable();
                    assert_eq!(seen, (0..total).collect::<Vec<_>>());
                }
            }
        }
        assert_eq!(partitions_of(0, 3, 1, true), [0]);
    }

    #[test]
    fn deals_by_weight_and_keeps_order() {
        let shares = deal(vec![10_u64, 1, 1, 8, 1], 2, |weight| *weight);
        assert_eq!(shares, [vec![10, 1], vec![1, 1, 8]]);
    }
}
