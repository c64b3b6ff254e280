//! From SQL text to a stage graph.

use std::sync::Arc;

use base64::Engine as _;
use datafusion::physical_plan::ExecutionPlan;
use serde_json::{Value, json};
use trilith_exchange::SortKey;
use trilith_proto::column::{self, ColumnType};
use trilith_proto::error::{ApiError, Category, Persona};
use trilith_proto::fault::Fault;
use trilith_proto::interval::Granularity;
use trilith_sql::{Ingest, Planned, Statement};

use super::Controller;
use super::catalog::Snapshot;
use super::infer::InferredSignatures;
use crate::stage::{self, CutOptions, Destination, StageGraph};
use crate::worker::SegmentSink;

/// A statement that is ready to run as a task.
pub(crate) struct Prepared {
    pub planned: Planned,
    pub graph: StageGraph,
    pub physical: Arc<dyn ExecutionPlan>,
    /// The metadata that it was planned with.
    pub catalog: Arc<Snapshot>,
}

/// The error of a client for an error of DataFusion's physical planner.
pub(crate) fn planning_error(error: &datafusion::error::DataFusionError) -> ApiError {
    match Fault::find(error) {
        Some(fault) => ApiError::from(fault),
        None => ApiError::unsupported(trilith_sql::plain_message(error)),
    }
}

impl Controller {
    /// Parses, validates and plans a statement for the task engine.
    pub(crate) async fn prepare(self: &Arc<Self>, statement: Statement) -> Result<Prepared, ApiError> {
        let inferred = self.inferred_signatures(&statement).await?;
        let controller = Arc::clone(self);
        self.computed(async move { controller.plan_task(statement, inferred).await })
            .await
    }

    async fn plan_task(
        self: &Arc<Self>,
        statement: Statement,
        inferred: InferredSignatures,
    ) -> Result<Prepared, ApiError> {
        let catalog = Arc::new(Snapshot::new(self).with_inferred(inferred));
        let engine = trilith_sql::Engine::Task;
        let runtime = Arc::clone(&self.worker_config.runtime_env);
        let known = Arc::clone(&catalog);
        let planned = trilith_sql::plan(statement, engine, known, runtime)?;
        let physical = planned
            .state
            .query_planner()
            .create_physical_plan(&planned.plan, &planned.state)
            .await
            .and_then(stage::by_reference)
            .map_err(|error| planning_error(&error))?;
        let max_workers = planned.context.max_num_tasks().saturating_sub(1).max(1);
        let destination = match &planned.ingest {
            Some(ingest) => segments(ingest, &planned, &physical, max_workers)?,
            None => Destination::Results,
        };
        let mut graph = stage::cut(
            Arc::clone(&physical),
            destination,
            CutOptions {
                max_workers,
                window_rows_max: planned.context.max_window_rows(),
            },
        )
        .map_err(|error| planning_error(&error))?;
        let context = &planned.context;
        let configured = self.worker_config.exchange.durable().is_ok();
        if !configured && context.durable_results() && context.is_statement() {
            return Err(ApiError::new(
                Category::InvalidInput,
                Persona::Operator,
                "general",
                "The sql statement api cannot read from the select destination [durableStorage] provided in the query context [selectDestination] since it is not configured on the broker. It is recommended to configure durable storage as it allows the user to fetch large result sets: start the server with --durable-storage.",
            ));
        }
        // As in Druid, work that may run again keeps its rows where a lost worker cannot take them along.
        let durable = context.durable_shuffle_storage();
        if durable.unwrap_or(configured && context.fault_tolerance()) {
            graph.make_durable();
        }
        if planned.ingest.is_none() && context.durable_results() {
            graph.page_results(context.rows_per_page());
        }
        Ok(Prepared {
            planned,
            graph,
            physical,
            catalog,
        })
    }
}

fn segments(
    ingest: &Ingest,
    planned: &Planned,
    physical: &Arc<dyn ExecutionPlan>,
    max_workers: u32,
) -> Result<Destination, ApiError> {
    let schema = physical.schema();
    let visible = schema.fields().len().saturating_sub(ingest.hidden_columns);
    let mut columns: Vec<(usize, String)> = (0..visible)
        .filter(|index| Some(*index) != ingest.time_column)
        .map(|index| {
            (
                index,
                planned
                    .columns
                    .get(index)
                    .map_or_else(String::new, |column| column.name.clone()),
            )
        })
        .collect();
    let cluster: Vec<SortKey> = ingest
        .clustered_by
        .iter()
        .map(|key| SortKey {
            column: key.column,
            descending: false,
            nulls_first: true,
        })
        .collect();
    let order = segment_order(ingest, &cluster);
    let metrics = ingest
        .rollup
        .as_ref()
        .map(|rollup| rollup.metrics.clone())
        .unwrap_or_default();
    // Dimensions in the order that the rows have, then metrics.
    columns.sort_by_key(|(index, name)| {
        let metric = metrics.iter().any(|(metric, _)| metric == name);
        let place = order.iter().position(|key| key.column == *index);
        (metric, place.unwrap_or(usize::MAX))
    });
    let query_granularity = ingest
        .rollup
        .as_ref()
        .map(|rollup| rollup.query_granularity.clone());
    let schema_bytes = stage::encode_schema(&schema).map_err(|error| planning_error(&error))?;
    let mut sink = SegmentSink {
        datasource: ingest.datasource.clone(),
        schema: base64::engine::general_purpose::STANDARD.encode(schema_bytes),
        time_column: ingest.time_column,
        columns,
        kept_order: ingest.kept_order.clone(),
        metrics,
        query_granularity,
        clustered_by: ingest
            .clustered_by
            .iter()
            .filter_map(|key| key.output_name.clone())
            .collect(),
        compaction_state: None,
        rows_per_segment: ingest.rows_per_segment,
        order,
        sources: Vec::new(),
        targets: Vec::new(),
    };
    let processor_json = processor_json(ingest, planned, &sink, max_workers);
    if ingest.overwrite.is_some() && planned.context.store_compaction_state() {
        sink.compaction_state = Some(compaction_state(ingest, planned, &processor_json).to_string());
    }
    let bucketed = !matches!(ingest.granularity, Granularity::All);
    Ok(Destination::Segments {
        cluster,
        time_column: ingest.time_column.filter(|_| bucketed),
        granularity: ingest.granularity,
        rows_per_segment: ingest.rows_per_segment,
        sink: Box::new(sink),
        processor_json,
    })
}

/// What a later compaction needs to know of how segments were made, but for how rows were spread over them.
fn compaction_state(ingest: &Ingest, planned: &Planned, processor: &Value) -> Value {
    let schema = &processor["dataSchema"];
    let default = json!({
        "bitmap": {"type": "roaring"},
        "dimensionCompression": "lz4",
        "stringDictionaryEncoding": {"type": "utf8"},
        "metricCompression": "lz4",
        "longEncoding": "longs",
    });
    let intervals: Vec<String> = match &ingest.overwrite {
        Some(intervals) => intervals.iter().map(ToString::to_string).collect(),
        None => Vec::new(),
    };
    let granularity = &schema["granularitySpec"];
    json!({
        "dimensionsSpec": schema["dimensionsSpec"],
        "metricsSpec": schema["metricsSpec"],
        "transformSpec": null,
        "indexSpec": planned.context.index_spec().unwrap_or(default),
        "granularitySpec": {
            "type": "uniform",
            "segmentGranularity": ingest.granularity.to_json(),
            "queryGranularity": granularity["queryGranularity"],
            "rollup": granularity["rollup"],
            "intervals": intervals,
        },
    })
}

/// How rows are ordered inside a segment.
fn segment_order(ingest: &Ingest, cluster: &[SortKey]) -> Vec<SortKey> {
    let key = |column| SortKey {
        column,
        descending: false,
        nulls_first: true,
    };
    let first = ingest.time_column.filter(|_| ingest.segment_sort.force_by_time);
    let wanted = (first.into_iter().map(key))
        .chain(ingest.segment_sort.order.iter().copied().map(key))
        .chain(cluster.iter().cloned())
        .chain(ingest.time_column.map(key));
    let mut order: Vec<SortKey> = Vec::new();
    for key in wanted {
        if !order.iter().any(|known| known.column == key.column) {
            order.push(key);
        }
    }
    order
}

/// How segments are generated, in Druid's words.
fn processor_json(ingest: &Ingest, planned: &Planned, sink: &SegmentSink, max_workers: u32) -> Value {
    let is_metric = |name: &str| sink.metrics.iter().any(|(metric, _)| metric == name);
    let dimensions: Vec<Value> = sink
        .columns
        .iter()
        .filter(|(_, name)| !is_metric(name))
        .map(|(index, name)| {
            let column_type = planned.columns.get(*index).map(|column| &column.column_type);
            let text = match column_type {
                Some(ColumnType::Long) => "long",
                Some(ColumnType::Double) => "double",
                Some(ColumnType::Float) => "float",
                Some(ColumnType::String) | None => "string",
                Some(ColumnType::Complex(kind)) if kind == "json" => "json",
                Some(_) => "auto",
            };
            json!({
                "type": text,
                "name": name,
                "multiValueHandling": "SORTED_ARRAY",
                "createBitmapIndex": text == "string",
            })
        })
        .collect();
    let metrics: Vec<Value> = sink
        .metrics
        .iter()
        .map(|(name, kind)| json!({"type": kind, "name": name, "fieldName": name}))
        .collect();
    let mappings: Vec<Value> = planned
        .columns
        .iter()
        .map(|column| json!({"queryColumn": column.name, "outputColumn": column.name}))
        .collect();
    let intervals: Vec<String> = match &ingest.overwrite {
        Some(intervals) => intervals.iter().map(ToString::to_string).collect(),
        None => vec![trilith_proto::interval::ETERNITY.to_string()],
    };
    json!({
        "type": "segmentGenerator",
        "dataSchema": {
            "dataSource": sink.datasource,
            "timestampSpec": {"column": "__time", "format": "millis", "missingValue": null},
            "dimensionsSpec": {
                "dimensions": dimensions,
                "dimensionExclusions": ["__time"],
                "includeAllDimensions": false,
                "useSchemaDiscovery": false,
            },
            "metricsSpec": metrics,
            "granularitySpec": {
                "type": "arbitrary",
                "queryGranularity": match &sink.query_granularity {
                    Some(name) => json!(name),
                    None => json!({"type": "none"}),
                },
                "rollup": ingest.rollup.is_some(),
                "intervals": intervals,
            },
            "transformSpec": {"filter": null, "transforms": []},
        },
        "columnMappings": mappings,
        "tuningConfig": {
            "maxNumWorkers": max_workers,
            "rowsPerSegment": ingest.rows_per_segment,
        },
    })
}

/// Type of an output column by name, as segments store it.
pub(crate) fn stored_type(schema: &arrow::datatypes::Schema, index: usize) -> ColumnType {
    schema
        .fields()
        .get(index)
        .map_or(ColumnType::String, |field| column::of_field(field))
}
