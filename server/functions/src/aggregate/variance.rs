//! VARIANCE and STDDEV, of samples and of populations, with Druid's arithmetic: one value varies by 0.
//!
//! A rollup keeps count, sum and spread, eight bytes each and big-endian as in Druid, which can be combined.

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::{Aggregate, Call};
use crate::number;

pub(super) fn functions() -> Vec<Aggregate> {
    let function = |name, make| {
        Aggregate::new(
            name,
            (1, 1),
            |_| Ok(DataType::Float64),
            |_| vec![DataType::Int64, DataType::Float64, DataType::Float64],
            make,
        )
    };
    let kept = Aggregate::new(
        "druid_variance_kept",
        (1, 1),
        |_| Ok(DataType::Binary),
        |_| vec![DataType::Int64, DataType::Float64, DataType::Float64],
        |call| make(call, Form::Kept),
    );
    vec![
        function("var_pop", |call| make(call, Form::VARIANCE)),
        function("var_samp", |call| make(call, Form::VARIANCE.of_sample())).alias(&["variance"]),
        function("stddev_pop", |call| make(call, Form::DEVIATION)),
        function("stddev_samp", |call| make(call, Form::DEVIATION.of_sample())).alias(&["stddev"]),
        kept.complex(|_| KEPT),
    ]
}

/// COMPLEX of this name is what a rollup keeps.
const KEPT: &str = "variance";

/// What becomes of count, sum and spread.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// One number.
    Number {
        /// Of a sample, not of all there is.
        sample: bool,
        /// The standard deviation.
        root: bool,
    },
    /// All three.
    Kept,
}

impl Form {
    const VARIANCE: Form = Form::Number {
        sample: false,
        root: false,
    };
    const DEVIATION: Form = Form::Number {
        sample: false,
        root: true,
    };

    fn of_sample(self) -> Form {
        match self {
            Form::Number { root, .. } => Form::Number { sample: true, root },
            Form::Kept => self,
        }
    }
}

fn make(call: &Call<'_>, form: Form) -> Result<Box<dyn Accumulator>> {
    if call.is_distinct() {
        return call.wrong("does not take DISTINCT; aggregate a SELECT DISTINCT instead");
    }
    let folds = match call.complex(0) {
        None => false,
        Some(kind) if kind == KEPT => true,
        Some(_) => return call.cannot_apply(),
    };
    Ok(Box::new(Variance {
        form,
        folds,
        count: 0,
        sum: 0.0,
        spread: 0.0,
    }))
}

#[derive(Debug)]
struct Variance {
    form: Form,
    /// The values are what rollups kept.
    folds: bool,
    count: i64,
    sum: f64,
    /// The variance, times the count.
    spread: f64,
}

impl Variance {
    /// `scaled` is the value times the count, which Druid multiplies in the type of the value.
    fn spread(&self, scaled: f64) -> f64 {
        let distance = scaled - self.sum;
        let count = self.count as f64;
        distance * distance / (count * (count - 1.0))
    }

    fn add(&mut self, value: f64, scaled: impl Fn(i64) -> f64) {
        self.count += 1;
        self.sum += value;
        if self.count > 1 {
            self.spread += self.spread(scaled(self.count));
        }
    }

    fn fold(&mut self, count: i64, sum: f64, spread: f64) {
        if count == 0 {
            return;
        }
        if self.count == 0 {
            (self.count, self.sum, self.spread) = (count, sum, spread);
            return;
        }
        let ratio = self.count as f64 / count as f64;
        let distance = self.sum / ratio - sum;
        self.spread += spread + ratio / (self.count + count) as f64 * distance * distance;
        self.count += count;
        self.sum += sum;
    }
}

enum Numbers {
    Longs(Int64Array),
    Floats(Float32Array),
    Doubles(Float64Array),
}

fn numbers(values: &ArrayRef) -> Result<Numbers> {
    Ok(match values.data_type() {
        data_type if data_type.is_integer() => Numbers::Longs(number::longs(values)?),
        DataType::Float32 => Numbers::Floats(values.as_primitive().clone()),
        _ => Numbers::Doubles(number::doubles(values)?),
    })
}

impl Variance {
    fn fold_kept(&mut self, kept: &ArrayRef) -> Result<()> {
        for bytes in kept.as_binary::<i32>().iter().flatten() {
            let word = |index: usize| {
                let eight = bytes.get(index * 8..index * 8 + 8);
                eight.and_then(|eight| <[u8; 8]>::try_from(eight).ok())
            };
            let (Some(count), Some(sum), Some(spread)) = (word(0), word(1), word(2)) else {
                return exec_err!("a variance that was kept by a rollup cannot be read");
            };
            self.fold(
                i64::from_be_bytes(count),
                f64::from_be_bytes(sum),
                f64::from_be_bytes(spread),
            );
        }
        Ok(())
    }

    fn kept(&self) -> Option<Vec<u8>> {
        (self.count > 0).then(|| {
            let words = [
                self.count.to_be_bytes(),
                self.sum.to_be_bytes(),
                self.spread.to_be_bytes(),
            ];
            words.concat()
        })
    }
}

impl Accumulator for Variance {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.folds {
            return self.fold_kept(&values[0]);
        }
        match numbers(&values[0])? {
            Numbers::Longs(longs) => longs
                .iter()
                .flatten()
                .for_each(|value| self.add(value as f64, |count| count.wrapping_mul(value) as f64)),
            Numbers::Floats(floats) => floats
                .iter()
                .flatten()
                .for_each(|value| self.add(value.into(), |count| (count as f32 * value).into())),
            Numbers::Doubles(doubles) => doubles
                .iter()
                .flatten()
                .for_each(|value| self.add(value, |count| count as f64 * value)),
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in number::doubles(&values[0])?.iter().flatten() {
            if self.count > 1 {
                self.spread -= self.spread(self.count as f64 * value);
            } else {
                self.spread = 0.0;
            }
            self.count -= 1;
            self.sum -= value;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        !self.folds
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[0].as_primitive::<Int64Type>();
        let sums = states[1].as_primitive::<Float64Type>();
        let spreads = states[2].as_primitive::<Float64Type>();
        for row in 0..counts.len() {
            self.fold(counts.value(row), sums.value(row), spreads.value(row));
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![
            ScalarValue::Int64(Some(self.count)),
            ScalarValue::Float64(Some(self.sum)),
            ScalarValue::Float64(Some(self.spread)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let Form::Number { sample, root } = self.form else {
            return Ok(ScalarValue::Binary(self.kept()));
        };
        let variance = match self.count {
            0 => None,
            1 => Some(0.0),
            count => Some(self.spread / (count - i64::from(sample)) as f64),
        };
        Ok(ScalarValue::Float64(if root {
            variance.map(f64::sqrt)
        } else {
            variance
        }))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
