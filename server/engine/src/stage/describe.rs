//! Plans as JSON, for reports and EXPLAIN.

use std::sync::Arc;

use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::joins::SortMergeJoinExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use serde_json::{Map, Value, json};

use super::graph::{StageGraph, operators};
use super::source::{Source, SourceExec};

/// Type and description of what a stage does. The type is the outermost operator that names one.
pub(crate) fn processor(plan: &Arc<dyn ExecutionPlan>) -> (String, Value) {
    let kind = kind(plan).unwrap_or("scan");
    let description = match kind {
        "limit" => limited(plan),
        _ => json!({"type": kind, "operators": operators(plan)}),
    };
    (kind.to_owned(), description)
}

fn kind(plan: &Arc<dyn ExecutionPlan>) -> Option<&'static str> {
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return Some(match aggregate.mode() {
            AggregateMode::Partial => "groupByPreShuffle",
            _ => "groupByPostShuffle",
        });
    }
    if plan.is::<SortMergeJoinExec>() {
        return Some("sortMergeJoin");
    }
    if plan.is::<WindowAggExec>() || plan.is::<BoundedWindowAggExec>() {
        return Some("window");
    }
    let below = plan.children().into_iter().find_map(kind);
    if plan.is::<GlobalLimitExec>() {
        below.or(Some("limit"))
    } else {
        below
    }
}

/// How many rows are left out and how many are kept, where that is said.
fn limited(plan: &Arc<dyn ExecutionPlan>) -> Value {
    let mut description = Map::new();
    description.insert("type".to_owned(), json!("limit"));
    let (offset, limit) = limit(plan).map_or((0, None), |limit| (limit.skip(), limit.fetch()));
    if offset > 0 {
        description.insert("offset".to_owned(), json!(offset));
    }
    if let Some(limit) = limit {
        description.insert("limit".to_owned(), json!(limit));
    }
    description.insert("operators".to_owned(), json!(operators(plan)));
    Value::Object(description)
}

fn limit(plan: &Arc<dyn ExecutionPlan>) -> Option<&GlobalLimitExec> {
    match plan.downcast_ref::<GlobalLimitExec>() {
        Some(limit) => Some(limit),
        None => plan.children().into_iter().find_map(limit),
    }
}

/// The stages of a plan, for EXPLAIN.
pub fn stages_json(graph: &StageGraph) -> Value {
    let stages: Vec<Value> = graph
        .stages
        .iter()
        .map(|stage| {
            json!({
                "stageNumber": stage.number,
                "inputStages": stage.input_stages(),
                "processor": stage.processor_json,
                "shuffle": stage.shuffle_kind(),
            })
        })
        .collect();
    Value::Array(stages)
}

/// The statement as a native query, as far as a data source and columns tell it.
pub fn native_query_json(plan: &Arc<dyn ExecutionPlan>, columns: &[String], context: &Value) -> Value {
    let grouped = kind(plan).is_some_and(|kind| kind.starts_with("groupBy"));
    json!({
        "queryType": if grouped { "groupBy" } else { "scan" },
        "dataSource": data_source(plan),
        "columns": columns,
        "operators": operators(plan),
        "context": context,
    })
}

fn data_source(plan: &Arc<dyn ExecutionPlan>) -> Value {
    if let Some(leaf) = plan.downcast_ref::<SourceExec>() {
        return match leaf.source() {
            Source::External { spec, .. } => json!({
                "type": "external",
                "inputSource": spec.source_json(),
                "inputFormat": spec.format_json(),
                "signature": spec
                    .signature()
                    .iter()
                    .map(|(name, column_type)| json!({"name": name, "type": column_type.to_string()}))
                    .collect::<Vec<_>>(),
            }),
            Source::Segments { datasource, .. } => json!({"type": "table", "name": datasource}),
            Source::Stage { stage, .. } => json!({"type": "stage", "stage": stage}),
        };
    }
    let mut sources: Vec<Value> = plan.children().into_iter().map(data_source).collect();
    match sources.len() {
        0 => json!({"type": "inline"}),
        1 => sources.remove(0),
        _ => json!({"type": "join", "inputs": sources}),
    }
}
