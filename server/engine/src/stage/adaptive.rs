//! A hash join that turns into a sort-merge join when the side that it keeps in memory is too large.
//!
//! Sizes are known only when the rows are there, so the choice is made by the worker while it reads: up to the
//! budget it collects rows, beyond it both sides are sorted, which spills. The stages stay as they are: each
//! worker sorts a broadcast side for itself.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinType, exec_datafusion_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use trilith_exchange::value_bytes;
use trilith_proto::fault::Fault;

use super::services::{WorkOrderServices, fault_error};

/// Wraps a join whose left side is kept in memory, if there is something to be done when it is too large.
pub(crate) fn wrap(join: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(hash) = join.downcast_ref::<HashJoinExec>() {
        return Ok(match can_adapt(hash) {
            true => Arc::new(AdaptiveJoinExec { join }),
            false => join,
        });
    }
    if let (true, [left, right]) = (join.is::<CrossJoinExec>(), join.children().as_slice()) {
        let left = Arc::new(BoundedExec {
            input: Arc::clone(left),
        });
        return Ok(Arc::new(CrossJoinExec::new(left, Arc::clone(right))));
    }
    Ok(join)
}

fn can_adapt(join: &HashJoinExec) -> bool {
    // Rows of the left side that found no partner come once, after all partitions of the right side.
    let left_once = matches!(
        join.join_type(),
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
    );
    let alone = *join.partition_mode() == PartitionMode::Partitioned
        || join.right().output_partitioning().partition_count() == 1;
    !join.null_aware && (alone || !left_once)
}

/// A hash join that may become a sort-merge join.
#[derive(Debug)]
struct AdaptiveJoinExec {
    join: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for AdaptiveJoinExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdaptiveJoinExec: ")?;
        self.join.fmt_as(format, f)
    }
}

impl ExecutionPlan for AdaptiveJoinExec {
    fn name(&self) -> &str {
        "AdaptiveJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.join.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.join.children()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.join.maintains_input_order()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.join.apply_expressions(f)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let join = replace_children_if_necessary(Arc::clone(&self.join), children)?;
        Ok(Arc::new(AdaptiveJoinExec { join }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let join = Arc::clone(&self.join);
        let rows = stream::once(async move { choose(&join, partition, context).await }).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// Reads the left side up to the budget, then starts the join that suits it.
async fn choose(
    plan: &Arc<dyn ExecutionPlan>,
    partition: usize,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let join = plan
        .downcast_ref::<HashJoinExec>()
        .ok_or_else(|| exec_datafusion_err!("only a hash join can be adapted"))?;
    let services = services(&context)?;
    let budget = services.memory.join_build_bytes();
    let collected = *join.partition_mode() != PartitionMode::Partitioned;
    let left_partition = if collected { 0 } else { partition };
    let mut left = join.left().execute(left_partition, Arc::clone(&context))?;
    let mut kept = Kept::new(&context);
    while let Some(batch) = left.next().await {
        if !kept.push(batch?, budget) {
            let fault = Fault::broadcast_tables_too_large(
                budget,
                "The join runs as a sort-merge join instead. More memory (--memory-limit) would keep it in memory, \
                 sqlJoinAlgorithm = 'sortMerge' would spread it over workers by its keys.",
            );
            services.warnings.note(fault);
            let rows = kept.stream().chain(left).boxed();
            return sort_merge(join, rows, partition, context);
        }
    }
    let children = vec![
        one_stream(join.left().schema(), kept.stream())?,
        one_partition(join.right(), partition)?,
    ];
    replace_children_if_necessary(Arc::clone(plan), children)?.execute(0, context)
}

fn services(context: &Arc<TaskContext>) -> Result<Arc<WorkOrderServices>> {
    context
        .session_config()
        .get_extension::<WorkOrderServices>()
        .ok_or_else(|| exec_datafusion_err!("a join can only run in a work order"))
}

/// The same join by sorting both sides.
fn sort_merge(
    join: &HashJoinExec,
    left: BoxStream<'static, Result<RecordBatch>>,
    partition: usize,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let options = SortOptions {
        descending: false,
        nulls_first: true,
    };
    let (left_keys, right_keys): (Vec<_>, Vec<_>) = join.on().iter().cloned().unzip();
    let sorted = |input: Arc<dyn ExecutionPlan>, keys: Vec<Arc<dyn PhysicalExpr>>| {
        let keys = keys.into_iter().map(|key| PhysicalSortExpr::new(key, options));
        let ordering = LexOrdering::new(keys).ok_or_else(|| exec_datafusion_err!("a join without keys"))?;
        Ok::<_, DataFusionError>(Arc::new(SortExec::new(ordering, input)) as Arc<dyn ExecutionPlan>)
    };
    let mut plan: Arc<dyn ExecutionPlan> = Arc::new(SortMergeJoinExec::try_new(
        sorted(one_stream(join.left().schema(), left)?, left_keys)?,
        sorted(one_partition(join.right(), partition)?, right_keys)?,
        join.on().to_vec(),
        join.filter().cloned(),
        *join.join_type(),
        vec![options; join.on().len()],
        join.null_equality(),
    )?);
    if let Some(columns) = &join.projection {
        let schema = plan.schema();
        let projection: Vec<(Arc<dyn PhysicalExpr>, String)> = columns
            .iter()
            .map(|index| {
                let name = schema.field(*index).name();
                let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, *index));
                (column, name.clone())
            })
            .collect();
        plan = Arc::new(ProjectionExec::try_new(projection, plan)?);
    }
    // Operators above may count on the order of the side that a hash join streams by.
    if let Some(ordering) = join.properties().output_ordering() {
        plan = Arc::new(SortExec::new(ordering.clone(), plan));
    }
    if let Some(rows) = join.fetch() {
        plan = Arc::new(GlobalLimitExec::new(plan, 0, Some(rows)));
    }
    plan.execute(0, context)
}

/// Rows that were read before the choice, with the memory that they hold.
struct Kept {
    batches: Vec<(RecordBatch, usize)>,
    bytes: u64,
    memory: MemoryReservation,
}

impl Kept {
    fn new(context: &Arc<TaskContext>) -> Kept {
        Kept {
            batches: Vec::new(),
            bytes: 0,
            memory: MemoryConsumer::new("side of a join").register(context.memory_pool()),
        }
    }

    /// Keeps a batch; false when the budget or the pool is used up by it.
    fn push(&mut self, batch: RecordBatch, budget: u64) -> bool {
        let bytes = value_bytes(&batch);
        self.bytes += bytes as u64;
        let granted = self.bytes <= budget && self.memory.try_grow(bytes).is_ok();
        self.batches.push((batch, if granted { bytes } else { 0 }));
        granted
    }

    /// Hands the batches over, and gives up their memory one by one.
    fn stream(self) -> BoxStream<'static, Result<RecordBatch>> {
        let memory = self.memory;
        stream::iter(self.batches)
            .map(move |(batch, bytes)| {
                memory.shrink(bytes);
                Ok(batch)
            })
            .boxed()
    }
}

/// An input that fails with `BroadcastTablesTooLarge` beyond the budget: a cross join has no keys to sort by.
#[derive(Debug)]
struct BoundedExec {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for BoundedExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoundedExec")
    }
}

impl ExecutionPlan for BoundedExec {
    fn name(&self) -> &str {
        "BoundedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(BoundedExec { input })),
            None => Ok(self),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let budget = services(&context)?.memory.join_build_bytes();
        let mut bytes = 0;
        let rows = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            bytes += value_bytes(&batch) as u64;
            if bytes > budget {
                let advice = "A join without an equality cannot be sorted instead. Filter its smaller side, or start \
                              the process with a larger --memory-limit or fewer --worker-slots.";
                return Err(fault_error(Fault::broadcast_tables_too_large(budget, advice)));
            }
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// A stream as a plan that runs once.
fn one_stream(
    schema: SchemaRef,
    rows: BoxStream<'static, Result<RecordBatch>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    once(OnceInput {
        schema: Arc::clone(&schema),
        start: Mutex::new(Some(Box::new(move |_| {
            Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)) as SendableRecordBatchStream)
        }))),
    })
}

/// One partition of a plan, as a plan that has only this one.
fn one_partition(plan: &Arc<dyn ExecutionPlan>, partition: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let input = Arc::clone(plan);
    once(OnceInput {
        schema: plan.schema(),
        start: Mutex::new(Some(Box::new(move |context| input.execute(partition, context)))),
    })
}

fn once(input: OnceInput) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = Arc::clone(&input.schema);
    let table = StreamingTableExec::try_new(schema, vec![Arc::new(input)], None, Vec::new(), false, None)?;
    Ok(Arc::new(table))
}

type Start = Box<dyn FnOnce(Arc<TaskContext>) -> Result<SendableRecordBatchStream> + Send>;

struct OnceInput {
    schema: SchemaRef,
    start: Mutex<Option<Start>>,
}

impl fmt::Debug for OnceInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceInput").finish_non_exhaustive()
    }
}

impl PartitionStream for OnceInput {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let start = self.start.lock().take();
        let started = match start {
            Some(start) => start(context),
            None => Err(exec_datafusion_err!("an input of a join was started twice")),
        };
        started.unwrap_or_else(|error| {
            let failed = stream::iter([Err(error)]);
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), failed))
        })
    }
}
