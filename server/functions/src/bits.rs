//! Functions on the bits of integers and doubles.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion::error::Result;

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
            Ok(Arc::new(args.long(0)?.unary::<_, Int64Type>(|value| !value)))
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
    let (left, right) = (args.long(0)?, args.long(1)?);
    let result: Int64Array = arrow::compute::binary(&left, &right, operation)?;
    Ok(Arc::new(result))
}
