//! Recognises the two halves of a GROUP BY.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::repartition::RepartitionExec;

use super::cut::is_final;

/// The partial aggregate below a final one, if only a hash exchange is between them.
pub(crate) fn exchanged_partial(last: &AggregateExec) -> Option<Arc<dyn ExecutionPlan>> {
    if !is_final(last.mode()) || last.group_expr().expr().is_empty() {
        return None;
    }
    let exchange = last.input().downcast_ref::<RepartitionExec>()?;
    let partial = exchange.input().downcast_ref::<AggregateExec>()?;
    matches!(partial.mode(), AggregateMode::Partial).then(|| Arc::clone(exchange.input()))
}

/// Without a limit on its groups, which DataFusion supports in an order of its own or where rows come in none; behind the
/// exchange they come sorted by group.
pub(crate) fn unlimited(last: &Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    match last.downcast_ref::<AggregateExec>() {
        Some(aggregate) if aggregate.limit_options().is_some() => {
            Arc::new(aggregate.with_new_limit_options(None))
        }
        _ => Arc::clone(last),
    }
}

/// Leading output columns of a partial aggregate that are dimensions, the grouping id included.
pub(crate) fn dimension_count(partial: &Arc<dyn ExecutionPlan>) -> usize {
    partial
        .downcast_ref::<AggregateExec>()
        .map_or(0, |aggregate| aggregate.group_expr().num_group_exprs())
}
