//! Arithmetic of a text and a number: the text is read as the number's type.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, plan_err};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, ScalarUDF};
use sqlparser::ast::BinaryOperator;

/// Plans `+`, `-`, `*`, `/` and `%` of a text and a number.
#[derive(Debug)]
pub(crate) struct TextArithmetic {
    long: Arc<ScalarUDF>,
    double: Arc<ScalarUDF>,
    float: Arc<ScalarUDF>,
}

impl TextArithmetic {
    pub(crate) fn new(functions: &dyn FunctionRegistry) -> Result<TextArithmetic> {
        Ok(TextArithmetic {
            long: functions.udf("druid_cast_bigint")?,
            double: functions.udf("druid_cast_double")?,
            float: functions.udf("druid_cast_float")?,
        })
    }

    /// Reads a text as what stands on the other side.
    fn read(&self, expr: Expr, other: &DataType) -> Expr {
        let cast = match other {
            DataType::Float32 => &self.float,
            other if other.is_integer() => &self.long,
            _ => &self.double,
        };
        cast.call(vec![expr])
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

impl ExprPlanner for TextArithmetic {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let op = match expr.op {
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
        if op == Operator::Minus && is_time(&left) && is_time(&right) {
            return plan_err!("Cannot apply '-' to two TIMESTAMPs; use TIMESTAMPDIFF with a unit");
        }
        let (left, right) = if is_text(&left) && right.is_numeric() {
            (self.read(expr.left, &right), expr.right)
        } else if left.is_numeric() && is_text(&right) {
            (expr.left, self.read(expr.right, &left))
        } else {
            return Ok(PlannerResult::Original(expr));
        };
        let planned = BinaryExpr::new(Box::new(left), op, Box::new(right));
        Ok(PlannerResult::Planned(Expr::BinaryExpr(planned)))
    }
}
