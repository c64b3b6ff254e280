//! Numeric functions.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;

use crate::function::{Args, Function, returns_double, returns_long};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("safe_divide", (2, 2), returns_common, safe_divide),
        Function::new("div", (2, 2), returns_long, div),
        Function::new("mod", (2, 2), returns_common, modulo),
        Function::new("bitwise_and", (2, 2), returns_long, |args| {
            bits(args, |a, b| a & b)
        }),
        Function::new("bitwise_or", (2, 2), returns_long, |args| {
            bits(args, |a, b| a | b)
        }),
        Function::new("bitwise_xor", (2, 2), returns_long, |args| {
            bits(args, |a, b| a ^ b)
        }),
        Function::new("bitwise_shift_left", (2, 2), returns_long, |args| {
            bits(args, |a, b| a.wrapping_shl(b as u32))
        }),
        Function::new("bitwise_shift_right", (2, 2), returns_long, |args| {
            bits(args, |a, b| a.wrapping_shr(b as u32))
        }),
        Function::new("bitwise_complement", (1, 1), returns_long, |args| {
            let values: Int64Array = args
                .long(0)?
                .iter()
                .map(|value| value.map(|value| !value))
                .collect();
            Ok(Arc::new(values))
        }),
        Function::new("truncate", (1, 2), returns_double, truncate),
    ]
}

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer() || *data_type == DataType::Null
}

fn returns_common(types: &[DataType]) -> Result<DataType> {
    if types.iter().all(is_integer) {
        Ok(DataType::Int64)
    } else {
        returns_double(types)
    }
}

fn safe_divide(args: &Args) -> Result<ArrayRef> {
    if is_integer(&args.data_type(0)) && is_integer(&args.data_type(1)) {
        let (left, right) = (args.long(0)?, args.long(1)?);
        let result: Int64Array = left
            .iter()
            .zip(right.iter())
            .map(|(x, y)| x?.checked_div(y?))
            .collect();
        return Ok(Arc::new(result));
    }
    let (left, right) = (args.double(0)?, args.double(1)?);
    let divide = |x: f64, y: f64| match (x == 0.0, y == 0.0 || y.is_nan()) {
        (true, true) => Some(0.0),
        (false, true) => None,
        _ => Some(x / y),
    };
    let result: Float64Array = left
        .iter()
        .zip(right.iter())
        .map(|(x, y)| divide(x?, y?))
        .collect();
    Ok(Arc::new(result))
}

fn div(args: &Args) -> Result<ArrayRef> {
    let (left, right) = (args.double(0)?, args.double(1)?);
    if is_integer(&args.data_type(0)) && is_integer(&args.data_type(1)) {
        let (left, right) = (args.long(0)?, args.long(1)?);
        if right.iter().any(|value| value == Some(0)) {
            return exec_err!("Division by zero");
        }
        let result: Int64Array = left
            .iter()
            .zip(right.iter())
            .map(|(x, y)| Some(x?.wrapping_div(y?)))
            .collect();
        return Ok(Arc::new(result));
    }
    let result: Int64Array = left
        .iter()
        .zip(right.iter())
        .map(|(x, y)| Some((x? / y?) as i64))
        .collect();
    Ok(Arc::new(result))
}

fn modulo(args: &Args) -> Result<ArrayRef> {
    if is_integer(&args.data_type(0)) && is_integer(&args.data_type(1)) {
        let (left, right) = (args.long(0)?, args.long(1)?);
        if right.iter().any(|value| value == Some(0)) {
            return exec_err!("Division by zero");
        }
        let result: Int64Array = left
            .iter()
            .zip(right.iter())
            .map(|(x, y)| Some(x?.wrapping_rem(y?)))
            .collect();
        return Ok(Arc::new(result));
    }
    let (left, right) = (args.double(0)?, args.double(1)?);
    let result: Float64Array = left
        .iter()
        .zip(right.iter())
        .map(|(x, y)| Some(x? % y?))
        .collect();
    Ok(Arc::new(result))
}

fn bits(args: &Args, operation: fn(i64, i64) -> i64) -> Result<ArrayRef> {
    let (left, right) = (args.long(0)?, args.long(1)?);
    let result: Int64Array = left
        .iter()
        .zip(right.iter())
        .map(|(a, b)| Some(operation(a?, b?)))
        .collect();
    Ok(Arc::new(result))
}

fn truncate(args: &Args) -> Result<ArrayRef> {
    let values = args.double(0)?;
    let digits = match args.literal(1)? {
        None => 0,
        Some(text) => match text.parse::<i32>() {
            Ok(digits) => digits,
            Err(_) => return exec_err!("TRUNCATE: [{text}] is not a number of digits"),
        },
    };
    let scale = 10_f64.powi(digits);
    let result: Float64Array = values
        .iter()
        .map(|value| Some((value? * scale).trunc() / scale))
        .collect();
    Ok(Arc::new(result))
}
