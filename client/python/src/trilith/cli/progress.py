"""Shows on standard error how far a task is."""

from __future__ import annotations

import shutil
import sys

from trilith.report import Stage, Update


class Progress:
    """A line for each stage: kept up to date on a terminal, else a new one whenever a stage has another phase."""

    def __init__(self) -> None:
        self.rows_written: int | None = None
        self._live = sys.stderr.isatty()
        self._drawn = 0
        self._state = ""
        self._phases: dict[int, str] = {}

    def show(self, update: Update) -> None:
        """Shows a change."""
        stages = update.report.stages if update.report else []
        if update.final and update.report:
            self.rows_written = update.report.rows_written
        if self._live:
            self._redraw(update, stages)
        else:
            self._append(update, stages)

    def _redraw(self, update: Update, stages: list[Stage]) -> None:
        # A line that the terminal breaks would be counted as one.
        width = shutil.get_terminal_size().columns - 1
        lines = [describe(stage)[:width] for stage in stages] or [update.state]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        # What is left of longer output is cleared: to the end of each line, and below the last.
        print(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J", end="", file=sys.stderr, flush=True)
        self._drawn = len(lines)

    def _append(self, update: Update, stages: list[Stage]) -> None:
        if update.state != self._state and not update.final:
            self._state = update.state
            print(f"{update.task.task_id}: {update.state}", file=sys.stderr, flush=True)
        for stage in stages:
            if self._phases.get(stage.number, "NEW") != stage.phase:
                self._phases[stage.number] = stage.phase
                print(describe(stage), file=sys.stderr, flush=True)


def describe(stage: Stage) -> str:
    """A line: number, processor, phase, workers, rows."""
    return (
        f"stage {stage.number} {stage.processor:<18} {stage.phase:<18} {stage.worker_count:>2} workers "
        f"{stage.rows_in:>12} rows in {stage.rows_out:>12} rows out"
    )
