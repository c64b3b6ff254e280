//! ANY_VALUE and SINGLE_VALUE: the value of a row, which may be NULL.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::extremum::{TEXT_BYTES, first_type, one_text};
use super::{Aggregate, Call};
use crate::multiple;

pub(super) fn functions() -> Vec<Aggregate> {
    vec![
        Aggregate::new("any_value", (1, 3), first_type, state, |call| make(call, false)),
        Aggregate::new("single_value", (1, 1), first_type, state, |call| make(call, true)),
    ]
}

fn state(types: &[DataType]) -> Vec<DataType> {
    vec![DataType::Int64, types.first().cloned().unwrap_or(DataType::Null)]
}

fn make(call: &Call<'_>, single: bool) -> Result<Box<dyn Accumulator>> {
    let bytes = call.number(1, TEXT_BYTES)?;
    let whole = match call.literal(2)? {
        Some(ScalarValue::Boolean(Some(whole))) => whole,
        None => true,
        Some(_) => return call.cannot_apply(),
    };
    Ok(Box::new(AnyValue {
        rows: 0,
        value: ScalarValue::try_from(&call.data_type(0))?,
        bytes: usize::try_from(bytes).unwrap_or(0),
        whole,
        single,
    }))
}

#[derive(Debug)]
struct AnyValue {
    rows: i64,
    value: ScalarValue,
    bytes: usize,
    /// A multi-value string becomes one text of all its values, not its first value.
    whole: bool,
    single: bool,
}

impl AnyValue {
    fn check(&self) -> Result<()> {
        if self.single && self.rows > 1 {
            return exec_err!("Subquery expression returned more than one row");
        }
        Ok(())
    }
}

impl Accumulator for AnyValue {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = &values[0];
        if self.rows == 0 && !values.is_empty() {
            let value = ScalarValue::try_from_array(values, 0)?.compacted();
            self.value = match value {
                value if self.single => value,
                value if self.whole => one_text(value, self.bytes),
                ScalarValue::Utf8(Some(text)) => {
                    let first = multiple::values(&text).into_iter().next().flatten();
                    one_text(ScalarValue::Utf8(first), self.bytes)
                }
                value => value,
            };
        }
        self.rows += values.len() as i64;
        self.check()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states[0].as_primitive::<arrow::datatypes::Int64Type>();
        for (index, count) in rows.iter().enumerate() {
            let count = count.unwrap_or(0);
            if self.rows == 0 && count > 0 {
                self.value = ScalarValue::try_from_array(&states[1], index)?.compacted();
            }
            self.rows += count;
        }
        self.check()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Int64(Some(self.rows)), self.value.clone()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }
}
