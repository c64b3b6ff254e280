//! Subqueries where DataFusion plans none: IN and EXISTS outside of conditions, and any subquery in an aggregate.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, plan_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, LogicalPlanBuilder, Subquery, lit, not, when};

/// Computes such subqueries beside the rows: IN and EXISTS by joins, others in a projection below the aggregate.
pub(crate) fn beside(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut next = 0;
    let plan = plan.transform_up_with_subqueries(|node| {
        let aggregates = matches!(node, LogicalPlan::Aggregate(_));
        let computes = aggregates || matches!(node, LogicalPlan::Projection(_) | LogicalPlan::Window(_));
        if !computes || !node.expressions().iter().any(|expr| is_met(expr, aggregates)) {
            return Ok(Transformed::no(node));
        }
        let [input] = node.inputs()[..] else {
            return Ok(Transformed::no(node));
        };
        let mut beside = Beside {
            input: input.clone(),
            next,
        };
        let names = NamePreserver::new(&node);
        let mut expressions = Vec::new();
        for expr in node.expressions() {
            let name = names.save(&expr);
            let expr = expr.transform_up(|expr| match expr {
                Expr::InSubquery(inside) if alone(&inside.subquery) => {
                    let found = beside.contains(*inside.expr, &inside.subquery)?;
                    Ok(Transformed::yes(negated(found, inside.negated)))
                }
                Expr::Exists(exists) if alone(&exists.subquery) => {
                    let found = beside.exists(&exists.subquery)?;
                    Ok(Transformed::yes(negated(found, exists.negated)))
                }
                Expr::InSubquery(_) | Expr::Exists(_) => plan_err!(
                    "IN and EXISTS with a subquery that refers to columns outside of it are supported in WHERE only; join the tables, or move it there"
                ),
                Expr::ScalarSubquery(subquery) if aggregates => {
                    Ok(Transformed::yes(beside.value(subquery)?))
                }
                other => Ok(Transformed::no(other)),
            })?;
            expressions.push(name.restore(expr.data));
        }
        next = beside.next;
        Ok(Transformed::yes(node.with_new_exprs(expressions, vec![beside.input])?))
    })?;
    plan.data.recompute_schema()
}

fn is_met(expr: &Expr, aggregates: bool) -> bool {
    expr.exists(|expr| {
        Ok(match expr {
            Expr::InSubquery(_) | Expr::Exists(_) => true,
            Expr::ScalarSubquery(_) => aggregates,
            _ => false,
        })
    })
    .unwrap_or(false)
}

/// True if a subquery, and none inside it, refers to columns outside.
fn alone(subquery: &Subquery) -> bool {
    if !subquery.outer_ref_columns.is_empty() {
        return false;
    }
    let mut alone = true;
    let walked = subquery.subquery.apply_with_subqueries(|node| {
        alone &= !node.contains_outer_reference();
        Ok(TreeNodeRecursion::Continue)
    });
    alone && walked.is_ok()
}

fn negated(expr: Expr, negated: bool) -> Expr {
    if negated { not(expr) } else { expr }
}

/// The rows of a node, with columns that subqueries add.
struct Beside {
    input: LogicalPlan,
    next: usize,
}

impl Beside {
    fn name(&mut self, what: &str) -> String {
        self.next += 1;
        format!("${what}{}", self.next)
    }

    /// Adds one row to every row.
    fn cross(&mut self, row: LogicalPlan) -> Result<()> {
        self.input = LogicalPlanBuilder::from(self.input.clone())
            .cross_join(row)?
            .build()?;
        Ok(())
    }

    /// Three values: NULL when it is not among the rows but may be one of their NULLs.
    fn contains(&mut self, value: Expr, subquery: &Subquery) -> Result<Expr> {
        let rows = subquery.subquery.as_ref();
        let [of_rows] = &rows.schema().columns()[..] else {
            return plan_err!("IN takes a subquery of one column");
        };
        let of_rows = Expr::Column(of_rows.clone());
        let (all, known) = (self.name("rows"), self.name("known"));
        let counts = LogicalPlanBuilder::from(rows.clone()).aggregate(
            Vec::<Expr>::new(),
            vec![
                count(lit(1_i64)).alias(&all),
                count(of_rows.clone()).alias(&known),
            ],
        )?;
        self.cross(counts.build()?)?;
        let (item, found) = (self.name("item"), self.name("found"));
        let items = LogicalPlanBuilder::from(rows.clone())
            .project(vec![of_rows.alias(&item)])?
            .distinct()?
            .project(vec![column(&item), lit(true).alias(&found)])?
            .build()?;
        self.input = LogicalPlanBuilder::from(self.input.clone())
            .join_on(items, JoinType::Left, [value.clone().eq(column(&item))])?
            .build()?;
        when(column(&all).eq(lit(0_i64)), lit(false))
            .when(column(&found).is_true(), lit(true))
            .when(
                value.is_null().or(column(&known).lt(column(&all))),
                lit(datafusion::common::ScalarValue::Boolean(None)),
            )
            .otherwise(lit(false))
    }

    fn exists(&mut self, subquery: &Subquery) -> Result<Expr> {
        let all = self.name("rows");
        let rows = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone()).limit(0, Some(1))?;
        let counts = rows.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64)).alias(&all)])?;
        self.cross(counts.build()?)?;
        Ok(column(&all).gt(lit(0_i64)))
    }

    fn value(&mut self, subquery: Subquery) -> Result<Expr> {
        let name = self.name("value");
        let columns = self.input.schema().columns().into_iter().map(Expr::Column);
        let value = Expr::ScalarSubquery(subquery).alias(&name);
        let columns: Vec<Expr> = columns.chain([value]).collect();
        self.input = LogicalPlanBuilder::from(self.input.clone())
            .project(columns)?
            .build()?;
        Ok(column(&name))
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}
