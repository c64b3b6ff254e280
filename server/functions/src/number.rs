//! Numeric functions.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use datafusion::common::exec_err;
use datafusion::error::Result;

use crate::cast::{parse_double, parse_long};
use crate::function::{Args, Function, is_text, returns_double, returns_long};
use crate::text;

macro_rules! doubles {
    ($($name:literal => $body:expr),* $(,)?) => {
        vec![$(Function::new($name, (1, 1), returns_double, |args| unary(args, $body))),*]
    };
}

pub(crate) fn functions() -> Vec<Function> {
    let mut functions = doubles!(
        "exp" => f64::exp,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "sqrt" => f64::sqrt,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "cot" => |x| x.cos() / x.sin(),
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "degrees" => |x| x * (180.0 / std::f64::consts::PI),
        "radians" => |x| x * (std::f64::consts::PI / 180.0),
    );
    functions.extend([
        Function::new("pi", (0, 0), returns_double, |args| {
            Ok(Arc::new(Float64Array::from(vec![
                std::f64::consts::PI;
                args.rows
            ])))
        }),
        Function::new("power", (2, 2), returns_double, |args| binary(args, f64::powf)).alias(&["pow"]),
        Function::new("atan2", (2, 2), returns_double, |args| binary(args, f64::atan2)),
        Function::new("abs", (1, 1), returns_first, |args| {
            like_first(args, either(args, i64::wrapping_abs, f64::abs)?)
        }),
        Function::new("ceil", (1, 1), returns_first, |args| {
            like_first(args, either(args, |x| x, f64::ceil)?)
        })
        .alias(&["ceiling"]),
        Function::new("floor", (1, 1), returns_first, |args| {
            like_first(args, either(args, |x| x, f64::floor)?)
        }),
        Function::new("truncate", (1, 2), returns_first, |args| {
            like_first(args, truncate(args)?)
        })
        .alias(&["trunc"]),
        Function::new("round", (1, 2), returns_first, |args| {
            like_first(args, round(args)?)
        })
        .check(|call, _| match call.types.first() {
            Some(data_type) if is_text(data_type) => {
                call.wrong("first argument should be a LONG or DOUBLE but got STRING instead")
            }
            _ => Ok(()),
        }),
        Function::new("safe_divide", (2, 2), returns_common, safe_divide),
        Function::new("div", (2, 2), returns_long, div),
        Function::new("mod", (2, 2), returns_common, modulo),
    ]);
    functions
}

fn is_integer(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Null | DataType::Boolean)
}

/// BIGINT if all are integers, else DOUBLE.
pub(crate) fn returns_common(types: &[DataType]) -> Result<DataType> {
    if types.iter().all(is_integer) {
        Ok(DataType::Int64)
    } else {
        returns_double(types)
    }
}

/// A FLOAT stays one.
fn returns_first(types: &[DataType]) -> Result<DataType> {
    match types.first() {
        Some(DataType::Float32) => Ok(DataType::Float32),
        _ => returns_common(&types[..types.len().min(1)]),
    }
}

/// Computed as a double, and a FLOAT again if the first argument is one.
fn like_first(args: &Args, values: ArrayRef) -> Result<ArrayRef> {
    match args.data_type(0) {
        DataType::Float32 => Ok(arrow::compute::cast(&values, &DataType::Float32)?),
        _ => Ok(values),
    }
}

/// Integers: doubles are cut and held within 64 bits, text is read, times are milliseconds.
pub(crate) fn longs(array: &ArrayRef) -> Result<Int64Array> {
    match array.data_type() {
        DataType::Int64 => Ok(array.as_primitive::<Int64Type>().clone()),
        data_type if is_text(data_type) => {
            let texts: StringArray = text::of(array)?;
            Ok(texts.iter().map(|text| long_of_text(text?)).collect())
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            Ok(doubles(array)?.unary(|value| value as i64))
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let times = safe(array, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
            let millis = safe(&times, &DataType::Int64)?;
            Ok(millis.as_primitive::<Int64Type>().clone())
        }
        _ => {
            let longs = safe(array, &DataType::Int64)?;
            Ok(longs.as_primitive::<Int64Type>().clone())
        }
    }
}

/// Doubles: text is read, times are milliseconds.
pub(crate) fn doubles(array: &ArrayRef) -> Result<Float64Array> {
    match array.data_type() {
        DataType::Float64 => Ok(array.as_primitive::<Float64Type>().clone()),
        data_type if is_text(data_type) => {
            let texts: StringArray = text::of(array)?;
            Ok(texts.iter().map(|text| double_of_text(text?)).collect())
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 | DataType::Int64 => {
            Ok(longs(array)?.unary(|value| value as f64))
        }
        _ => {
            let doubles = safe(array, &DataType::Float64)?;
            Ok(doubles.as_primitive::<Float64Type>().clone())
        }
    }
}

/// A truth written as text is 1 or 0.
fn truth(text: &str) -> Option<bool> {
    match text.len() {
        4 if text.eq_ignore_ascii_case("true") => Some(true),
        5 if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn long_of_text(text: &str) -> Option<i64> {
    truth(text).map(i64::from).or_else(|| parse_long(text))
}

fn double_of_text(text: &str) -> Option<f64> {
    truth(text).map(f64::from).or_else(|| parse_double(text))
}

/// Java has one NaN; comparisons would tell a negative one from it.
fn one_nan(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}

fn safe(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let castable = !matches!(array.data_type(), DataType::List(_) | DataType::Binary);
    if !castable {
        return exec_err!("an array or a complex value is no number");
    }
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    Ok(cast_with_options(array, to, &options)?)
}

fn unary(args: &Args, operation: fn(f64) -> f64) -> Result<ArrayRef> {
    let values = args.double(0)?;
    Ok(Arc::new(
        values.unary::<_, Float64Type>(|value| one_nan(operation(value))),
    ))
}

fn binary(args: &Args, operation: fn(f64, f64) -> f64) -> Result<ArrayRef> {
    let (left, right) = (args.double(0)?, args.double(1)?);
    let result: Float64Array = arrow::compute::binary(&left, &right, |x, y| one_nan(operation(x, y)))?;
    Ok(Arc::new(result))
}

fn either(args: &Args, long: fn(i64) -> i64, double: fn(f64) -> f64) -> Result<ArrayRef> {
    if is_integer(&args.data_type(0)) {
        return Ok(Arc::new(args.long(0)?.unary::<_, Int64Type>(long)));
    }
    unary(args, double)
}

fn integers(args: &Args) -> bool {
    is_integer(&args.data_type(0)) && is_integer(&args.data_type(1))
}

fn safe_divide(args: &Args) -> Result<ArrayRef> {
    if integers(args) {
        let (left, right) = (args.long(0)?, args.long(1)?);
        let divide = |x: i64, y: i64| (y != 0).then(|| x.wrapping_div(y));
        let result: Int64Array = left
            .iter()
            .zip(right.iter())
            .map(|(x, y)| divide(x?, y?))
            .collect();
        return Ok(Arc::new(result));
    }
    let (left, right) = (args.double(0)?, args.double(1)?);
    let divide = |x: f64, y: f64| match (x == 0.0, y == 0.0 || y.is_nan()) {
        (true, true) => Some(0.0),
        (false, true) => None,
        _ => Some(one_nan(x / y)),
    };
    let result: Float64Array = left
        .iter()
        .zip(right.iter())
        .map(|(x, y)| divide(x?, y?))
        .collect();
    Ok(Arc::new(result))
}

/// Integers of two columns; a zero on the right is an error.
fn divided(args: &Args, operation: fn(i64, i64) -> i64) -> Result<ArrayRef> {
    let (left, right) = (args.long(0)?, args.long(1)?);
    let result: Int64Array = arrow::compute::try_binary(&left, &right, |x, y| {
        if y == 0 {
            Err(arrow::error::ArrowError::DivideByZero)
        } else {
            Ok(operation(x, y))
        }
    })
    .or_else(|_| args.wrong("division by zero"))?;
    Ok(Arc::new(result))
}

fn div(args: &Args) -> Result<ArrayRef> {
    if integers(args) {
        return divided(args, i64::wrapping_div);
    }
    let (left, right) = (args.double(0)?, args.double(1)?);
    let result: Int64Array = left
        .iter()
        .zip(right.iter())
        .map(|(x, y)| Some((x? / y?) as i64))
        .collect();
    Ok(Arc::new(result))
}

fn modulo(args: &Args) -> Result<ArrayRef> {
    if integers(args) {
        return divided(args, i64::wrapping_rem);
    }
    binary(args, |x, y| x % y)
}

/// Decimal places, one for all rows or one for each.
fn places(args: &Args) -> Result<Int64Array> {
    if args.len() < 2 {
        return Ok(Int64Array::from(vec![0; args.rows]));
    }
    args.long(1)
}

fn truncate(args: &Args) -> Result<ArrayRef> {
    let places = places(args)?;
    if is_integer(&args.data_type(0)) {
        let cut =
            |value: i64, places: i64| match u32::try_from(-places).ok().and_then(|n| 10_i64.checked_pow(n)) {
                _ if places >= 0 => value,
                Some(scale) => value / scale * scale,
                None => 0,
            };
        let values = args.long(0)?;
        let result: Int64Array = arrow::compute::binary(&values, &places, cut)?;
        return Ok(Arc::new(result));
    }
    let cut = |value: f64, places: i64| {
        let scale = 10_f64.powi(places.clamp(-400, 400) as i32);
        one_nan((value * scale) as i64 as f64 / scale)
    };
    let values = args.double(0)?;
    let result: Float64Array = arrow::compute::binary(&values, &places, cut)?;
    Ok(Arc::new(result))
}

fn round(args: &Args) -> Result<ArrayRef> {
    if is_text(&args.data_type(0)) {
        return args.wrong("first argument should be a LONG or DOUBLE but got STRING instead");
    }
    let places = places(args)?;
    if is_integer(&args.data_type(0)) {
        let values = args.long(0)?;
        let result: Int64Array = arrow::compute::binary(&values, &places, round_long)?;
        return Ok(Arc::new(result));
    }
    let values = args.double(0)?;
    let result: Float64Array = arrow::compute::binary(&values, &places, round_double)?;
    Ok(Arc::new(result))
}

/// Half away from zero; above 64 bits it wraps, as a decimal turned into a long does.
fn round_long(value: i64, places: i64) -> i64 {
    if places >= 0 {
        return value;
    }
    let Some(scale) = u32::try_from(-places).ok().and_then(|n| 10_i128.checked_pow(n)) else {
        return 0;
    };
    let half = if value < 0 { -scale / 2 } else { scale / 2 };
    ((i128::from(value) + half) / scale * scale) as i64
}

/// Half away from zero on the shortest decimal text of the number.
fn round_double(value: f64, places: i64) -> f64 {
    if value.is_nan() {
        return 0.0;
    }
    if value.is_infinite() {
        return f64::MAX.copysign(value);
    }
    // Shortest digits d.ddd and an exponent.
    let shortest = format!("{:e}", value.abs());
    let Some((mantissa, exponent)) = shortest.split_once('e') else {
        return value;
    };
    let Ok(exponent) = exponent.parse::<i64>() else {
        return value;
    };
    let mut digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let keep = exponent.saturating_add(1).saturating_add(places);
    if keep >= digits.len() as i64 {
        return value;
    }
    if keep < 0 {
        return 0.0;
    }
    let keep = keep as usize;
    let up = digits[keep] >= b'5';
    digits.truncate(keep);
    let mut exponent = exponent;
    if up {
        let mut at = keep;
        loop {
            if at == 0 {
                digits.insert(0, b'1');
                exponent += 1;
                break;
            }
            at -= 1;
            if digits[at] == b'9' {
                digits[at] = b'0';
            } else {
                digits[at] += 1;
                break;
            }
        }
    }
    if digits.is_empty() {
        return 0.0;
    }
    // All digits before the point, so that the exponent says where it is.
    let shift = exponent - digits.len() as i64 + 1;
    let text = format!("{}e{shift}", String::from_utf8_lossy(&digits));
    text.parse::<f64>()
        .map_or(value, |rounded| rounded.copysign(value))
}
