//! EARLIEST_BY and LATEST_BY: the value at the first or last time.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result;
use datafusion::logical_expr::Accumulator;
use trilith_proto::timed;

use super::{Aggregate, Call};
use crate::function::is_time;
use crate::{multiple, number, text};

/// Bytes of a text that are kept when the call does not say.
pub(super) const TEXT_BYTES: i64 = 1_024;

pub(super) fn functions() -> Vec<Aggregate> {
    let by = |name, make| Aggregate::new(name, (2, 3), first_type, state, make).timed();
    // What a rollup stores: the value and its time.
    let kept = |name, make| {
        Aggregate::new(name, (2, 3), |_| Ok(DataType::Binary), state, make)
            .timed()
            .complex(|types| timed::complex_name(types.first().unwrap_or(&DataType::Null)))
    };
    vec![
        by("earliest_by", |call| make(call, false, false)),
        by("latest_by", |call| make(call, true, false)),
        kept("druid_earliest_by_kept", |call| make(call, false, true)),
        kept("druid_latest_by_kept", |call| make(call, true, true)),
    ]
}

pub(super) fn first_type(types: &[DataType]) -> Result<DataType> {
    Ok(types.first().cloned().unwrap_or(DataType::Null))
}

fn state(types: &[DataType]) -> Vec<DataType> {
    vec![DataType::Int64, types.first().cloned().unwrap_or(DataType::Null)]
}

fn make(call: &Call<'_>, latest: bool, kept: bool) -> Result<Box<dyn Accumulator>> {
    if !is_time(&call.data_type(1)) {
        return call.cannot_apply();
    }
    let bytes = call.number(2, TEXT_BYTES)?;
    let inside = call.timed(0);
    let pairs = inside.is_some();
    let data_type = inside.unwrap_or_else(|| call.data_type(0));
    Ok(Box::new(Extremum {
        latest,
        kept,
        pairs,
        time: None,
        value: ScalarValue::try_from(&data_type)?,
        bytes: usize::try_from(bytes).unwrap_or(0),
    }))
}

#[derive(Debug)]
struct Extremum {
    latest: bool,
    /// The result has its time, for a rollup.
    kept: bool,
    /// The values have their times with them.
    pairs: bool,
    time: Option<i64>,
    value: ScalarValue,
    bytes: usize,
}

impl Extremum {
    fn is_better(&self, time: i64, known: Option<i64>) -> bool {
        // Of equal times the first is the earliest, the last the latest.
        known.is_none_or(|known| if self.latest { time >= known } else { time < known })
    }

    fn take(&mut self, values: &ArrayRef, times: &ArrayRef) -> Result<()> {
        let times = number::longs(times)?;
        let mut best: Option<(usize, i64)> = None;
        for (row, time) in times.iter().enumerate() {
            let Some(time) = time else { continue };
            if self.is_better(time, best.map(|(_, time)| time).or(self.time)) {
                best = Some((row, time));
            }
        }
        if let Some((row, time)) = best {
            self.time = Some(time);
            self.value = one_text(ScalarValue::try_from_array(values, row)?.compacted(), self.bytes);
        }
        Ok(())
    }

    fn take_pairs(&mut self, pairs: &ArrayRef) -> Result<()> {
        for pair in pairs.as_binary::<i32>().iter().flatten() {
            let Some((time, value)) = timed::decode(pair) else {
                return exec_err!("a value that was kept with its time cannot be read");
            };
            if self.is_better(time, self.time) {
                self.time = Some(time);
                self.value = one_text(scalar(value, &self.value.data_type()), self.bytes);
            }
        }
        Ok(())
    }

    /// The value and its time, as one.
    fn pair(&self) -> Result<Option<Vec<u8>>> {
        let Some(time) = self.time else { return Ok(None) };
        let value = self.value.to_array()?;
        if value.is_null(0) {
            return Ok(Some(timed::encode(time, timed::Value::Null)));
        }
        Ok(Some(match value.data_type() {
            DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => {
                let double = number::doubles(&value)?.value(0);
                timed::encode(time, timed::Value::Double(double))
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                timed::encode(time, timed::Value::Text(text::of(&value)?.value(0)))
            }
            _ => timed::encode(time, timed::Value::Long(number::longs(&value)?.value(0))),
        }))
    }
}

fn scalar(value: timed::Value<'_>, data_type: &DataType) -> ScalarValue {
    match (value, data_type) {
        (timed::Value::Long(long), _) => ScalarValue::Int64(Some(long)),
        (timed::Value::Double(double), DataType::Float32) => ScalarValue::Float32(Some(double as f32)),
        (timed::Value::Double(double), _) => ScalarValue::Float64(Some(double)),
        (timed::Value::Text(text), _) => ScalarValue::Utf8(Some(text.to_owned())),
        (timed::Value::Null, DataType::Float32) => ScalarValue::Float32(None),
        (timed::Value::Null, DataType::Float64) => ScalarValue::Float64(None),
        (timed::Value::Null, DataType::Utf8) => ScalarValue::Utf8(None),
        (timed::Value::Null, _) => ScalarValue::Int64(None),
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
        if self.pairs {
            return self.take_pairs(&values[0]);
        }
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
        if self.kept {
            return Ok(ScalarValue::Binary(self.pair()?));
        }
        Ok(self.value.clone())
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.value.size()
    }
}
