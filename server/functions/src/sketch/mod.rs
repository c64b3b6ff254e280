//! Sketches of Apache DataSketches, and Hive's bloom filters: COMPLEX columns of their serialized bytes.

mod bloom;
mod hll;
mod quantiles;
mod theta;
mod tuple;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use base64::Engine as _;
use datafusion::common::{DataFusionError, ScalarValue, exec_err};
use datafusion::error::Result;
use datasketches::common::NumStdDev;

use crate::aggregate::Aggregate;
use crate::complex::is_binary_kind;
use crate::function::{Args, Call, Function, is_text, returns_text, scalar_text};
use crate::{multiple, number, text};

pub(crate) fn aggregates() -> Vec<Aggregate> {
    [
        hll::aggregates(),
        theta::aggregates(),
        quantiles::aggregates(),
        tuple::aggregates(),
        bloom::aggregates(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) fn functions() -> Vec<Function> {
    let mut functions: Vec<Function> = [
        hll::functions(),
        theta::functions(),
        quantiles::functions(),
        tuple::functions(),
        bloom::functions(),
    ]
    .into_iter()
    .flatten()
    .collect();
    functions.push(
        Function::new("decode_base64_complex", (2, 2), |_| Ok(DataType::Binary), decode)
            .alias(&["complex_decode_base64"])
            .literals(&[0])
            .check(check_kind)
            .complex_named(0),
    );
    // Gives a value, whose field does not say it, its kind.
    functions.push(
        Function::new("druid_complex", (2, 2), carried, |args| args.array(1))
            .literals(&[0])
            .complex_named(0),
    );
    functions.extend([
        finalized("druid_final_hll", "HLLSketchBuild", hll::finalized),
        finalized("druid_final_theta", "thetaSketchBuild", theta::finalized),
        finalized("druid_final_tuple", "arrayOfDoublesSketch", tuple::finalized),
        finalized(
            "druid_final_quantiles",
            "quantilesDoublesSketch",
            quantiles::finalized,
        ),
    ]);
    functions
}

/// What a sketch shows itself as where `sqlFinalizeOuterSketches` is set.
fn finalized(name: &'static str, kind: &'static str, body: fn(&Args) -> Result<ArrayRef>) -> Function {
    Function::new(name, (1, 1), returns_text, body).complex(kind)
}

fn carried(types: &[DataType]) -> Result<DataType> {
    Ok(types.get(1).cloned().unwrap_or(DataType::Null))
}

/// The text that each sketch becomes.
fn texts(args: &Args, name: &str, show: fn(&[u8]) -> Result<String>) -> Result<ArrayRef> {
    let bytes = sketches(args, 0, name)?;
    let texts = bytes.iter().map(|bytes| bytes.map(show).transpose());
    let texts: arrow::array::StringArray = texts.collect::<Result<_>>()?;
    Ok(std::sync::Arc::new(texts))
}

fn check_kind(call: &Call<'_>, literals: &[Option<&ScalarValue>]) -> Result<()> {
    let kind = literals.first().copied().flatten().and_then(scalar_text);
    match kind {
        Some(kind) if is_binary_kind(&kind) => Ok(()),
        kind => {
            let given = match kind {
                Some(kind) => format!("unknown COMPLEX type [COMPLEX<{kind}>]"),
                None => "NULL".to_owned(),
            };
            call.wrong(format!(
                "first argument must be a valid COMPLEX type name, got {given}"
            ))
        }
    }
}

fn decode(args: &Args) -> Result<ArrayRef> {
    let texts = args.text(1)?;
    let mut builder = arrow::array::BinaryBuilder::new();
    for text in &texts {
        match text.map(|text| (text, base64::engine::general_purpose::STANDARD.decode(text))) {
            None => builder.append_null(),
            Some((_, Ok(bytes))) => builder.append_value(bytes),
            Some((text, Err(_))) => return args.wrong(format!("[{text}] is not base64 of a sketch")),
        }
    }
    Ok(std::sync::Arc::new(builder.finish()))
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

/// Serialized sketches of an array; none if it holds something else.
fn binary(array: &ArrayRef) -> Result<Option<BinaryArray>> {
    if !is_binary(array.data_type()) {
        return Ok(None);
    }
    let bytes = cast(array, &DataType::Binary)?;
    Ok(Some(bytes.as_binary::<i32>().clone()))
}

/// Serialized sketches of an argument.
fn sketches(args: &Args, index: usize, name: &str) -> Result<BinaryArray> {
    let array = args.array(index)?;
    if *array.data_type() == DataType::Null {
        return Ok(BinaryArray::new_null(array.len()));
    }
    match binary(&array)? {
        Some(bytes) => Ok(bytes),
        None => args.wrong(format!("requires a {name} sketch as argument {}", index + 1)),
    }
}

fn damaged(name: &str, error: &datasketches::error::Error) -> DataFusionError {
    DataFusionError::Execution(format!("a {name} sketch cannot be read: {}", error.message()))
}

fn deviations(args: &Args, index: usize) -> Result<NumStdDev> {
    if index >= args.len() {
        return Ok(NumStdDev::One);
    }
    match args.long(index)?.iter().next().flatten() {
        Some(1) => Ok(NumStdDev::One),
        Some(2) => Ok(NumStdDev::Two),
        Some(3) => Ok(NumStdDev::Three),
        _ => args.wrong("needs 1, 2 or 3 standard deviations"),
    }
}

/// A value to be counted.
enum Item<'a> {
    Text(&'a str),
    Long(i64),
    Double(f64),
}

/// Calls `count` with each value; NULLs are passed over, a multi-value string counts with each of its values.
fn each_item(array: &ArrayRef, mut count: impl FnMut(Item<'_>)) -> Result<()> {
    match array.data_type() {
        DataType::Null => Ok(()),
        DataType::Float32 | DataType::Float64 => {
            for value in number::doubles(array)?.iter().flatten() {
                count(Item::Double(value));
            }
            Ok(())
        }
        DataType::List(_) => {
            for items in array.as_list::<i32>().iter().flatten() {
                each_item(&items, &mut count as &mut dyn FnMut(Item<'_>))?;
            }
            Ok(())
        }
        data_type if is_text(data_type) => {
            for text in text::of(array)?.iter().flatten() {
                match multiple::split(text) {
                    None => count(Item::Text(text)),
                    Some(items) => items.iter().flatten().for_each(|item| count(Item::Text(item))),
                }
            }
            Ok(())
        }
        data_type if is_binary(data_type) => exec_err!("a sketch of another kind cannot be counted"),
        _ => {
            for value in number::longs(array)?.iter().flatten() {
                count(Item::Long(value));
            }
            Ok(())
        }
    }
}

/// "[1.0,2.5]" with Java's doubles.
fn doubles_text(values: &[f64]) -> String {
    let texts: Vec<String> = values
        .iter()
        .map(|value| trilith_proto::java::double(*value))
        .collect();
    format!("[{}]", texts.join(","))
}

fn zero(_: &DataType) -> Result<ScalarValue> {
    Ok(ScalarValue::Int64(Some(0)))
}
