//! Deals the inputs of a stage out to its workers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use trilith_exchange::StageSource;
use trilith_input::{Policy, Split};
use trilith_metadata::SegmentViews;
use trilith_proto::fault::Fault;
use trilith_proto::id::StageNumber;

use super::graph::{OutputShuffle, StageSpec};
use super::source::{SegmentSlice, Source, SourceExec};

/// Bytes of a worker's input under `taskAssignment=auto`, unless the context says otherwise.
pub const AUTO_BYTES_PER_WORKER: u64 = 512 * 1024 * 1024;
/// Files that `taskAssignment=auto` gives to one worker.
const AUTO_FILES_PER_WORKER: usize = 10_000;

/// How many workers an input is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignmentMode {
    /// As many as there may be.
    Max,
    /// One for every so many weighted bytes.
    Auto {
        /// `maxInputBytesPerWorker`.
        bytes_per_worker: u64,
    },
}

/// Everything that the assignment of one stage depends on.
pub struct Assignment<'a> {
    /// The stage.
    pub stage: &'a StageSpec,
    /// Files of its external inputs, by input number.
    pub splits: BTreeMap<usize, Vec<Split>>,
    /// Visible segments of its datasources, by input number.
    pub segments: BTreeMap<usize, Vec<SegmentSlice>>,
    /// Outputs and number of partitions of the stages that it reads.
    pub outputs: BTreeMap<StageNumber, StageOutputs>,
    /// `taskAssignment`.
    pub mode: AssignmentMode,
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

/// Lists the files of every external input of a stage, large ones in pieces of at least `range_bytes` of text.
pub async fn list_external(
    stage: &StageSpec,
    policy: &Policy,
    range_bytes: u64,
) -> std::result::Result<BTreeMap<usize, Vec<Split>>, Fault> {
    let workers = if stage.single { 1 } else { stage.max_workers };
    let mut splits = BTreeMap::new();
    for (number, input) in stage.inputs.iter().enumerate() {
        if let Source::External { spec, .. } = input {
            let files = trilith_input::list_splits(spec, policy).await?;
            let pieces = trilith_input::split_ranges(spec, files, policy, workers, range_bytes).await?;
            splits.insert(number, pieces);
        }
    }
    Ok(splits)
}

/// Visible segments of every datasource that a stage reads.
pub fn list_segments(stage: &StageSpec, views: &SegmentViews) -> BTreeMap<usize, Vec<SegmentSlice>> {
    let mut segments = BTreeMap::new();
    for (number, input) in stage.inputs.iter().enumerate() {
        if let Source::Segments {
            datasource, pruning, ..
        } = input
        {
            let visible = views.get(datasource).map_or(&[][..], |view| view.visible());
            segments.insert(number, pruning.keep(visible.iter().map(SegmentSlice::from)));
        }
    }
    segments
}

impl Assignment<'_> {
    /// How many workers the stage can use.
    pub fn worker_count(&self) -> u32 {
        let max = self.max_workers();
        let wanted = self
            .stage
            .inputs
            .iter()
            .enumerate()
            .map(|(number, input)| match input {
                Source::External { .. } => occupied(&self.external_slices(number, max)),
                Source::Segments { .. } => occupied(&self.segment_slices(number, max)),
                Source::Stage { broadcast: true, .. } => 1,
                Source::Stage { stage, .. } => self.outputs.get(stage).map_or(1, |output| match self.mode {
                    AssignmentMode::Max => output.partitions,
                    AssignmentMode::Auto { .. } => output.partitions.min(self.producers()),
                }),
            })
            .max()
            .unwrap_or(1);
        wanted.clamp(1, max)
    }

    fn max_workers(&self) -> u32 {
        if self.stage.single {
            1
        } else {
            self.stage.max_workers.max(1)
        }
    }

    /// Workers of the widest stage that it reads.
    fn producers(&self) -> u32 {
        let counts = self.outputs.values().map(|output| output.sources.len() as u32);
        counts.max().unwrap_or(1)
    }

    fn external_slices(&self, number: usize, workers: u32) -> Vec<Vec<Split>> {
        let splits = self.splits.get(&number).cloned().unwrap_or_default();
        if splits.iter().any(|split| split.size_bytes().is_none()) {
            return round_robin(splits, workers);
        }
        let weight = |split: &Split| match self.stage.inputs.get(number) {
            Some(Source::External { spec, .. }) => spec.weighted_bytes(split),
            _ => split.size_bytes().unwrap_or(0),
        };
        match self.mode {
            AssignmentMode::Max => deal(splits, workers, |split| split.size_bytes().unwrap_or(0)),
            AssignmentMode::Auto { bytes_per_worker } => {
                fill(splits, workers, bytes_per_worker, weight, |slice, split| {
                    slice.last().is_some_and(|last: &Split| last.shares_file(split))
                })
            }
        }
    }

    fn segment_slices(&self, number: usize, workers: u32) -> Vec<Vec<SegmentSlice>> {
        let segments = self.segments.get(&number).map_or(&[][..], Vec::as_slice);
        // A tombstone has no rows to read.
        let segments = segments.iter().filter(|slice| slice.record.path.is_some());
        let segments: Vec<SegmentSlice> = segments.cloned().collect();
        let bytes = |slice: &SegmentSlice| slice.record.size_bytes;
        match self.mode {
            AssignmentMode::Max => deal(segments, workers, bytes),
            AssignmentMode::Auto { bytes_per_worker } => {
                fill(segments, workers, bytes_per_worker, bytes, |_, _| false)
            }
        }
    }

    /// Fails if one of `workers` workers would read more than `max` files and segments.
    pub fn check_files(&self, workers: u32, max: u64) -> std::result::Result<(), Fault> {
        let mut counts = vec![0_u64; workers.max(1) as usize];
        let mut total = 0;
        let mut count = |slices: Vec<u64>| {
            for (sum, files) in counts.iter_mut().zip(slices) {
                *sum += files;
            }
        };
        for (number, input) in self.stage.inputs.iter().enumerate() {
            match input {
                Source::External { .. } => {
                    let splits = self.splits.get(&number).map_or(&[][..], Vec::as_slice);
                    total += splits.iter().filter(|split| split.begins_file()).count() as u64;
                    let slices = self.external_slices(number, workers);
                    count(slices.iter().map(|slice| files(slice)).collect());
                }
                Source::Segments { .. } => {
                    let slices = self.segment_slices(number, workers);
                    let lengths: Vec<u64> = slices.iter().map(|slice| slice.len() as u64).collect();
                    total += lengths.iter().sum::<u64>();
                    count(lengths);
                }
                Source::Stage { .. } => {}
            }
        }
        match counts.into_iter().any(|count| count > max) {
            true => Err(Fault::too_many_input_files(
                total,
                max,
                total.div_ceil(max.max(1)),
            )),
            false => Ok(()),
        }
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
            Source::External { spec, projection, .. } => padded(self.external_slices(number, workers), count)
                .map(|splits| Source::External {
                    spec: Arc::clone(spec),
                    projection: projection.clone(),
                    splits,
                })
                .collect(),
            Source::Segments {
                datasource, pruning, ..
            } => padded(self.segment_slices(number, workers), count)
                .map(|segments| Source::Segments {
                    datasource: datasource.clone(),
                    segments,
                    pruning: pruning.clone(),
                })
                .collect(),
            Source::Stage {
                stage,
                merge,
                interleaved,
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
                        interleaved: *interleaved,
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

/// One list for each worker; those that get nothing read nothing.
fn padded<T>(slices: Vec<Vec<T>>, count: usize) -> impl Iterator<Item = Vec<T>> {
    slices
        .into_iter()
        .chain(std::iter::repeat_with(Vec::new))
        .take(count)
}

fn occupied<T>(slices: &[Vec<T>]) -> u32 {
    slices.iter().filter(|slice| !slice.is_empty()).count() as u32
}

/// Files of which a worker reads some or all.
fn files(slice: &[Split]) -> u64 {
    let again = slice.windows(2).filter(|pair| pair[1].shares_file(&pair[0]));
    (slice.len() - again.count()) as u64
}

/// Every n-th item: for inputs whose size nobody knows.
fn round_robin<T>(items: Vec<T>, workers: u32) -> Vec<Vec<T>> {
    let count = (workers.max(1) as usize).min(items.len());
    let mut slices: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    for (index, item) in items.into_iter().enumerate() {
        slices[index % count].push(item);
    }
    slices
}

/// Each item in turn to the slice with the least, the lowest number first; within a slice the order stays.
fn deal<T>(items: Vec<T>, workers: u32, weight: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    let count = (workers.max(1) as usize).min(items.len());
    let mut slices: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
    let mut loads: BinaryHeap<Reverse<(u64, usize)>> = (0..count).map(|slice| Reverse((0, slice))).collect();
    for item in items {
        let Some(Reverse((load, slice))) = loads.pop() else {
            break;
        };
        loads.push(Reverse((load + weight(&item), slice)));
        slices[slice].push(item);
    }
    slices
}

/// Like [`deal`], but opens a new slice only when the lightest one would hold too many files or bytes.
/// `shares` says that an item adds no file to a slice.
fn fill<T>(
    items: Vec<T>,
    workers: u32,
    bytes_max: u64,
    weight: impl Fn(&T) -> u64,
    shares: impl Fn(&[T], &T) -> bool,
) -> Vec<Vec<T>> {
    let mut slices: Vec<Vec<T>> = Vec::new();
    // Bytes, files, number: the lightest first.
    let mut loads: BinaryHeap<Reverse<(u64, usize, usize)>> = BinaryHeap::new();
    for item in items {
        let bytes = weight(&item);
        if let Some(Reverse((load, files, slice))) = loads.pop() {
            let more = usize::from(!shares(&slices[slice], &item));
            let full = files + more > AUTO_FILES_PER_WORKER || load + bytes > bytes_max;
            if !full || slices.len() >= workers.max(1) as usize {
                loads.push(Reverse((load + bytes, files + more, slice)));
                slices[slice].push(item);
                continue;
            }
            loads.push(Reverse((load, files, slice)));
        }
        loads.push(Reverse((bytes, 1, slices.len())));
        slices.push(vec![item]);
    }
    slices
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

/// The assignment of a stage.
pub fn assign<'a>(
    stage: &'a StageSpec,
    splits: BTreeMap<usize, Vec<Split>>,
    segments: BTreeMap<usize, Vec<SegmentSlice>>,
    outputs: BTreeMap<StageNumber, StageOutputs>,
    mode: AssignmentMode,
) -> Assignment<'a> {
    Assignment {
        stage,
        splits,
        segments,
        outputs,
        mode,
    }
}

#[cfg(test)]
mod tests {
    use trilith_input::ByteRange;

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
    fn max_gives_each_item_to_the_lightest_slice() {
        let shares = deal(vec![10_u64, 1, 1, 8, 1], 2, |weight| *weight);
        assert_eq!(shares, [vec![10, 1], vec![1, 1, 8]]);
        // Ties go to the lowest number; nobody is left without an item.
        assert_eq!(deal(vec![3_u64, 3, 3], 7, |weight| *weight), [[3], [3], [3]]);
        assert_eq!(round_robin(vec![1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
    }

    #[test]
    fn auto_opens_slices_by_bytes_and_by_files() {
        let weight = |weight: &u64| *weight;
        let none = |_: &[u64], _: &u64| false;
        assert_eq!(fill(vec![4, 4, 4], 5, 12, weight, none), [[4, 4, 4]]);
        assert_eq!(
            fill(vec![4, 4, 4, 4, 20], 5, 12, weight, none),
            [vec![4, 4, 4], vec![4], vec![20]]
        );
        // At the maximum the limits do not count.
        assert_eq!(fill(vec![9, 9, 9], 2, 10, weight, none), [vec![9, 9], vec![9]]);
        let many = fill(vec![0; 20_001], 5, 12, weight, none);
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [10_000, 10_000, 1]);
        // Pieces of one file are one file.
        let pieces = fill(vec![0; 20_001], 5, 12, weight, |slice, _| !slice.is_empty());
        assert_eq!(pieces.len(), 1);
    }

    #[test]
    fn counts_files_and_not_their_pieces() {
        let piece = |path: &str, start, end| Split::File {
            path: path.into(),
            size: 1,
            range: Some(ByteRange { start, end }),
        };
        let whole = Split::File {
            path: "/c".into(),
            size: 1,
            range: None,
        };
        let slice = [
            piece("/a", 0, Some(5)),
            piece("/a", 9, None),
            piece("/b", 5, None),
            whole.clone(),
            whole,
        ];
        assert_eq!(files(&slice), 4);
    }
}
