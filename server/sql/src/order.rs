//! The order of grouped rows where the statement leaves it open.

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, LogicalPlanBuilder, SortExpr};

/// As Druid has it, a LIMIT takes rows of a GROUP BY in the order of its keys. With `all`, rows without a LIMIT are in that
/// order as well, and so are those that ORDER BY finds equal: what one process answers, it answers in the same order
/// each time.
pub(crate) fn by_keys(plan: LogicalPlan, all: bool) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Sort(_) if all => sorted(node).map(Transformed::yes),
        LogicalPlan::Limit(ref limit) if !all && matches!(*limit.input, LogicalPlan::Sort(_)) => {
            Ok(Transformed::no(node))
        }
        LogicalPlan::Limit(limit) => {
            let input = sorted(limit.input.as_ref().clone())?;
            let limit = LogicalPlan::Limit(limit);
            let expressions = limit.expressions();
            limit
                .with_new_exprs(expressions, vec![input])
                .map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    if all { sorted(plan.data) } else { Ok(plan.data) }
}

/// The rows of a node in the order of their keys.
fn sorted(plan: LogicalPlan) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Sort(mut sort) => {
            for key in keys(&sort.input) {
                if !sort.expr.iter().any(|known| known.expr == key.expr) {
                    sort.expr.push(key);
                }
            }
            Ok(LogicalPlan::Sort(sort))
        }
        // Its columns are those of the sorted rows without keys that are not shown.
        LogicalPlan::Projection(ref projection) if is_sorted(&projection.input) => Ok(plan),
        LogicalPlan::Limit(_) => Ok(plan),
        other => {
            let keys = keys(&other);
            if keys.is_empty() {
                return Ok(other);
            }
            LogicalPlanBuilder::from(other).sort(keys)?.build()
        }
    }
}

fn is_sorted(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Sort(_) | LogicalPlan::Limit(_))
}

/// Columns of a node's rows that are keys of the GROUP BY that makes them.
fn keys(plan: &LogicalPlan) -> Vec<SortExpr> {
    let ascending = |expr: Expr| SortExpr::new(expr, true, true);
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let grouping_sets = aggregate
                .group_expr
                .iter()
                .any(|key| matches!(key, Expr::GroupingSet(_)));
            let count = if grouping_sets {
                0
            } else {
                aggregate.group_expr.len()
            };
            let columns = aggregate.schema.columns().into_iter().take(count);
            columns.map(|column| ascending(Expr::Column(column))).collect()
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let columns = input.schema().columns().into_iter();
            columns.map(|column| ascending(Expr::Column(column))).collect()
        }
        LogicalPlan::Filter(filter) => keys(&filter.input),
        LogicalPlan::Projection(projection) => {
            let outputs = projection.schema.columns();
            let shown = |key: SortExpr| {
                let mut computed = projection.expr.iter();
                let place = computed.position(|expr| expr.clone().unalias() == key.expr)?;
                outputs
                    .get(place)
                    .cloned()
                    .map(|column| ascending(Expr::Column(column)))
            };
            keys(&projection.input).into_iter().filter_map(shown).collect()
        }
        _ => Vec::new(),
    }
}
