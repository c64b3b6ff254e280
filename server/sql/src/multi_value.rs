//! Multi-value strings in plans: GROUP BY takes each value.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ScalarValue, UnnestOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, GroupingSet, LogicalPlan, LogicalPlanBuilder,
};
use trilith_proto::column::{self, ColumnType};

use crate::any_value;

/// Makes GROUP BY take each value, before filters on keys are moved below it. `unnest` is
/// `groupByEnableMultiValueUnnesting`.
pub(crate) fn group(
    plan: LogicalPlan,
    functions: &dyn FunctionRegistry,
    unnest: bool,
) -> Result<LogicalPlan> {
    let rewriter = Rewriter { functions, unnest };
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => rewriter.aggregate(aggregate),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// Makes comparisons of two columns hold for any value, once the optimiser has seen which of them are joins, and takes
/// apart the keys that it made of COUNT(DISTINCT …).
pub(crate) fn compare(
    plan: LogicalPlan,
    functions: &dyn FunctionRegistry,
    unnest: bool,
) -> Result<LogicalPlan> {
    let rewriter = Rewriter { functions, unnest };
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Filter(filter) => any_value::filter(filter, functions),
        LogicalPlan::Aggregate(aggregate) => rewriter.aggregate(aggregate),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

/// Casts of text that comparisons and sums imply give NULL for what does not convert, as CAST does.
pub(crate) fn lenient_casts(
    plan: LogicalPlan,
    functions: &dyn FunctionRegistry,
    zone: &str,
) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let inputs: Vec<_> = node
            .inputs()
            .into_iter()
            .map(|input| input.schema().as_ref().clone())
            .collect();
        let schema = match inputs.as_slice() {
            [] => node.schema().as_ref().clone(),
            [first, rest @ ..] => {
                // The branches of a union have the same columns.
                let mut all = first.clone();
                rest.iter().for_each(|next| all.merge(next));
                all
            }
        };
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let cast = expr.transform_up(|expr| lenient_cast(expr, &schema, functions, zone))?;
            Ok(cast.update_data(|expr| name.restore(expr)))
        })
    })?;
    plan.data.recompute_schema()
}

fn lenient_cast(
    expr: Expr,
    schema: &DFSchema,
    functions: &dyn FunctionRegistry,
    zone: &str,
) -> Result<Transformed<Expr>> {
    let Expr::Cast(cast) = expr else {
        return Ok(Transformed::no(expr));
    };
    let to = cast.field.data_type();
    let name = match to {
        DataType::Timestamp(..) => "druid_cast_timestamp",
        DataType::Float64 => "druid_cast_double",
        DataType::Float32 => "druid_cast_float",
        DataType::Int64 => "druid_cast_bigint",
        _ => return Ok(Transformed::no(Expr::Cast(cast))),
    };
    if !is_text_expr(&cast.expr, schema) {
        return Ok(Transformed::no(Expr::Cast(cast)));
    }
    if let (DataType::Timestamp(..), Expr::Literal(ScalarValue::Utf8(Some(text)), _)) =
        (to, cast.expr.as_ref())
        && trilith_functions::parse_timestamp(text, zone).is_none()
    {
        return Err(DataFusionError::Plan(trilith_functions::illegal_timestamp(text)));
    }
    let mut args = vec![*cast.expr];
    if name == "druid_cast_timestamp" {
        args.push(Expr::Literal(ScalarValue::Utf8(Some(zone.to_owned())), None));
    }
    Ok(Transformed::yes(functions.udf(name)?.call(args)))
}

struct Rewriter<'a> {
    functions: &'a dyn FunctionRegistry,
    unnest: bool,
}

/// True if the values of an expression may be multi-value strings.
pub(crate) fn may_be_multiple(expr: &Expr, plan: &LogicalPlan) -> bool {
    match expr {
        Expr::Column(column) => column_may_be(column, plan),
        Expr::Alias(alias) => may_be_multiple(&alias.expr, plan),
        Expr::ScalarFunction(call) => match trilith_functions::multi_value_result(call.func.name()) {
            None => false,
            Some(trilith_functions::MultiValue::Always) => true,
            Some(trilith_functions::MultiValue::OfArguments) => {
                call.args.iter().any(|arg| may_be_multiple(arg, plan))
            }
        },
        Expr::Case(case) => {
            let results = case
                .when_then_expr
                .iter()
                .map(|(_, then)| then)
                .chain(&case.else_expr);
            results.into_iter().any(|result| may_be_multiple(result, plan))
        }
        _ => false,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn column_may_be(column: &Column, plan: &LogicalPlan) -> bool {
    let Ok((_, field)) = plan.schema().qualified_field_from_column(column) else {
        return false;
    };
    if !is_text(field.data_type()) || column::of_field(field) != ColumnType::String {
        return false;
    }
    match plan {
        LogicalPlan::Projection(projection) => {
            let index = plan.schema().maybe_index_of_column(column);
            index
                .and_then(|index| projection.expr.get(index))
                .is_none_or(|expr| may_be_multiple(expr, &projection.input))
        }
        // Keys were taken apart already; results of aggregates are arrays or single texts.
        LogicalPlan::Aggregate(_) | LogicalPlan::Values(_) => false,
        LogicalPlan::Unnest(unnest) => {
            let apart = unnest.exec_columns.iter().any(|apart| apart.name == column.name);
            !apart && column_may_be(column, &unnest.input)
        }
        // JSON texts of system tables are no values.
        LogicalPlan::TableScan(scan) => {
            !matches!(scan.table_name.schema(), Some("sys" | "INFORMATION_SCHEMA"))
        }
        LogicalPlan::Filter(filter) => column_may_be(column, &filter.input),
        LogicalPlan::Sort(sort) => column_may_be(column, &sort.input),
        LogicalPlan::Limit(limit) => column_may_be(column, &limit.input),
        LogicalPlan::SubqueryAlias(alias) => {
            let Some(index) = plan.schema().maybe_index_of_column(column) else {
                return true;
            };
            let (relation, field) = alias.input.schema().qualified_field(index);
            column_may_be(&Column::new(relation.cloned(), field.name()), &alias.input)
        }
        LogicalPlan::Join(join) => {
            let inside = |side: &LogicalPlan| side.schema().has_column(column) && column_may_be(column, side);
            inside(&join.left) || inside(&join.right)
        }
        _ => true,
    }
}

impl Rewriter<'_> {
    fn call(&self, name: &str, args: Vec<Expr>) -> Result<Expr> {
        Ok(self.functions.udf(name)?.call(args))
    }

    fn aggregate(&self, aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
        let input = aggregate.input.as_ref();
        let mut changed = false;
        let mut calls = Vec::with_capacity(aggregate.aggr_expr.len());
        for call in &aggregate.aggr_expr {
            let call = self.filtered(call.clone(), input)?;
            changed |= call.transformed;
            calls.push(call.data);
        }
        let mut keys: Vec<(Expr, String)> = Vec::new();
        let mut groups = Vec::with_capacity(aggregate.group_expr.len());
        for group in &aggregate.group_expr {
            groups.push(self.group(group.clone(), input, &mut keys)?);
        }
        if !changed && groups == aggregate.group_expr {
            return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
        }
        let mut builder = LogicalPlanBuilder::from(input.clone());
        if !keys.is_empty() {
            let columns = input.schema().columns().into_iter().map(Expr::Column);
            let lists = keys
                .iter()
                .map(|(expr, name)| Ok(self.call("druid_mv_values", vec![expr.clone()])?.alias(name)))
                .collect::<Result<Vec<_>>>()?;
            builder = builder.project(columns.chain(lists))?;
            // One after another, so that keys make all pairs of their values.
            for (_, name) in &keys {
                let options = UnnestOptions::new().with_preserve_nulls(true);
                builder = builder.unnest_column_with_options(Column::new_unqualified(name), options)?;
            }
        }
        let input = std::sync::Arc::new(builder.build()?);
        let plan = Aggregate::try_new(input, groups, calls)?;
        Ok(Transformed::yes(LogicalPlan::Aggregate(plan)))
    }

    /// The condition of FILTER.
    fn filtered(&self, call: Expr, input: &LogicalPlan) -> Result<Transformed<Expr>> {
        call.transform_down(|expr| match expr {
            Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
                let Some(condition) = params.filter.take() else {
                    return Ok(Transformed::no(Expr::AggregateFunction(AggregateFunction {
                        func,
                        params,
                    })));
                };
                let name = Expr::AggregateFunction(AggregateFunction {
                    func: std::sync::Arc::clone(&func),
                    params: datafusion::logical_expr::expr::AggregateFunctionParams {
                        filter: Some(condition.clone()),
                        ..params.clone()
                    },
                })
                .schema_name()
                .to_string();
                let condition = any_value::predicate(*condition, input, self.functions)?;
                params.filter = Some(Box::new(condition.data));
                let call = Expr::AggregateFunction(AggregateFunction { func, params });
                if condition.transformed {
                    return Ok(Transformed::new(
                        call.alias(name),
                        true,
                        datafusion::common::tree_node::TreeNodeRecursion::Jump,
                    ));
                }
                Ok(Transformed::no(call))
            }
            other => Ok(Transformed::no(other)),
        })
    }

    /// A key of GROUP BY, under its old name.
    fn group(&self, expr: Expr, input: &LogicalPlan, keys: &mut Vec<(Expr, String)>) -> Result<Expr> {
        if let Expr::GroupingSet(set) = expr {
            let mut all = |exprs: Vec<Expr>| {
                exprs
                    .into_iter()
                    .map(|expr| self.group(expr, input, keys))
                    .collect::<Result<Vec<_>>>()
            };
            return Ok(Expr::GroupingSet(match set {
                GroupingSet::Rollup(exprs) => GroupingSet::Rollup(all(exprs)?),
                GroupingSet::Cube(exprs) => GroupingSet::Cube(all(exprs)?),
                GroupingSet::GroupingSets(sets) => {
                    GroupingSet::GroupingSets(sets.into_iter().map(all).collect::<Result<Vec<_>>>()?)
                }
            }));
        }
        if !is_text_expr(&expr, input.schema()) || !may_be_multiple(&expr, input) {
            return Ok(expr);
        }
        let (relation, name) = expr.qualified_name();
        let bare = filtered_values(match expr {
            Expr::Alias(alias) => *alias.expr,
            other => other,
        });
        let key = if self.unnest {
            let known = keys.iter().find(|(known, _)| *known == bare);
            let column = match known {
                Some((_, column)) => column.clone(),
                None => {
                    let taken =
                        |name: &String| input.schema().fields().iter().any(|field| field.name() == name);
                    let column = (keys.len()..)
                        .map(|number| format!("__mv_{number}"))
                        .find(|name| !taken(name) && !keys.iter().any(|(_, known)| known == name))
                        .unwrap_or_default();
                    keys.push((bare, column.clone()));
                    column
                }
            };
            Expr::Column(Column::new_unqualified(column))
        } else {
            self.call("druid_mv_single", vec![bare])?
        };
        Ok(key.alias_qualified(relation, name))
    }
}

/// Druid groups COALESCE(MV_FILTER_ONLY(column, …), 'constant') by the filtered values alone: a row of which nothing is
/// left has no value that the constant could stand in for.
fn filtered_values(key: Expr) -> Expr {
    let Expr::ScalarFunction(call) = &key else {
        return key;
    };
    let filters = |expr: &Expr| {
        matches!(expr, Expr::ScalarFunction(call) if call.func.name().starts_with("mv_filter_")
            && matches!(call.args.as_slice(), [Expr::Column(_), rest @ ..] if rest.iter().all(|arg| arg.column_refs().is_empty())))
    };
    match call.args.as_slice() {
        [first, rest @ ..]
            if call.func.name() == "druid_coalesce"
                && filters(first)
                && rest.iter().all(|arg| matches!(arg, Expr::Literal(..))) =>
        {
            first.clone()
        }
        _ => key,
    }
}

pub(crate) fn is_text_expr(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|data_type| is_text(&data_type))
}

/// MIN and MAX of text are refused, as Druid does.
pub(crate) fn refuse_text_extremes(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            for call in &aggregate.aggr_expr {
                check_extremes(call, aggregate.input.schema())?;
            }
        }
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// An array of texts and numbers has no type.
pub(crate) fn refuse_mixed_arrays(plan: &LogicalPlan) -> Result<()> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    plan.apply_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        node.inputs().iter().for_each(|input| schema.merge(input.schema()));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.name() == "make_array"
                {
                    let types: Vec<DataType> =
                        call.args.iter().filter_map(|arg| arg.get_type(&schema).ok()).collect();
                    if types.iter().any(is_text) && types.iter().any(DataType::is_numeric) {
                        return Err(DataFusionError::Plan(
                            "The items of an ARRAY must be of the same type, not VARCHAR and numbers: use CAST".to_owned(),
                        ));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(())
}

fn check_extremes(call: &Expr, schema: &DFSchema) -> Result<()> {
    let call = match call {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::AggregateFunction(AggregateFunction { func, params }) = call else {
        return Ok(());
    };
    let extreme = matches!(func.name(), "min" | "max");
    match params.args.first() {
        Some(arg) if extreme && is_text_expr(arg, schema) => Err(DataFusionError::Plan(format!(
            "Aggregation [{}] does not support type [STRING], column [{}]",
            func.name().to_uppercase(),
            arg.schema_name()
        ))),
        _ => Ok(()),
    }
}
