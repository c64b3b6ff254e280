//! Comparisons of multi-value strings: they hold if they hold for any value.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::{Between, Case, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, Like, LogicalPlan, Operator, not};

use crate::multi_value::{is_text_expr, may_be_multiple};
use arrow::datatypes::DataType;

/// Comparisons with constants, wherever they stand, before the optimiser reasons about single values.
pub(crate) fn with_constants(plan: LogicalPlan, functions: &dyn FunctionRegistry) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        if node.expressions().is_empty() {
            return Ok(Transformed::no(node));
        }
        let input = match node.inputs().as_slice() {
            [one] => (*one).clone(),
            _ => node.clone(),
        };
        let rewriter = Rewriter {
            functions,
            input: &input,
            constants_only: true,
        };
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(rewriter.expr(expr)?.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(plan.data)
}

/// The condition of a filter, with comparisons of two columns.
pub(crate) fn filter(filter: Filter, functions: &dyn FunctionRegistry) -> Result<Transformed<LogicalPlan>> {
    let condition = predicate(filter.predicate.clone(), &filter.input, functions)?;
    if !condition.transformed {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    }
    let filter = Filter::try_new(condition.data, filter.input)?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

/// A condition over the rows of `input`.
pub(crate) fn predicate(
    condition: Expr,
    input: &LogicalPlan,
    functions: &dyn FunctionRegistry,
) -> Result<Transformed<Expr>> {
    let rewriter = Rewriter {
        functions,
        input,
        constants_only: false,
    };
    rewriter.expr(condition)
}

struct Rewriter<'a> {
    functions: &'a dyn FunctionRegistry,
    input: &'a LogicalPlan,
    /// Leaves alone what compares two columns: it may be the condition of a join.
    constants_only: bool,
}

impl Rewriter<'_> {
    fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        Ok(self.functions.udf(name)?.call(args))
    }

    fn is_text(&self, expr: &Expr) -> bool {
        is_text_expr(expr, self.input.schema())
    }

    fn is_multiple(&self, expr: &Expr) -> bool {
        self.is_text(expr) && may_be_multiple(expr, self.input)
    }

    /// True if `expr` may stand beside a multi-value string here.
    fn fits(&self, expr: &Expr) -> bool {
        let constant = || {
            let outer = expr.exists(|expr| {
                Ok(matches!(
                    expr,
                    Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_)
                ))
            });
            expr.column_refs().is_empty() && !outer.unwrap_or(true)
        };
        !self.constants_only || constant()
    }

    fn expr(&self, expr: Expr) -> Result<Transformed<Expr>> {
        expr.transform_up(|expr| match expr {
            Expr::BinaryExpr(binary) => self.comparison(binary),
            Expr::InList(list)
                if self.is_multiple(&list.expr) && list.list.iter().all(|item| self.fits(item)) =>
            {
                self.in_list(list)
            }
            Expr::Between(between)
                if self.is_multiple(&between.expr) && self.fits(&between.low) && self.fits(&between.high) =>
            {
                let Between {
                    expr,
                    negated,
                    low,
                    high,
                } = between;
                let found = self.call("druid_mv_between", vec![*expr, *low, *high])?;
                Ok(Transformed::yes(if negated { not(found) } else { found }))
            }
            Expr::Like(like)
                if !like.case_insensitive && self.is_multiple(&like.expr) && self.fits(&like.pattern) =>
            {
                let Like {
                    negated,
                    expr,
                    pattern,
                    ..
                } = like;
                let found = self.call("druid_mv_like", vec![*expr, *pattern])?;
                Ok(Transformed::yes(if negated { not(found) } else { found }))
            }
            Expr::Case(case) => match self.coalesced(&case) {
                Some(values) => Ok(Transformed::yes(self.call("druid_coalesce", values)?)),
                None => self.case(case),
            },
            other => Ok(Transformed::no(other)),
        })
    }

    fn comparison(&self, binary: BinaryExpr) -> Result<Transformed<Expr>> {
        let (left, right) = (&binary.left, &binary.right);
        let texts = self.is_text(left) && self.is_text(right);
        let multiple = texts
            && (self.is_multiple(left) && self.fits(right) || self.is_multiple(right) && self.fits(left));
        if !multiple {
            return Ok(Transformed::no(Expr::BinaryExpr(binary)));
        }
        let (name, negated) = match binary.op {
            Operator::Eq => ("druid_mv_equal", false),
            Operator::NotEq => ("druid_mv_equal", true),
            Operator::Lt => ("druid_mv_less", false),
            Operator::LtEq => ("druid_mv_less_equal", false),
            Operator::Gt => ("druid_mv_greater", false),
            Operator::GtEq => ("druid_mv_greater_equal", false),
            _ => return Ok(Transformed::no(Expr::BinaryExpr(binary))),
        };
        let found = self.call(name, vec![*binary.left, *binary.right])?;
        Ok(Transformed::yes(if negated { not(found) } else { found }))
    }

    /// The arguments of a CASE that was COALESCE, if it is of texts and one of them may be multi-value: it works value
    /// by value, as every function of scalars does.
    fn coalesced(&self, case: &Case) -> Option<Vec<Expr>> {
        let last = case.else_expr.as_deref()?;
        if case.expr.is_some() {
            return None;
        }
        let mut values = Vec::with_capacity(case.when_then_expr.len() + 1);
        for (when, then) in &case.when_then_expr {
            match when.as_ref() {
                Expr::IsNotNull(value) if value == then => values.push(then.as_ref().clone()),
                _ => return None,
            }
        }
        values.push(last.clone());
        let texts = values.iter().all(|value| self.is_text(value));
        (texts && values.iter().any(|value| self.is_multiple(value))).then_some(values)
    }

    /// CASE x WHEN 'a' … compares as well.
    fn case(&self, mut case: Case) -> Result<Transformed<Expr>> {
        let whens = |case: &Case| case.when_then_expr.iter().all(|(when, _)| self.fits(when));
        match &case.expr {
            Some(base) if self.is_multiple(base) && whens(&case) => {
                let base = base.as_ref().clone();
                case.expr = None;
                for (when, _) in &mut case.when_then_expr {
                    let value = std::mem::take(when.as_mut());
                    **when = self.call("druid_mv_equal", vec![base.clone(), value])?;
                }
                Ok(Transformed::yes(Expr::Case(case)))
            }
            _ => Ok(Transformed::no(Expr::Case(case))),
        }
    }

    fn in_list(&self, list: InList) -> Result<Transformed<Expr>> {
        let InList { expr, list, negated } = list;
        let literals: Option<Vec<ScalarValue>> = list
            .iter()
            .map(|item| match item {
                Expr::Literal(value @ ScalarValue::Utf8(_), _) => Some(value.clone()),
                Expr::Literal(ScalarValue::Null, _) => Some(ScalarValue::Utf8(None)),
                _ => None,
            })
            .collect();
        let found = match literals {
            Some(literals) => {
                let array = ScalarValue::new_list_nullable(&literals, &DataType::Utf8);
                let array = Expr::Literal(ScalarValue::List(array), None);
                self.call("druid_mv_in", vec![*expr, array])?
            }
            None => {
                let mut any: Option<Expr> = None;
                for item in list {
                    let equal = self.call("druid_mv_equal", vec![expr.as_ref().clone(), item])?;
                    any = Some(match any {
                        Some(any) => any.or(equal),
                        None => equal,
                    });
                }
                any.unwrap_or_else(|| Expr::Literal(ScalarValue::Boolean(Some(false)), None))
            }
        };
        Ok(Transformed::yes(if negated { not(found) } else { found }))
    }
}
