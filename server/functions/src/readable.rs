//! HUMAN_READABLE_*: numbers with units.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::plan_err;
use datafusion::error::Result;

use crate::format::fixed;
use crate::function::{Args, Function, is_text};

pub(crate) fn functions() -> Vec<Function> {
    vec![
        Function::new(
            "human_readable_binary_byte_format",
            (1, 2),
            returns_readable,
            |args| readable(args, binary),
        ),
        Function::new(
            "human_readable_decimal_byte_format",
            (1, 2),
            returns_readable,
            |args| readable(args, |value, places| decimal(value, places, "B")),
        ),
        Function::new(
            "human_readable_decimal_format",
            (1, 2),
            returns_readable,
            |args| readable(args, |value, places| decimal(value, places, "")),
        ),
    ]
}

fn returns_readable(types: &[DataType]) -> Result<DataType> {
    if types.iter().any(is_text) {
        return plan_err!(
            "Cannot apply a HUMAN_READABLE function to arguments of type VARCHAR. Supported form(s): HUMAN_READABLE_BINARY_BYTE_FORMAT(Number, [Precision])"
        );
    }
    Ok(DataType::Utf8)
}

fn readable(args: &Args, format: fn(i64, usize) -> String) -> Result<ArrayRef> {
    let values = args.long(0)?;
    let places = (args.len() > 1).then(|| args.long(1)).transpose()?;
    let mut builder = StringBuilder::new();
    for (row, value) in values.iter().enumerate() {
        let places = match &places {
            None => 2,
            Some(places) => places.value(row),
        };
        if !(0..=3).contains(&places) {
            return args.wrong(format!("precision [{places}] must be in the range of [0,3]"));
        }
        builder.append_option(value.map(|value| format(value, places as usize)));
    }
    Ok(Arc::new(builder.finish()))
}

fn binary(value: i64, places: usize) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    if value > -1024 && value < 1024 {
        return format!("{value} B");
    }
    let unit = (63 - value.unsigned_abs().leading_zeros() as usize) / 10;
    let scaled = value.unsigned_abs() as f64 / (1_u64 << (unit * 10)) as f64;
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{} {}B", fixed(scaled, places), UNITS[unit])
}

/// Digits beyond the third are cut off, then it is rounded.
fn decimal(value: i64, places: usize, suffix: &str) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if value > -1000 && value < 1000 {
        return format!("{value} {suffix}").trim_end().to_owned();
    }
    let (mut thousandths, mut unit) = (value, 0);
    while thousandths <= -1_000_000 || thousandths >= 1_000_000 {
        thousandths /= 1_000;
        unit += 1;
    }
    let sign = if thousandths < 0 { "-" } else { "" };
    let magnitude = thousandths.unsigned_abs() as f64 / 1_000.0;
    format!("{sign}{} {}{suffix}", fixed(magnitude, places), UNITS[unit])
}
