//! Window functions behind an exchange.

use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::error::Result;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, InputOrderMode};

/// The input of a window function in the order that it needs.
///
/// The planner leaves out keys that it knows to be constant, or to follow from others. A reader of another stage only
/// knows the keys that its writers sorted by: what the window misses is sorted here.
pub(crate) fn ordered(
    window: &Arc<dyn ExecutionPlan>,
    input: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let functions: &[Arc<dyn WindowExpr>] = if let Some(window) = window.downcast_ref::<WindowAggExec>() {
        window.window_expr()
    } else if let Some(window) = window.downcast_ref::<BoundedWindowAggExec>()
        && window.input_order_mode == InputOrderMode::Sorted
    {
        window.window_expr()
    } else {
        return Ok(input);
    };
    let Some(function) = functions.first() else {
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
