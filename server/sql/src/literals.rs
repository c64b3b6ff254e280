//! Literals that are compared with columns of another type.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Case, Expr, ExprSchemable, Join, LogicalPlan, LogicalPlanBuilder, Operator, ScalarUDF, Union,
    lit,
};
use trilith_proto::column::{self, ColumnType};

/// A decimal beside a FLOAT is a FLOAT, or 0.1 would equal none; a number in a list of texts is a text; a text beside a
/// time is a time of the zone; what is compared with a BOOLEAN is one, and with a pattern a text; a CASE of COMPLEX
/// values or dates is one.
pub(crate) fn conform(
    plan: LogicalPlan,
    functions: &dyn FunctionRegistry,
    zone: &str,
) -> Result<LogicalPlan> {
    let times = Times {
        cast: functions.udf("druid_cast_timestamp")?,
        boolean: functions.udf("druid_cast_boolean")?,
        text: functions.udf("druid_cast_varchar")?,
        complex: functions.udf("druid_complex")?,
        date: functions.udf("druid_date")?,
        zone,
    };
    let plan = plan.transform_up_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::Union(union) => times.union(union)?,
            LogicalPlan::Join(join) => times.join(join)?,
            node => node,
        };
        if node.expressions().is_empty() {
            return Ok(Transformed::yes(node));
        }
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_up(|expr| times.compared(expr, &schema))?;
            Ok(changed.update_data(|expr| name.restore(expr)))
        })
    })?;
    plan.data.recompute_schema()
}

/// Makes times of texts.
struct Times<'a> {
    cast: Arc<ScalarUDF>,
    boolean: Arc<ScalarUDF>,
    text: Arc<ScalarUDF>,
    complex: Arc<ScalarUDF>,
    date: Arc<ScalarUDF>,
    zone: &'a str,
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

impl Times<'_> {
    fn time(&self, expr: Expr) -> Result<Expr> {
        if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &expr
            && trilith_functions::parse_timestamp(text, self.zone).is_none()
        {
            return plan_err!("{}", trilith_functions::illegal_timestamp(text));
        }
        Ok(self.cast.call(vec![expr, lit(self.zone)]))
    }

    /// What is a text becomes a time.
    fn if_text(&self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        match expr.get_type(schema) {
            Ok(DataType::Utf8) => self.time(expr),
            _ => Ok(expr),
        }
    }

    /// What is no BOOLEAN becomes one.
    fn truth(&self, expr: Expr, schema: &DFSchema) -> Expr {
        match expr.get_type(schema) {
            Ok(DataType::Boolean | DataType::Null) | Err(_) => expr,
            Ok(_) => self.boolean.call(vec![expr]),
        }
    }

    /// A column that is a time in one input and a text in another is a text.
    fn union(&self, union: Union) -> Result<LogicalPlan> {
        let types = |index: usize| {
            union
                .inputs
                .iter()
                .map(move |input| input.schema().field(index).data_type())
        };
        let columns = union
            .inputs
            .first()
            .map_or(0, |input| input.schema().fields().len());
        let alike = union
            .inputs
            .iter()
            .all(|input| input.schema().fields().len() == columns);
        let mixed: Vec<usize> = (0..if alike { columns } else { 0 })
            .filter(|index| types(*index).any(is_time) && types(*index).any(|found| *found == DataType::Utf8))
            .collect();
        if mixed.is_empty() {
            return Ok(LogicalPlan::Union(union));
        }
        let inputs = union.inputs.iter().map(|input| {
            let columns = input.schema().columns().into_iter().enumerate();
            let columns = columns.map(|(index, column)| {
                let name = column.name.clone();
                let column = Expr::Column(column);
                match mixed.contains(&index) && is_time(input.schema().field(index).data_type()) {
                    true => self.text.call(vec![column, lit(self.zone)]).alias(name),
                    false => column,
                }
            });
            let columns: Vec<Expr> = columns.collect();
            let builder = LogicalPlanBuilder::from(input.as_ref().clone());
            Ok(Arc::new(builder.project(columns)?.build()?))
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        Ok(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?))
    }

    fn join(&self, mut join: Join) -> Result<LogicalPlan> {
        for (left, right) in &mut join.on {
            let (left_type, right_type) = (
                left.get_type(join.left.schema())?,
                right.get_type(join.right.schema())?,
            );
            if is_time(&left_type) && right_type == DataType::Utf8 {
                *right = self.time(right.clone())?;
            } else if is_time(&right_type) && left_type == DataType::Utf8 {
                *left = self.time(left.clone())?;
            }
        }
        let conditions = join.on.iter().flat_map(|(left, right)| [left, right]);
        for condition in conditions.chain(&join.filter) {
            let compared: &[&Expr] = match condition {
                Expr::BinaryExpr(BinaryExpr { left, right, .. }) => &[left.as_ref(), right.as_ref()],
                other => &[other],
            };
            for side in compared {
                let column_type = side
                    .to_field(&join.schema)
                    .map(|(_, field)| column::of_field(&field));
                if let Ok(column_type @ ColumnType::Complex(_)) = column_type {
                    return plan_err!(
                        "Cannot join when the join condition has column of type [{column_type}]"
                    );
                }
            }
        }
        Ok(LogicalPlan::Join(join))
    }

    fn compared(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
        let is_float = |expr: &Expr| of(expr) == DataType::Float32;
        let is_text = |expr: &Expr| of(expr) == DataType::Utf8;
        let times = |expr: &Expr| is_time(&of(expr));
        let is_boolean = |expr: &Expr| of(expr) == DataType::Boolean;
        Ok(Transformed::yes(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
                let (left, right) = (*left, *right);
                let (left, right) = if is_float(&left) {
                    (left, float(right))
                } else if is_float(&right) {
                    (float(left), right)
                } else if times(&left) {
                    (left, self.if_text(right, schema)?)
                } else if times(&right) {
                    (self.if_text(left, schema)?, right)
                } else if is_boolean(&left) || is_boolean(&right) {
                    (self.truth(left, schema), self.truth(right, schema))
                } else {
                    (left, right)
                };
                Expr::BinaryExpr(BinaryExpr {
                    left: Box::new(left),
                    op,
                    right: Box::new(right),
                })
            }
            Expr::Between(Between {
                expr,
                negated,
                low,
                high,
            }) => {
                let (expr, low, high) = (*expr, *low, *high);
                let (expr, low, high) = if is_float(&expr) {
                    (expr, float(low), float(high))
                } else if times(&expr) {
                    (expr, self.if_text(low, schema)?, self.if_text(high, schema)?)
                } else if is_text(&expr) && (times(&low) || times(&high)) {
                    (
                        self.time(expr)?,
                        self.if_text(low, schema)?,
                        self.if_text(high, schema)?,
                    )
                } else {
                    (expr, low, high)
                };
                Expr::Between(Between {
                    expr: Box::new(expr),
                    negated,
                    low: Box::new(low),
                    high: Box::new(high),
                })
            }
            Expr::InList(InList { expr, list, negated }) => {
                // What depends on the row is compared one by one: a list would be taken for a constant.
                if list.iter().any(|item| !item.column_refs().is_empty()) {
                    let chain = list
                        .into_iter()
                        .map(|item| {
                            let equal =
                                Expr::BinaryExpr(BinaryExpr::new(expr.clone(), Operator::Eq, Box::new(item)));
                            self.compared(equal, schema).map(|equal| equal.data)
                        })
                        .collect::<Result<Vec<_>>>()?
                        .into_iter()
                        .reduce(Expr::or);
                    return Ok(Transformed::yes(match chain {
                        Some(any) if negated => Expr::Not(Box::new(any)),
                        Some(any) => any,
                        None => lit(negated),
                    }));
                }
                let list = if is_float(&expr) {
                    list.into_iter().map(float).collect()
                } else if is_text(&expr) && list.iter().any(is_text) {
                    list.into_iter().map(text).collect()
                } else if times(&expr) {
                    list.into_iter()
                        .map(|item| self.if_text(item, schema))
                        .collect::<Result<_>>()?
                } else {
                    list
                };
                let booleans = list
                    .iter()
                    .chain([expr.as_ref()])
                    .filter(|item| is_boolean(item))
                    .count();
                if booleans == 0 || booleans > list.len() {
                    return Ok(Transformed::yes(Expr::InList(InList { expr, list, negated })));
                }
                let list = list.into_iter().map(|item| self.truth(item, schema)).collect();
                let expr = Box::new(self.truth(*expr, schema));
                Expr::InList(InList { expr, list, negated })
            }
            Expr::Like(mut like) if of(&like.expr).is_numeric() || times(&like.expr) => {
                like.expr = Box::new(self.text.call(vec![*like.expr, lit(self.zone)]));
                Expr::Like(like)
            }
            Expr::InSubquery(mut inside) if times(&inside.expr) => {
                let rows = &inside.subquery.subquery;
                if let [field] = rows.schema().fields().as_ref()
                    && *field.data_type() == DataType::Utf8
                {
                    let column = rows.schema().columns().remove(0);
                    let time = self.time(Expr::Column(column))?.alias(field.name());
                    let builder = LogicalPlanBuilder::from(rows.as_ref().clone());
                    inside.subquery.subquery = Arc::new(builder.project([time])?.build()?);
                }
                Expr::InSubquery(inside)
            }
            Expr::Negative(inner) if times(&inner) || is_boolean(&inner) => {
                let name = column::sql_type(&inner.to_field(schema)?.1);
                return plan_err!("Cannot apply '-' to arguments of type '-<{name}>'");
            }
            Expr::Case(mut case) => {
                if case.expr.is_none() {
                    for (when, _) in &case.when_then_expr {
                        if !matches!(of(when), DataType::Boolean | DataType::Null) {
                            let name = column::sql_type(&when.to_field(schema)?.1);
                            return plan_err!(
                                "Expected a boolean type behind WHEN, not [{when}] of type {name}; compare it with a value"
                            );
                        }
                    }
                }
                let results = || {
                    case.when_then_expr
                        .iter()
                        .map(|(_, then)| then)
                        .chain(&case.else_expr)
                };
                if results().any(|result| times(result)) && results().any(|result| is_text(result)) {
                    let mut conditions = Vec::with_capacity(case.when_then_expr.len());
                    for (when, then) in case.when_then_expr {
                        conditions.push((when, Box::new(self.if_text(*then, schema)?)));
                    }
                    case.when_then_expr = conditions;
                    case.else_expr = match case.else_expr {
                        Some(other) => Some(Box::new(self.if_text(*other, schema)?)),
                        None => None,
                    };
                }
                let kind = chosen(&case, schema);
                let case = Expr::Case(case);
                match kind {
                    Some(Chosen::Complex(kind)) => self.complex.call(vec![lit(kind), case]),
                    Some(Chosen::Date) => self.date.call(vec![case]),
                    None => case,
                }
            }
            other => return Ok(Transformed::no(other)),
        }))
    }
}

/// What a CASE chooses from, where its own type does not say it.
#[derive(PartialEq)]
enum Chosen {
    Complex(String),
    Date,
}

fn chosen(case: &Case, schema: &DFSchema) -> Option<Chosen> {
    let results = case.when_then_expr.iter().map(|(_, then)| then);
    let mut kinds = results.chain(&case.else_expr).filter_map(|result| {
        let (_, field) = result.to_field(schema).ok()?;
        match column::of_field(&field) {
            ColumnType::Complex(kind) => Some(Some(Chosen::Complex(kind))),
            _ if *field.data_type() == DataType::Null => None,
            _ => Some(column::is_date(&field).then_some(Chosen::Date)),
        }
    });
    let first = kinds.next()??;
    kinds.all(|kind| kind.as_ref() == Some(&first)).then_some(first)
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
