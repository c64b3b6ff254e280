//! Literals that are compared with columns of another type.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

/// A decimal beside a FLOAT is a FLOAT, or 0.1 would equal none; a number in a list of texts is a text.
pub(crate) fn conform(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        if node.expressions().is_empty() {
            return Ok(Transformed::no(node));
        }
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_up(|expr| Ok(compared(expr, &schema)))?;
            Ok(changed.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(plan.data)
}

fn compared(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let is = |expr: &Expr, wanted: &DataType| expr.get_type(schema).is_ok_and(|found| found == *wanted);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left, right) = if is(&left, &DataType::Float32) {
                (left, Box::new(float(*right)))
            } else if is(&right, &DataType::Float32) {
                (Box::new(float(*left)), right)
            } else {
                (left, right)
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Between(between) if is(&between.expr, &DataType::Float32) => {
            let Between {
                expr,
                negated,
                low,
                high,
            } = between;
            Transformed::yes(Expr::Between(Between {
                expr,
                negated,
                low: Box::new(float(*low)),
                high: Box::new(float(*high)),
            }))
        }
        Expr::InList(InList { expr, list, negated }) => {
            let list = if is(&expr, &DataType::Float32) {
                list.into_iter().map(float).collect()
            } else if is(&expr, &DataType::Utf8) && list.iter().any(|item| is(item, &DataType::Utf8)) {
                list.into_iter().map(text).collect()
            } else {
                list
            };
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        other => Transformed::no(other),
    }
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(
        op,
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom
    )
}

/// A literal double as a FLOAT.
fn float(expr: Expr) -> Expr {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(value)), metadata) => {
            Expr::Literal(ScalarValue::Float32(Some(value as f32)), metadata)
        }
        Expr::Negative(inner) => Expr::Negative(Box::new(float(*inner))),
        other => other,
    }
}

/// A literal number as a text.
fn text(expr: Expr) -> Expr {
    let written = match &expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), _) => value.to_string(),
        Expr::Literal(ScalarValue::Float64(Some(value)), _) => value.to_string(),
        _ => return expr,
    };
    Expr::Literal(ScalarValue::Utf8(Some(written)), None)
}
