//! Quantiles of doubles, by KLL sketches.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Accumulator;
use datasketches::common::SearchCriteria;
use datasketches::kll::{KllFloat, KllSketch};

use super::{binary, damaged, doubles_text, sketches, texts};
use crate::aggregate::{Aggregate, Call};
use crate::function::{Args, Function, returns_double, returns_text};
use crate::number;

const NAME: &str = "quantiles";
/// Size parameter when the call does not say.
const K: i64 = 128;

type Sketch = KllSketch<KllFloat<f64>>;

pub(super) fn aggregates() -> Vec<Aggregate> {
    let state = |_: &[DataType]| vec![DataType::Binary];
    vec![
        Aggregate::new(
            "ds_quantiles_sketch",
            (1, 2),
            |_| Ok(DataType::Binary),
            state,
            |call| {
                let k = call.number(1, K)?;
                make(call, k, None)
            },
        )
        .complex(|_| "quantilesDoublesSketch"),
        Aggregate::new("approx_quantile_ds", (2, 3), returns_double, state, |call| {
            let k = call.number(2, K)?;
            if !call.data_type(1).is_numeric() {
                return call.cannot_apply();
            }
            let fraction = match call.literal(1)?.map(|scalar| scalar.cast_to(&DataType::Float64)) {
                Some(Ok(ScalarValue::Float64(Some(fraction)))) if (0.0..=1.0).contains(&fraction) => fraction,
                _ => return call.wrong("needs a probability between 0 and 1 as argument 2"),
            };
            make(call, k, Some(fraction))
        })
        .empty(|_| Ok(ScalarValue::Float64(Some(f64::NAN)))),
    ]
}

pub(super) fn functions() -> Vec<Function> {
    let many = (2, usize::MAX);
    vec![
        Function::new("ds_get_quantile", (2, 2), returns_double, |args| {
            each(args, |sketch, fractions| quantile(sketch, fractions[0]))
        }),
        Function::new("ds_rank", (2, 2), returns_double, |args| {
            each(args, |sketch, values| {
                let value = KllFloat::<f64>::new(values[0]).ok();
                let rank = value.and_then(|value| sketch.rank(&value, SearchCriteria::Inclusive));
                Ok(rank.unwrap_or(f64::NAN))
            })
        }),
        Function::new("ds_get_quantiles", many, returns_text, |args| {
            lists(args, |sketch, fractions| {
                fractions
                    .iter()
                    .map(|fraction| quantile(sketch, *fraction))
                    .collect()
            })
        }),
        Function::new("ds_cdf", many, returns_text, |args| {
            lists(args, |sketch, points| {
                let points = floats(points)?;
                let found = sketch
                    .cdf(&points, SearchCriteria::Inclusive)
                    .map_err(|error| damaged(NAME, &error))?;
                Ok(found.unwrap_or_else(|| vec![f64::NAN; points.len() + 1]))
            })
        }),
        Function::new("ds_histogram", many, returns_text, |args| {
            lists(args, |sketch, points| {
                let points = floats(points)?;
                let count = sketch.n() as f64;
                let found = sketch
                    .pmf(&points, SearchCriteria::Inclusive)
                    .map_err(|error| damaged(NAME, &error))?;
                Ok(match found {
                    Some(shares) => shares.into_iter().map(|share| share * count).collect(),
                    None => vec![f64::NAN; points.len() + 1],
                })
            })
        }),
        Function::new("ds_quantile_summary", (1, 1), returns_text, summary),
    ]
}

/// How many values each sketch has seen.
pub(super) fn finalized(args: &Args) -> Result<ArrayRef> {
    texts(args, NAME, |bytes| Ok(read(bytes)?.n().to_string()))
}

fn read(bytes: &[u8]) -> Result<Sketch> {
    Sketch::deserialize(bytes).map_err(|error| damaged(NAME, &error))
}

fn floats(values: &[f64]) -> Result<Vec<KllFloat<f64>>> {
    values
        .iter()
        .map(|value| KllFloat::<f64>::new(*value).map_err(|error| damaged(NAME, &error)))
        .collect()
}

fn quantile(sketch: &Sketch, fraction: f64) -> Result<f64> {
    let found = sketch
        .quantile(fraction, SearchCriteria::Inclusive)
        .map_err(|_| {
            DataFusionError::Execution(format!(
                "a quantile needs a fraction between 0 and 1, not [{fraction}]"
            ))
        })?;
    Ok(found.map_or(f64::NAN, KllFloat::into_inner))
}

/// The other arguments of each row; none if one is NULL.
fn points(args: &Args) -> Result<Vec<Float64Array>> {
    (1..args.len()).map(|index| args.double(index)).collect()
}

fn each(args: &Args, take: fn(&Sketch, &[f64]) -> Result<f64>) -> Result<ArrayRef> {
    let (bytes, points) = (sketches(args, 0, NAME)?, points(args)?);
    let mut out = Vec::with_capacity(args.rows);
    for (row, bytes) in bytes.iter().enumerate() {
        let missing = points.iter().any(|column| column.is_null(row));
        let Some(bytes) = bytes.filter(|_| !missing) else {
            out.push(None);
            continue;
        };
        let points: Vec<f64> = points.iter().map(|column| column.value(row)).collect();
        out.push(Some(take(&read(bytes)?, &points)?));
    }
    Ok(Arc::new(Float64Array::from(out)))
}

fn lists(args: &Args, take: fn(&Sketch, &[f64]) -> Result<Vec<f64>>) -> Result<ArrayRef> {
    let (bytes, points) = (sketches(args, 0, NAME)?, points(args)?);
    let mut builder = StringBuilder::new();
    for (row, bytes) in bytes.iter().enumerate() {
        let missing = points.iter().any(|column| column.is_null(row));
        let Some(bytes) = bytes.filter(|_| !missing) else {
            builder.append_null();
            continue;
        };
        let points: Vec<f64> = points.iter().map(|column| column.value(row)).collect();
        builder.append_value(doubles_text(&take(&read(bytes)?, &points)?));
    }
    Ok(Arc::new(builder.finish()))
}

fn summary(args: &Args) -> Result<ArrayRef> {
    let bytes = sketches(args, 0, NAME)?;
    let mut builder = StringBuilder::new();
    for bytes in &bytes {
        let Some(bytes) = bytes else {
            builder.append_null();
            continue;
        };
        let sketch = read(bytes)?;
        let edge = |item: Option<&KllFloat<f64>>| item.map_or(f64::NAN, |item| item.into_inner());
        builder.append_value(format!(
            "\n### Quantiles KLL SUMMARY: \n   K                            : {}\n   N                            : {}\n   Retained Items               : {}\n   Estimation Mode              : {}\n   Min Item                     : {:?}\n   Max Item                     : {:?}\n### END SKETCH SUMMARY\n",
            sketch.k(),
            sketch.n(),
            sketch.num_retained(),
            sketch.is_estimation_mode(),
            edge(sketch.min_item()),
            edge(sketch.max_item()),
        ));
    }
    Ok(Arc::new(builder.finish()))
}

fn make(call: &Call<'_>, k: i64, fraction: Option<f64>) -> Result<Box<dyn Accumulator>> {
    let sketch = u16::try_from(k).ok().and_then(|k| Sketch::new(k).ok());
    match sketch {
        Some(sketch) => Ok(Box::new(Quantiles { sketch, fraction })),
        None => call.wrong(format!("k must be between 8 and 65535, not [{k}]")),
    }
}

#[derive(Debug)]
struct Quantiles {
    sketch: Sketch,
    fraction: Option<f64>,
}

impl Quantiles {
    fn merge(&mut self, sketches: &ArrayRef) -> Result<()> {
        let Some(bytes) = binary(sketches)? else {
            return Ok(());
        };
        for bytes in bytes.iter().flatten() {
            self.sketch
                .merge(&read(bytes)?)
                .map_err(|error| damaged(NAME, &error))?;
        }
        Ok(())
    }
}

impl Accumulator for Quantiles {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if super::is_binary(values[0].data_type()) {
            return self.merge(&values[0]);
        }
        // NaN has no rank.
        for value in number::doubles(&values[0])?.iter().flatten() {
            if let Ok(value) = KllFloat::<f64>::new(value) {
                self.sketch.update(value);
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(&states[0])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.sketch.serialize()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.fraction {
            None => ScalarValue::Binary(Some(self.sketch.serialize())),
            Some(fraction) => ScalarValue::Float64(Some(quantile(&self.sketch, fraction)?)),
        })
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sketch.num_retained() * 16
    }
}
