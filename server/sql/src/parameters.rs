//! Values of `?`.

use serde_json::Value as Json;
use sqlparser::ast::{Expr, Value};
use trilith_proto::error::ApiError;
use trilith_proto::interval::{iso, parse_instant};

use crate::ast::{call, null, number, text};
use crate::error::validation;
use crate::plan::SqlParameter;

const DAY_MS: i64 = 86_400_000;

/// What a `?` becomes.
#[derive(Clone, Copy)]
pub(crate) enum Bound<'a> {
    /// Its value.
    Values(&'a [SqlParameter]),
    /// `$1`, `$2`, …, whose types the planner looks for.
    Open,
}

/// The expression that a parameter stands for.
pub(crate) fn expression(bound: Bound<'_>, index: usize, zone: &str) -> Result<Expr, ApiError> {
    match bound {
        Bound::Values(parameters) => literal(parameters, index, zone),
        Bound::Open => Ok(Expr::Value(Value::Placeholder(format!("${}", index + 1)).into())),
    }
}

fn literal(parameters: &[SqlParameter], index: usize, zone: &str) -> Result<Expr, ApiError> {
    let parameter = parameters.get(index).ok_or_else(|| {
        validation(format!(
            "No value bound for dynamic parameter position [{}]",
            index + 1
        ))
    })?;
    check(index, parameter)?;
    let literal = match &parameter.value {
        Json::Array(items) => {
            let items = items
                .iter()
                .map(|item| scalar(item, index))
                .collect::<Result<_, _>>()?;
            return Ok(call("make_array", items));
        }
        value => scalar(value, index)?,
    };
    Ok(match parameter.sql_type.to_ascii_uppercase().as_str() {
        "TIMESTAMP" => call("druid_cast_timestamp", vec![literal, text(zone)]),
        // Days, as JDBC has them, or text.
        "DATE" => match parameter.value.as_i64() {
            Some(days) => {
                let day = iso(days.saturating_mul(DAY_MS));
                let day = day.split('T').next().unwrap_or_default();
                call("druid_cast_date", vec![text(day), text(zone)])
            }
            None => call("druid_cast_date", vec![literal, text(zone)]),
        },
        "BIGINT" | "INTEGER" | "SMALLINT" | "TINYINT" => call("druid_cast_bigint", vec![literal]),
        "FLOAT" | "REAL" => call("druid_cast_float", vec![literal]),
        "DOUBLE" | "DECIMAL" | "NUMERIC" => call("druid_cast_double", vec![literal]),
        "BOOLEAN" => call("druid_cast_boolean", vec![literal]),
        "VARCHAR" | "CHAR" => match parameter.value {
            Json::String(_) => literal,
            _ => call("druid_cast_varchar", vec![literal, text(zone)]),
        },
        "" | "ARRAY" | "OTHER" | "NULL" => literal,
        other => {
            return Err(validation(format!(
                "Parameter [{index}] has the unknown type [{other}]; use VARCHAR, BIGINT, DOUBLE, FLOAT, BOOLEAN, TIMESTAMP, DATE or ARRAY"
            )));
        }
    })
}

fn scalar(value: &Json, index: usize) -> Result<Expr, ApiError> {
    match value {
        Json::Null => Ok(null()),
        Json::Bool(value) => Ok(Expr::Value(Value::Boolean(*value).into())),
        Json::Number(value) => Ok(number(value)),
        Json::String(value) => Ok(text(value)),
        Json::Array(_) | Json::Object(_) => Err(validation(format!(
            "Parameter [{index}] must be a scalar or a list of scalars"
        ))),
    }
}

/// A value that has the type that it says.
fn check(index: usize, parameter: &SqlParameter) -> Result<(), ApiError> {
    let (kind, value) = (parameter.sql_type.to_ascii_uppercase(), &parameter.value);
    let text_is = |check: fn(&str) -> bool| value.as_str().is_some_and(check);
    let fits = match kind.as_str() {
        "CHAR" | "VARCHAR" => !matches!(value, Json::Array(_) | Json::Object(_)),
        "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" => {
            value.is_number() || value.is_boolean() || text_is(|text| text.trim().parse::<i64>().is_ok())
        }
        "FLOAT" | "REAL" | "DOUBLE" | "DECIMAL" | "NUMERIC" => {
            value.is_number() || text_is(|text| text.trim().parse::<f64>().is_ok())
        }
        "BOOLEAN" => {
            let word = |text: &str| text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
            value.is_boolean() || value.is_number() || text_is(word)
        }
        "TIMESTAMP" | "DATE" => value.is_number() || text_is(|text| parse_instant(text).is_some()),
        "ARRAY" => value.is_array(),
        // Others take any value, or are refused by name.
        _ => true,
    };
    if fits || value.is_null() {
        return Ok(());
    }
    Err(validation(format!("Parameter [{index}] is no {kind}: {value}")))
}
