//! A cut plan: stages, their inputs, their shuffles.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use serde_json::{Value, json};
use trilith_exchange::{Shuffle, SortKey};
use trilith_proto::column::ColumnType;
use trilith_proto::fault::Fault;
use trilith_proto::id::StageNumber;
use trilith_proto::interval::Granularity;
use trilith_proto::pb::task as pb;

use super::source::{Source, SourceExec};
use crate::kernel::{Shape, StageShape};
use crate::limits;
use crate::worker::SegmentSink;

/// How a stage hands its rows on.
#[derive(Debug, Clone)]
pub enum OutputShuffle {
    /// One partition, no order.
    Mix,
    /// By hash of columns.
    Hash {
        /// Key columns.
        columns: Vec<usize>,
        /// Order inside a partition; empty when there is none.
        keys: Vec<SortKey>,
        /// How many: the same for all stages, because a join reads the same partition of two of them.
        partitions: u32,
    },
    /// Sorted, all in one partition.
    Sorted {
        /// Sort keys.
        keys: Vec<SortKey>,
        /// Rows beyond this many are not needed.
        limit: Option<u64>,
    },
    /// Sorted and cut into at most as many ranges as there are workers.
    Ranges {
        /// Sort keys.
        keys: Vec<SortKey>,
    },
    /// Sorted and cut into ranges of about this many rows within each time chunk.
    Chunks {
        /// Sort keys, without the time chunk.
        keys: Vec<SortKey>,
        /// Column of the time chunk; none puts all rows into one chunk.
        time_column: Option<usize>,
        /// Size of a chunk.
        granularity: Granularity,
        /// Rows per range.
        target_rows: u64,
    },
}

/// Where the rows of a stage are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputMode {
    /// With the process that made them.
    #[default]
    LocalStorage,
    /// In durable storage, for the next stage.
    DurableStorage,
    /// In durable storage, as pages of the result.
    QueryResults {
        /// Rows of a page.
        rows_per_page: u64,
    },
}

impl OutputMode {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            OutputMode::LocalStorage => "localStorage",
            OutputMode::DurableStorage => "durableStorage",
            OutputMode::QueryResults { .. } => "durableStorageQueryResults",
        }
    }

    /// The rows outlive the process that made them.
    pub fn is_durable(self) -> bool {
        self != OutputMode::LocalStorage
    }
}

/// One stage.
#[derive(Debug, Clone)]
pub struct StageSpec {
    /// Its number; inputs have smaller ones.
    pub number: StageNumber,
    /// Operators, with unassigned leaves; none for segment generation.
    pub plan: Option<Arc<dyn ExecutionPlan>>,
    /// Leaves of the plan, by input number.
    pub inputs: Vec<Source>,
    /// Inputs that every worker reads in full.
    pub broadcast: Vec<usize>,
    /// Must run on one worker only.
    pub single: bool,
    /// "scan", "groupByPreShuffle", …
    pub processor_type: String,
    /// What it does, as the report shows it.
    pub processor_json: Value,
    /// Output columns.
    pub signature: Vec<(String, ColumnType)>,
    /// Most workers that it may use.
    pub max_workers: u32,
    /// How rows are handed on; none for segment generation.
    pub shuffle: Option<OutputShuffle>,
    /// Pre-aggregated rows are combined downstream.
    pub aggregate: bool,
    /// Its output becomes segments.
    pub feeds_segments: bool,
    /// Where its rows are kept.
    pub output: OutputMode,
}

/// All stages of a statement, in order of their numbers.
#[derive(Debug, Clone)]
pub struct StageGraph {
    /// The last one is final.
    pub stages: Vec<StageSpec>,
    /// Segment generation, without sources and targets.
    pub sink: Option<SegmentSink>,
}

impl StageGraph {
    /// Fails if a stage is beyond a limit. Rows on their way into segments also have a column for their time chunk, and
    /// one that tells equal keys apart.
    pub fn check(&self, clustered_by_max: u64) -> std::result::Result<(), Fault> {
        for stage in &self.stages {
            if stage.max_workers > limits::WORKERS_MAX {
                let (workers, max) = (stage.max_workers.into(), limits::WORKERS_MAX.into());
                return Err(Fault::too_many_workers(workers, max));
            }
            let hidden = match &stage.shuffle {
                Some(OutputShuffle::Chunks { time_column, .. }) => 1 + usize::from(time_column.is_some()),
                _ => 0,
            };
            let columns = stage.signature.len() + hidden;
            if columns > limits::COLUMNS_MAX {
                return Err(Fault::too_many_columns(
                    columns as u64,
                    limits::COLUMNS_MAX as u64,
                ));
            }
            let keys = match &stage.shuffle {
                Some(
                    OutputShuffle::Sorted { keys, .. }
                    | OutputShuffle::Ranges { keys }
                    | OutputShuffle::Hash { keys, .. }
                    | OutputShuffle::Chunks { keys, .. },
                ) => (keys.len() + hidden) as u64,
                _ => 0,
            };
            if keys > clustered_by_max {
                return Err(Fault::too_many_clustered_by_columns(
                    keys,
                    clustered_by_max,
                    stage.number.0,
                ));
            }
        }
        Ok(())
    }

    /// Keeps the rows that stages hand on in durable storage.
    pub fn make_durable(&mut self) {
        for stage in &mut self.stages {
            stage.output = OutputMode::DurableStorage;
        }
    }

    /// Keeps the rows of the last stage as pages in durable storage.
    pub fn page_results(&mut self, rows_per_page: u64) {
        if let Some(last) = self.stages.last_mut() {
            last.output = OutputMode::QueryResults { rows_per_page };
        }
    }

    /// Some rows go to durable storage.
    pub fn needs_durable_storage(&self) -> bool {
        self.stages.iter().any(|stage| stage.output.is_durable())
    }

    /// What the kernel must know of the stages; how they run is up to the caller.
    pub fn shape(&self) -> Shape {
        let stages = self
            .stages
            .iter()
            .map(|stage| StageShape {
                inputs: stage.input_stages(),
                sorts: stage.sorts(),
                gathers_statistics: stage.gathers_statistics(),
                writes_segments: stage.plan.is_none(),
                durable: stage.output.is_durable(),
            })
            .collect();
        Shape {
            task: String::new(),
            stages,
            publishes: self.sink.is_some(),
            deadline_ms: None,
            fault_tolerant: false,
            max_concurrent_stages: 1,
            start_timeout_ms: limits::TASK_START_TIMEOUT_MS,
            lock_timeout_ms: limits::TASK_LOCK_TIMEOUT_MS as i64,
            silence_ms: limits::ORDER_SILENCE_MS,
        }
    }
}

impl StageSpec {
    /// Stages that it reads, each once.
    pub fn input_stages(&self) -> Vec<StageNumber> {
        let mut stages: Vec<StageNumber> = self
            .inputs
            .iter()
            .filter_map(|input| match input {
                Source::Stage { stage, .. } => Some(*stage),
                _ => None,
            })
            .collect();
        stages.sort_unstable();
        stages.dedup();
        stages
    }

    /// Its output is sorted.
    pub fn sorts(&self) -> bool {
        match &self.shuffle {
            Some(OutputShuffle::Hash { keys, .. }) => !keys.is_empty(),
            Some(OutputShuffle::Mix) | None => false,
            Some(_) => true,
        }
    }

    /// Boundaries are cut from key statistics.
    pub fn gathers_statistics(&self) -> bool {
        matches!(
            self.shuffle,
            Some(OutputShuffle::Ranges { .. } | OutputShuffle::Chunks { .. })
        )
    }

    /// The exchange's view of the shuffle.
    pub fn exchange_shuffle(&self) -> Option<Shuffle> {
        Some(match self.shuffle.as_ref()? {
            OutputShuffle::Mix => Shuffle::Mix,
            OutputShuffle::Hash {
                columns,
                keys,
                partitions,
            } => Shuffle::Hash {
                columns: columns.clone(),
                partitions: *partitions,
                keys: keys.clone(),
            },
            OutputShuffle::Sorted { keys, limit } => Shuffle::Sort {
                keys: keys.clone(),
                bucket: None,
                statistics: false,
                limit: *limit,
            },
            OutputShuffle::Ranges { keys } => Shuffle::Sort {
                keys: keys.clone(),
                bucket: None,
                statistics: true,
                limit: None,
            },
            OutputShuffle::Chunks {
                keys,
                time_column,
                granularity,
                ..
            } => Shuffle::Sort {
                keys: keys.clone(),
                bucket: time_column.map(|time_column| trilith_exchange::Bucket {
                    time_column,
                    granularity: *granularity,
                }),
                statistics: true,
                limit: None,
            },
        })
    }

    /// The word for the shuffle in the report's stage.
    pub fn shuffle_kind(&self) -> Option<&'static str> {
        Some(match self.shuffle.as_ref()? {
            OutputShuffle::Mix => "mix",
            OutputShuffle::Hash { keys, .. } if keys.is_empty() => "hash",
            OutputShuffle::Hash { .. } => "hashLocalSort",
            _ => "globalSort",
        })
    }

    /// The shuffle in the report's definition.
    pub fn shuffle_report(&self) -> Option<pb::ShuffleSpec> {
        let mut report = pb::ShuffleSpec {
            aggregate: self.aggregate,
            ..Default::default()
        };
        match self.shuffle.as_ref()? {
            OutputShuffle::Mix => report.r#type = "mix".to_owned(),
            OutputShuffle::Hash {
                columns,
                keys,
                partitions,
            } => {
                report.r#type = "hash".to_owned();
                report.partitions = Some(*partitions);
                report.cluster_by = if keys.is_empty() {
                    columns
                        .iter()
                        .map(|column| self.cluster_column(*column, false))
                        .collect()
                } else {
                    self.cluster_by(keys)
                };
            }
            OutputShuffle::Sorted { keys, limit } => {
                report.r#type = "maxCount".to_owned();
                report.partitions = Some(1);
                report.limit_hint = *limit;
                report.cluster_by = self.cluster_by(keys);
            }
            OutputShuffle::Ranges { keys } => {
                report.r#type = "maxCount".to_owned();
                report.partitions = Some(self.max_workers);
                report.cluster_by = self.cluster_by(keys);
            }
            OutputShuffle::Chunks {
                keys,
                time_column,
                target_rows,
                ..
            } => {
                report.r#type = "targetSize".to_owned();
                report.target_size = Some(*target_rows);
                let bucket = time_column.map(|_| ascending("__bucket"));
                report.bucket_by_count = bucket.is_some() as u32;
                report.cluster_by = bucket.into_iter().collect();
                report.cluster_by.extend(self.cluster_by(keys));
                report.cluster_by.push(ascending("__boost"));
            }
        }
        Some(report)
    }

    fn cluster_by(&self, keys: &[SortKey]) -> Vec<pb::ClusterColumn> {
        keys.iter()
            .map(|key| self.cluster_column(key.column, key.descending))
            .collect()
    }

    fn cluster_column(&self, column: usize, descending: bool) -> pb::ClusterColumn {
        let name = self
            .signature
            .get(column)
            .map(|(name, _)| name.clone())
            .unwrap_or_default();
        let order = if descending { "DESCENDING" } else { "ASCENDING" };
        pb::ClusterColumn {
            column_name: name,
            order: order.to_owned(),
        }
    }

    /// Inputs as the report shows them.
    pub fn inputs_report(&self) -> Vec<pb::StageInput> {
        self.inputs
            .iter()
            .map(|input| pb::StageInput {
                input: Some(input_report(input)),
            })
            .collect()
    }
}

fn ascending(name: &str) -> pb::ClusterColumn {
    pb::ClusterColumn {
        column_name: name.to_owned(),
        order: "ASCENDING".to_owned(),
    }
}

fn input_report(source: &Source) -> pb::stage_input::Input {
    use pb::stage_input::Input;
    match source {
        Source::External { spec, .. } => Input::External(pb::ExternalInput {
            input_source_json: spec.source_json().to_string(),
            input_format_json: spec.format_json().to_string(),
            signature: spec
                .signature()
                .iter()
                .map(|(name, column_type)| pb::Column {
                    name: name.clone(),
                    r#type: column_type.to_string(),
                })
                .collect(),
        }),
        Source::Segments {
            datasource, pruning, ..
        } => Input::Table(pb::TableInput {
            datasource: datasource.clone(),
            intervals: pruning.intervals().iter().map(ToString::to_string).collect(),
        }),
        Source::Stage { stage, .. } => Input::StageNumber(stage.0),
    }
}

/// Leaves of a plan, in order.
pub(crate) fn leaves(plan: &Arc<dyn ExecutionPlan>) -> Vec<&SourceExec> {
    match plan.downcast_ref::<SourceExec>() {
        Some(leaf) => vec![leaf],
        None => plan.children().into_iter().flat_map(leaves).collect(),
    }
}

/// Columns of the widest rows inside a plan.
pub(crate) fn widest(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let below = plan.children().into_iter().map(widest).max().unwrap_or(0);
    below.max(plan.schema().fields().len())
}

/// Names of the operators of a plan, outermost first.
pub(crate) fn operators(plan: &Arc<dyn ExecutionPlan>) -> Value {
    let text = datafusion::physical_plan::displayable(plan.as_ref())
        .indent(false)
        .to_string();
    json!(text.lines().map(|line| line.to_owned()).collect::<Vec<_>>())
}
