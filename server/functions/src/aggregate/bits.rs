//! BIT_AND, which Druid folds from 0: it is 0 of any values, and NULL of none.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::Aggregate;

pub(super) fn functions() -> Vec<Aggregate> {
    vec![Aggregate::new(
        "bit_and",
        (1, 1),
        |_| Ok(DataType::Int64),
        |_| vec![DataType::Int64],
        |_| Ok(Box::new(And { count: 0 })),
    )]
}

#[derive(Debug)]
struct And {
    /// Values that are not NULL.
    count: i64,
}

fn count(values: &ArrayRef) -> i64 {
    (values.len() - values.logical_null_count()) as i64
}

impl Accumulator for And {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count += count(&values[0]);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count -= count(&values[0]);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let counts = states[0].as_primitive::<Int64Type>();
        self.count += counts.iter().flatten().sum::<i64>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Int64(Some(self.count))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64((self.count > 0).then_some(0)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}
