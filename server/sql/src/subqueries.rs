//! Forms of comparisons and of GROUP BY that DataFusion does not know, as ones that it does.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, GroupByExpr, Ident, Query, Select, SetExpr, TableFactor, Value,
    visit_expressions_mut,
};
use trilith_proto::error::ApiError;

use crate::ast::{binary, case, nested, not, null, number};
use crate::error::validation;
use crate::statement;

/// Name of a subquery that is put into FROM.
const ROWS: &str = "$rows";

/// Rewrites comparisons with ANY, SOME and ALL of a subquery, and IN of several columns.
pub(crate) fn rewrite(query: &mut Query) -> Result<(), ApiError> {
    let flow = visit_expressions_mut(query, |expr| match rewritten(expr) {
        Ok(Some(other)) => {
            *expr = other;
            ControlFlow::Continue(())
        }
        Ok(None) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// GROUP BY () makes one group of all rows, as aggregates do without GROUP BY.
pub(crate) fn group_by_nothing(select: &mut Select) {
    if let GroupByExpr::Expressions(keys, modifiers) = &mut select.group_by
        && modifiers.is_empty()
    {
        keys.retain(|key| !matches!(key, Expr::Tuple(parts) if parts.is_empty()));
    }
}

fn rewritten(expr: &Expr) -> Result<Option<Expr>, ApiError> {
    Ok(match expr {
        Expr::AnyOp {
            left,
            compare_op,
            right,
            ..
        } => match right.as_ref() {
            Expr::Subquery(query) => Some(any(left, compare_op, query)?),
            _ => None,
        },
        Expr::AllOp {
            left,
            compare_op,
            right,
        } => match right.as_ref() {
            Expr::Subquery(query) => {
                let opposite = opposite(compare_op)?;
                Some(not(any(left, &opposite, query)?))
            }
            _ => None,
        },
        Expr::InSubquery {
            expr,
            subquery,
            negated: false,
        } => match expr.as_ref() {
            Expr::Tuple(parts) => Some(row_in(parts, subquery)?),
            _ => None,
        },
        Expr::InList { expr, list, negated } => match expr.as_ref() {
            Expr::Tuple(parts) => row_in_list(parts, list, *negated),
            _ => None,
        },
        _ => None,
    })
}

fn opposite(op: &BinaryOperator) -> Result<BinaryOperator, ApiError> {
    Ok(match op {
        BinaryOperator::Eq => BinaryOperator::NotEq,
        BinaryOperator::NotEq => BinaryOperator::Eq,
        BinaryOperator::Lt => BinaryOperator::GtEq,
        BinaryOperator::LtEq => BinaryOperator::Gt,
        BinaryOperator::Gt => BinaryOperator::LtEq,
        BinaryOperator::GtEq => BinaryOperator::Lt,
        other => return Err(no_comparison(other)),
    })
}

fn no_comparison(op: &BinaryOperator) -> ApiError {
    validation(format!(
        "Operator [{op}] cannot stand before ANY, SOME or ALL; use =, <>, <, <=, > or >="
    ))
}

/// The comparison holds for a row of the subquery: it is enough to look at the extremes.
fn any(left: &Expr, op: &BinaryOperator, query: &Query) -> Result<Expr, ApiError> {
    let compare = |extreme: &str| -> Result<Expr, ApiError> {
        Ok(binary(
            left.clone(),
            op.clone(),
            over(query, &format!("{extreme}(\"v\")"))?,
        ))
    };
    let found = match op {
        BinaryOperator::Eq => {
            return Ok(Expr::InSubquery {
                expr: Box::new(left.clone()),
                subquery: Box::new(query.clone()),
                negated: false,
            });
        }
        BinaryOperator::NotEq => nested(binary(compare("MIN")?, BinaryOperator::Or, compare("MAX")?)),
        BinaryOperator::Lt | BinaryOperator::LtEq => compare("MAX")?,
        BinaryOperator::Gt | BinaryOperator::GtEq => compare("MIN")?,
        other => return Err(no_comparison(other)),
    };
    // Nothing compares with no rows; what compares with none may do so with a NULL.
    let rows = binary(over(query, "COUNT(*)")?, BinaryOperator::Gt, number(0));
    let nulls = binary(
        over(query, "COUNT(*) - COUNT(\"v\")")?,
        BinaryOperator::Gt,
        number(0),
    );
    let unknown = case(
        vec![CaseWhen {
            condition: nulls,
            result: null(),
        }],
        Some(Box::new(Expr::Value(Value::Boolean(false).into()))),
    );
    let found = nested(binary(found, BinaryOperator::And, rows));
    Ok(nested(binary(found, BinaryOperator::Or, unknown)))
}

/// (SELECT <aggregate> FROM (<query>) AS "$rows" ("v"))
fn over(query: &Query, aggregate: &str) -> Result<Expr, ApiError> {
    let sql = format!("SELECT {aggregate} FROM (SELECT 1) AS \"{ROWS}\" (\"v\")");
    Ok(Expr::Subquery(Box::new(from(query, &sql)?)))
}

/// A statement with the query in place of its subquery.
fn from(query: &Query, sql: &str) -> Result<Query, ApiError> {
    let mut outer = statement::parse(sql)?.query;
    let select = match outer.body.as_mut() {
        SetExpr::Select(select) => select,
        _ => return Err(ApiError::internal(format!("[{sql}] is no SELECT"))),
    };
    for table in &mut select.from {
        if let TableFactor::Derived { subquery, .. } = &mut table.relation {
            **subquery = query.clone();
        }
    }
    Ok(*outer)
}

/// EXISTS (SELECT 1 FROM (<query>) AS "$rows" ("v0", …) WHERE "$rows"."v0" = <part> AND …)
fn row_in(parts: &[Expr], query: &Query) -> Result<Expr, ApiError> {
    let names: Vec<String> = (0..parts.len()).map(|index| format!("v{index}")).collect();
    let columns: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let sql = format!("SELECT 1 FROM (SELECT 1) AS \"{ROWS}\" ({})", columns.join(", "));
    let mut inner = from(query, &sql)?;
    let pairs = names.iter().zip(parts).map(|(name, part)| {
        let column = [ROWS, name].map(|name| Ident::with_quote('"', name));
        binary(
            Expr::CompoundIdentifier(column.into()),
            BinaryOperator::Eq,
            part.clone(),
        )
    });
    if let SetExpr::Select(select) = inner.body.as_mut() {
        select.selection = pairs.reduce(|all, pair| binary(all, BinaryOperator::And, pair));
    }
    Ok(Expr::Exists {
        subquery: Box::new(inner),
        negated: false,
    })
}

/// (a, b) IN ((1, 2), (3, 4)) → (a = 1 AND b = 2) OR …
fn row_in_list(parts: &[Expr], list: &[Expr], negated: bool) -> Option<Expr> {
    let mut found: Option<Expr> = None;
    for item in list {
        let Expr::Tuple(values) = item else { return None };
        if values.len() != parts.len() {
            return None;
        }
        let pairs = parts
            .iter()
            .zip(values)
            .map(|(part, value)| binary(part.clone(), BinaryOperator::Eq, value.clone()));
        let row = nested(pairs.reduce(|all, pair| binary(all, BinaryOperator::And, pair))?);
        found = Some(match found {
            Some(found) => binary(found, BinaryOperator::Or, row),
            None => row,
        });
    }
    let found = nested(found?);
    Some(if negated { not(found) } else { found })
}
