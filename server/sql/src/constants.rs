//! What is wrong with a statement can be known from its constants before it runs.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{ColumnarValue, Expr, ExprSchemable, LogicalPlan, Volatility};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_expr::execution_props::ExecutionProps;

/// Refuses constant expressions whose value is no number, as Druid's planner does, which keeps constants as decimals.
pub(crate) fn refuse_unsupported(plan: &LogicalPlan, state: &SessionState) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if !is_constant(expr) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                let value = double(expr, state.execution_props());
                match value.filter(|value| !value.is_finite()) {
                    Some(value) => plan_err!(
                        "Expression [{}] evaluates to an unsupported value [{}], expected something that can be a Double.  Consider casting with 'CAST(<col> AS BIGINT)'",
                        shown(expr),
                        if value.is_nan() {
                            "NaN"
                        } else if value > 0.0 {
                            "Infinity"
                        } else {
                            "-Infinity"
                        }
                    ),
                    None => Ok(TreeNodeRecursion::Jump),
                }
            })
        })
    })?;
    Ok(())
}

/// True for an expression that has the same value in every row, and is not written out.
fn is_constant(expr: &Expr) -> bool {
    let inside = |expr: &Expr| {
        Ok(match expr {
            Expr::Literal(..) | Expr::BinaryExpr(_) | Expr::Negative(_) | Expr::Cast(_) | Expr::Case(_) => {
                false
            }
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            _ => true,
        })
    };
    !matches!(expr, Expr::Literal(..)) && !expr.exists(inside).unwrap_or(true)
}

/// The value of a constant, if it is a DOUBLE.
fn double(expr: &Expr, properties: &ExecutionProps) -> Option<f64> {
    let schema = DFSchema::empty();
    if expr.get_type(&schema).ok()? != DataType::Float64 {
        return None;
    }
    let physical =
        create_physical_expr(expr, &schema, properties, &PhysicalPlanningContext::default()).ok()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(1));
    let batch = RecordBatch::try_new_with_options(Schema::empty().into(), Vec::new(), &options).ok()?;
    let value = match physical.evaluate(&batch).ok()? {
        ColumnarValue::Scalar(scalar) => scalar,
        ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0).ok()?,
    };
    match value {
        ScalarValue::Float64(value) => value,
        _ => None,
    }
}

/// An expression as Druid writes it.
fn shown(expr: &Expr) -> String {
    match expr {
        Expr::BinaryExpr(binary) => {
            format!("({} {} {})", shown(&binary.left), binary.op, shown(&binary.right))
        }
        Expr::ScalarFunction(call) => {
            let args: Vec<String> = call.args.iter().map(shown).collect();
            match call.func.name().strip_prefix("druid_cast_") {
                Some(name) => format!("CAST({} AS {})", args.join(","), name.to_uppercase()),
                None => format!("{}({})", call.func.name(), args.join(",")),
            }
        }
        Expr::Cast(cast) => shown(&cast.expr),
        other => other.human_display().to_string(),
    }
}

/// Checks the literals that aggregates take, which are written out now.
pub(crate) fn check_aggregates(plan: &LogicalPlan, state: &SessionState) -> Result<()> {
    let context = PhysicalPlanningContext::default();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            let schema = aggregate.input.schema();
            for call in &aggregate.aggr_expr {
                let made = LoweredAggregateBuilder::new(
                    call,
                    schema,
                    schema.as_arrow(),
                    state.execution_props(),
                    &context,
                )
                .build();
                // What cannot be made here is refused where the plan is made.
                if let Ok(made) = made
                    && trilith_functions::takes_literals(made.aggregate.fun().name())
                {
                    made.aggregate.create_accumulator()?;
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
