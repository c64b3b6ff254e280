//! Follows a task with one bar per stage.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use trilith_proto::pb::task as pb;

use super::CommandError;
use crate::client::Client;
use crate::druid_json::state_code;

/// Shows progress on standard error until the task ends; an error if it fails.
pub async fn follow(client: &Client, task_id: &str) -> Result<(), CommandError> {
    let bars = MultiProgress::new();
    let mut stages: Vec<ProgressBar> = Vec::new();
    let ended = client
        .wait(task_id, |update| {
            let Some(report) = &update.report else { return };
            for (index, stage) in report.stages.iter().enumerate() {
                if stages.len() <= index {
                    let style = ProgressStyle::with_template("{prefix} {msg}")
                        .unwrap_or_else(|_| ProgressStyle::default_spinner());
                    let bar = bars.add(ProgressBar::new_spinner().with_style(style));
                    bar.set_prefix(format!("stage {index}"));
                    stages.push(bar);
                }
                stages[index].set_message(describe(stage, &report.counters));
            }
        })
        .await;
    for bar in &stages {
        bar.finish();
    }
    let task = ended?;
    eprintln!(
        "{task_id}: {} in {} ms",
        state_code(task.state()),
        task.duration_ms.max(0)
    );
    Ok(())
}

/// "scan  READING_INPUT  2 workers  39244 rows in, 39244 out"
pub fn describe(stage: &pb::StageReport, counters: &[pb::Counter]) -> String {
    let kind = stage
        .definition
        .as_ref()
        .map_or("", |definition| definition.processor_type.as_str());
    let phase = stage.phase.as_deref().unwrap_or("NEW");
    let sum = |prefix: &str| -> i64 {
        counters
            .iter()
            .filter(|counter| counter.stage_number == stage.stage_number && counter.name.starts_with(prefix))
            .map(|counter| match &counter.value {
                Some(pb::counter::Value::Channel(channel)) => channel.rows.iter().sum(),
                Some(pb::counter::Value::SegmentGenerationProgress(progress)) => progress.rows_pushed,
                _ => 0,
            })
            .sum()
    };
    let out = if kind == "segmentGenerator" {
        sum("segmentGenerationProgress")
    } else {
        sum("output")
    };
    format!(
        "{kind:<18} {phase:<18} {:>2} workers {:>12} rows in {out:>12} rows out",
        stage.worker_count.unwrap_or(0),
        sum("input")
    )
}
