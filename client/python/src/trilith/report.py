"""Reports with the sums that people ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trilith import pb

FINAL_STATES = (pb.task.STATE_SUCCESS, pb.task.STATE_FAILED)


def state_word(task: pb.task.Task) -> str:
    """State: "WAITING", "PENDING", "RUNNING", "SUCCESS" or "FAILED"."""
    return pb.task.State.Name(task.state).removeprefix("STATE_")


@dataclass(frozen=True)
class Stage:
    """One stage of a report. `phase` is "NEW" until it started; rows are sums over its workers."""

    number: int
    processor: str
    phase: str
    worker_count: int
    rows_in: int
    rows_out: int


@dataclass(frozen=True)
class Report:
    """What is known of a task; `message` is the whole of it as the server sent it."""

    message: pb.report.TaskReport

    @property
    def task_id(self) -> str:
        """Controller task id, "query-…"."""
        return self.message.task_id

    @property
    def status(self) -> str:
        """State: "RUNNING", "SUCCESS" or "FAILED"."""
        return self.message.status.status

    @property
    def stages(self) -> list[Stage]:
        """By number; empty when planning failed."""
        return [self._stage(stage) for stage in self.message.stages]

    @property
    def rows_read(self) -> int:
        """Rows of external data, datasources and inline data that the stages took in."""
        return sum(
            sum(self._channel_rows(stage.stage_number, f"input{index}"))
            for stage in self.message.stages
            for index, source in enumerate(stage.definition.inputs)
            if source.WhichOneof("input") != "stage_number"
        )

    @property
    def rows_pushed(self) -> int:
        """Stored rows (after rollup) of the segments that were written; 0 for a SELECT."""
        return sum(
            counter.segment_generation_progress.rows_pushed
            for counter in self.message.counters
            if counter.WhichOneof("value") == "segment_generation_progress"
        )

    @property
    def rows_written(self) -> int:
        """Rows that came out: those pushed by INSERT and REPLACE, those kept of a SELECT."""
        return self.message.results.row_count if self.message.HasField("results") else self.rows_pushed

    @property
    def warnings(self) -> list[pb.report.ErrorReport]:
        """Faults that did not fail the task, such as unparseable rows."""
        return list(self.message.status.warnings)

    @property
    def warning_counts(self) -> dict[str, int]:
        """Rows that were left out, by fault code."""
        counts: dict[str, int] = {}
        for counter in self.message.counters:
            for code, count in counter.warnings.counts.items():
                counts[code] = counts.get(code, 0) + count
        return counts

    @property
    def error(self) -> pb.report.ErrorReport | None:
        """Why the task failed, and where."""
        status = self.message.status
        return status.error_report if status.HasField("error_report") else None

    @property
    def context(self) -> dict[str, Any]:
        """The query context; empty before the end."""
        context: dict[str, Any] = json.loads(self.message.task_context_json or "{}")
        return context

    def _stage(self, stage: pb.report.StageReport) -> Stage:
        number = stage.stage_number
        processor = stage.definition.processor_type
        rows_in = sum(
            sum(self._channel_rows(number, f"input{index}")) for index in range(len(stage.definition.inputs))
        )
        if processor == "segmentGenerator":
            rows_out = sum(
                counter.segment_generation_progress.rows_pushed
                for counter in self.message.counters
                if counter.stage_number == number
            )
        else:
            rows_out = sum(self._channel_rows(number, "output"))
        return Stage(number, processor, stage.phase or "NEW", stage.worker_count, rows_in, rows_out)

    def _channel_rows(self, stage_number: int, name: str) -> Iterator[int]:
        for counter in self.message.counters:
            if counter.stage_number == stage_number and counter.name == name:
                yield from counter.channel.rows


@dataclass(frozen=True)
class Update:
    """A task after a change. `report` is None until the statement has been planned."""

    task: pb.task.Task
    report: Report | None

    @staticmethod
    def of(message: pb.task.WatchTaskResponse) -> Update:
        """The update of a message of WatchTask."""
        return Update(message.task, Report(message.report) if message.HasField("report") else None)

    @property
    def state(self) -> str:
        """State: "WAITING", "PENDING", "RUNNING", "SUCCESS" or "FAILED"."""
        return state_word(self.task)

    @property
    def final(self) -> bool:
        """No update follows."""
        return self.task.state in FINAL_STATES


@dataclass(frozen=True)
class Explanation:
    """The answer to EXPLAIN PLAN FOR, each part decoded from its JSON.

    `plan` has the native queries with signature and column mappings, `resources` what the statement reads and
    writes, `attributes` its type, target, partitioning and clustering.
    """

    plan: Any
    resources: Any
    attributes: Any

    @staticmethod
    def of(message: pb.task.Explanation) -> Explanation:
        """The decoded message."""
        return Explanation(
            json.loads(message.plan_json),
            json.loads(message.resources_json),
            json.loads(message.attributes_json),
        )
