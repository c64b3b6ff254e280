//! HLL sketches: distinct counts in little space.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, Float64Array, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datasketches::common::NumStdDev;
use datasketches::hash::value::{canonical_float, raw_bytes};
use datasketches::hll::{HllSketch, HllType, HllUnion};

use super::{Item, binary, damaged, deviations, doubles_text, each_item, sketches, texts, zero};
use trilith_proto::java;

use crate::aggregate::{Aggregate, Call};
use crate::function::{Args, Function, is_text, returns_double, returns_long, returns_text, scalar_text};

const NAME: &str = "HLL";
/// Exponent of the number of registers when the call does not say.
const LG_K: i64 = 12;
const LG_K_BUILT_IN: i64 = 14;

pub(super) fn aggregates() -> Vec<Aggregate> {
    let state = |_: &[DataType]| vec![DataType::Binary];
    vec![
        Aggregate::new(
            "ds_hll",
            (1, 3),
            |_| Ok(DataType::Binary),
            state,
            |call| make(call, None),
        )
        .counts()
        .complex(|_| "HLLSketchBuild"),
        Aggregate::new(
            "approx_count_distinct_ds_hll",
            (1, 3),
            returns_long,
            state,
            |call| make(call, Some(LG_K)),
        )
        .alias(&["approx_count_distinct_ds_hll_utf8"])
        .counts()
        .empty(zero),
        // Twice as exact, as Druid's own sketch for it is.
        Aggregate::new(
            "approx_count_distinct_builtin",
            (1, 1),
            returns_long,
            state,
            count,
        )
        .alias(&["approx_count_distinct"])
        .counts()
        .empty(zero),
        // What a rollup keeps of it. Druid's own sketch of this name has other bytes.
        Aggregate::new(
            "druid_hyper_unique_kept",
            (1, 1),
            |_| Ok(DataType::Binary),
            state,
            |call| {
                let merges = call.complex(0).is_some_and(|kind| kind != "hyperUnique");
                if merges { call.cannot_apply() } else { kept() }
            },
        )
        .counts()
        .complex(|_| "hyperUnique"),
        // COUNT(DISTINCT …), where it may be approximate.
        Aggregate::new("druid_count_distinct", (1, 1), returns_long, state, count)
            .counts()
            .empty(zero),
    ]
}

pub(super) fn functions() -> Vec<Function> {
    vec![
        Function::new("hll_sketch_estimate", (1, 2), returns_double, estimate).literals(&[1]),
        Function::new(
            "hll_sketch_estimate_with_error_bounds",
            (1, 2),
            returns_text,
            bounds,
        )
        .literals(&[1]),
        Function::new(
            "hll_sketch_union",
            (1, usize::MAX),
            |_| Ok(DataType::Binary),
            unite,
        )
        .complex("HLLSketch"),
        Function::new("hll_sketch_to_string", (1, 1), returns_text, to_string),
    ]
}

/// The rounded estimate of each sketch.
pub(super) fn finalized(args: &Args) -> Result<ArrayRef> {
    texts(args, NAME, |bytes| {
        Ok((read(bytes)?.estimate().round() as i64).to_string())
    })
}

fn read(bytes: &[u8]) -> Result<HllSketch> {
    HllSketch::deserialize(bytes).map_err(|error| damaged(NAME, &error))
}

fn kind(name: &str) -> Option<HllType> {
    Some(match name.to_ascii_uppercase().as_str() {
        "HLL_4" => HllType::Hll4,
        "HLL_6" => HllType::Hll6,
        "HLL_8" => HllType::Hll8,
        _ => return None,
    })
}

fn estimate(args: &Args) -> Result<ArrayRef> {
    let bytes = sketches(args, 0, NAME)?;
    let rounded = args
        .literal(1)?
        .is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let mut estimates = Vec::with_capacity(bytes.len());
    for bytes in &bytes {
        let estimate = bytes
            .map(|bytes| read(bytes).map(|sketch| sketch.estimate()))
            .transpose()?;
        estimates.push(estimate.map(|estimate| if rounded { estimate.round() } else { estimate }));
    }
    Ok(Arc::new(Float64Array::from(estimates)))
}

fn bounds(args: &Args) -> Result<ArrayRef> {
    let bytes = sketches(args, 0, NAME)?;
    let deviations = deviations(args, 1)?;
    let mut builder = StringBuilder::new();
    for bytes in &bytes {
        let Some(bytes) = bytes else {
            builder.append_null();
            continue;
        };
        let sketch = read(bytes)?;
        let values = [
            sketch.estimate(),
            sketch.lower_bound(deviations),
            sketch.upper_bound(deviations),
        ];
        builder.append_value(doubles_text(&values));
    }
    Ok(Arc::new(builder.finish()))
}

fn unite(args: &Args) -> Result<ArrayRef> {
    let mut first = 0;
    let (mut lg, mut target) = (LG_K, HllType::Hll4);
    if args.data_type(0).is_integer() {
        lg = args.long(0)?.iter().next().flatten().unwrap_or(LG_K);
        first = 1;
        if is_text(&args.data_type(1)) {
            let name = args.required(1)?;
            target = match kind(&name) {
                Some(kind) => kind,
                None => return args.wrong(format!("[{name}] is not HLL_4, HLL_6 or HLL_8")),
            };
            first = 2;
        }
    }
    let lg = match u8::try_from(lg) {
        Ok(lg) if (4..=21).contains(&lg) => lg,
        _ => return args.wrong(format!("lgK must be between 4 and 21, not [{lg}]")),
    };
    let columns = (first..args.len())
        .map(|index| sketches(args, index, NAME))
        .collect::<Result<Vec<_>>>()?;
    let mut builder = BinaryBuilder::new();
    for row in 0..args.rows {
        let mut union = HllUnion::new(lg).map_err(|error| damaged(NAME, &error))?;
        for column in columns.iter().filter(|column| column.is_valid(row)) {
            union.update(&read(column.value(row))?);
        }
        builder.append_value(union.to_sketch(target).serialize());
    }
    Ok(Arc::new(builder.finish()))
}

fn to_string(args: &Args) -> Result<ArrayRef> {
    let bytes = sketches(args, 0, NAME)?;
    let mut builder = StringBuilder::new();
    for bytes in &bytes {
        let Some(bytes) = bytes else {
            builder.append_null();
            continue;
        };
        builder.append_value(summary(&read(bytes)?));
    }
    Ok(Arc::new(builder.finish()))
}

/// What Java's `HllSketch.toString` says. Some of it is only in the serialized form.
fn summary(sketch: &HllSketch) -> String {
    let bytes = sketch.serialize();
    let byte = |index: usize| bytes.get(index).copied().unwrap_or(0);
    let word = |index: usize| {
        let four = bytes.get(index..index + 4).and_then(|four| four.try_into().ok());
        four.map_or(0, i32::from_le_bytes)
    };
    let double = |index: usize| {
        let eight = bytes
            .get(index..index + 8)
            .and_then(|eight| eight.try_into().ok());
        java::double(eight.map_or(0.0, f64::from_le_bytes))
    };
    let kind = match sketch.target_type() {
        HllType::Hll4 => "HLL_4",
        HllType::Hll6 => "HLL_6",
        HllType::Hll8 => "HLL_8",
    };
    let (mode, rest) = match byte(MODE_AT) & 3 {
        0 => ("LIST", format!("  Coupon Count   : {}\n", byte(6))),
        1 => ("SET", format!("  Coupon Count   : {}\n", word(8))),
        _ => (
            "HLL",
            format!(
                "  CurMin         : {}\n  NumAtCurMin    : {}\n  HipAccum       : {}\n  KxQ0           : {}\n  KxQ1           : {}\n  Rebuild KxQ Flg: {}\n",
                byte(6),
                word(32),
                double(8),
                double(16),
                double(24),
                byte(FLAGS_AT) & REBUILD != 0,
            ),
        ),
    };
    format!(
        "### HLL SKETCH SUMMARY: \n  Log Config K   : {}\n  Hll Target     : {kind}\n  Current Mode   : {mode}\n  Memory         : false\n  LB             : {}\n  Estimate       : {}\n  UB             : {}\n  OutOfOrder Flag: {}\n{rest}",
        sketch.lg_config_k(),
        java::double(sketch.lower_bound(NumStdDev::One)),
        java::double(sketch.estimate()),
        java::double(sketch.upper_bound(NumStdDev::One)),
        byte(FLAGS_AT) & OUT_OF_ORDER != 0,
    )
}

/// Places in the serialized form.
const FLAGS_AT: usize = 5;
const MODE_AT: usize = 7;
const OUT_OF_ORDER: u8 = 16;
const REBUILD: u8 = 32;

/// Counts values, or what sketches of either kind have seen.
fn count(call: &Call<'_>) -> Result<Box<dyn Accumulator>> {
    match call.complex(0).as_deref() {
        Some("thetaSketch" | "thetaSketchBuild") => super::theta::make(call, true),
        _ => make(call, Some(LG_K_BUILT_IN)),
    }
}

/// The sketch of a built-in count.
fn kept() -> Result<Box<dyn Accumulator>> {
    let lg = u8::try_from(LG_K_BUILT_IN).unwrap_or_default();
    Ok(Box::new(Hll {
        lg,
        target: HllType::Hll4,
        union: None,
        estimate: false,
        counts_empty: true,
    }))
}

/// With `default` the result is an estimate, without it a sketch.
fn make(call: &Call<'_>, default: Option<i64>) -> Result<Box<dyn Accumulator>> {
    let lg = call.number(1, default.unwrap_or(LG_K))?;
    let lg = match u8::try_from(lg) {
        Ok(lg) if (4..=21).contains(&lg) => lg,
        _ => return call.wrong(format!("lgK must be between 4 and 21, not [{lg}]")),
    };
    let target = match call.literal(2)?.and_then(|scalar| scalar_text(&scalar)) {
        None => HllType::Hll4,
        Some(name) => match kind(&name) {
            Some(kind) => kind,
            None => return call.wrong(format!("tgtHllType must be HLL_4, HLL_6 or HLL_8, not [{name}]")),
        },
    };
    Ok(Box::new(Hll {
        lg,
        target,
        union: None,
        estimate: default.is_some(),
        counts_empty: default == Some(LG_K_BUILT_IN),
    }))
}

#[derive(Debug)]
struct Hll {
    lg: u8,
    target: HllType,
    union: Option<HllUnion>,
    estimate: bool,
    /// Empty text is a value.
    counts_empty: bool,
}

impl Hll {
    fn union(&mut self) -> Result<&mut HllUnion> {
        Ok(match &mut self.union {
            Some(union) => union,
            none => none.insert(HllUnion::new(self.lg).map_err(|error| damaged(NAME, &error))?),
        })
    }

    fn merge(&mut self, sketches: &ArrayRef) -> Result<()> {
        let Some(bytes) = binary(sketches)? else {
            return Ok(());
        };
        for bytes in bytes.iter().flatten() {
            let sketch = read(bytes)?;
            self.union()?.update(&sketch);
        }
        Ok(())
    }

    fn result(&self) -> Result<HllSketch> {
        match &self.union {
            Some(union) => Ok(union.to_sketch(self.target)),
            None => HllSketch::new(self.lg, self.target).map_err(|error| damaged(NAME, &error)),
        }
    }
}

impl Accumulator for Hll {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if super::is_binary(values[0].data_type()) {
            return self.merge(&values[0]);
        }
        let counts_empty = self.counts_empty;
        let union = self.union()?;
        let mut units: Vec<u8> = Vec::new();
        each_item(&values[0], |item| match item {
            // As Java does: UTF-16, and no empty text in a sketch that is called by its name.
            Item::Text("") if !counts_empty => {}
            Item::Text(text) => {
                units.clear();
                units.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                union.update_value(raw_bytes::from_slice(&units));
            }
            Item::Long(value) => union.update_value(value),
            Item::Double(value) => union.update_value(canonical_float::from_f64(value)),
        })
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(&states[0])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        // Eight bits lose nothing on the way.
        let bytes = self
            .union
            .as_ref()
            .map(|union| union.to_sketch(HllType::Hll8).serialize());
        Ok(vec![ScalarValue::Binary(bytes)])
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
        size_of_val(self) + self.union.as_ref().map_or(0, HllUnion::estimated_size)
    }
}
