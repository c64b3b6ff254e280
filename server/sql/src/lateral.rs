//! UNNEST of columns that stand to its left, as a plan without outer references.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, TableReference, plan_err};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Expr, Join, JoinType, LogicalPlan, LogicalPlanBuilder, Projection, SubqueryAlias, Unnest,
};
use trilith_proto::column::{self, ColumnType};

/// Makes every `t CROSS JOIN UNNEST(t.a) AS u(x)` take its rows apart instead of joining them.
pub(crate) fn unnest(plan: LogicalPlan, functions: &dyn FunctionRegistry) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if is_lateral(&join.right) => {
            if join.join_type != JoinType::Inner || !join.on.is_empty() {
                return plan_err!("UNNEST takes CROSS JOIN or a comma before it");
            }
            let Join {
                left, right, filter, ..
            } = join;
            let beside = left.schema().columns();
            let side = Side {
                left: &left,
                beside: &beside,
                functions,
            };
            let mut builder = LogicalPlanBuilder::from(side.pull(&right)?);
            if let Some(filter) = filter {
                builder = builder.filter(filter)?;
            }
            Ok(Transformed::yes(builder.build()?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let plan = plan.data.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Unnest(unnest) if !json_columns(&unnest).is_empty() => {
            Ok(Transformed::yes(json_items(unnest, functions)?))
        }
        other => Ok(Transformed::no(other)),
    })?;
    plan.data.recompute_schema()
}

/// Columns of items of arrays of JSON.
fn json_columns(unnest: &Unnest) -> Vec<&Column> {
    let fields = unnest.input.schema().fields();
    let array = ColumnType::Array(Box::new(ColumnType::Complex("json".to_owned())));
    unnest
        .list_type_columns
        .iter()
        .filter(|(index, _)| {
            fields
                .get(*index)
                .is_some_and(|field| column::of_field(field) == array)
        })
        .map(|(_, list)| &list.output_column)
        .collect()
}

/// Says of items of arrays of JSON that they are JSON.
fn json_items(unnest: Unnest, functions: &dyn FunctionRegistry) -> Result<LogicalPlan> {
    let item = functions.udf("druid_json_item")?;
    let json = json_columns(&unnest);
    let columns = unnest.schema.columns().into_iter().map(|column| {
        if !json.contains(&&column) {
            return Expr::Column(column);
        }
        let (relation, name) = (column.relation.clone(), column.name.clone());
        item.call(vec![Expr::Column(column)])
            .alias_qualified(relation, name)
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(LogicalPlan::Unnest(unnest))
        .project(columns)?
        .build()
}

/// True for a subquery that refers to what stands beside it and that only takes rows apart.
fn is_lateral(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => is_lateral(&alias.input),
        LogicalPlan::Projection(projection) => is_lateral(&projection.input),
        LogicalPlan::Subquery(subquery) => takes_apart(&subquery.subquery),
        _ => false,
    }
}

fn takes_apart(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => takes_apart(&alias.input),
        LogicalPlan::Projection(projection) => takes_apart(&projection.input),
        LogicalPlan::Unnest(unnest) => takes_apart(&unnest.input),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

/// What stands to the left of an UNNEST.
struct Side<'a> {
    left: &'a Arc<LogicalPlan>,
    beside: &'a [Column],
    functions: &'a dyn FunctionRegistry,
}

impl Side<'_> {
    /// The same plan over the rows of the left side, whose columns come first.
    fn pull(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            LogicalPlan::Subquery(subquery) => self.pull(&subquery.subquery),
            LogicalPlan::SubqueryAlias(SubqueryAlias { input, alias, .. }) => self.alias(input, alias),
            LogicalPlan::Projection(Projection { input, expr, .. }) => {
                let names = NamePreserver::new(plan);
                let own = expr.iter().map(|expr| {
                    let name = names.save(expr);
                    let inner = self.inner(expr.clone())?;
                    Ok(name.restore(inner))
                });
                let own = own.collect::<Result<Vec<_>>>()?;
                let columns = self.beside.iter().cloned().map(Expr::Column);
                LogicalPlanBuilder::from(self.pull(input)?)
                    .project(columns.chain(own))?
                    .build()
            }
            LogicalPlan::Unnest(unnest) => LogicalPlanBuilder::from(self.pull(&unnest.input)?)
                .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?
                .build(),
            LogicalPlan::EmptyRelation(_) => Ok(self.left.as_ref().clone()),
            _ => plan_err!("UNNEST cannot be combined with a subquery here"),
        }
    }

    fn alias(&self, input: &Arc<LogicalPlan>, alias: &TableReference) -> Result<LogicalPlan> {
        let own = input.schema().columns().into_iter().map(|column| {
            let name = column.name.clone();
            Expr::Column(column).alias_qualified(Some(alias.clone()), name)
        });
        let columns = self.beside.iter().cloned().map(Expr::Column);
        LogicalPlanBuilder::from(self.pull(input)?)
            .project(columns.chain(own))?
            .build()
    }

    /// Outer references become columns. A multi-value string is taken apart as GROUP BY does: NULL is a value.
    fn inner(&self, expr: Expr) -> Result<Expr> {
        let expr = expr.transform_up(|expr| match expr {
            Expr::OuterReferenceColumn(_, column) => Ok(Transformed::yes(Expr::Column(column))),
            Expr::ScalarFunction(call) if call.func.name() == "mv_to_array" => {
                let values = self.functions.udf("druid_mv_values")?;
                Ok(Transformed::yes(values.call(call.args)))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(expr.data)
    }
}

/// Makes a scalar subquery that may have several rows fail when it does.
pub(crate) fn single_rows(plan: LogicalPlan, functions: &dyn FunctionRegistry) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let checked = expr.transform_up(|expr| match expr {
                Expr::ScalarSubquery(mut subquery)
                    if subquery.outer_ref_columns.is_empty() && subquery.subquery.max_rows() != Some(1) =>
                {
                    let inner = Arc::clone(&subquery.subquery);
                    let Some(column) = inner.schema().columns().into_iter().next() else {
                        return Ok(Transformed::no(Expr::ScalarSubquery(subquery)));
                    };
                    let (relation, field) = (column.relation.clone(), column.name.clone());
                    let single = functions.udaf("single_value")?;
                    let call = single.call(vec![Expr::Column(column)]);
                    let call = call.alias_qualified(relation, field);
                    let single = Aggregate::try_new(inner, Vec::new(), vec![call])?;
                    subquery.subquery = Arc::new(LogicalPlan::Aggregate(single));
                    Ok(Transformed::yes(Expr::ScalarSubquery(subquery)))
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(checked.update_data(|expr| name.restore(expr)))
        })
    })?;
    plan.data.recompute_schema()
}
