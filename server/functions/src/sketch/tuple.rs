//! Tuple sketches: distinct counts whose keys carry sums of doubles.

mod bytes;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryBuilder, Float64Array, Float64Builder, ListBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use datasketches::codec::{SketchBytes, SketchSlice};
use datasketches::error::{Error, ErrorKind};
use datasketches::hash::value::raw_bytes;
use datasketches::tuple::{
    CompactTupleSketch, SummaryCombinePolicy, SummaryPolicy, SummaryUpdatePolicy, TupleANotB,
    TupleIntersection, TupleSketch, TupleSketchBuilder, TupleSummaryValue, TupleUnion, TupleUnionBuilder,
};

use self::bytes::Stored;
use super::{Item, binary, damaged, each_item, sketches, texts};
use trilith_proto::java;

use crate::aggregate::{Aggregate, Call};
use crate::function::{Args, Function, list_of};
use crate::number;

const NAME: &str = "tuple";
/// Entries when the call does not say.
const SIZE: i64 = 16_384;

type Sketch = CompactTupleSketch<Doubles>;

/// Sums that a key carries.
#[derive(Debug, Clone, Default)]
struct Doubles(Vec<f64>);

impl TupleSummaryValue for Doubles {
    fn serialize_size(&self) -> usize {
        4 + 8 * self.0.len()
    }

    fn serialize_value(&self, bytes: &mut SketchBytes) {
        bytes.write_u32_le(self.0.len() as u32);
        for value in &self.0 {
            bytes.write_f64_le(*value);
        }
    }

    fn deserialize_value(cursor: &mut SketchSlice<'_>) -> std::result::Result<Doubles, Error> {
        let short = |_| Error::new(ErrorKind::InvalidData, "it ends inside a value");
        let count = cursor.read_u32_le().map_err(short)?;
        (0..count)
            .map(|_| cursor.read_f64_le().map_err(short))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map(Doubles)
    }
}

/// Adds the values of equal keys.
#[derive(Debug, Clone, Copy, Default)]
struct Sum;

fn add(sums: &mut Vec<f64>, values: &[f64]) {
    if sums.len() < values.len() {
        sums.resize(values.len(), 0.0);
    }
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

impl SummaryPolicy for Sum {
    type Summary = Doubles;

    fn create(&self) -> Doubles {
        Doubles::default()
    }
}

impl<'a> SummaryUpdatePolicy<&'a [f64]> for Sum {
    fn update(&self, summary: &mut Doubles, values: &'a [f64]) {
        add(&mut summary.0, values);
    }
}

impl SummaryCombinePolicy for Sum {
    fn combine(&self, summary: &mut Doubles, other: &Doubles) {
        add(&mut summary.0, &other.0);
    }
}

pub(super) fn aggregates() -> Vec<Aggregate> {
    vec![
        Aggregate::new(
            "ds_tuple_doubles",
            (1, 32),
            |_| Ok(DataType::Binary),
            |_| vec![DataType::Binary],
            make,
        )
        .complex(|_| "arrayOfDoublesSketch"),
    ]
}

pub(super) fn functions() -> Vec<Function> {
    let set = |name, body| {
        Function::new(name, (1, usize::MAX), |_| Ok(DataType::Binary), body).complex("arrayOfDoublesSketch")
    };
    vec![
        Function::new(
            "ds_tuple_doubles_metrics_sum_estimate",
            (1, 1),
            |_| Ok(list_of(DataType::Float64)),
            sums,
        ),
        set("ds_tuple_doubles_union", |args| {
            combine(args, |lg, sketches| {
                let mut union = union(lg)?;
                for sketch in sketches {
                    union.update(sketch).map_err(|error| damaged(NAME, &error))?;
                }
                Ok(union.to_sketch(false))
            })
        }),
        set("ds_tuple_doubles_intersect", |args| {
            combine(args, |lg, sketches| {
                let mut both = TupleIntersection::new(Sum);
                for sketch in sketches {
                    both.update(sketch).map_err(|error| damaged(NAME, &error))?;
                }
                match both.to_sketch(false) {
                    Some(sketch) => Ok(sketch),
                    None => Ok(union(lg)?.to_sketch(false)),
                }
            })
        }),
        set("ds_tuple_doubles_not", |args| {
            combine(args, |lg, sketches| {
                let Some((first, rest)) = sketches.split_first() else {
                    return Ok(union(lg)?.to_sketch(false));
                };
                rest.iter().try_fold(first.clone(), |left, right| {
                    TupleANotB::default()
                        .compute(&left, right, false)
                        .map_err(|error| damaged(NAME, &error))
                })
            })
        }),
    ]
}

fn read(bytes: &[u8]) -> Result<Stored> {
    Stored::read(bytes).map_err(|error| damaged(NAME, &error))
}

/// How many values the keys of sketches have that are combined: all the same.
fn agreed(known: Option<u8>, values: u8) -> Result<u8> {
    match known {
        Some(known) if known != values => exec_err!(
            "tuple sketches with different numbers of values cannot be combined: {known} and {values}"
        ),
        _ => Ok(values),
    }
}

fn union(lg: u8) -> Result<TupleUnion<Sum>> {
    TupleUnionBuilder::new(Sum)
        .lg_k(lg)
        .build()
        .map_err(|error| damaged(NAME, &error))
}

/// The exponent of a number of entries.
fn exponent(size: i64) -> Option<u8> {
    let size = u64::try_from(size).ok().filter(|size| size.is_power_of_two())?;
    u8::try_from(size.trailing_zeros())
        .ok()
        .filter(|lg| (4..=26).contains(lg))
}

/// The estimate of each sketch.
pub(super) fn finalized(args: &Args) -> Result<ArrayRef> {
    texts(args, NAME, |bytes| {
        Ok(java::double(read(bytes)?.sketch.estimate()))
    })
}

fn sums(args: &Args) -> Result<ArrayRef> {
    let bytes = sketches(args, 0, NAME)?;
    let mut builder = ListBuilder::new(Float64Builder::new());
    for bytes in &bytes {
        let Some(bytes) = bytes else {
            builder.append_null();
            continue;
        };
        let Stored { values, sketch } = read(bytes)?;
        let mut sums = vec![0.0; usize::from(values)];
        for entry in sketch.iter() {
            add(&mut sums, &entry.summary().0);
        }
        let share = sketch.theta();
        builder.append_value(sums.into_iter().map(|sum| Some(sum / share)));
    }
    Ok(Arc::new(builder.finish()))
}

fn combine(args: &Args, operation: fn(u8, &[Sketch]) -> Result<Sketch>) -> Result<ArrayRef> {
    // The last argument may be the number of entries.
    let last = args.len() - 1;
    let sized = args.data_type(last).is_integer();
    let size = if sized {
        args.long(last)?.iter().next().flatten().unwrap_or(SIZE)
    } else {
        SIZE
    };
    let Some(lg) = exponent(size) else {
        return args.wrong(format!("needs a power of two as the size, not [{size}]"));
    };
    let columns = (0..args.len() - usize::from(sized))
        .map(|index| sketches(args, index, NAME))
        .collect::<Result<Vec<_>>>()?;
    let mut builder = BinaryBuilder::new();
    for row in 0..args.rows {
        let mut all = Vec::with_capacity(columns.len());
        let mut values = None;
        for column in columns.iter().filter(|column| column.is_valid(row)) {
            let stored = read(column.value(row))?;
            values = Some(agreed(values, stored.values)?);
            all.push(stored.sketch);
        }
        let result = Stored {
            values: values.unwrap_or(1),
            sketch: operation(lg, &all)?,
        };
        builder.append_value(result.written());
    }
    Ok(Arc::new(builder.finish()))
}

fn make(call: &Call<'_>) -> Result<Box<dyn Accumulator>> {
    // A last literal number is the number of entries, all between are metrics.
    let last = call.count() - 1;
    let sized = last > 0 && call.is_literal(last) && call.data_type(last).is_integer();
    let size = if sized { call.number(last, SIZE)? } else { SIZE };
    let Some(lg) = exponent(size) else {
        return call.wrong(format!("needs a power of two as the size, not [{size}]"));
    };
    Ok(Box::new(Tuple {
        lg,
        metrics: last - usize::from(sized),
        values: None,
        sketch: None,
        union: None,
    }))
}

#[derive(Debug)]
struct Tuple {
    lg: u8,
    metrics: usize,
    /// How many values the keys have, once there was one.
    values: Option<u8>,
    /// Of plain values.
    sketch: Option<TupleSketch<Sum>>,
    /// Of other sketches.
    union: Option<TupleUnion<Sum>>,
}

impl Tuple {
    fn merge(&mut self, sketches: &ArrayRef) -> Result<()> {
        let Some(bytes) = binary(sketches)? else {
            return Ok(());
        };
        for bytes in bytes.iter().flatten() {
            let Stored { values, sketch } = read(bytes)?;
            self.values = Some(agreed(self.values, values)?);
            let union = match &mut self.union {
                Some(union) => union,
                none => none.insert(union(self.lg)?),
            };
            union.update(&sketch).map_err(|error| damaged(NAME, &error))?;
        }
        Ok(())
    }

    fn result(&self) -> Result<Vec<u8>> {
        let mut both = union(self.lg)?;
        if let Some(sketch) = &self.sketch {
            both.update(sketch).map_err(|error| damaged(NAME, &error))?;
        }
        if let Some(other) = &self.union {
            let other = other.to_sketch(false);
            both.update(&other).map_err(|error| damaged(NAME, &error))?;
        }
        let values = u8::try_from(self.metrics.max(1)).unwrap_or(u8::MAX);
        let result = Stored {
            values: self.values.unwrap_or(values),
            sketch: both.to_sketch(false),
        };
        Ok(result.written())
    }
}

impl Accumulator for Tuple {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if super::is_binary(values[0].data_type()) {
            return self.merge(&values[0]);
        }
        let metrics = values[1..=self.metrics]
            .iter()
            .map(number::doubles)
            .collect::<Result<Vec<Float64Array>>>()?;
        let sketch = match &mut self.sketch {
            Some(sketch) => sketch,
            none => none.insert(
                TupleSketchBuilder::new(Sum)
                    .lg_k(self.lg)
                    .build()
                    .map_err(|error| damaged(NAME, &error))?,
            ),
        };
        let mut sums = vec![0.0; metrics.len().max(1)];
        self.values = Some(u8::try_from(sums.len()).unwrap_or(u8::MAX));
        for row in 0..values[0].len() {
            // A row without all of its metrics is not counted.
            if metrics.iter().any(|metric| metric.is_null(row)) {
                continue;
            }
            for (sum, metric) in sums.iter_mut().zip(&metrics) {
                *sum = metric.value(row);
            }
            each_item(&values[0].slice(row, 1), |item| match item {
                Item::Text("") => {}
                Item::Text(text) => sketch.update(raw_bytes::from_str(text), sums.as_slice()),
                // Keys are texts.
                Item::Long(value) => sketch.update(raw_bytes::from_str(&value.to_string()), sums.as_slice()),
                Item::Double(value) => {
                    sketch.update(raw_bytes::from_str(&java::double(value)), sums.as_slice())
                }
            })?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(&states[0])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        // Nothing says yet how many values there are if the sketches that are merged are still to come.
        let known = self.values.is_some() || self.metrics > 0;
        let result = known.then(|| self.result()).transpose()?;
        Ok(vec![ScalarValue::Binary(result)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(Some(self.result()?)))
    }

    fn size(&self) -> usize {
        let summaries = |entries: usize| entries * (32 + 8 * self.metrics);
        size_of_val(self)
            + self
                .sketch
                .as_ref()
                .map_or(0, |sketch| summaries(sketch.num_retained()))
            + self.union.as_ref().map_or(0, TupleUnion::estimated_size)
    }
}
