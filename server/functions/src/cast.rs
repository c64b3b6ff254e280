//! CAST with Druid's rules: what does not convert is NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType;
use datafusion::error::Result;

use crate::function::{Args, Function, returns_double, returns_long, returns_text, returns_time, times};
use crate::pattern::Pattern;
use crate::zone::Zone;

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("druid_cast_timestamp", (1, 2), returns_time, timestamp),
        Function::new("druid_cast_varchar", (1, 2), returns_text, varchar),
        Function::new("druid_cast_bigint", (1, 1), returns_long, bigint),
        Function::new("druid_cast_double", (1, 1), returns_double, double),
    ]
}

fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

fn zone(args: &Args) -> Result<Zone> {
    Ok(args
        .literal(1)?
        .and_then(|text| Zone::parse(&text))
        .unwrap_or(Zone::Utc))
}

fn timestamp(args: &Args) -> Result<ArrayRef> {
    if !is_text(&args.data_type(0)) {
        return Ok(Arc::new(args.time(0)?));
    }
    let zone = zone(args)?;
    Ok(times(
        args.text(0)?
            .iter()
            .map(|text| crate::time::parse_in(text?, zone)),
    ))
}

fn varchar(args: &Args) -> Result<ArrayRef> {
    match args.data_type(0) {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let shape = if matches!(args.data_type(0), DataType::Timestamp(..)) {
                "yyyy-MM-dd HH:mm:ss"
            } else {
                "yyyy-MM-dd"
            };
            let (zone, pattern) = (zone(args)?, Pattern::parse(shape));
            let values: TimestampMillisecondArray = args.time(0)?;
            let text: StringArray = values
                .iter()
                .map(|ms| pattern.as_ref()?.format(ms?, zone))
                .collect();
            Ok(Arc::new(text))
        }
        DataType::Float32 | DataType::Float64 => {
            let text: StringArray = args
                .double(0)?
                .iter()
                .map(|value| value.map(java_double))
                .collect();
            Ok(Arc::new(text))
        }
        _ => Ok(Arc::new(args.text(0)?)),
    }
}

/// Java's `Double.toString`.
pub(crate) fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        let text = value.to_string();
        return if text.contains('.') {
            text
        } else {
            format!("{text}.0")
        };
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => text,
    }
}

fn bigint(args: &Args) -> Result<ArrayRef> {
    match args.data_type(0) {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let millis: Int64Array = args.time(0)?.reinterpret_cast();
            Ok(Arc::new(millis))
        }
        data_type if is_text(&data_type) => {
            let numbers: Int64Array = args.text(0)?.iter().map(|text| parse_long(text?)).collect();
            Ok(Arc::new(numbers))
        }
        DataType::Float32 | DataType::Float64 => {
            let numbers: Int64Array = args.double(0)?.iter().map(|value| Some(value? as i64)).collect();
            Ok(Arc::new(numbers))
        }
        _ => safe(&args.array(0)?, &DataType::Int64),
    }
}

fn double(args: &Args) -> Result<ArrayRef> {
    let data_type = args.data_type(0);
    if is_text(&data_type) {
        let numbers: Float64Array = args.text(0)?.iter().map(|text| parse_double(text?)).collect();
        return Ok(Arc::new(numbers));
    }
    match data_type {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let millis: Int64Array = args.time(0)?.reinterpret_cast();
            let numbers: Float64Array = millis.iter().map(|ms| Some(ms? as f64)).collect();
            Ok(Arc::new(numbers))
        }
        _ => safe(&args.array(0)?, &DataType::Float64),
    }
}

fn safe(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    Ok(cast_with_options(array, to, &options)?)
}

/// A long, else a double cut towards zero.
pub(crate) fn parse_long(text: &str) -> Option<i64> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    text.parse().ok().or_else(|| {
        parse_double(text)
            .filter(|value| value.is_finite())
            .map(|value| value as i64)
    })
}

/// Java's spellings of a double.
pub(crate) fn parse_double(text: &str) -> Option<f64> {
    let text = text.trim();
    match text.trim_start_matches(['-', '+']).bytes().next()? {
        b'0'..=b'9' | b'.' => text.parse().ok(),
        _ => match text {
            "NaN" => Some(f64::NAN),
            "Infinity" | "+Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
    }
}
