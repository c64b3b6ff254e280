//! Puts a report together from the state of a job.

use std::collections::BTreeMap;

use trilith_proto::column::ColumnType;
use trilith_proto::fault::Fault;
use trilith_proto::id::{StageNumber, TaskId};
use trilith_proto::pb::task as pb;

use crate::controller::state::{JobState, StageRun, WorkerState};
use crate::kernel::{Phase, StageProgress};
use crate::limits;
use crate::stage::{StageGraph, StageSpec};

/// What a report shows besides the job's state.
pub struct ReportParts<'a> {
    /// The task.
    pub task: &'a TaskId,
    /// "RUNNING", "SUCCESS" or "FAILED".
    pub status: &'a str,
    /// Where it failed, and why.
    pub error: Option<(&'a Fault, Option<StageNumber>)>,
    /// Context for the final report.
    pub task_context_json: Option<String>,
    /// Rows of a SELECT, final report only.
    pub results: Option<pb::ResultsReport>,
    /// Address of the controller, if it has one.
    pub host: Option<&'a str>,
    /// Milliseconds since the epoch.
    pub now_ms: i64,
}

/// Builds the report. Every number in it was measured by a worker or the controller.
pub fn build(parts: ReportParts<'_>, graph: &StageGraph, state: &JobState) -> pb::TaskReport {
    // Without a single worker nothing has begun.
    let waits = state.workers.is_empty() && state.wanted_workers > 0;
    // A failure of the controller itself says nothing about any stage.
    let show_phases = !matches!(parts.error, Some((_, None)));
    let stages = graph
        .stages
        .iter()
        .zip(state.kernel.stages())
        .zip(&state.stages)
        .map(|((spec, progress), run)| stage(&parts, spec, progress, run, show_phases, waits))
        .collect();
    let mut counters: Vec<pb::Counter> = state
        .counters
        .values()
        .flat_map(|(_, counters)| counters.iter().cloned())
        .collect();
    let data_quality = take_quality(&mut counters);
    counters.sort_by(|a, b| {
        (a.stage_number, a.worker_number, &a.name).cmp(&(b.stage_number, b.worker_number, &b.name))
    });
    pb::TaskReport {
        task_id: parts.task.to_string(),
        status: Some(status(&parts, state)),
        stages,
        counters,
        results: parts.results,
        task_context_json: parts.task_context_json,
        data_quality,
    }
}

/// Takes what the workers say of values that became null out of the counters, and adds it up by column.
fn take_quality(counters: &mut Vec<pb::Counter>) -> Vec<pb::ColumnQuality> {
    let mut columns: BTreeMap<String, pb::ColumnQuality> = BTreeMap::new();
    counters.retain(|counter| {
        let Some(pb::counter::Value::DataQuality(quality)) = &counter.value else {
            return true;
        };
        for found in &quality.columns {
            let sum = columns
                .entry(found.column.clone())
                .or_insert_with(|| pb::ColumnQuality {
                    column: found.column.clone(),
                    ..pb::ColumnQuality::default()
                });
            sum.null_conversion_count += found.null_conversion_count;
            let room = limits::CONVERSION_EXAMPLES_MAX.saturating_sub(sum.examples.len());
            sum.examples.extend(found.examples.iter().take(room).cloned());
        }
        false
    });
    columns.into_values().collect()
}

fn status(parts: &ReportParts<'_>, state: &JobState) -> pb::StatusReport {
    let end = state.ended_ms.unwrap_or(parts.now_ms);
    let running = state
        .workers
        .iter()
        .filter(|worker| worker.started_ms.is_some())
        .count();
    let pending = state.workers.len() - running + state.wanted_workers;
    pb::StatusReport {
        status: parts.status.to_owned(),
        error_report: parts.error.map(|(fault, stage)| pb::ErrorReport {
            task_id: state
                .error_task_id
                .clone()
                .unwrap_or_else(|| parts.task.to_string()),
            host: state.error_host.clone().or_else(|| parts.host.map(str::to_owned)),
            stage_number: stage.map(|stage| stage.0),
            fault: Some(fault.into()),
        }),
        warnings: state.warnings.clone(),
        start_time_ms: state.started_ms,
        duration_ms: state.started_ms.map_or(-1, |start| (end - start).max(0)),
        workers: worker_reports(parts, state),
        pending_tasks: pending as i32,
        running_tasks: running as i32 + 1,
        segment_report: state.segment_report.clone(),
        segment_load: state.segment_load.clone(),
    }
}

/// All attempts of all workers, in order.
fn worker_reports(parts: &ReportParts<'_>, state: &JobState) -> Vec<pb::WorkerReport> {
    let mut workers: Vec<&WorkerState> = state.workers.iter().chain(&state.former_workers).collect();
    workers.sort_by_key(|worker| (worker.number, worker.attempt));
    workers
        .into_iter()
        .map(|worker| worker_report(worker, parts))
        .collect()
}

fn worker_report(worker: &WorkerState, parts: &ReportParts<'_>) -> pb::WorkerReport {
    let started = worker.started_ms.unwrap_or(parts.now_ms);
    pb::WorkerReport {
        worker_number: worker.number.0,
        attempt_number: worker.attempt,
        worker_id: worker.task_id.clone(),
        state: worker.state.to_owned(),
        duration_ms: worker
            .ended_ms
            .map_or(-1, |end| (end - worker.requested_ms).max(0)),
        pending_ms: (started - worker.requested_ms).max(0),
        description: worker.description.clone(),
    }
}

fn stage(
    parts: &ReportParts<'_>,
    spec: &StageSpec,
    progress: &StageProgress,
    run: &StageRun,
    show_phase: bool,
    waits: bool,
) -> pb::StageReport {
    let started = progress.phase != Phase::New && !waits;
    let started_ms = run.started_ms.filter(|_| !waits);
    let duration = started_ms.map(|start| (run.ended_ms.unwrap_or(parts.now_ms) - start).max(0));
    let partition_count = run.partition_count();
    pb::StageReport {
        stage_number: spec.number.0,
        definition: Some(definition(parts.task, spec)),
        phase: (started && show_phase).then(|| progress.phase.as_str().to_owned()),
        worker_count: Some(run.workers.len() as u32).filter(|count| *count > 0),
        partition_count: Some(partition_count).filter(|count| *count > 0),
        shuffle: spec.shuffle_kind().map(str::to_owned),
        output: started.then(|| spec.output.as_str().to_owned()),
        start_time_ms: started_ms,
        duration_ms: duration.filter(|duration| *duration > 0),
        sort: spec.sorts(),
    }
}

/// Columns of a stage's output. Before segments are written, rows have the number of their time chunk and a
/// tie-breaker beside their columns, and what they are ordered by comes first.
fn signature(spec: &StageSpec) -> Vec<pb::Column> {
    let mut columns: Vec<pb::Column> = spec
        .signature
        .iter()
        .map(|(name, column_type)| pb::Column {
            name: name.clone(),
            r#type: column_type.to_string(),
        })
        .collect();
    let keys = spec.shuffle_report().filter(|_| spec.feeds_segments);
    let Some(keys) = keys.map(|shuffle| shuffle.cluster_by) else {
        return columns;
    };
    let mut ordered = Vec::with_capacity(columns.len() + 2);
    for key in keys {
        let place = columns.iter().position(|column| column.name == key.column_name);
        ordered.push(match place {
            Some(place) => columns.remove(place),
            None => pb::Column {
                name: key.column_name,
                r#type: ColumnType::Long.to_string(),
            },
        });
    }
    ordered.extend(columns);
    ordered
}

fn definition(task: &TaskId, spec: &StageSpec) -> pb::StageDefinition {
    pb::StageDefinition {
        id: format!("{task}_{}", spec.number.0),
        inputs: spec.inputs_report(),
        broadcast: spec.broadcast.iter().map(|index| *index as u32).collect(),
        processor_type: spec.processor_type.clone(),
        processor_json: spec.processor_json.to_string(),
        signature: signature(spec),
        shuffle_spec: spec.shuffle_report(),
        max_worker_count: spec.max_workers,
        shuffle_check_has_multiple_values: spec.feeds_segments,
    }
}
