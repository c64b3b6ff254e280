//! Single values of Parquet columns.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalUnit,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use base64::Engine as _;
use serde_json::{Map, Value as Json};
use trilith_proto::column::ColumnType;

use crate::columns::Value;
use crate::json_columns::written;
use crate::number::json_double;

/// How values are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader {
    /// Bytes without a type of their own are UTF-8, not base64.
    pub binary_as_string: bool,
    /// A float of 32 bits is on its way into text: its shortest digits count, not its exact value.
    pub floats_as_text: bool,
}

impl Reader {
    /// A value on its way into a column of the given type. `scratch` holds its text.
    pub(crate) fn value<'s>(
        self,
        array: &ArrayRef,
        row: usize,
        column_type: &ColumnType,
        scratch: &'s mut String,
    ) -> Value<'s> {
        if array.is_null(row) {
            return Value::Null;
        }
        if is_bytes(array.data_type()) && !self.binary_as_string {
            *scratch = self.bytes_text(array, row);
            return Value::Bytes(scratch);
        }
        if *column_type == ColumnType::String
            && let Some(text) = decimal_text(array, row)
        {
            *scratch = text;
            return Value::Text(scratch);
        }
        let reader = Reader {
            floats_as_text: is_text(column_type),
            ..self
        };
        written(Some(reader.json(array, row)), scratch)
    }

    /// A value as JSON: times are milliseconds, bytes are base64, maps are objects.
    pub(crate) fn json(self, array: &ArrayRef, row: usize) -> Json {
        if array.is_null(row) {
            return Json::Null;
        }
        if let Some(text) = decimal_text(array, row) {
            return json_double(text.parse().unwrap_or(f64::NAN));
        }
        macro_rules! at {
            ($kind:ty) => {
                array.as_primitive::<$kind>().value(row)
            };
        }
        match array.data_type() {
            DataType::Boolean => Json::Bool(array.as_boolean().value(row)),
            DataType::Int8 => Json::from(at!(Int8Type)),
            DataType::Int16 => Json::from(at!(Int16Type)),
            DataType::Int32 => Json::from(at!(Int32Type)),
            DataType::Int64 => Json::from(at!(Int64Type)),
            DataType::UInt8 => Json::from(at!(UInt8Type)),
            DataType::UInt16 => Json::from(at!(UInt16Type)),
            DataType::UInt32 => Json::from(at!(UInt32Type)),
            DataType::UInt64 => Json::from(at!(UInt64Type)),
            DataType::Float16 => json_double(at!(Float16Type).to_f64()),
            DataType::Float32 => self.float(at!(Float32Type)),
            DataType::Float64 => json_double(at!(Float64Type)),
            DataType::Date32 => Json::from(i64::from(at!(Date32Type)) * 86_400_000),
            DataType::Timestamp(TimeUnit::Second, _) => Json::from(at!(TimestampSecondType) * 1_000),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Json::from(at!(TimestampMillisecondType)),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Json::from(at!(TimestampMicrosecondType) / 1_000)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Json::from(at!(TimestampNanosecondType) / 1_000_000)
            }
            DataType::Time32(TimeUnit::Second) => Json::from(at!(Time32SecondType)),
            DataType::Time32(_) => Json::from(at!(Time32MillisecondType)),
            DataType::Time64(TimeUnit::Microsecond) => Json::from(at!(Time64MicrosecondType)),
            DataType::Time64(_) => Json::from(at!(Time64NanosecondType)),
            DataType::Interval(IntervalUnit::DayTime) => {
                let interval = at!(IntervalDayTimeType);
                let ms = i64::from(interval.days) * 86_400_000 + i64::from(interval.milliseconds);
                Json::String(duration(ms))
            }
            DataType::Utf8 => Json::from(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => Json::from(array.as_string::<i64>().value(row)),
            DataType::Utf8View => Json::from(array.as_string_view().value(row)),
            DataType::List(_) => self.list(&array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => self.list(&array.as_list::<i64>().value(row)),
            DataType::FixedSizeList(..) => self.list(&array.as_fixed_size_list().value(row)),
            DataType::Struct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns());
                let entries = columns.map(|(field, column)| (field.name().clone(), self.json(column, row)));
                Json::Object(entries.collect::<Map<_, _>>())
            }
            DataType::Map(..) => {
                let entries = array.as_map().value(row);
                let (keys, values) = (entries.column(0), entries.column(1));
                let entry = |at: usize| {
                    let key = match self.json(keys, at) {
                        Json::String(text) => text,
                        other => other.to_string(),
                    };
                    (key, self.json(values, at))
                };
                Json::Object((0..entries.len()).map(entry).collect::<Map<_, _>>())
            }
            data_type if is_bytes(data_type) => Json::String(self.bytes_text(array, row)),
            _ => Json::Null,
        }
    }

    fn float(self, value: f32) -> Json {
        let shortest = self
            .floats_as_text
            .then(|| value.to_string().parse().ok())
            .flatten();
        json_double(shortest.unwrap_or(f64::from(value)))
    }

    fn list(self, items: &ArrayRef) -> Json {
        (0..items.len()).map(|item| self.json(items, item)).collect()
    }

    fn bytes_text(self, array: &ArrayRef, row: usize) -> String {
        let bytes = match array.data_type() {
            DataType::Binary => array.as_binary::<i32>().value(row),
            DataType::LargeBinary => array.as_binary::<i64>().value(row),
            DataType::BinaryView => array.as_binary_view().value(row),
            DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
            _ => &[],
        };
        match self.binary_as_string {
            true => String::from_utf8_lossy(bytes).into_owned(),
            false => base64::engine::general_purpose::STANDARD.encode(bytes),
        }
    }
}

/// Numbers in a column of this type are written out.
pub(crate) fn is_text(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::String | ColumnType::Complex(_) => true,
        ColumnType::Array(item) => **item == ColumnType::String,
        _ => false,
    }
}

/// Bytes without a type of their own.
pub(crate) fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    )
}

/// All digits of a decimal.
fn decimal_text(array: &ArrayRef, row: usize) -> Option<String> {
    match array.data_type() {
        DataType::Decimal32(..) => Some(array.as_primitive::<Decimal32Type>().value_as_string(row)),
        DataType::Decimal64(..) => Some(array.as_primitive::<Decimal64Type>().value_as_string(row)),
        DataType::Decimal128(..) => Some(array.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Decimal256(..) => Some(array.as_primitive::<Decimal256Type>().value_as_string(row)),
        _ => None,
    }
}

/// As Java prints a length of time: "PT90.500S".
fn duration(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let (seconds, rest) = (ms.unsigned_abs() / 1_000, ms.unsigned_abs() % 1_000);
    match rest {
        0 => format!("PT{sign}{seconds}S"),
        rest => format!("PT{sign}{seconds}.{rest:03}S"),
    }
}
