//! Values of `?` that come as rows of an Arrow stream.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use datafusion::scalar::ScalarValue;
use futures::stream::TryStreamExt;
use serde_json::{Value, json};
use tonic::Status;
use trilith_proto::error::ApiError;
use trilith_sql::SqlParameter;

/// Rows of parameters that one call may bring.
pub(super) const ROWS_MAX: usize = 10_000;
const DAY_MS: i64 = 86_400_000;

/// One list of values for each row.
pub(super) async fn read(stream: PeekableFlightDataStream) -> Result<Vec<Vec<SqlParameter>>, Status> {
    // A message with nothing but the descriptor comes first from some clients.
    let messages = stream
        .try_filter(|message| std::future::ready(!message.data_header.is_empty()))
        .map_err(|status| FlightError::Tonic(Box::new(status)));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(broken)? {
        if rows.len() + batch.num_rows() > ROWS_MAX {
            let message = format!("more than {ROWS_MAX} rows of parameters; send them in several calls");
            return Err(ApiError::invalid_input(message).into());
        }
        for row in 0..batch.num_rows() {
            rows.push(values(&batch, row)?);
        }
    }
    Ok(rows)
}

fn broken(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => ApiError::invalid_input(format!("the parameters cannot be read: {other}")).into(),
    }
}

fn values(batch: &RecordBatch, row: usize) -> Result<Vec<SqlParameter>, ApiError> {
    let columns = batch.columns().iter().enumerate();
    columns.map(|(index, column)| value(column, row, index)).collect()
}

fn value(column: &ArrayRef, row: usize, index: usize) -> Result<SqlParameter, ApiError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        ApiError::invalid_input(format!("parameter [{}] cannot be read: {error}", index + 1))
    };
    let scalar = ScalarValue::try_from_array(column, row).map_err(|error| unreadable(&error))?;
    let scalar = match scalar {
        ScalarValue::Dictionary(_, inner) => *inner,
        other => other,
    };
    let sql_type = sql_type(&scalar.data_type()).ok_or_else(|| {
        ApiError::invalid_input(format!(
            "parameter [{}] has the Arrow type {}, for which there is no SQL type; send a number, text, boolean, timestamp, date or list",
            index + 1,
            scalar.data_type()
        ))
    })?;
    let value = json_of(&scalar).map_err(|error| unreadable(&error))?;
    Ok(SqlParameter {
        sql_type: sql_type.to_owned(),
        value,
    })
}

fn sql_type(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        found if found.is_integer() => "BIGINT",
        found if found.is_floating() || found.is_decimal() => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Boolean => "BOOLEAN",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => "ARRAY",
        DataType::Null => "NULL",
        _ => return None,
    })
}

fn json_of(scalar: &ScalarValue) -> Result<Value, arrow::error::ArrowError> {
    if scalar.is_null() {
        return Ok(Value::Null);
    }
    let list = match scalar {
        ScalarValue::List(list) => Some(list.value(0)),
        ScalarValue::LargeList(list) => Some(list.value(0)),
        ScalarValue::FixedSizeList(list) => Some(list.value(0)),
        _ => None,
    };
    if let Some(items) = list {
        let items = (0..items.len()).map(|item| {
            let scalar = ScalarValue::try_from_array(&items, item)
                .map_err(|error| arrow::error::ArrowError::ExternalError(Box::new(error)))?;
            json_of(&scalar)
        });
        return items.collect();
    }
    Ok(match scalar {
        ScalarValue::Boolean(Some(value)) => json!(value),
        ScalarValue::Float32(Some(value)) => json!(value),
        ScalarValue::Float64(Some(value)) => json!(value),
        ScalarValue::Date32(Some(days)) => json!(days),
        ScalarValue::Date64(Some(ms)) => json!(ms.div_euclid(DAY_MS)),
        ScalarValue::TimestampSecond(Some(value), _) => json!(value * 1_000),
        ScalarValue::TimestampMillisecond(Some(value), _) => json!(value),
        ScalarValue::TimestampMicrosecond(Some(value), _) => json!(value.div_euclid(1_000)),
        ScalarValue::TimestampNanosecond(Some(value), _) => json!(value.div_euclid(1_000_000)),
        ScalarValue::UInt64(Some(value)) => json!(value),
        other if other.data_type().is_integer() => {
            let wide = other
                .cast_to(&DataType::Int64)
                .map_err(|error| arrow::error::ArrowError::ExternalError(Box::new(error)))?;
            match wide {
                ScalarValue::Int64(Some(value)) => json!(value),
                _ => Value::Null,
            }
        }
        other => {
            let array = other
                .to_array()
                .map_err(|error| arrow::error::ArrowError::ExternalError(Box::new(error)))?;
            let options = FormatOptions::default();
            json!(ArrayFormatter::try_new(&array, &options)?.value(0).to_string())
        }
    })
}

/// The type under which a client sends values of a described parameter.
pub(super) fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Millisecond, None),
        other => other.clone(),
    }
}
