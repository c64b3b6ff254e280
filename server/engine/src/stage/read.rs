//! What a leaf does when it runs.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::exec_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::EmptyRecordBatchStream;
use datafusion::physical_plan::stream::{RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::Sender;
use trilith_exchange::{ReadOrder, ReadRequest, SortKey, StageSource};
use trilith_input::{ExternSpec, ReadCounters, ReadOptions, Split};
use trilith_proto::interval::Interval;
use trilith_segment::SegmentReader;

use super::counters::ChannelProgress;
use super::services::{WorkOrderServices, fault_error};
use super::source::{SegmentSlice, Source};
use crate::worker::localized;

/// Batches that wait between a reading thread and the operators.
const QUEUED_BATCHES: usize = 4;

pub(crate) fn execute(
    source: &Source,
    ordering: &[SortKey],
    schema: &SchemaRef,
    input: usize,
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let services = context
        .session_config()
        .get_extension::<WorkOrderServices>()
        .ok_or_else(|| exec_datafusion_err!("a stage input can only be read by a worker"))?;
    let counter = services.counters.input(input);
    match source {
        Source::External {
            spec,
            projection,
            splits,
        } => {
            // A file that several workers read in pieces is counted by the one that reads its beginning.
            counter.total_files(splits.iter().filter(|split| split.begins_file()).count());
            Ok(external(
                Arc::clone(spec),
                projection.clone(),
                splits.clone(),
                schema,
                services,
                counter,
                context,
            ))
        }
        Source::Segments {
            segments, pruning, ..
        } => {
            counter.total_files(segments.len());
            Ok(segment_rows(
                segments.clone(),
                pruning.time_range(),
                schema,
                &services,
                counter,
                context,
            ))
        }
        Source::Stage {
            merge,
            interleaved,
            sources,
            partitions,
            ..
        } => {
            let keys = if *merge { ordering.to_vec() } else { Vec::new() };
            if *interleaved && !keys.is_empty() && partitions.len() > 1 {
                return merged_rows(keys, sources, partitions, schema, &services, counter);
            }
            stage_rows(keys, sources, partitions, schema, &services, &counter, context)
        }
    }
}

fn external(
    spec: Arc<ExternSpec>,
    projection: Vec<usize>,
    splits: Vec<Split>,
    schema: &SchemaRef,
    services: Arc<WorkOrderServices>,
    counter: Arc<ChannelProgress>,
    context: &Arc<TaskContext>,
) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(schema), QUEUED_BATCHES);
    let sender = builder.tx();
    let schema = Arc::clone(schema);
    let options = ReadOptions {
        batch_rows: context.session_config().batch_size(),
        remove_null_bytes: services.remove_null_bytes,
        large_record_bytes: services.max_frame_bytes,
        cancel: services.cancel.clone(),
    };
    let handle = tokio::runtime::Handle::current();
    builder.spawn_blocking(move || {
        let counters = ReadCounters::default();
        for split in &splits {
            let mut open = true;
            let mut wrong = None;
            let mut seen = counters.bytes();
            let mut emit = |batch: RecordBatch| {
                let bytes = counters.bytes();
                counter.add(0, batch.num_rows() as u64, bytes - seen, 0);
                seen = bytes;
                match conform(batch, &schema) {
                    Ok(batch) => match sender.blocking_send(Ok(batch)) {
                        Ok(()) => ControlFlow::Continue(()),
                        Err(_closed) => {
                            open = false;
                            ControlFlow::Break(())
                        }
                    },
                    Err(error) => {
                        wrong = Some(error);
                        ControlFlow::Break(())
                    }
                }
            };
            trilith_input::read_split(
                &spec,
                split,
                &projection,
                &services.policy,
                &options,
                &counters,
                services.warnings.as_ref(),
                &handle,
                &mut emit,
            )
            .map_err(fault_error)?;
            if let Some(error) = wrong {
                return Err(error);
            }
            if !open {
                return Ok(());
            }
            counter.add_bytes(counters.bytes() - seen);
            if split.begins_file() {
                counter.file_done();
            }
        }
        Ok(())
    });
    builder.build()
}

/// The same columns under the schema that was planned (nullability, metadata).
fn conform(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        batch.columns().to_vec(),
        &options,
    )?)
}

fn segment_rows(
    segments: Vec<SegmentSlice>,
    time_range: Option<Interval>,
    schema: &SchemaRef,
    services: &WorkOrderServices,
    counter: Arc<ChannelProgress>,
    context: &Arc<TaskContext>,
) -> SendableRecordBatchStream {
    let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(schema), QUEUED_BATCHES);
    let sender = builder.tx();
    let schema = Arc::clone(schema);
    let directory = services.segment_directory.clone();
    let batch_rows = context.session_config().batch_size();
    // No thread of its own: however many statements read, as many threads as there are cores decode.
    builder.spawn(async move {
        for slice in &segments {
            // A tombstone has no file.
            if let Some(path) = &slice.record.path {
                let reader = SegmentReader::open(&directory.join(path)).map_err(external_error)?;
                let rows = read_segment(&reader, slice, time_range, &schema, batch_rows, &counter, &sender);
                let open = rows.await?;
                if !open {
                    return Ok(());
                }
            }
            counter.file_done();
        }
        Ok(())
    });
    builder.build()
}

async fn read_segment(
    reader: &SegmentReader,
    slice: &SegmentSlice,
    time_range: Option<Interval>,
    schema: &SchemaRef,
    batch_rows: usize,
    counter: &ChannelProgress,
    sender: &Sender<Result<RecordBatch>>,
) -> Result<bool> {
    let stored = reader.schema();
    let present: Vec<usize> = schema
        .fields()
        .iter()
        .filter_map(|field| stored.index_of(field.name()).ok())
        .collect();
    let parts = match &slice.visible {
        Some(parts) => parts.iter().map(|part| Some(*part)).collect(),
        None => vec![None],
    };
    for part in parts {
        let range = match (part, time_range) {
            (Some(part), Some(range)) => match part.intersect(&range) {
                Some(both) => Some(both),
                None => continue,
            },
            (part, range) => part.or(range),
        };
        for batch in reader.read(&present, batch_rows, range).map_err(external_error)? {
            let batch = batch.map_err(external_error)?;
            counter.add(
                0,
                batch.num_rows() as u64,
                batch.get_array_memory_size() as u64,
                0,
            );
            if sender.send(widen(&batch, schema)).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Puts the columns of an older segment under the table's schema: what it lacks is null.
fn widen(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) => {
                let stored = batch.schema_ref().field_with_name(field.name())?;
                trilith_functions::widened(column, stored, field)
            }
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}

fn stage_rows(
    keys: Vec<SortKey>,
    sources: &[StageSource],
    partitions: &[u32],
    schema: &SchemaRef,
    services: &Arc<WorkOrderServices>,
    counter: &Arc<ChannelProgress>,
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    if partitions.is_empty() {
        return Ok(Box::pin(EmptyRecordBatchStream::new(Arc::clone(schema))));
    }
    let batch_rows = context.session_config().batch_size();
    let (services, counter, context) = (Arc::clone(services), Arc::clone(counter), Arc::clone(context));
    let sources = localized(&services.own_address, sources);
    let planned = Arc::clone(schema);
    // One partition after the other, in order: ranges follow each other.
    let rows = stream::iter(partitions.to_vec())
        .then(move |partition| {
            let order = if keys.is_empty() {
                ReadOrder::Any
            } else {
                ReadOrder::Keys
            };
            let request = ReadRequest {
                schema: Arc::clone(&planned),
                sources: sources.clone(),
                partition,
                order,
                keys: keys.clone(),
                counters: Arc::default(),
            };
            let read = trilith_exchange::read(&services.exchange, &services.flight_pool, &context, request);
            let (counter, planned) = (Arc::clone(&counter), Arc::clone(&planned));
            async move {
                let rows = read.map_err(external_error)?;
                Ok::<_, DataFusionError>(rows.map(move |batch| {
                    let batch = conform(batch?, &planned)?;
                    counter.batch(partition as usize, &batch);
                    Ok::<_, DataFusionError>(batch)
                }))
            }
        })
        .try_flatten()
        .map_ok(move |batch| stream::iter(pieces(batch, batch_rows).map(Ok::<_, DataFusionError>)))
        .try_flatten();
    Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows)))
}

/// Partitions that are sorted each for itself, as one.
fn merged_rows(
    keys: Vec<SortKey>,
    sources: &[StageSource],
    partitions: &[u32],
    schema: &SchemaRef,
    services: &Arc<WorkOrderServices>,
    counter: Arc<ChannelProgress>,
) -> Result<SendableRecordBatchStream> {
    let request = ReadRequest {
        schema: Arc::clone(schema),
        sources: localized(&services.own_address, sources),
        partition: 0,
        order: ReadOrder::Keys,
        keys,
        counters: Arc::default(),
    };
    let count = move |partition: u32, batch: &RecordBatch| counter.batch(partition as usize, batch);
    trilith_exchange::read_merged(
        &services.exchange,
        &services.flight_pool,
        &request,
        partitions,
        count,
    )
    .map_err(external_error)
}

/// Pieces of at most `rows` rows. An aggregation of sorted rows gives away one batch of groups for each batch of
/// rows that it takes: with larger ones it would fall behind, and keep them all.
fn pieces(batch: RecordBatch, rows: usize) -> impl Iterator<Item = RecordBatch> {
    let (all, rows) = (batch.num_rows(), rows.max(1));
    (0..all.max(1))
        .step_by(rows)
        .map(move |start| batch.slice(start, rows.min(all - start)))
}

fn external_error(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
