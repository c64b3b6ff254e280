//! Writes segment files from the output of the sorting stage.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use base64::Engine as _;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::StreamExt;
use serde_json::{Value, json};
use trilith_exchange::{ReadOrder, ReadRequest};
use trilith_proto::column::{self, ColumnType};
use trilith_proto::fault::Fault;
use trilith_proto::multi_value;
use trilith_segment::{SegmentError, SegmentRecord, SegmentWriter, ShardSpec};

use crate::limits;
use crate::stage;
use crate::worker::{Running, SegmentSink, SegmentTarget, WorkerEvent};

/// Writes every segment of an order, one after the other.
pub(crate) async fn write_segments(
    running: &mut Running<'_>,
    sink: SegmentSink,
) -> Result<WorkerEvent, Fault> {
    let layout = Layout::new(&sink)?;
    running.widen(layout.input.fields().len())?;
    let mut segments = Vec::with_capacity(sink.targets.len());
    for target in &sink.targets {
        segments.push(write_segment(running, &sink, &layout, target).await?);
        running.report(false).await;
    }
    Ok(WorkerEvent::OutputReady {
        id: running.id.clone(),
        partition_rows: Vec::new(),
        segments,
    })
}

/// Which input column becomes which stored one.
struct Layout {
    input: SchemaRef,
    schema: SchemaRef,
    time_column: Option<usize>,
    /// Input columns behind `__time`, in the order of the file.
    columns: Vec<usize>,
    /// Which of them have multi-value strings whose values are sorted.
    sorted: Vec<bool>,
}

impl Layout {
    fn new(sink: &SegmentSink) -> Result<Layout, Fault> {
        let broken = |error: &dyn std::fmt::Display| Fault::unknown(format!("segment schema: {error}"));
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(&sink.schema)
            .map_err(|error| broken(&error))?;
        let input: Schema = stage::decode_schema(&bytes).map_err(|error| broken(&error))?;
        let mut fields = vec![Field::new("__time", time_type(), false)];
        for (index, name) in &sink.columns {
            let field = input
                .fields()
                .get(*index)
                .ok_or_else(|| broken(&"a column is missing"))?;
            fields.push(column::to_field(name, &column::of_field(field), false));
        }
        let columns: Vec<usize> = sink.columns.iter().map(|(index, _)| *index).collect();
        let texts = fields
            .iter()
            .skip(1)
            .map(|field| column::of_field(field) == ColumnType::String);
        let sorted = columns
            .iter()
            .zip(texts)
            .map(|(index, text)| text && !sink.kept_order.contains(index))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Layout {
            input: Arc::new(input),
            schema,
            time_column: sink.time_column,
            columns,
            sorted,
        })
    }

    /// How rows are placed, in words that outlive the statement.
    fn describe(&self, sink: &SegmentSink, target: &SegmentTarget) -> trilith_segment::Layout {
        let name = |index: usize| {
            let stored = sink.columns.iter().find(|(column, _)| *column == index);
            match stored {
                Some((_, name)) => Some(name.clone()),
                None => (Some(index) == self.time_column).then(|| "__time".to_owned()),
            }
        };
        // Behind a column that is not stored the order is not one of the stored rows.
        let sort_order = sink.order.iter().map_while(|key| name(key.column)).collect();
        trilith_segment::Layout {
            clustered_by: sink.clustered_by.clone(),
            sort_order,
            aggregators: sink.metrics.iter().map(|(_, kind)| kind.clone()).collect(),
            query_granularity: sink.query_granularity.clone(),
            compaction_state: sink.compaction_state.as_deref().and_then(|rest| {
                let spread = partitions_spec(&target.shard_spec, sink.rows_per_segment);
                compaction_state(&spread, rest)
            }),
        }
    }

    fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, Fault> {
        let broken = |error: arrow::error::ArrowError| Fault::from_error(&error);
        let time: ArrayRef = match self.time_column {
            Some(index) => cast(batch.column(index), &time_type()).map_err(broken)?,
            None => {
                let epoch = TimestampMillisecondArray::from_value(0, batch.num_rows()).with_timezone("UTC");
                Arc::new(epoch)
            }
        };
        if time.null_count() > 0 {
            return Err(Fault::insert_time_null());
        }
        let mut columns = vec![time];
        let stored = self.schema.fields().iter().skip(1);
        for ((index, field), sorted) in self.columns.iter().zip(stored).zip(&self.sorted) {
            let column = batch.column(*index);
            let column = match column.data_type() == field.data_type() {
                true => Arc::clone(column),
                false => cast(column, field.data_type()).map_err(broken)?,
            };
            let in_order = column
                .as_string_opt::<i32>()
                .filter(|_| *sorted)
                .and_then(multi_value::sorted);
            columns.push(in_order.map_or(column, |texts| Arc::new(texts)));
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(broken)
    }
}

/// How rows were spread over segments, in the words of Druid's compaction.
fn partitions_spec(shard_spec: &ShardSpec, rows_per_segment: u64) -> Value {
    match shard_spec {
        ShardSpec::Range { dimensions, .. } => json!({
            "type": "range",
            "targetRowsPerSegment": null,
            "maxRowsPerSegment": rows_per_segment,
            "partitionDimensions": dimensions,
            "assumeGrouped": false,
        }),
        _ => json!({
            "type": "dynamic",
            "maxRowsPerSegment": rows_per_segment,
            "maxTotalRows": i64::MAX,
        }),
    }
}

/// The whole state: how rows were spread, and the rest.
fn compaction_state(spread: &Value, rest: &str) -> Option<String> {
    let Ok(Value::Object(rest)) = serde_json::from_str(rest) else {
        return None;
    };
    let mut state = serde_json::Map::new();
    state.insert("partitionsSpec".to_owned(), spread.clone());
    state.extend(rest);
    serde_json::to_string(&state).ok()
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn segment_fault(error: SegmentError) -> Fault {
    Fault::from_error(&error)
}

/// Memory of a segment's unfinished row group.
struct WriterMemory {
    most: usize,
    reservation: MemoryReservation,
}

impl WriterMemory {
    /// Reserves what the writer holds; ends the row group when that is too much.
    fn follow(&self, writer: &mut SegmentWriter) -> Result<(), Fault> {
        let bytes = writer.memory_bytes();
        let granted = bytes <= self.most && self.reservation.try_resize(bytes).is_ok();
        if !granted && bytes >= limits::ROW_GROUP_BYTES_MIN as usize {
            writer.flush().map_err(segment_fault)?;
        }
        if !granted {
            self.reservation.resize(writer.memory_bytes());
        }
        Ok(())
    }
}

async fn write_segment(
    running: &mut Running<'_>,
    sink: &SegmentSink,
    layout: &Layout,
    target: &SegmentTarget,
) -> Result<SegmentRecord, Fault> {
    let partition = target.partition.0;
    let channel = running.counters.input(0);
    let request = ReadRequest {
        schema: Arc::clone(&layout.input),
        sources: running.config.localized(&sink.sources),
        partition,
        order: ReadOrder::By(sink.order.clone()),
        keys: Vec::new(),
        counters: Arc::default(),
    };
    let config = running.config;
    let mut rows = trilith_exchange::read(&config.exchange, &config.flight_pool, &running.context, request)
        .map_err(Fault::from)?;
    let metadata = vec![
        ("trilith.datasource".to_owned(), sink.datasource.clone()),
        ("trilith.interval".to_owned(), target.interval.to_string()),
        ("trilith.version".to_owned(), target.version.clone()),
        (
            "trilith.rollup".to_owned(),
            (!sink.metrics.is_empty()).to_string(),
        ),
    ];
    let directory = &running.config.segment_directory;
    let mut writer = SegmentWriter::create(directory, &target.path, Arc::clone(&layout.schema), metadata)
        .map_err(segment_fault)?;
    let held = WriterMemory {
        most: running.config.memory.row_group_bytes(),
        reservation: MemoryConsumer::new("segment writer").register(running.context.memory_pool()),
    };
    while let Some(batch) = running.cancellable(rows.next()).await? {
        let batch = batch.map_err(|error| running.fault(&error))?;
        channel.batch(partition as usize, &batch);
        let started = Instant::now();
        let stored = layout.apply(&batch)?;
        writer.write(&stored).map_err(segment_fault)?;
        held.follow(&mut writer)?;
        running.counters.segments().processed(batch.num_rows() as u64);
        running.counters.cpu("segmentGenerator", started.elapsed());
        running.report(false).await;
    }
    let written = writer.finish().map_err(segment_fault)?;
    running.counters.segments().persisted(written.rows);
    running.counters.segments().pushed(written.rows);
    let is_metric = |name: &String| sink.metrics.iter().any(|(metric, _)| metric == name);
    let names = layout
        .schema
        .fields()
        .iter()
        .skip(1)
        .map(|field| field.name().clone());
    let (metrics, dimensions): (Vec<String>, Vec<String>) = names.partition(is_metric);
    Ok(SegmentRecord {
        datasource: sink.datasource.clone(),
        interval: target.interval,
        version: target.version.clone(),
        shard_spec: target.shard_spec.clone(),
        size_bytes: written.size_bytes,
        row_count: written.rows,
        path: Some(target.path.clone()),
        dimensions,
        metrics,
        columns: layout
            .schema
            .fields()
            .iter()
            .skip(1)
            .map(|field| (field.name().clone(), column::of_field(field)))
            .collect(),
        created_ms: chrono::Utc::now().timestamp_millis(),
        layout: layout.describe(sink, target),
    })
}
