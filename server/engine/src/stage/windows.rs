//! Window functions behind an exchange.

use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{SortOptions, partition};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputOrderMode, PlanProperties,
};
use futures::StreamExt;
use trilith_proto::fault::Fault;

use super::services::fault_error;

/// The input of a window function, with its order and its bound; that of another operator as it is.
pub(crate) fn input(
    window: &Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
    rows_max: Option<u64>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(function) = functions(window).first() else {
        return Ok(input);
    };
    let input = ordered(window, input)?;
    Ok(match rows_max {
        Some(most) => Arc::new(WindowRowsExec::new(input, function.partition_by().to_vec(), most)),
        None => input,
    })
}

fn functions(plan: &Arc<dyn ExecutionPlan>) -> &[Arc<dyn WindowExpr>] {
    if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
        window.window_expr()
    } else if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        window.window_expr()
    } else {
        &[]
    }
}

/// The input of a window function in the order that it needs.
///
/// The planner leaves out keys that it knows to be constant, or to follow from others. A reader of another stage only
/// knows the keys that its writers sorted by: what the window misses is sorted here.
fn ordered(window: &Arc<dyn ExecutionPlan>, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let unsorted = window
        .downcast_ref::<BoundedWindowAggExec>()
        .is_some_and(|window| window.input_order_mode != InputOrderMode::Sorted);
    let Some(function) = functions(window).first().filter(|_| !unsorted) else {
        return Ok(input);
    };
    let partition = function.partition_by();
    let (known, _) = input
        .equivalence_properties()
        .find_longest_permutation(partition)?;
    if known.len() == partition.len() {
        return Ok(input);
    }
    let options = SortOptions {
        descending: false,
        nulls_first: true,
    };
    let partition = partition
        .iter()
        .map(|expr| PhysicalSortExpr::new(Arc::clone(expr), options));
    let keys = partition.chain(function.order_by().iter().cloned());
    Ok(match LexOrdering::new(keys) {
        Some(keys) => Arc::new(SortExec::new(keys, input).with_preserve_partitioning(true)),
        None => input,
    })
}

/// Hands the rows of a window function through, and fails when one of its partitions has too many.
#[derive(Debug)]
pub(crate) struct WindowRowsExec {
    input: Arc<dyn ExecutionPlan>,
    partition: Vec<Arc<dyn PhysicalExpr>>,
    most: u64,
}

impl WindowRowsExec {
    /// Rows of a partition, which follow each other, may be `most`.
    pub(crate) fn new(
        input: Arc<dyn ExecutionPlan>,
        partition: Vec<Arc<dyn PhysicalExpr>>,
        most: u64,
    ) -> WindowRowsExec {
        WindowRowsExec {
            input,
            partition,
            most,
        }
    }

    /// PARTITION BY.
    pub(crate) fn partition(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.partition
    }

    /// Rows that a partition may have.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }
}

/// The partition that rows were last seen of.
#[derive(Default)]
struct Seen {
    key: Option<Vec<ScalarValue>>,
    rows: u64,
}

impl Seen {
    fn follow(&mut self, batch: &RecordBatch, exprs: &[Arc<dyn PhysicalExpr>], most: u64) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = exprs
            .iter()
            .map(|expr| expr.evaluate(batch)?.into_array(rows))
            .collect::<Result<_>>()?;
        let ranges = match columns.is_empty() {
            true => std::iter::once(0..rows).collect(),
            false => partition(&columns)?.ranges(),
        };
        for range in ranges {
            let key = columns
                .iter()
                .map(|column| ScalarValue::try_from_array(column, range.start));
            let key = key.collect::<Result<Vec<_>>>()?;
            if self.key.as_ref() != Some(&key) {
                *self = Seen {
                    key: Some(key),
                    rows: 0,
                };
            }
            self.rows += range.len() as u64;
            if self.rows > most {
                return Err(fault_error(Fault::too_many_rows_in_a_window(self.rows, most)));
            }
        }
        Ok(())
    }
}

impl DisplayAs for WindowRowsExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowRowsExec: most={}", self.most)
    }
}

impl ExecutionPlan for WindowRowsExec {
    fn name(&self) -> &str {
        "WindowRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut next = TreeNodeRecursion::Continue;
        for expr in &self.partition {
            next = f(expr)?;
            if next == TreeNodeRecursion::Stop {
                break;
            }
        }
        Ok(next)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => Ok(Arc::new(WindowRowsExec::new(
                input,
                self.partition.clone(),
                self.most,
            ))),
            _ => internal_err!("the rows of a window come from one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let (exprs, most, mut seen) = (self.partition.clone(), self.most, Seen::default());
        let followed = rows.map(move |batch| {
            let batch = batch?;
            seen.follow(&batch, &exprs, most)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.input.schema(),
            followed,
        )))
    }
}
