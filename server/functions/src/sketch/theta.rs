//! Theta sketches: distinct counts that can be united, intersected and subtracted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, Float64Array, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datasketches::hash::value::{canonical_float, raw_bytes};
use datasketches::theta::{
    CompactThetaSketch, ThetaANotB, ThetaIntersection, ThetaSketch, ThetaSketchBuilder, ThetaUnion,
    ThetaUnionBuilder,
};

use super::{Item, binary, damaged, deviations, each_item, sketches, texts, zero};
use trilith_proto::java;

use crate::aggregate::{Aggregate, Call};
use crate::function::{Args, Function, returns_double, returns_long, returns_text};

const NAME: &str = "theta";
/// Entries when the call does not say.
const SIZE: i64 = 16_384;

pub(super) fn aggregates() -> Vec<Aggregate> {
    let state = |_: &[DataType]| vec![DataType::Binary];
    vec![
        Aggregate::new(
            "ds_theta",
            (1, 2),
            |_| Ok(DataType::Binary),
            state,
            |call| make(call, false),
        )
        .counts()
        .complex(|_| "thetaSketchBuild"),
        Aggregate::new(
            "approx_count_distinct_ds_theta",
            (1, 2),
            returns_long,
            state,
            |call| make(call, true),
        )
        .counts()
        .empty(zero),
    ]
}

pub(super) fn functions() -> Vec<Function> {
    let sketch = |_: &[DataType]| Ok(DataType::Binary);
    let set = |name, body| Function::new(name, (1, usize::MAX), sketch, body).complex("thetaSketch");
    vec![
        Function::new("theta_sketch_estimate", (1, 1), returns_double, |args| {
            let bytes = sketches(args, 0, NAME)?;
            let mut estimates = Vec::with_capacity(bytes.len());
            for bytes in &bytes {
                estimates.push(
                    bytes
                        .map(|bytes| read(bytes).map(|sketch| sketch.estimate()))
                        .transpose()?,
                );
            }
            Ok(Arc::new(Float64Array::from(estimates)))
        }),
        Function::new(
            "theta_sketch_estimate_with_error_bounds",
            (2, 2),
            returns_text,
            bounds,
        )
        .complex("json"),
        set("theta_sketch_union", |args| {
            combine(args, |size, sketches| {
                let mut union = union(size)?;
                for sketch in sketches {
                    union.update(sketch).map_err(|error| damaged(NAME, &error))?;
                }
                Ok(union.to_sketch(true))
            })
        }),
        set("theta_sketch_intersect", |args| {
            combine(args, |_, sketches| {
                let mut both = ThetaIntersection::default();
                for sketch in sketches {
                    both.update(sketch).map_err(|error| damaged(NAME, &error))?;
                }
                match both.to_sketch(true) {
                    Some(sketch) => Ok(sketch),
                    None => Ok(fresh(14)?.compact(true)),
                }
            })
        }),
        set("theta_sketch_not", |args| {
            combine(args, |_, sketches| {
                let Some((first, rest)) = sketches.split_first() else {
                    return Ok(fresh(14)?.compact(true));
                };
                rest.iter().try_fold(first.clone(), |left, right| {
                    ThetaANotB::default()
                        .compute(&left, right, true)
                        .map_err(|error| damaged(NAME, &error))
                })
            })
        }),
    ]
}

/// The estimate of each sketch.
pub(super) fn finalized(args: &Args) -> Result<ArrayRef> {
    texts(args, NAME, |bytes| Ok(java::double(read(bytes)?.estimate())))
}

fn read(bytes: &[u8]) -> Result<CompactThetaSketch> {
    CompactThetaSketch::deserialize(bytes).map_err(|error| damaged(NAME, &error))
}

fn fresh(lg: u8) -> Result<ThetaSketch> {
    ThetaSketchBuilder::default()
        .lg_k(lg)
        .build()
        .map_err(|error| damaged(NAME, &error))
}

fn union(lg: u8) -> Result<ThetaUnion> {
    ThetaUnionBuilder::default()
        .lg_k(lg)
        .build()
        .map_err(|error| damaged(NAME, &error))
}

/// The exponent of a number of entries; none if it is no power of two that fits.
fn exponent(size: i64) -> Option<u8> {
    let size = u64::try_from(size).ok().filter(|size| size.is_power_of_two())?;
    u8::try_from(size.trailing_zeros())
        .ok()
        .filter(|lg| (4..=26).contains(lg))
}

fn combine(
    args: &Args,
    operation: fn(u8, &[CompactThetaSketch]) -> Result<CompactThetaSketch>,
) -> Result<ArrayRef> {
    // The first argument may be the number of entries.
    let sized = args.data_type(0).is_integer();
    let lg = if sized {
        match args.long(0)?.iter().next().flatten().and_then(exponent) {
            Some(lg) => lg,
            None => return args.wrong("needs a power of two between 16 and 67108864 as the size"),
        }
    } else {
        14
    };
    let columns = (usize::from(sized)..args.len())
        .map(|index| sketches(args, index, NAME))
        .collect::<Result<Vec<_>>>()?;
    let mut builder = BinaryBuilder::new();
    for row in 0..args.rows {
        let all = columns
            .iter()
            .filter(|column| column.is_valid(row))
            .map(|column| read(column.value(row)))
            .collect::<Result<Vec<_>>>()?;
        builder.append_value(operation(lg, &all)?.serialize());
    }
    Ok(Arc::new(builder.finish()))
}

fn bounds(args: &Args) -> Result<ArrayRef> {
    let bytes = sketches(args, 0, NAME)?;
    let wanted = args.long(1)?.iter().next().flatten().unwrap_or(0);
    let mut builder = StringBuilder::new();
    for bytes in &bytes {
        let Some(bytes) = bytes else {
            builder.append_null();
            continue;
        };
        let sketch = read(bytes)?;
        let estimate = sketch.estimate();
        // What is exact has no error, however many deviations are asked for.
        let (low, high) = if sketch.is_estimation_mode() {
            let deviations = deviations(args, 1)?;
            (sketch.lower_bound(deviations), sketch.upper_bound(deviations))
        } else {
            (estimate, estimate)
        };
        builder.append_value(
            serde_json::json!({
                "estimate": estimate,
                "highBound": high,
                "lowBound": low,
                "numStdDev": wanted,
            })
            .to_string(),
        );
    }
    Ok(Arc::new(builder.finish()))
}

pub(super) fn make(call: &Call<'_>, estimate: bool) -> Result<Box<dyn Accumulator>> {
    let size = call.number(1, SIZE)?;
    let Some(lg) = exponent(size) else {
        return call.wrong(format!("needs a power of two as the size, not [{size}]"));
    };
    Ok(Box::new(Theta {
        lg,
        sketch: None,
        union: None,
        estimate,
    }))
}

#[derive(Debug)]
struct Theta {
    lg: u8,
    /// Of plain values.
    sketch: Option<ThetaSketch>,
    /// Of other sketches.
    union: Option<ThetaUnion>,
    estimate: bool,
}

impl Theta {
    fn merge(&mut self, sketches: &ArrayRef) -> Result<()> {
        let Some(bytes) = binary(sketches)? else {
            return Ok(());
        };
        for bytes in bytes.iter().flatten() {
            let sketch = read(bytes)?;
            let union = match &mut self.union {
                Some(union) => union,
                none => none.insert(union(self.lg)?),
            };
            union.update(&sketch).map_err(|error| damaged(NAME, &error))?;
        }
        Ok(())
    }

    fn result(&self) -> Result<CompactThetaSketch> {
        match (&self.sketch, &self.union) {
            (Some(sketch), None) => Ok(sketch.compact(true)),
            (None, Some(union)) => Ok(union.to_sketch(true)),
            (None, None) => Ok(fresh(self.lg)?.compact(true)),
            (Some(sketch), Some(other)) => {
                let mut both = union(self.lg)?;
                both.update(sketch).map_err(|error| damaged(NAME, &error))?;
                let other = other.to_sketch(true);
                both.update(&other).map_err(|error| damaged(NAME, &error))?;
                Ok(both.to_sketch(true))
            }
        }
    }
}

impl Accumulator for Theta {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if super::is_binary(values[0].data_type()) {
            return self.merge(&values[0]);
        }
        let sketch = match &mut self.sketch {
            Some(sketch) => sketch,
            none => none.insert(fresh(self.lg)?),
        };
        each_item(&values[0], |item| match item {
            // As Java does, empty text is not counted.
            Item::Text("") => {}
            Item::Text(text) => sketch.update(raw_bytes::from_str(text)),
            Item::Long(value) => sketch.update(value),
            Item::Double(value) => sketch.update(canonical_float::from_f64(value)),
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(&states[0])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.result()?.serialize()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let result = self.result()?;
        Ok(if self.estimate {
            ScalarValue::Int64(Some(result.estimate().round() as i64))
        } else {
            ScalarValue::Binary(Some(result.serialize()))
        })
    }

    fn size(&self) -> usize {
        size_of_val(self)
            + self.sketch.as_ref().map_or(0, ThetaSketch::estimated_size)
            + self.union.as_ref().map_or(0, ThetaUnion::estimated_size)
    }
}
