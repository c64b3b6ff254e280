//! Cuts a physical plan into stages.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::plan_datafusion_err;
use datafusion::error::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, LexOrdering, Partitioning, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use trilith_exchange::SortKey;
use trilith_proto::column;
use trilith_proto::id::StageNumber;
use trilith_proto::interval::Granularity;

use super::describe;
use super::graph::{OutputMode, OutputShuffle, StageGraph, StageSpec, leaves};
use super::source::{Source, SourceExec};
use super::{group_by, joins, windows};
use crate::worker::SegmentSink;

/// Settings of a job that shape its stages.
#[derive(Debug, Clone)]
pub struct CutOptions {
    /// Workers of the job.
    pub max_workers: u32,
    /// Rows that one partition of a window function may have; none sets no bound.
    pub window_rows_max: Option<u64>,
}

/// What becomes of the rows of the statement.
pub enum Destination {
    /// They go to the client.
    Results,
    /// They become segments.
    Segments {
        /// Keys of CLUSTERED BY, by column of the plan's output.
        cluster: Vec<SortKey>,
        /// Column of the time chunk; none puts all rows into one chunk.
        time_column: Option<usize>,
        /// PARTITIONED BY.
        granularity: Granularity,
        /// Rows of a segment.
        rows_per_segment: u64,
        /// Segment generation.
        sink: Box<SegmentSink>,
        /// Its description for the report.
        processor_json: serde_json::Value,
    },
}

/// A part of a plan that runs in one stage.
pub(crate) struct Fragment {
    pub plan: Arc<dyn ExecutionPlan>,
    /// It must run on exactly one worker.
    pub single: bool,
}

pub(crate) struct Cutter {
    options: CutOptions,
    stages: Vec<StageSpec>,
}

/// Cuts a plan. Every exchange of the plan becomes the boundary of a stage.
pub fn cut(
    plan: Arc<dyn ExecutionPlan>,
    destination: Destination,
    options: CutOptions,
) -> Result<StageGraph> {
    let mut cutter = Cutter {
        options,
        stages: Vec::new(),
    };
    let root = cutter.node(plan, true)?;
    let sink = match destination {
        Destination::Results => {
            cutter.close(root, OutputShuffle::Mix)?;
            if let Some(last) = cutter.stages.last_mut() {
                last.shuffle = None;
            }
            None
        }
        Destination::Segments {
            cluster,
            time_column,
            granularity,
            rows_per_segment,
            sink,
            processor_json,
        } => {
            let chunks = OutputShuffle::Chunks {
                keys: cluster,
                time_column,
                granularity,
                target_rows: rows_per_segment,
            };
            let (number, _) = cutter.close(root, chunks)?;
            cutter.segment_generator(number, processor_json);
            Some(*sink)
        }
    };
    Ok(StageGraph {
        stages: cutter.stages,
        sink,
    })
}

impl Cutter {
    /// Cuts below `plan`. `ranges`: nobody above needs the hash partitioning that DataFusion planned, so
    /// a GROUP BY may use ranges, whose order is of use to the reader.
    pub(crate) fn node(&mut self, plan: Arc<dyn ExecutionPlan>, ranges: bool) -> Result<Fragment> {
        if plan.is::<SourceExec>() {
            return Ok(Fragment { plan, single: false });
        }
        if plan.children().is_empty() {
            // VALUES, system tables: rows that exist once.
            return Ok(Fragment { plan, single: true });
        }
        if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
            return self.repartition(repartition, None);
        }
        if let Some(sort) = plan.downcast_ref::<SortExec>()
            && sort.preserve_partitioning()
            && sort.fetch().is_none()
            && let Some(repartition) = sort.input().downcast_ref::<RepartitionExec>()
            && matches!(repartition.partitioning(), Partitioning::Hash(..))
        {
            // Whoever writes the partitions sorts them, so that the reader only merges.
            return self.repartition(repartition, Some(sort.expr()));
        }
        if let Some(coalesce) = plan.downcast_ref::<CoalescePartitionsExec>() {
            let fetch = coalesce.fetch();
            let child = self.node(Arc::clone(coalesce.input()), true)?;
            let child = self.single(child)?;
            return Ok(limited(child, fetch));
        }
        if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
            return self.sort_preserving_merge(merge);
        }
        if let Some(aggregate) = plan.downcast_ref::<AggregateExec>()
            && let Some(partial) = group_by::exchanged_partial(aggregate)
            && ranges
        {
            return self.group_by(&plan, partial);
        }
        if let Some(fragment) = joins::cut(self, &plan)? {
            return Ok(fragment);
        }
        self.children(plan, ranges)
    }

    fn children(&mut self, plan: Arc<dyn ExecutionPlan>, ranges: bool) -> Result<Fragment> {
        let requirements = plan.input_distribution_requirements().into_per_child();
        let children: Vec<_> = plan.children().into_iter().cloned().collect();
        let mut fragments = Vec::with_capacity(children.len());
        for (child, required) in children.into_iter().zip(requirements) {
            let ranges = ranges && !matches!(required, Distribution::KeyPartitioned(_));
            fragments.push(self.node(child, ranges)?);
        }
        let all = fragments.iter().all(|fragment| fragment.single);
        let none = fragments.iter().all(|fragment| !fragment.single);
        let mut single = all;
        if !all && !none {
            // One part must run once, another runs everywhere: they meet through an exchange.
            let union = plan.is::<UnionExec>();
            single = !union;
            for fragment in &mut fragments {
                if fragment.single == union {
                    let schema_of = std::mem::replace(
                        fragment,
                        Fragment {
                            plan: Arc::clone(&plan),
                            single,
                        },
                    );
                    *fragment = self.exchanged(schema_of, OutputShuffle::Mix)?;
                    fragment.single = single;
                }
            }
        }
        let children = fragments
            .into_iter()
            .map(|fragment| windows::input(&plan, fragment.plan, self.options.window_rows_max))
            .collect::<Result<_>>()?;
        Ok(Fragment {
            plan: replace_children_if_necessary(plan, children)?,
            single,
        })
    }

    /// Runs on one worker, after an exchange if need be.
    pub(crate) fn single(&mut self, fragment: Fragment) -> Result<Fragment> {
        if fragment.single {
            return Ok(one_partition(fragment));
        }
        self.exchanged(fragment, OutputShuffle::Mix)
    }

    /// Closes a stage and returns its reader. A reader of one partition is single.
    pub(crate) fn exchanged(&mut self, fragment: Fragment, shuffle: OutputShuffle) -> Result<Fragment> {
        let single = matches!(shuffle, OutputShuffle::Mix | OutputShuffle::Sorted { .. });
        let interleaved = matches!(shuffle, OutputShuffle::Hash { .. });
        let ordering = match &shuffle {
            OutputShuffle::Sorted { keys, .. }
            | OutputShuffle::Ranges { keys }
            | OutputShuffle::Hash { keys, .. } => keys.clone(),
            _ => Vec::new(),
        };
        let (number, schema) = self.close(fragment, shuffle)?;
        Ok(Fragment {
            plan: self.reader(number, schema, ordering, single, interleaved, false),
            single,
        })
    }

    /// Closes a stage and returns a reader for every worker of the reading stage.
    pub(crate) fn broadcast(&mut self, fragment: Fragment) -> Result<Arc<dyn ExecutionPlan>> {
        let (number, schema) = self.close(fragment, OutputShuffle::Mix)?;
        Ok(self.reader(number, schema, Vec::new(), true, false, true))
    }

    fn reader(
        &self,
        stage: StageNumber,
        schema: SchemaRef,
        ordering: Vec<SortKey>,
        one_partition: bool,
        interleaved: bool,
        broadcast: bool,
    ) -> Arc<dyn ExecutionPlan> {
        let merge = !ordering.is_empty();
        let source = Source::Stage {
            stage,
            merge,
            interleaved,
            broadcast,
            sources: Vec::new(),
            partitions: Vec::new(),
        };
        let partitions = if one_partition { 1 } else { 2 };
        Arc::new(SourceExec::new(
            source,
            schema,
            ordering,
            Partitioning::UnknownPartitioning(partitions),
        ))
    }

    fn repartition(
        &mut self,
        repartition: &RepartitionExec,
        order: Option<&LexOrdering>,
    ) -> Result<Fragment> {
        let child = self.node(Arc::clone(repartition.input()), true)?;
        let Partitioning::Hash(exprs, _) = repartition.partitioning() else {
            // Round robin spreads rows over threads of one process; workers are our threads.
            return Ok(child);
        };
        let schema = child.plan.schema();
        let (mut plan, columns) = with_columns(child.plan, exprs)?;
        let mut keys = Vec::new();
        if let Some(order) = order {
            let exprs: Vec<_> = order.iter().map(|sort| Arc::clone(&sort.expr)).collect();
            let (extended, columns) = with_columns(plan, &exprs)?;
            keys = sort_keys(order, &columns);
            plan = extended;
        }
        let extended = plan.schema().fields().len() != schema.fields().len();
        let child = Fragment {
            plan,
            single: child.single,
        };
        let mut reader = self.exchanged(
            child,
            OutputShuffle::Hash {
                columns,
                keys,
                partitions: self.options.max_workers,
            },
        )?;
        if extended {
            reader.plan = first_columns(reader.plan, &schema)?;
        }
        Ok(reader)
    }

    fn sort_preserving_merge(&mut self, merge: &SortPreservingMergeExec) -> Result<Fragment> {
        let fetch = merge.fetch();
        let mut below = Arc::clone(merge.input());
        // The exchange sorts; only a top-k sort is worth its while before.
        if let Some(sort) = below.downcast_ref::<SortExec>()
            && sort.fetch().is_none()
        {
            below = Arc::clone(sort.input());
        }
        let child = self.node(below, true)?;
        let schema = child.plan.schema();
        if child.single {
            let child = one_partition(child);
            let sort = SortExec::new(merge.expr().clone(), child.plan).with_fetch(fetch);
            return Ok(Fragment {
                plan: Arc::new(sort),
                single: true,
            });
        }
        let exprs: Vec<_> = merge.expr().iter().map(|sort| Arc::clone(&sort.expr)).collect();
        let (plan, columns) = with_columns(child.plan, &exprs)?;
        let extended = plan.schema().fields().len() != schema.fields().len();
        let keys = sort_keys(merge.expr(), &columns);
        let child = Fragment { plan, single: false };
        let limit = fetch.map(|fetch| fetch as u64);
        let mut reader = self.exchanged(child, OutputShuffle::Sorted { keys, limit })?;
        if extended {
            reader.plan = first_columns(reader.plan, &schema)?;
        }
        Ok(limited(reader, fetch))
    }

    /// Partial aggregation, sorted by the dimensions and cut into ranges, then the final one.
    fn group_by(
        &mut self,
        last: &Arc<dyn ExecutionPlan>,
        partial: Arc<dyn ExecutionPlan>,
    ) -> Result<Fragment> {
        let dimensions = group_by::dimension_count(&partial);
        let child = self.node(partial, true)?;
        let keys = (0..dimensions)
            .map(|column| SortKey {
                column,
                descending: false,
                nulls_first: true,
            })
            .collect();
        let reader = self.exchanged(child, OutputShuffle::Ranges { keys })?;
        if let Some(stage) = self.stages.last_mut() {
            stage.aggregate = true;
        }
        let plan = replace_children_if_necessary(group_by::unlimited(last), vec![reader.plan])?;
        Ok(Fragment { plan, single: false })
    }

    fn close(&mut self, fragment: Fragment, shuffle: OutputShuffle) -> Result<(StageNumber, SchemaRef)> {
        let number = StageNumber(self.stages.len() as u32);
        let mut input = 0;
        let plan = number_inputs(fragment.plan, &mut input)?;
        let schema = plan.schema();
        let inputs: Vec<Source> = leaves(&plan)
            .into_iter()
            .map(|leaf| leaf.source().clone())
            .collect();
        let broadcast = inputs
            .iter()
            .enumerate()
            .filter(|(_, input)| matches!(input, Source::Stage { broadcast: true, .. }))
            .map(|(index, _)| index)
            .collect();
        let (processor_type, processor_json) = describe::processor(&plan);
        let signature = schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), column::of_field(field)))
            .collect();
        self.stages.push(StageSpec {
            number,
            inputs,
            broadcast,
            single: fragment.single,
            processor_type,
            processor_json,
            signature,
            max_workers: if fragment.single {
                1
            } else {
                self.options.max_workers
            },
            feeds_segments: matches!(shuffle, OutputShuffle::Chunks { .. }),
            output: OutputMode::default(),
            shuffle: Some(shuffle),
            aggregate: false,
            plan: Some(plan),
        });
        Ok((number, schema))
    }

    fn segment_generator(&mut self, input: StageNumber, processor_json: serde_json::Value) {
        let source = Source::Stage {
            stage: input,
            merge: true,
            interleaved: false,
            broadcast: false,
            sources: Vec::new(),
            partitions: Vec::new(),
        };
        self.stages.push(StageSpec {
            number: StageNumber(self.stages.len() as u32),
            plan: None,
            inputs: vec![source],
            broadcast: Vec::new(),
            single: false,
            processor_type: "segmentGenerator".to_owned(),
            processor_json,
            signature: Vec::new(),
            max_workers: self.options.max_workers,
            shuffle: None,
            aggregate: false,
            feeds_segments: false,
            output: OutputMode::default(),
        });
    }
}

/// A UNION ALL of parts that each run once has a partition for each of them.
fn one_partition(fragment: Fragment) -> Fragment {
    if fragment.plan.output_partitioning().partition_count() < 2 {
        return fragment;
    }
    Fragment {
        plan: Arc::new(CoalescePartitionsExec::new(fragment.plan)),
        single: fragment.single,
    }
}

fn limited(fragment: Fragment, fetch: Option<usize>) -> Fragment {
    match fetch {
        Some(fetch) => {
            let plan = Arc::new(GlobalLimitExec::new(fragment.plan, 0, Some(fetch)));
            Fragment {
                plan,
                single: fragment.single,
            }
        }
        None => fragment,
    }
}

fn sort_keys(ordering: &LexOrdering, columns: &[usize]) -> Vec<SortKey> {
    ordering
        .iter()
        .zip(columns)
        .map(|(sort, column)| SortKey {
            column: *column,
            descending: sort.options.descending,
            nulls_first: sort.options.nulls_first,
        })
        .collect()
}

/// Positions of expressions in the output of a plan; those that are no columns are appended to it.
fn with_columns(
    plan: Arc<dyn ExecutionPlan>,
    exprs: &[Arc<dyn PhysicalExpr>],
) -> Result<(Arc<dyn ExecutionPlan>, Vec<usize>)> {
    let schema = plan.schema();
    let mut projection: Vec<(Arc<dyn PhysicalExpr>, String)> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
            (column, field.name().clone())
        })
        .collect();
    let mut columns = Vec::with_capacity(exprs.len());
    for expr in exprs {
        match expr.downcast_ref::<Column>() {
            Some(column) => columns.push(column.index()),
            None => {
                columns.push(projection.len());
                projection.push((Arc::clone(expr), format!("__key{}", projection.len())));
            }
        }
    }
    if projection.len() == schema.fields().len() {
        return Ok((plan, columns));
    }
    Ok((Arc::new(ProjectionExec::try_new(projection, plan)?), columns))
}

/// Drops what [`with_columns`] appended.
fn first_columns(plan: Arc<dyn ExecutionPlan>, schema: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
    let projection: Vec<(Arc<dyn PhysicalExpr>, String)> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), index));
            (column, field.name().clone())
        })
        .collect();
    Ok(Arc::new(ProjectionExec::try_new(projection, plan)?))
}

/// Numbers the leaves of a stage from 0.
fn number_inputs(plan: Arc<dyn ExecutionPlan>, next: &mut usize) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(leaf) = plan.downcast_ref::<SourceExec>() {
        let numbered = leaf.clone().with_input(*next);
        *next += 1;
        return Ok(Arc::new(numbered));
    }
    let children: Vec<_> = plan.children().into_iter().cloned().collect();
    if children.is_empty() {
        return Ok(plan);
    }
    let children = children
        .into_iter()
        .map(|child| number_inputs(child, next))
        .collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(plan, children)
}

/// The mode of an aggregate that ends what partial ones began.
pub(crate) fn is_final(mode: &AggregateMode) -> bool {
    matches!(mode, AggregateMode::Final | AggregateMode::FinalPartitioned)
}

/// Two children of a join.
pub(crate) fn two(plan: &Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>)> {
    match plan.children().as_slice() {
        [left, right] => Ok((Arc::clone(left), Arc::clone(right))),
        _ => Err(plan_datafusion_err!("{} is not a join", plan.name())),
    }
}
