//! EARLIEST_BY and LATEST_BY: the value at the first or last time.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;

use super::{Aggregate, Call};
use crate::function::is_time;
use crate::{multiple, number};

/// Bytes of a text that are kept when the call does not say.
pub(super) const TEXT_BYTES: i64 = 1_024;

pub(super) fn functions() -> Vec<Aggregate> {
    let by = |name, make| Aggregate::new(name, (2, 3), first_type, state, make);
    vec![
        by("earliest_by", |call| make(call, false)),
        by("latest_by", |call| make(call, true)),
    ]
}

pub(super) fn first_type(types: &[DataType]) -> Result<DataType> {
    Ok(types.first().cloned().unwrap_or(DataType::Null))
}

fn state(types: &[DataType]) -> Vec<DataType> {
    vec![DataType::Int64, types.first().cloned().unwrap_or(DataType::Null)]
}

fn make(call: &Call<'_>, latest: bool) -> Result<Box<dyn Accumulator>> {
    if !is_time(&call.data_type(1)) {
        return call.cannot_apply();
    }
    let bytes = call.number(2, TEXT_BYTES)?;
    Ok(Box::new(Extremum {
        latest,
        time: None,
        value: ScalarValue::try_from(&call.data_type(0))?,
        bytes: usize::try_from(bytes).unwrap_or(0),
    }))
}

#[derive(Debug)]
struct Extremum {
    latest: bool,
    time: Option<i64>,
    value: ScalarValue,
    bytes: usize,
}

impl Extremum {
    fn take(&mut self, values: &ArrayRef, times: &ArrayRef) -> Result<()> {
        let times = number::longs(times)?;
        let mut best: Option<(usize, i64)> = None;
        for (row, time) in times.iter().enumerate() {
            let Some(time) = time else { continue };
            let known = best.map(|(_, time)| time).or(self.time);
            // Of equal times the first is the earliest, the last the latest.
            let better = known.is_none_or(|known| if self.latest { time >= known } else { time < known });
            if better {
                best = Some((row, time));
            }
        }
        if let Some((row, time)) = best {
            self.time = Some(time);
            self.value = one_text(ScalarValue::try_from_array(values, row)?.compacted(), self.bytes);
        }
        Ok(())
    }
}

/// A text of at most so many bytes; that of a multi-value string is Java's of the list.
pub(super) fn one_text(value: ScalarValue, bytes: usize) -> ScalarValue {
    let ScalarValue::Utf8(Some(mut text)) = value else {
        return value;
    };
    if let Some(items) = multiple::split(&text) {
        let items: Vec<&str> = items
            .iter()
            .map(|item| item.as_deref().unwrap_or("null"))
            .collect();
        text = format!("[{}]", items.join(", "));
    }
    if text.len() > bytes {
        let end = (0..=bytes)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
    ScalarValue::Utf8(Some(text))
}

impl Accumulator for Extremum {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.take(&values[0], &values[1])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        debug_assert!(states[0].as_primitive_opt::<Int64Type>().is_some());
        self.take(&states[1], &states[0])
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Int64(self.time), self.value.clone()])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }
}
