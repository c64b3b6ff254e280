//! Messages in Druid's JSON.

use serde_json::{Map, Value, json};
use trilith_proto::interval::iso;
use trilith_proto::pb::task as pb;

/// An object that leaves out what is absent.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: impl Into<Value>) -> &mut Object {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) -> &mut Object {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
        self
    }

    fn json(&mut self) -> Value {
        Value::Object(std::mem::take(&mut self.0))
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// A fault: code, own fields, message.
pub fn fault_json(fault: &pb::Fault) -> Value {
    let mut out = Object::default();
    out.put("errorCode", fault.error_code.clone());
    if let Value::Object(fields) = parsed(&fault.fields_json) {
        for (key, value) in fields {
            if key != "errorCode" && key != "errorMessage" {
                out.put(&key, value);
            }
        }
    }
    if !fault.error_message.is_empty() {
        out.put("errorMessage", fault.error_message.clone());
    }
    out.json()
}

fn error_json(report: &pb::ErrorReport) -> Value {
    let mut out = Object::default();
    out.put("taskId", report.task_id.clone());
    out.put_some("host", report.host.clone());
    out.put_some("stageNumber", report.stage_number);
    out.put_some("error", report.fault.as_ref().map(fault_json));
    out.json()
}

/// `GET …/task/{id}/reports`. `rows` are the rows of a SELECT, as far as they are shown.
pub fn report_json(report: &pb::TaskReport, rows: Option<Vec<Value>>) -> Value {
    let mut payload = Object::default();
    payload.put_some("status", report.status.as_ref().map(status_json));
    payload.put("stages", report.stages.iter().map(stage_json).collect::<Vec<_>>());
    payload.put("counters", counters_json(&report.counters));
    if !report.data_quality.is_empty() {
        let columns: Vec<Value> = report.data_quality.iter().map(quality_json).collect();
        payload.put("dataQuality", columns);
    }
    if let Some(results) = &report.results {
        let signature: Vec<Value> = results
            .columns
            .iter()
            .map(|column| json!({"name": column.name, "type": column.r#type}))
            .collect();
        let types: Vec<&str> = results
            .columns
            .iter()
            .map(|column| column.sql_type.as_str())
            .collect();
        let truncated = rows
            .as_ref()
            .is_some_and(|rows| (rows.len() as i64) < results.row_count);
        let mut out = Object::default();
        out.put("signature", signature);
        out.put("sqlTypeNames", json!(types));
        out.put("results", rows.unwrap_or_default());
        let truncated = truncated || results.results_truncated;
        out.put("resultsTruncated", truncated);
        // As releases before 28 spelled it.
        out.put("resultsTruncted", truncated);
        payload.put("results", out.json());
    }
    let mut out = Object::default();
    out.put(
        "multiStageQuery",
        json!({"type": "multiStageQuery", "taskId": report.task_id, "payload": payload.json()}),
    );
    if let Some(context) = &report.task_context_json {
        out.put(
            "taskContext",
            json!({"type": "taskContext", "taskId": report.task_id, "payload": parsed(context)}),
        );
    }
    out.json()
}

fn status_json(status: &pb::StatusReport) -> Value {
    let mut out = Object::default();
    out.put("status", status.status.clone());
    out.put_some("errorReport", status.error_report.as_ref().map(error_json));
    if !status.warnings.is_empty() {
        out.put(
            "warnings",
            status.warnings.iter().map(error_json).collect::<Vec<_>>(),
        );
    }
    out.put_some("startTime", status.start_time_ms.map(iso));
    out.put("durationMs", status.duration_ms);
    let mut workers = Map::new();
    for worker in &status.workers {
        let stats = json!({
            "workerId": worker.worker_id,
            "state": worker.state,
            "durationMs": worker.duration_ms,
            "pendingMs": worker.pending_ms,
        });
        let attempts = workers
            .entry(worker.worker_number.to_string())
            .or_insert_with(|| json!([]));
        if let Some(attempts) = attempts.as_array_mut() {
            attempts.push(stats);
        }
    }
    out.put("workers", workers);
    out.put("pendingTasks", status.pending_tasks);
    out.put("runningTasks", status.running_tasks);
    if let Some(load) = &status.segment_load {
        let mut wait = Object::default();
        wait.put("state", load.state.clone());
        wait.put_some("startTime", load.start_time_ms.map(iso));
        wait.put("duration", load.duration_ms);
        wait.put("totalSegments", load.total_segments);
        wait.put("usedSegments", load.used_segments);
        wait.put("precachedSegments", load.precached_segments);
        wait.put("onDemandSegments", load.on_demand_segments);
        wait.put("pendingSegments", load.pending_segments);
        wait.put("unknownSegments", load.unknown_segments);
        out.put("segmentLoadWaiterStatus", wait.json());
    }
    if let Some(report) = &status.segment_report {
        out.put(
            "segmentReport",
            json!({"shardSpec": report.shard_spec, "details": report.details}),
        );
    }
    out.json()
}

fn columns_json(columns: &[pb::Column]) -> Vec<Value> {
    columns
        .iter()
        .map(|column| json!({"name": column.name, "type": column.r#type}))
        .collect()
}

fn input_json(input: &pb::StageInput) -> Value {
    use pb::stage_input::Input;
    match &input.input {
        Some(Input::External(external)) => json!({
            "type": "external",
            "inputSource": parsed(&external.input_source_json),
            "inputFormat": parsed(&external.input_format_json),
            "signature": columns_json(&external.signature),
        }),
        Some(Input::StageNumber(stage)) => json!({"type": "stage", "stage": stage}),
        Some(Input::Table(table)) => {
            json!({"type": "table", "dataSource": table.datasource, "intervals": table.intervals})
        }
        Some(Input::InlineJson(text)) => parsed(text),
        None => Value::Null,
    }
}

fn definition_json(definition: &pb::StageDefinition) -> Value {
    let mut out = Object::default();
    out.put("id", definition.id.clone());
    out.put(
        "input",
        definition.inputs.iter().map(input_json).collect::<Vec<_>>(),
    );
    if !definition.broadcast.is_empty() {
        out.put("broadcast", json!(definition.broadcast));
    }
    out.put("processor", parsed(&definition.processor_json));
    out.put("signature", columns_json(&definition.signature));
    if let Some(shuffle) = &definition.shuffle_spec {
        let mut spec = Object::default();
        spec.put("type", shuffle.r#type.clone());
        if shuffle.r#type != "mix" {
            let columns: Vec<Value> = shuffle
                .cluster_by
                .iter()
                .map(|column| json!({"columnName": column.column_name, "order": column.order}))
                .collect();
            let mut cluster = Object::default();
            cluster.put("columns", columns);
            if shuffle.bucket_by_count > 0 {
                cluster.put("bucketByCount", shuffle.bucket_by_count);
            }
            spec.put("clusterBy", cluster.json());
        }
        spec.put_some("partitions", shuffle.partitions);
        spec.put_some("targetSize", shuffle.target_size);
        spec.put_some("limitHint", shuffle.limit_hint);
        if shuffle.aggregate {
            spec.put("aggregate", true);
        }
        out.put("shuffleSpec", spec.json());
    }
    out.put("maxWorkerCount", definition.max_worker_count);
    if definition.shuffle_check_has_multiple_values {
        out.put("shuffleCheckHasMultipleValues", true);
    }
    out.json()
}

fn stage_json(stage: &pb::StageReport) -> Value {
    let mut out = Object::default();
    out.put("stageNumber", stage.stage_number);
    out.put_some("definition", stage.definition.as_ref().map(definition_json));
    out.put_some("phase", stage.phase.clone());
    out.put_some("workerCount", stage.worker_count);
    out.put_some("partitionCount", stage.partition_count);
    out.put_some("shuffle", stage.shuffle.clone());
    out.put_some("output", stage.output.clone());
    out.put_some("startTime", stage.start_time_ms.map(iso));
    out.put_some("duration", stage.duration_ms);
    if stage.sort {
        out.put("sort", true);
    }
    out.json()
}

/// Values of one column that became NULL.
fn quality_json(quality: &pb::ColumnQuality) -> Value {
    let examples = quality.examples.iter().map(|example| {
        let mut out = Object::default();
        out.put_some("file", example.file.clone());
        out.put_some("record", example.record);
        out.put("value", example.value.clone());
        out.json()
    });
    json!({
        "column": quality.column,
        "nullConversions": quality.null_conversion_count,
        "examples": examples.collect::<Vec<_>>(),
    })
}

fn counters_json(counters: &[pb::Counter]) -> Value {
    let mut stages = Map::new();
    for counter in counters {
        let Some(value) = counter.value.as_ref().and_then(counter_json) else {
            continue;
        };
        let workers = stages
            .entry(counter.stage_number.to_string())
            .or_insert_with(|| json!({}));
        if let Some(workers) = workers.as_object_mut() {
            let names = workers
                .entry(counter.worker_number.to_string())
                .or_insert_with(|| json!({}));
            if let Some(names) = names.as_object_mut() {
                names.insert(counter.name.clone(), value);
            }
        }
    }
    Value::Object(stages)
}

/// None for a counter that has nothing to say.
fn counter_json(value: &pb::counter::Value) -> Option<Value> {
    use pb::counter::Value as Counter;
    let mut out = Object::default();
    match value {
        Counter::Channel(channel) => {
            out.put("type", "channel");
            for (key, values) in [
                ("rows", &channel.rows),
                ("bytes", &channel.bytes),
                ("frames", &channel.frames),
                ("files", &channel.files),
                ("totalFiles", &channel.total_files),
            ] {
                if values.iter().any(|value| *value != 0) {
                    out.put(key, json!(values));
                }
            }
            if out.0.len() == 1 {
                return None;
            }
        }
        Counter::SortProgress(sort) => {
            out.put("type", "sortProgress");
            out.put(
                "totalMergingLevels",
                if sort.trivially_complete {
                    -1
                } else {
                    sort.total_merging_levels
                },
            );
            let map = |levels: &std::collections::HashMap<u32, i64>| {
                let sorted: std::collections::BTreeMap<_, _> = levels.iter().collect();
                json!(sorted)
            };
            out.put("levelToTotalBatches", map(&sort.level_to_total_batches));
            out.put("levelToMergedBatches", map(&sort.level_to_merged_batches));
            out.put(
                "totalMergersForUltimateLevel",
                if sort.trivially_complete {
                    -1
                } else {
                    sort.total_mergers_for_ultimate_level
                },
            );
            if sort.trivially_complete {
                out.put("triviallyComplete", true);
            }
            out.put_some("progressDigest", sort.progress_digest);
        }
        Counter::SegmentGenerationProgress(progress) => {
            out.put("type", "segmentGenerationProgress");
            out.put("rowsProcessed", progress.rows_processed);
            out.put("rowsPersisted", progress.rows_persisted);
            out.put("rowsMerged", progress.rows_merged);
            out.put("rowsPushed", progress.rows_pushed);
        }
        Counter::Warnings(warnings) => {
            out.put("type", "warnings");
            let sorted: std::collections::BTreeMap<_, _> = warnings.counts.iter().collect();
            for (code, count) in sorted {
                out.put(code, *count);
            }
        }
        Counter::Cpus(cpus) => {
            out.put("type", "cpus");
            let sorted: std::collections::BTreeMap<_, _> = cpus.counters.iter().collect();
            for (label, cpu) in sorted {
                out.put(
                    label,
                    json!({"type": "cpu", "cpu": cpu.cpu_ns, "wall": cpu.wall_ns}),
                );
            }
        }
        // Shown in a section of its own.
        Counter::DataQuality(_) => return None,
        Counter::Storage(storage) => {
            out.put("type", "storage");
            out.put("localBytesReserved", storage.local_bytes_reserved);
            out.put("localFilesWritten", storage.local_files_written);
            out.put("localBytesWritten", storage.local_bytes_written);
            out.put("durableFileCount", storage.durable_file_count);
            out.put("durableBytesWritten", storage.durable_bytes_written);
        }
    }
    Some(out.json())
}

/// Druid's word for the outcome of a task.
pub fn state_code(state: pb::State) -> &'static str {
    match state {
        pb::State::Success => "SUCCESS",
        pb::State::Failed => "FAILED",
        _ => "RUNNING",
    }
}

/// Druid's word for where a task waits.
pub fn runner_code(state: pb::State) -> &'static str {
    match state {
        pb::State::Waiting => "WAITING",
        pb::State::Pending => "PENDING",
        pb::State::Running => "RUNNING",
        _ => "NONE",
    }
}

/// `status` of `GET …/task/{id}/status`, and an entry of the task list.
pub fn status_plus_json(task: &pb::Task) -> Value {
    let state = task.state();
    let host = Some(&task.host).filter(|host| !host.is_empty());
    json!({
        "id": task.task_id,
        "groupId": task.task_id,
        "type": "query_controller",
        "createdTime": iso(task.created_time_ms),
        "queueInsertionTime": iso(0),
        "statusCode": state_code(state),
        "status": state_code(state),
        "runnerStatusCode": runner_code(state),
        "duration": task.duration_ms,
        "location": {"host": host, "port": task.port, "tlsPort": -1},
        "dataSource": task.datasource,
        "errorMsg": task.error_message,
    })
}

/// Druid's `TaskLock`.
pub fn task_lock_json(lock: &pb::Lock) -> Value {
    json!({
        "granularity": "timeChunk",
        "type": lock_type(lock),
        "groupId": lock.task_id,
        "dataSource": lock.datasource,
        "interval": lock.interval,
        "version": lock.version,
        "priority": lock.priority,
        "revoked": lock.revoked,
    })
}

fn lock_type(lock: &pb::Lock) -> &'static str {
    match lock.r#type() {
        pb::LockType::Unspecified => "UNKNOWN",
        pb::LockType::Exclusive => "EXCLUSIVE",
        pb::LockType::Shared => "SHARED",
        pb::LockType::Append => "APPEND",
        pb::LockType::Replace => "REPLACE",
    }
}
