"""Reports as Druid writes them: the JSON of `GET /druid/indexer/v1/task/{id}/reports`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from trilith import pb


def iso(ms: int) -> str:
    """Milliseconds since the epoch as "2015-09-12T00:46:58.771Z"."""
    moment = datetime.fromtimestamp(ms / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def report(message: pb.report.TaskReport) -> dict[str, Any]:
    """A report without the rows of a SELECT."""
    payload: dict[str, Any] = {"status": _status(message.status)} if message.HasField("status") else {}
    payload["stages"] = [_stage(stage) for stage in message.stages]
    payload["counters"] = _counters(message.counters)
    if message.data_quality:
        payload["dataQuality"] = [_quality(column) for column in message.data_quality]
    if message.HasField("results"):
        payload["results"] = {
            "signature": _columns(message.results.columns),
            "sqlTypeNames": [column.sql_type for column in message.results.columns],
            "results": [],
            "resultsTruncated": message.results.results_truncated,
            # As releases before 28 spelled it.
            "resultsTruncted": message.results.results_truncated,
        }
    out = {"multiStageQuery": _entry("multiStageQuery", message.task_id, payload)}
    if message.HasField("task_context_json"):
        context = json.loads(message.task_context_json)
        out["taskContext"] = _entry("taskContext", message.task_id, context)
    return out


def _entry(kind: str, task_id: str, payload: Any) -> dict[str, Any]:
    return {"type": kind, "taskId": task_id, "payload": payload}


def _some(message: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """The fields that are set, by their names in JSON."""
    return {name: getattr(message, field) for field, name in names.items() if message.HasField(field)}


def _error(error: pb.report.ErrorReport) -> dict[str, Any]:
    out = {"taskId": error.task_id, **_some(error, {"host": "host", "stage_number": "stageNumber"})}
    if error.HasField("fault"):
        out["error"] = _fault(error.fault)
    return out


def _fault(fault: pb.report.Fault) -> dict[str, Any]:
    out = {"errorCode": fault.error_code}
    fields = json.loads(fault.fields_json or "{}")
    out |= {key: value for key, value in fields.items() if key not in ("errorCode", "errorMessage")}
    if fault.error_message:
        out["errorMessage"] = fault.error_message
    return out


def _status(status: pb.report.StatusReport) -> dict[str, Any]:
    out: dict[str, Any] = {"status": status.status}
    if status.HasField("error_report"):
        out["errorReport"] = _error(status.error_report)
    if status.warnings:
        out["warnings"] = [_error(warning) for warning in status.warnings]
    if status.HasField("start_time_ms"):
        out["startTime"] = iso(status.start_time_ms)
    out["durationMs"] = status.duration_ms
    workers: dict[str, list[dict[str, Any]]] = {}
    for worker in status.workers:
        workers.setdefault(str(worker.worker_number), []).append(
            {
                "workerId": worker.worker_id,
                "state": worker.state,
                "durationMs": worker.duration_ms,
                "pendingMs": worker.pending_ms,
            }
        )
    out |= {"workers": workers, "pendingTasks": status.pending_tasks, "runningTasks": status.running_tasks}
    if status.HasField("segment_load"):
        out["segmentLoadWaiterStatus"] = _segment_load(status.segment_load)
    if status.HasField("segment_report"):
        segments = status.segment_report
        out["segmentReport"] = {"shardSpec": segments.shard_spec, "details": segments.details}
    return out


def _segment_load(load: pb.report.SegmentLoadReport) -> dict[str, Any]:
    out: dict[str, Any] = {"state": load.state}
    if load.HasField("start_time_ms"):
        out["startTime"] = iso(load.start_time_ms)
    return out | {
        "duration": load.duration_ms,
        "totalSegments": load.total_segments,
        "usedSegments": load.used_segments,
        "precachedSegments": load.precached_segments,
        "onDemandSegments": load.on_demand_segments,
        "pendingSegments": load.pending_segments,
        "unknownSegments": load.unknown_segments,
    }


def _stage(stage: pb.report.StageReport) -> dict[str, Any]:
    out: dict[str, Any] = {"stageNumber": stage.stage_number}
    if stage.HasField("definition"):
        out["definition"] = _definition(stage.definition)
    out |= _some(
        stage,
        {
            "phase": "phase",
            "worker_count": "workerCount",
            "partition_count": "partitionCount",
            "shuffle": "shuffle",
            "output": "output",
        },
    )
    if stage.HasField("start_time_ms"):
        out["startTime"] = iso(stage.start_time_ms)
    out |= _some(stage, {"duration_ms": "duration"})
    if stage.sort:
        out["sort"] = True
    return out


def _definition(definition: pb.report.StageDefinition) -> dict[str, Any]:
    out: dict[str, Any] = {"id": definition.id, "input": [_input(source) for source in definition.inputs]}
    if definition.broadcast:
        out["broadcast"] = list(definition.broadcast)
    out["processor"] = _parsed(definition.processor_json)
    out["signature"] = _columns(definition.signature)
    if definition.HasField("shuffle_spec"):
        out["shuffleSpec"] = _shuffle(definition.shuffle_spec)
    out["maxWorkerCount"] = definition.max_worker_count
    if definition.shuffle_check_has_multiple_values:
        out["shuffleCheckHasMultipleValues"] = True
    return out


def _shuffle(shuffle: pb.report.ShuffleSpec) -> dict[str, Any]:
    out: dict[str, Any] = {"type": shuffle.type}
    if shuffle.type != "mix":
        columns = [{"columnName": column.column_name, "order": column.order} for column in shuffle.cluster_by]
        out["clusterBy"] = {"columns": columns}
        if shuffle.bucket_by_count > 0:
            out["clusterBy"]["bucketByCount"] = shuffle.bucket_by_count
    out |= _some(shuffle, {"partitions": "partitions", "target_size": "targetSize", "limit_hint": "limitHint"})
    if shuffle.aggregate:
        out["aggregate"] = True
    return out


def _input(source: pb.report.StageInput) -> Any:
    match source.WhichOneof("input"):
        case "external":
            return {
                "type": "external",
                "inputSource": _parsed(source.external.input_source_json),
                "inputFormat": _parsed(source.external.input_format_json),
                "signature": _columns(source.external.signature),
            }
        case "stage_number":
            return {"type": "stage", "stage": source.stage_number}
        case "table":
            return {
                "type": "table",
                "dataSource": source.table.datasource,
                "intervals": list(source.table.intervals),
            }
        case "inline_json":
            return _parsed(source.inline_json)
    return None


def _columns(columns: Iterable[pb.report.Column | pb.report.ResultColumn]) -> list[dict[str, str]]:
    return [{"name": column.name, "type": column.type} for column in columns]


def _quality(quality: pb.report.ColumnQuality) -> dict[str, Any]:
    return {
        "column": quality.column,
        "nullConversions": quality.null_conversion_count,
        "examples": [
            _some(example, {"file": "file", "record": "record"}) | {"value": example.value}
            for example in quality.examples
        ],
    }


def _counters(counters: Iterable[pb.report.Counter]) -> dict[str, dict[str, dict[str, Any]]]:
    """By stage, worker and name."""
    stages: dict[str, dict[str, dict[str, Any]]] = {}
    for counter in counters:
        value = {} if counter.WhichOneof("value") is None else _counter(counter)
        # A channel without numbers has nothing to say.
        if value and value != {"type": "channel"}:
            workers = stages.setdefault(str(counter.stage_number), {})
            workers.setdefault(str(counter.worker_number), {})[counter.name] = value
    return stages


def _counter(counter: pb.report.Counter) -> dict[str, Any]:
    match counter.WhichOneof("value"):
        case "channel":
            channel = counter.channel
            lists = {
                "rows": channel.rows,
                "bytes": channel.bytes,
                "frames": channel.frames,
                "files": channel.files,
                "totalFiles": channel.total_files,
            }
            return {"type": "channel"} | {name: list(values) for name, values in lists.items() if any(values)}
        case "sort_progress":
            return _sort_progress(counter.sort_progress)
        case "segment_generation_progress":
            progress = counter.segment_generation_progress
            return {
                "type": "segmentGenerationProgress",
                "rowsProcessed": progress.rows_processed,
                "rowsPersisted": progress.rows_persisted,
                "rowsMerged": progress.rows_merged,
                "rowsPushed": progress.rows_pushed,
            }
        case "warnings":
            return {"type": "warnings", **dict(sorted(counter.warnings.counts.items()))}
        case "cpus":
            return {"type": "cpus"} | {
                label: {"type": "cpu", "cpu": cpu.cpu_ns, "wall": cpu.wall_ns}
                for label, cpu in sorted(counter.cpus.counters.items())
            }
        case "storage":
            storage = counter.storage
            return {
                "type": "storage",
                "localBytesReserved": storage.local_bytes_reserved,
                "localFilesWritten": storage.local_files_written,
                "localBytesWritten": storage.local_bytes_written,
                "durableFileCount": storage.durable_file_count,
                "durableBytesWritten": storage.durable_bytes_written,
            }
    # Data quality is shown in a section of its own.
    return {}


def _sort_progress(sort: pb.report.SortProgressCounter) -> dict[str, Any]:
    def levels(counts: Mapping[int, int]) -> dict[str, int]:
        return {str(level): counts[level] for level in sorted(counts)}

    trivial = sort.trivially_complete
    out: dict[str, Any] = {
        "type": "sortProgress",
        "totalMergingLevels": -1 if trivial else sort.total_merging_levels,
        "levelToTotalBatches": levels(sort.level_to_total_batches),
        "levelToMergedBatches": levels(sort.level_to_merged_batches),
        "totalMergersForUltimateLevel": -1 if trivial else sort.total_mergers_for_ultimate_level,
    }
    if trivial:
        out["triviallyComplete"] = True
    return out | _some(sort, {"progress_digest": "progressDigest"})


def _parsed(text: str) -> Any:
    return json.loads(text) if text else None
