//! Forms of expressions that mean something else here than in Druid, one by one.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Value,
    ValueWithSpan, visit_expressions,
};
use trilith_proto::error::ApiError;

use crate::ast::{case, take};
use crate::error::validation;
use crate::syntax::{DISTINCT, NOT_DISTINCT, SYMMETRIC};

/// True for the number 0, however it is written.
pub(crate) fn is_zero(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. })
        if number.bytes().all(|digit| matches!(digit, b'0' | b'.')))
}

/// `__time` of the table that the arguments name.
pub(crate) fn time_beside(args: &[FunctionArg]) -> Expr {
    let time = Ident::with_quote('"', "__time");
    let mut qualifier = None;
    for arg in args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else {
            continue;
        };
        let _all: ControlFlow<()> = visit_expressions(expr, |expr| {
            if let Expr::CompoundIdentifier(parts) = expr
                && let Some((_, table)) = parts.split_last()
            {
                qualifier.get_or_insert_with(|| table.to_vec());
            }
            ControlFlow::Continue(())
        });
    }
    match qualifier {
        Some(mut parts) => {
            parts.push(time);
            Expr::CompoundIdentifier(parts)
        }
        None => Expr::Identifier(time),
    }
}

/// LIKE escapes with a backslash here, and with nothing in Druid unless ESCAPE says so.
pub(crate) fn like(pattern: &mut Expr, escape_char: &mut Option<ValueWithSpan>) -> Result<(), ApiError> {
    let escape = match escape_char.take().map(|escape| escape.value) {
        None => None,
        Some(Value::SingleQuotedString(escape)) if escape.chars().count() == 1 => escape.chars().next(),
        Some(other) => {
            return Err(validation(format!("ESCAPE needs one character, not [{other}]")));
        }
    };
    let Expr::Value(ValueWithSpan {
        value: Value::SingleQuotedString(written),
        ..
    }) = pattern
    else {
        return match escape {
            Some(_) => Err(validation("LIKE with ESCAPE needs a literal pattern")),
            None => Ok(()),
        };
    };
    let mut out = String::with_capacity(written.len());
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => {
                if let Some(escaped) = chars.next() {
                    if matches!(escaped, '%' | '_' | '\\') {
                        out.push('\\');
                    }
                    out.push(escaped);
                }
            }
            '\\' => out.push_str("\\\\"),
            other => out.push(other),
        }
    }
    *written = out;
    Ok(())
}

/// The first value that is not NULL, by CASE, which finds the type of all results.
pub(crate) fn first_value(args: &mut Vec<FunctionArg>) -> Option<Expr> {
    let plain = |arg: &FunctionArg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(_)));
    if args.len() < 2 || !args.iter().all(plain) {
        return None;
    }
    let mut values = args.drain(..).filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    let last = values.next_back().map(Box::new);
    let conditions = values.map(|value| CaseWhen {
        condition: Expr::IsNotNull(Box::new(value.clone())),
        result: value,
    });
    Some(case(conditions.collect(), last))
}

/// What [`syntax::distinct_from`] marked.
pub(crate) fn distinct(left: &mut Expr, right: &mut Expr) -> Option<Expr> {
    let Expr::Function(function) = right else {
        return None;
    };
    let name = function.name.to_string();
    let FunctionArguments::List(list) = &mut function.args else {
        return None;
    };
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(other))) = list.args.first_mut() else {
        return None;
    };
    let (left, right) = (Box::new(take(left)), Box::new(take(other)));
    match name.as_str() {
        DISTINCT => Some(Expr::IsDistinctFrom(left, right)),
        NOT_DISTINCT => Some(Expr::IsNotDistinctFrom(left, right)),
        _ => None,
    }
}

/// Between the smaller and the larger of two bounds, if the query says so.
pub(crate) fn symmetric(inner: &Expr, negated: bool, low: &mut Expr, high: &Expr) -> Option<Expr> {
    let Expr::Function(function) = low else {
        return None;
    };
    let FunctionArguments::List(list) = &mut function.args else {
        return None;
    };
    if function.name.to_string() != SYMMETRIC {
        return None;
    }
    let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.pop() else {
        return None;
    };
    let between = |low: &Expr, high: &Expr| {
        Box::new(Expr::Between {
            expr: Box::new(inner.clone()),
            negated,
            low: Box::new(low.clone()),
            high: Box::new(high.clone()),
        })
    };
    let op = if negated {
        BinaryOperator::And
    } else {
        BinaryOperator::Or
    };
    Some(Expr::Nested(Box::new(Expr::BinaryOp {
        left: between(&first, high),
        op,
        right: between(high, &first),
    })))
}

/// Whether an aggregate takes each value once.
pub(crate) fn check_distinct(name: &str, approximate: bool) -> Result<(), ApiError> {
    if matches!(
        name,
        "COUNT" | "ARRAY_AGG" | "ARRAY_CONCAT_AGG" | "STRING_AGG" | "LISTAGG"
    ) || !trilith_functions::routines()
        .iter()
        .any(|routine| routine.aggregate && routine.name == name)
    {
        return Ok(());
    }
    if approximate {
        return Err(validation(format!(
            "Aggregation [{name}] with DISTINCT is not supported when useApproximateCountDistinct is enabled. Run with \
             disabling it."
        )));
    }
    // Only these have a plan that finds each value once.
    match name {
        "SUM" | "AVG" | "MIN" | "MAX" => Ok(()),
        _ => Err(validation(format!(
            "Aggregation [{name}] does not take DISTINCT; aggregate the rows of a SELECT DISTINCT"
        ))),
    }
}

/// ISO period of a unit name.
pub(crate) fn period(unit: &str) -> Option<&'static str> {
    Some(match unit.to_ascii_uppercase().as_str() {
        "SECOND" => "PT1S",
        "MINUTE" => "PT1M",
        "HOUR" => "PT1H",
        "DAY" => "P1D",
        "WEEK" => "P1W",
        "MONTH" => "P1M",
        "QUARTER" => "P3M",
        "YEAR" => "P1Y",
        _ => return None,
    })
}
