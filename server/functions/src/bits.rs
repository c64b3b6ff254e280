//! Functions on the bits of integers and doubles.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::error::{DataFusionError, Result};
use trilith_proto::fault::Fault;

use crate::function::{Args, Function, returns_double, returns_long};

pub(crate) fn functions() -> Vec<Function> {
    vec![
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
            Ok(Arc::new(whole(args, 0)?.unary::<_, Int64Type>(|value| !value)))
        }),
        Function::new(
            "bitwise_convert_double_to_long_bits",
            (1, 1),
            returns_long,
            |args| {
                Ok(Arc::new(args.double(0)?.unary::<_, Int64Type>(|value| {
                    // Java has one NaN here.
                    if value.is_nan() {
                        0x7ff8_0000_0000_0000
                    } else {
                        value.to_bits() as i64
                    }
                })))
            },
        ),
        Function::new(
            "bitwise_convert_long_bits_to_double",
            (1, 1),
            returns_double,
            |args| {
                Ok(Arc::new(
                    args.long(0)?
                        .unary::<_, Float64Type>(|value| f64::from_bits(value as u64)),
                ))
            },
        ),
    ]
}

fn bits(args: &Args, operation: fn(i64, i64) -> i64) -> Result<ArrayRef> {
    let (left, right) = (whole(args, 0)?, whole(args, 1)?);
    let result: Int64Array = arrow::compute::binary(&left, &right, operation)?;
    Ok(Arc::new(result))
}

/// Integers; a double that is none of 64 bits is an error.
fn whole(args: &Args, index: usize) -> Result<Int64Array> {
    if args.data_type(index).is_floating() {
        let limit = i64::MAX as f64;
        let doubles = args.double(index)?;
        let out = doubles
            .iter()
            .flatten()
            .find(|value| !(-limit..limit).contains(value));
        if let Some(value) = out {
            let fault = Fault::possible_truncation(&camel_case(args.name), value);
            return Err(DataFusionError::External(Box::new(fault)));
        }
    }
    args.long(index)
}

/// "bitwise_and" as Druid's expressions name it.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut all, word| {
        let (initial, rest) = word.split_at(1.min(word.len()));
        all.push_str(&initial.to_uppercase());
        all.push_str(rest);
        all
    })
}
