//! Reads one partition of the outputs of a stage.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use crate::durable::DurableArea;
use crate::error::ExchangeError;
use crate::flight::client::FlightPool;
use crate::flight::ticket::PieceTicket;
use crate::gather::{self, Gathered};
use crate::memory::value_bytes;
use crate::merge;
use crate::output::{OutputOrder, StageOutput};
use crate::registry::Exchange;
use crate::shuffle::{ReadOrder, SortKey, StageSource};

const ARRIVAL_COLUMN: &str = "__arrival";

/// A stream of batches inside the exchange.
pub(crate) type Batches = BoxStream<'static, Result<RecordBatch, ExchangeError>>;

/// What a reader has received so far.
#[derive(Debug, Default)]
pub struct ReadCounters {
    /// Rows.
    pub rows: AtomicU64,
    /// Bytes of the values.
    pub bytes: AtomicU64,
    /// Batches.
    pub frames: AtomicU64,
    /// Rows that came from other processes; they are among `rows`.
    pub remote_rows: AtomicU64,
    /// Bytes that came from other processes; they are among `bytes`.
    pub remote_bytes: AtomicU64,
}

impl ReadCounters {
    fn add(&self, batch: &RecordBatch, remote: bool) {
        let rows = batch.num_rows() as u64;
        let bytes = value_bytes(batch) as u64;
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
        if remote {
            self.remote_rows.fetch_add(rows, Ordering::Relaxed);
            self.remote_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// One partition of the outputs of a stage.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// Schema of the outputs.
    pub schema: SchemaRef,
    /// Where they are.
    pub sources: Vec<StageSource>,
    /// Which partition, from 0.
    pub partition: u32,
    /// How it is sorted. `Keys` needs `keys`.
    pub order: ReadOrder,
    /// Keys by which the outputs are sorted; used by `ReadOrder::Keys` only.
    pub keys: Vec<SortKey>,
    /// Told of every batch.
    pub counters: Arc<ReadCounters>,
}

/// Reads one partition. The same outputs give the same rows in the same order: rows that tie come in the order of
/// the sources, and then of their writer. An output of this process that is not there fails the call; one of another
/// process fails the stream.
pub fn read(
    exchange: &Arc<Exchange>,
    client: &Arc<FlightPool>,
    context: &Arc<TaskContext>,
    request: ReadRequest,
) -> Result<SendableRecordBatchStream, ExchangeError> {
    let local = local_outputs(exchange, &request.sources)?;
    let schema = Arc::clone(&request.schema);
    if let ReadOrder::By(keys) = &request.order
        && local.len() == request.sources.len()
    {
        let outputs: Vec<_> = local.iter().flatten().cloned().collect();
        if outputs.len() == local.len()
            && let Some(gathered) = Gathered::collect(&outputs, request.partition)?
        {
            let bytes = gathered.rows() * gather::BYTES_PER_ROW;
            if let Some(memory) = exchange.shared().try_reserve("exchange gather", bytes) {
                let rows = gathered.sorted(Arc::clone(&schema), keys.clone(), memory);
                return Ok(counted(conform(rows, &schema), &schema, &request.counters, false));
            }
        }
    }
    let order = match request.order {
        ReadOrder::Keys => OutputOrder::Keys,
        ReadOrder::Any | ReadOrder::By(_) => OutputOrder::Kept,
    };
    let on_batch = |_: u32, _: &RecordBatch| {};
    let streams = source_streams(
        exchange,
        client,
        &request,
        request.partition,
        order,
        local,
        on_batch,
    )?;
    match request.order {
        ReadOrder::Any => Ok(merge::sendable(stream::iter(streams).flatten().boxed(), &schema)),
        ReadOrder::Keys => Ok(merge::sendable(
            merge::merge(streams, &schema, &request.keys)?,
            &schema,
        )),
        ReadOrder::By(keys) => sort(stream::iter(streams).flatten().boxed(), &schema, &keys, context),
    }
}

/// Reads several partitions as one, merged by the keys of the shuffle: of use when each is sorted, but they do not
/// follow each other. `on_batch` hears of every batch, with its partition.
pub fn read_merged(
    exchange: &Arc<Exchange>,
    client: &Arc<FlightPool>,
    request: &ReadRequest,
    partitions: &[u32],
    on_batch: impl Fn(u32, &RecordBatch) + Clone + Send + Sync + 'static,
) -> Result<SendableRecordBatchStream, ExchangeError> {
    let mut streams = Vec::with_capacity(partitions.len() * request.sources.len());
    for partition in partitions {
        let local = local_outputs(exchange, &request.sources)?;
        streams.extend(source_streams(
            exchange,
            client,
            request,
            *partition,
            OutputOrder::Keys,
            local,
            on_batch.clone(),
        )?);
    }
    let merged = merge::merge(streams, &request.schema, &request.keys)?;
    Ok(merge::sendable(merged, &request.schema))
}

/// One stream for each source.
fn source_streams(
    exchange: &Arc<Exchange>,
    client: &Arc<FlightPool>,
    request: &ReadRequest,
    partition: u32,
    order: OutputOrder,
    local: Vec<Option<Arc<StageOutput>>>,
    on_batch: impl Fn(u32, &RecordBatch) + Clone + Send + Sync + 'static,
) -> Result<Vec<Batches>, ExchangeError> {
    let mut streams = Vec::with_capacity(request.sources.len());
    for (source, output) in request.sources.iter().zip(local) {
        let (rows, remote) = match (output, &source.address) {
            _ if source.durable => {
                let storage = exchange.durable()?;
                let area = DurableArea::Intermediate;
                (storage.read(area, &source.id, partition), false)
            }
            (Some(output), _) => (output.stream(partition, order, 0)?, false),
            (None, Some(address)) => {
                let ticket = PieceTicket::new(&source.id, partition, order);
                (client.read(address.clone(), ticket), true)
            }
            (None, None) => {
                return Err(ExchangeError::OutputMissing {
                    id: source.id.clone(),
                });
            }
        };
        let (counters, on_batch) = (Arc::clone(&request.counters), on_batch.clone());
        streams.push(
            conform(rows, &request.schema)
                .inspect_ok(move |batch| {
                    counters.add(batch, remote);
                    on_batch(partition, batch);
                })
                .boxed(),
        );
    }
    Ok(streams)
}

/// By source, its output if it is in this process.
fn local_outputs(
    exchange: &Exchange,
    sources: &[StageSource],
) -> Result<Vec<Option<Arc<StageOutput>>>, ExchangeError> {
    sources
        .iter()
        .map(|source| match source.address {
            _ if source.durable => Ok(None),
            None => exchange.get(&source.id).map(Some),
            Some(_) => Ok(None),
        })
        .collect()
}

fn counted(
    rows: Batches,
    schema: &SchemaRef,
    counters: &Arc<ReadCounters>,
    remote: bool,
) -> SendableRecordBatchStream {
    let counters = Arc::clone(counters);
    merge::sendable(
        rows.inspect_ok(move |batch| counters.add(batch, remote)).boxed(),
        schema,
    )
}

/// Gives all batches the schema that the reader knows; names and metadata may differ from the writer's.
fn conform(rows: Batches, schema: &SchemaRef) -> Batches {
    let schema = Arc::clone(schema);
    rows.map(move |batch| {
        let batch = batch?;
        if batch.schema_ref() == &schema {
            return Ok(batch);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(&schema),
            columns,
            &options,
        )?)
    })
    .boxed()
}

/// Sorts with the query engine's sort, which spills. Rows that tie stay in the order of arrival.
fn sort(
    rows: Batches,
    schema: &SchemaRef,
    keys: &[SortKey],
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream, ExchangeError> {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ARRIVAL_COLUMN, DataType::UInt64, false)));
    let numbered_schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let numbered = number(rows, &numbered_schema);
    let mut all_keys = keys.to_vec();
    all_keys.push(SortKey::ascending(schema.fields().len()));
    let Some(ordering) = merge::ordering(&numbered_schema, &all_keys)? else {
        return Err(ExchangeError::BadKeyColumn {
            column: schema.fields().len(),
        });
    };
    let input = OneStream {
        schema: Arc::clone(&numbered_schema),
        rows: Mutex::new(Some(numbered)),
    };
    let input = StreamingTableExec::try_new(
        numbered_schema,
        vec![Arc::new(input)],
        None,
        Vec::new(),
        false,
        None,
    )?;
    let sorted = SortExec::new(ordering, Arc::new(input)).execute(0, Arc::clone(context))?;
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let rows = sorted.map(move |batch| Ok(batch?.project(&columns)?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows)))
}

fn number(rows: Batches, schema: &SchemaRef) -> Batches {
    let schema = Arc::clone(schema);
    let mut next = 0_u64;
    rows.map(move |batch| {
        let batch = batch?;
        let end = next + batch.num_rows() as u64;
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(UInt64Array::from_iter_values(next..end)));
        next = end;
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
    })
    .boxed()
}

/// A stream as the input of a plan that runs once.
struct OneStream {
    schema: SchemaRef,
    rows: Mutex<Option<Batches>>,
}

impl fmt::Debug for OneStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneStream").finish_non_exhaustive()
    }
}

impl PartitionStream for OneStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self
            .rows
            .lock()
            .take()
            .unwrap_or_else(|| stream::iter([Err(ExchangeError::Stopped)]).boxed());
        merge::sendable(rows, &self.schema)
    }
}
