//! The log of a task: what its record and its report tell, in the order of time.

use trilith_proto::interval::iso;
use trilith_proto::pb::task as pb;

/// Lines of "time level text".
pub(crate) fn text(task: &pb::Task, report: &pb::TaskReport) -> String {
    let mut lines: Vec<(i64, String)> = Vec::new();
    let id = &task.task_id;
    lines.push((
        task.created_time_ms,
        format!("INFO task [{id}] accepted for datasource [{}]", task.datasource),
    ));
    let status = report.status.as_ref();
    let started = status.and_then(|status| status.start_time_ms);
    if let Some(started) = started {
        let workers = status.map_or(0, |status| status.workers.len());
        lines.push((started, format!("INFO task [{id}] started, workers [{workers}]")));
    }
    for stage in &report.stages {
        let Some(start) = stage.start_time_ms else {
            continue;
        };
        let number = stage.stage_number;
        lines.push((
            start,
            format!(
                "INFO stage [{number}] started, workers [{}], partitions [{}]",
                stage.worker_count.unwrap_or_default(),
                stage.partition_count.unwrap_or_default()
            ),
        ));
        if let (Some(phase), Some(duration)) = (&stage.phase, stage.duration_ms) {
            lines.push((
                start + duration,
                format!("INFO stage [{number}] in phase [{phase}] after [{duration}] ms"),
            ));
        }
    }
    lines.sort_by_key(|(time, _)| *time);
    let end = started.unwrap_or(task.created_time_ms);
    let end = end + status.map_or(0, |status| status.duration_ms.max(0));
    for warning in status.iter().flat_map(|status| &status.warnings) {
        if let Some(fault) = &warning.fault {
            let text = format!("WARN {}: {}", fault.error_code, fault.error_message);
            lines.push((end, text));
        }
    }
    match (task.state(), &task.error_message) {
        (pb::State::Success, _) => lines.push((end, format!("INFO task [{id}] ended, SUCCESS"))),
        (pb::State::Failed, message) => {
            let message = message.as_deref().unwrap_or("no message");
            lines.push((end, format!("ERROR task [{id}] ended, FAILED: {message}")));
        }
        _ => {}
    }
    lines
        .into_iter()
        .map(|(time, line)| format!("{} {}\n", iso(time), line.replace('\n', " ")))
        .collect()
}

/// The text from an offset in bytes; a negative one counts from the end.
pub(crate) fn from(text: &str, offset: i64) -> String {
    let length = text.len();
    let far = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
    let mut start = if offset < 0 {
        length.saturating_sub(far)
    } else {
        far.min(length)
    };
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_either_end() {
        let text = "abcä";
        for (offset, expected) in [
            (0, "abcä"),
            (2, "cä"),
            (9, ""),
            (-3, "cä"),
            (-1, ""),
            (-99, "abcä"),
        ] {
            assert_eq!(from(text, offset), expected, "{offset}");
        }
    }
}
