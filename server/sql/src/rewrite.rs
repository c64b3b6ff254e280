//! Druid's forms that DataFusion does not know, as functions that it does.

use std::ops::ControlFlow;

use sqlparser::ast::{
    CastKind, CeilFloorKind, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query, TypedString, Value, ValueWithSpan,
    visit_expressions_mut,
};
use trilith_proto::error::ApiError;

use crate::context::QueryContext;
use crate::error::validation;
use crate::plan::SqlParameter;

/// Rewrites every expression of a query.
pub(crate) fn rewrite(
    query: &mut Query,
    context: &QueryContext,
    parameters: &[SqlParameter],
    now_ms: i64,
) -> Result<(), ApiError> {
    let rewriter = Rewriter {
        zone: context.sql_time_zone(),
        approximate: context.approximate_count_distinct(),
        parameters,
        now_ms,
    };
    let mut placeholders = 0;
    let flow = visit_expressions_mut(query, |expr| match rewriter.expr(expr, &mut placeholders) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    });
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Rewriter<'a> {
    zone: String,
    approximate: bool,
    parameters: &'a [SqlParameter],
    now_ms: i64,
}

fn text(value: &str) -> Expr {
    Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(value.to_owned())))
}

fn null() -> Expr {
    Expr::Value(ValueWithSpan::from(Value::Null))
}

fn number(value: impl ToString) -> Expr {
    Expr::Value(ValueWithSpan::from(Value::Number(value.to_string(), false)))
}

/// A call of a function.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args
        .into_iter()
        .map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)))
        .collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

/// ISO period of a unit name.
fn period(unit: &str) -> Option<&'static str> {
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

/// Milliseconds of TIMESTAMP '…' or DATE '…' in a zone.
pub(crate) fn timestamp_literal(literal: &TypedString, zone: &str) -> Result<i64, ApiError> {
    let Value::SingleQuotedString(value) = &literal.value.value else {
        return Err(validation(format!("[{literal}] needs a quoted text")));
    };
    trilith_functions::parse_timestamp(value, zone).ok_or_else(|| {
        let shape = match literal.data_type {
            DataType::Date => "'yyyy-MM-dd'",
            _ => "'yyyy-MM-dd HH:mm:ss'",
        };
        validation(format!(
            "Illegal TIMESTAMP literal '{value}': not in format {shape}"
        ))
    })
}

impl Rewriter<'_> {
    fn expr(&self, expr: &mut Expr, placeholders: &mut usize) -> Result<(), ApiError> {
        match expr {
            Expr::Floor {
                expr: inner,
                field: CeilFloorKind::DateTimeField(unit),
            } => {
                let unit = unit.to_string();
                // Without TO the parser still reports a field.
                if unit.is_empty() || unit.eq_ignore_ascii_case("NoDateTime") {
                    return Ok(());
                }
                *expr = self.bucket("time_floor", take(inner), &unit)?;
            }
            Expr::Ceil {
                expr: inner,
                field: CeilFloorKind::DateTimeField(unit),
            } => {
                let unit = unit.to_string();
                if unit.is_empty() || unit.eq_ignore_ascii_case("NoDateTime") {
                    return Ok(());
                }
                *expr = self.bucket("time_ceil", take(inner), &unit)?;
            }
            Expr::Extract {
                field, expr: inner, ..
            } => {
                let unit = text(&field.to_string().to_ascii_uppercase());
                *expr = call("time_extract", vec![take(inner), unit, text(&self.zone)]);
            }
            Expr::Cast {
                kind: CastKind::Cast,
                expr: inner,
                data_type,
                ..
            } => {
                if let Some(cast) = self.cast(inner, data_type) {
                    *expr = cast;
                }
            }
            Expr::TypedString(literal) => {
                let is_time = matches!(literal.data_type, DataType::Timestamp(..) | DataType::Date);
                if is_time {
                    let ms = timestamp_literal(literal, &self.zone)?;
                    *expr = call("millis_to_timestamp", vec![number(ms)]);
                }
            }
            Expr::Identifier(name) if name.quote_style.is_none() => {
                let upper = name.value.to_ascii_uppercase();
                if matches!(upper.as_str(), "CURRENT_TIMESTAMP" | "LOCALTIMESTAMP") {
                    *expr = self.now();
                }
            }
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                let index = *placeholders;
                *placeholders += 1;
                *expr = self.parameter(index)?;
            }
            Expr::Function(_) => self.function(expr)?,
            _ => {}
        }
        Ok(())
    }

    fn now(&self) -> Expr {
        call("millis_to_timestamp", vec![number(self.now_ms)])
    }

    fn bucket(&self, name: &str, inner: Expr, unit: &str) -> Result<Expr, ApiError> {
        let period = period(unit).ok_or_else(|| {
            validation(format!(
                "[{unit}] is no time unit of FLOOR and CEIL; use TIME_FLOOR with a period"
            ))
        })?;
        Ok(call(name, vec![inner, text(period), null(), text(&self.zone)]))
    }

    fn cast(&self, inner: &mut Expr, data_type: &DataType) -> Option<Expr> {
        let one = |name: &str, inner: &mut Expr| Some(call(name, vec![take(inner)]));
        match data_type {
            DataType::Varchar(_) | DataType::Char(_) | DataType::Text | DataType::String(_) => {
                Some(call("druid_cast_varchar", vec![take(inner), text(&self.zone)]))
            }
            DataType::BigInt(_)
            | DataType::Integer(_)
            | DataType::Int(_)
            | DataType::SmallInt(_)
            | DataType::TinyInt(_) => one("druid_cast_bigint", inner),
            DataType::Double(_)
            | DataType::DoublePrecision
            | DataType::Float(_)
            | DataType::Real
            | DataType::Decimal(_)
            | DataType::Numeric(_) => one("druid_cast_double", inner),
            DataType::Timestamp(..) => {
                Some(call("druid_cast_timestamp", vec![take(inner), text(&self.zone)]))
            }
            DataType::Date => {
                let time = call("druid_cast_timestamp", vec![take(inner), text(&self.zone)]);
                Some(call(
                    "time_floor",
                    vec![time, text("P1D"), null(), text(&self.zone)],
                ))
            }
            _ => None,
        }
    }

    fn parameter(&self, index: usize) -> Result<Expr, ApiError> {
        let parameter = self
            .parameters
            .get(index)
            .ok_or_else(|| validation(format!("No value bound for dynamic parameter position [{index}]")))?;
        let value = &parameter.value;
        let literal = match value {
            serde_json::Value::Null => return Ok(null()),
            serde_json::Value::Bool(value) => Expr::Value(ValueWithSpan::from(Value::Boolean(*value))),
            serde_json::Value::Number(value) => number(value),
            serde_json::Value::String(value) => text(value),
            serde_json::Value::Array(items) => {
                let items = items
                    .iter()
                    .map(|item| match item {
                        serde_json::Value::String(value) => text(value),
                        serde_json::Value::Null => null(),
                        other => number(other),
                    })
                    .collect();
                return Ok(call("make_array", items));
            }
            serde_json::Value::Object(_) => {
                return Err(validation(format!(
                    "Parameter [{index}] must be a scalar or a list"
                )));
            }
        };
        Ok(match parameter.sql_type.to_ascii_uppercase().as_str() {
            "TIMESTAMP" | "DATE" => call("druid_cast_timestamp", vec![literal, text(&self.zone)]),
            "BIGINT" | "INTEGER" | "SMALLINT" | "TINYINT" => call("druid_cast_bigint", vec![literal]),
            "DOUBLE" | "FLOAT" | "REAL" | "DECIMAL" => call("druid_cast_double", vec![literal]),
            _ => literal,
        })
    }

    fn function(&self, expr: &mut Expr) -> Result<(), ApiError> {
        let Expr::Function(function) = expr else {
            return Ok(());
        };
        let name = function.name.to_string().to_ascii_uppercase();
        if name == "CURRENT_TIMESTAMP" || name == "LOCALTIMESTAMP" {
            *expr = self.now();
            return Ok(());
        }
        let FunctionArguments::List(list) = &mut function.args else {
            return Ok(());
        };
        if name == "COUNT"
            && self.approximate
            && function.over.is_none()
            && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
            && list.args.len() == 1
        {
            list.duplicate_treatment = None;
            function.name = ObjectName::from(vec![Ident::new("approx_count_distinct")]);
            return Ok(());
        }
        let fill = |args: &mut Vec<FunctionArg>, length: usize, zone: &str| {
            while args.len() + 1 < length {
                args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(null())));
            }
            if args.len() < length {
                args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(zone))));
            }
        };
        match name.as_str() {
            "TIME_FLOOR" | "TIME_CEIL" | "TIME_SHIFT" => fill(&mut list.args, 4, &self.zone),
            "TIME_PARSE" | "TIME_FORMAT" | "TIME_EXTRACT" => fill(&mut list.args, 3, &self.zone),
            "TIMESTAMPADD" => {
                self.unit(&mut list.args)?;
                fill(&mut list.args, 4, &self.zone);
            }
            "TIMESTAMPDIFF" => self.unit(&mut list.args)?,
            _ => {}
        }
        Ok(())
    }

    /// The unit of TIMESTAMPDIFF is written as a bare word.
    fn unit(&self, args: &mut [FunctionArg]) -> Result<(), ApiError> {
        match args.first_mut() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(unit))) => {
                if let Expr::Identifier(name) = unit {
                    *unit = text(&name.value.to_ascii_uppercase());
                }
                Ok(())
            }
            _ => Err(validation(
                "TIMESTAMPADD and TIMESTAMPDIFF need a time unit as their first argument",
            )),
        }
    }
}
