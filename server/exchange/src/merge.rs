//! Merges sorted streams.

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, BoxStream, StreamExt};

use crate::error::ExchangeError;
use crate::shuffle::SortKey;
use crate::sizes::batch_rows;

/// Rows of several streams that are each sorted by `keys`, in that order. Rows that tie come from the earlier stream
/// first. Holds one block of every stream.
pub(crate) fn merge(
    streams: Vec<BoxStream<'static, Result<RecordBatch, ExchangeError>>>,
    schema: &SchemaRef,
    keys: &[SortKey],
) -> Result<BoxStream<'static, Result<RecordBatch, ExchangeError>>, ExchangeError> {
    let Some(ordering) = ordering(schema, keys)? else {
        return Ok(stream::iter(streams).flatten().boxed());
    };
    let streams = streams.into_iter().map(|rows| sendable(rows, schema)).collect();
    // What a merge holds cannot be spilled and is small; to refuse it would only stop the reader.
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let merged = StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(Arc::clone(schema))
        .with_expressions(&ordering)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(batch_rows(schema.fields().len()))
        .with_reservation(MemoryConsumer::new("exchange merge").register(&pool))
        .with_round_robin_tie_breaker(false)
        .build()?;
    Ok(merged.map(|batch| Ok(batch?)).boxed())
}

/// None when there are no keys.
pub(crate) fn ordering(schema: &Schema, keys: &[SortKey]) -> Result<Option<LexOrdering>, ExchangeError> {
    let expression = |key: &SortKey| {
        let field = schema
            .fields()
            .get(key.column)
            .ok_or(ExchangeError::BadKeyColumn { column: key.column })?;
        let column = Arc::new(Column::new(field.name(), key.column));
        Ok(PhysicalSortExpr::new(column, key.options()))
    };
    let expressions = keys
        .iter()
        .map(expression)
        .collect::<Result<Vec<_>, ExchangeError>>()?;
    Ok(LexOrdering::new(expressions))
}

/// As the query engine wants streams.
pub(crate) fn sendable(
    rows: BoxStream<'static, Result<RecordBatch, ExchangeError>>,
    schema: &SchemaRef,
) -> SendableRecordBatchStream {
    let rows = rows.map(|batch| batch.map_err(DataFusionError::from));
    let adapter = RecordBatchStreamAdapter::new(Arc::clone(schema), rows);
    let boxed: Pin<Box<_>> = Box::pin(adapter);
    boxed
}
