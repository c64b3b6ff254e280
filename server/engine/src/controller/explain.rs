//! EXPLAIN PLAN FOR: the plan as one row.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::ExecutionPlan;
use serde_json::{Value, json};
use trilith_proto::column::ColumnType;
use trilith_proto::error::ApiError;
use trilith_proto::interval::Interval;
use trilith_proto::pb::task as pb;
use trilith_sql::{OutputColumn, Planned};

use super::planning::Prepared;
use crate::stage::{self, SegmentSlice};

/// What EXPLAIN of a task says.
pub(crate) fn explanation(prepared: &Prepared) -> pb::Explanation {
    let planned = &prepared.planned;
    let columns: Vec<String> = planned.columns.iter().map(|column| column.name.clone()).collect();
    let context = Value::Object(planned.context.map().clone());
    let query = stage::native_query_json(&prepared.physical, &columns, &context);
    let mut plan = plan_json(planned, &query, Some(&prepared.graph));
    if let Some(ingest) = &planned.ingest
        && let Some(overwrite) = &ingest.overwrite
    {
        plan[0]["replaces"] = replaced(&prepared.catalog.slices(&ingest.datasource), overwrite);
    }
    pb::Explanation {
        plan_json: plan.to_string(),
        resources_json: planned.resources_json().to_string(),
        attributes_json: planned.attributes_json().to_string(),
    }
}

/// Segments whose rows a REPLACE would drop, or of one that is only covered in part, some of them.
fn replaced(slices: &[SegmentSlice], overwrite: &[Interval]) -> Value {
    let covered = |part: &Interval| overwrite.iter().any(|interval| interval.contains(part));
    let touched = |part: &Interval| overwrite.iter().any(|interval| interval.overlaps(part));
    let (mut segments, mut rows, mut most) = (Vec::new(), 0, 0);
    for slice in slices.iter().filter(|slice| !slice.record.is_tombstone()) {
        let record = &slice.record;
        let parts = slice.visible.clone().unwrap_or_else(|| vec![record.interval]);
        if !parts.iter().any(touched) {
            continue;
        }
        // Of a segment that others hide in part nobody has counted the rows.
        let whole = slice.visible.is_none() && parts.iter().all(covered);
        most += record.row_count;
        rows += if whole { record.row_count } else { 0 };
        segments.push(json!({
            "id": record.segment_id(),
            "interval": record.interval.to_string(),
            "numRows": record.row_count,
            "whole": whole,
        }));
    }
    json!({"numSegments": segments.len(), "minRows": rows, "maxRows": most, "segments": segments})
}

fn plan_json(planned: &Planned, query: &Value, graph: Option<&stage::StageGraph>) -> Value {
    let signature: Vec<Value> = planned
        .columns
        .iter()
        .map(|column| json!({"name": column.name, "type": column.column_type.to_string()}))
        .collect();
    let mappings: Vec<Value> = planned
        .columns
        .iter()
        .map(|column| json!({"queryColumn": column.name, "outputColumn": column.name}))
        .collect();
    let mut plan = json!({"query": query, "signature": signature, "columnMappings": mappings});
    if let Some(graph) = graph {
        plan["stages"] = stage::stages_json(graph);
    }
    json!([plan])
}

/// EXPLAIN of a statement that would run at once, as rows.
pub(crate) fn explain_rows(
    planned: &Planned,
    query: &Value,
) -> Result<(Arc<dyn ExecutionPlan>, Vec<OutputColumn>), ApiError> {
    let values = [
        ("PLAN", plan_json(planned, query, None)),
        ("RESOURCES", planned.resources_json()),
        ("ATTRIBUTES", planned.attributes_json()),
    ];
    let fields: Vec<Field> = values
        .iter()
        .map(|(name, _)| Field::new(*name, DataType::Utf8, true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<ArrayRef> = values
        .iter()
        .map(|(_, value)| Arc::new(StringArray::from(vec![value.to_string()])) as ArrayRef)
        .collect();
    let broken =
        |error: &dyn std::fmt::Display| ApiError::internal(format!("the plan cannot be shown: {error}"));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|error| broken(&error))?;
    let plan =
        MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).map_err(|error| broken(&error))?;
    let output = values
        .iter()
        .map(|(name, _)| OutputColumn {
            name: (*name).to_owned(),
            column_type: ColumnType::String,
            sql_type: "VARCHAR".to_owned(),
        })
        .collect();
    Ok((plan, output))
}
