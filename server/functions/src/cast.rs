//! CAST with Druid's rules: what does not convert is NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMillisecondType};
use datafusion::error::Result;

use crate::function::{
    Args, Function, is_text, list_of, returns_boolean, returns_double, returns_long, returns_text,
    returns_texts, returns_time, times,
};
use crate::pattern::Pattern;
use crate::period::Period;
use crate::zone::Zone;

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new("druid_cast_timestamp", (1, 2), returns_time, timestamp).maps(),
        Function::new("druid_cast_date", (1, 2), returns_time, date)
            .date()
            .maps(),
        // A date whose field does not say so.
        Function::new("druid_date", (1, 1), returns_time, |args| args.array(0)).date(),
        Function::new("druid_cast_varchar", (1, 2), returns_text, varchar),
        Function::new("druid_cast_bigint", (1, 1), returns_long, |args| {
            Ok(Arc::new(args.long(0)?))
        })
        .maps(),
        Function::new("druid_cast_double", (1, 1), returns_double, |args| {
            Ok(Arc::new(args.double(0)?))
        })
        .maps(),
        Function::new("druid_cast_float", (1, 1), |_| Ok(DataType::Float32), float).maps(),
        Function::new("druid_cast_boolean", (1, 1), returns_boolean, boolean).maps(),
        Function::new("druid_cast_varchar_array", (1, 1), returns_texts, |args| {
            Ok(Arc::new(crate::array::lists_of(args, 0, &DataType::Utf8)?))
        }),
        Function::new(
            "druid_cast_bigint_array",
            (1, 1),
            |_| Ok(list_of(DataType::Int64)),
            |args| Ok(Arc::new(crate::array::lists_of(args, 0, &DataType::Int64)?)),
        ),
        Function::new(
            "druid_cast_double_array",
            (1, 1),
            |_| Ok(list_of(DataType::Float64)),
            |args| Ok(Arc::new(crate::array::lists_of(args, 0, &DataType::Float64)?)),
        ),
    ]
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

/// The start of the day.
fn date(args: &Args) -> Result<ArrayRef> {
    let zone = zone(args)?;
    let starts = timestamp(args)?;
    let Some(day) = Period::parse("P1D") else {
        return Ok(starts);
    };
    Ok(times(
        starts
            .as_primitive::<TimestampMillisecondType>()
            .iter()
            .map(|ms| day.floor(ms?, zone, None)),
    ))
}

fn varchar(args: &Args) -> Result<ArrayRef> {
    match args.data_type(0) {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let shape = match args.is_date(0) {
                true => "yyyy-MM-dd",
                false => "yyyy-MM-dd HH:mm:ss",
            };
            let (zone, pattern) = (zone(args)?, Pattern::parse(shape));
            let values: TimestampMillisecondArray = args.time(0)?;
            let text: StringArray = values
                .iter()
                .map(|ms| pattern.as_ref()?.format(ms?, zone))
                .collect();
            Ok(Arc::new(text))
        }
        _ => Ok(Arc::new(args.text(0)?)),
    }
}

fn float(args: &Args) -> Result<ArrayRef> {
    Ok(cast(&args.double(0)?, &DataType::Float32)?)
}

/// True is an integer above zero.
fn boolean(args: &Args) -> Result<ArrayRef> {
    if args.data_type(0) == DataType::Boolean {
        return args.array(0);
    }
    let truths: BooleanArray = args
        .long(0)?
        .iter()
        .map(|value| value.map(|value| value > 0))
        .collect();
    Ok(Arc::new(truths))
}

/// A long, else a double cut towards zero.
pub(crate) fn parse_long(text: &str) -> Option<i64> {
    let text = text.trim();
    let text = text.strip_prefix('+').unwrap_or(text);
    // Commas are for readers of the number.
    if text.contains(',') {
        return parse_long(&text.replace(',', ""));
    }
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
