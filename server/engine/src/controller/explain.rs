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
use trilith_proto::pb::task as pb;
use trilith_sql::{OutputColumn, Planned};

use super::planning::Prepared;
use crate::stage;

/// What EXPLAIN of a task says.
pub(crate) fn explanation(prepared: &Prepared) -> pb::Explanation {
    let planned = &prepared.planned;
    let columns: Vec<String> = planned.columns.iter().map(|column| column.name.clone()).collect();
    let context = Value::Object(planned.context.map().clone());
    let query = stage::native_query_json(&prepared.physical, &columns, &context);
    pb::Explanation {
        plan_json: plan_json(planned, &query, Some(&prepared.graph)).to_string(),
        resources_json: planned.resources_json().to_string(),
        attributes_json: planned.attributes_json().to_string(),
    }
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
