"""The verbs."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa

from trilith import _requests, errors
from trilith._address import Tls
from trilith.cli import arguments, druid_json, output
from trilith.cli.progress import Progress
from trilith.client import Client, connect
from trilith.report import state_word

FAILURE = 1
INTERRUPTED = 130

TASK = {
    "task": pa.string(),
    "state": pa.string(),
    "datasource": pa.string(),
    "created": pa.string(),
    "duration_ms": pa.int64(),
    "error": pa.string(),
}
SEGMENT = {"segment": pa.string(), "rows": pa.int64(), "bytes": pa.int64(), "shard_spec": pa.string()}
EXPLANATION = dict.fromkeys(("PLAN", "RESOURCES", "ATTRIBUTES"), pa.string())
DATASOURCE = {"datasource": pa.string(), "segments": pa.int64(), "rows": pa.int64(), "bytes": pa.int64()}


def main(given: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit status: 0, 1 for a failure, 2 for wrong use, 130 after Ctrl-C."""
    parser = arguments.parser()
    options = parser.parse_args(given)
    try:
        _run(parser, options)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough; Python must not complain when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except errors.TrilithError as error:
        print(f"trilith-py: {describe(error)}", file=sys.stderr)
        return FAILURE
    except (OSError, ValueError, pa.ArrowException) as error:
        print(f"trilith-py: {error}", file=sys.stderr)
        return FAILURE
    return 0


def describe(error: errors.TrilithError) -> str:
    """Two lines: the message, and codes and context (line, column, the fault's fields, …) as key=value."""
    details: dict[str, Any] = {"code": error.code.name} if error.code else {}
    details |= {"errorCode": error.error_code, "category": error.category} | error.context
    if isinstance(error, errors.TaskFailed):
        details |= {key: value for key, value in error.fields.items() if key not in ("errorCode", "errorMessage")}
    pairs = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in details.items())
    return f"{error}\n  {' '.join(pairs)}"


def _run(parser: ArgumentParser, options: Namespace) -> None:
    tls = Tls(ca=options.ca_file) if options.ca_file and options.server.startswith("https://") else None
    with connect(options.server, token=options.token, tls=tls, deadline=options.deadline) as client:
        match options.verb:
            case "sql":
                _sql(client, options, _statement(parser, options))
            case "submit":
                _submit(client, options, _statement(parser, options))
            case "status":
                _status(client, options.task_id)
            case "report":
                print(json.dumps(druid_json.report(client.report(options.task_id).message), indent=2))
            case "watch":
                with _task_goes_on(options.task_id):
                    _follow(client, options.task_id)
            case "cancel":
                print(_state_code(client.cancel(options.task_id)))
            case "tasks":
                _tasks(client, options)
            case "segments":
                _segments(client, options)


def _statement(parser: ArgumentParser, options: Namespace) -> str:
    text = arguments.statement(options)
    if text is None:
        parser.error("give a statement with -e or -f")
    return text


def _sql(client: Client, options: Namespace, text: str) -> None:
    if arguments.writes(text):
        if arguments.explains(text):
            plan = client.explain(text, dict(options.context), options.param)
            row = tuple(map(json.dumps, (plan.plan, plan.resources, plan.attributes)))
            output.records(EXPLANATION, [row], options.format, options.output)
        else:
            _start(client, options, text, wait=True)
        return
    with client.query(text, dict(options.context), options.param, id=options.id) as rows:
        output.rows(rows.schema, rows, options.format, options.output)


def _submit(client: Client, options: Namespace, text: str) -> None:
    if arguments.explains(text):
        print(json.dumps(client.explain(text, dict(options.context), options.param).plan))
    else:
        _start(client, options, text, wait=options.wait, tell=True)


def _start(client: Client, options: Namespace, text: str, *, wait: bool, tell: bool = False) -> None:
    """Submits a task; its id goes to standard output if `tell`."""
    context = dict(options.context)
    # Chosen here, so that it is known whenever Ctrl-C comes.
    context["sqlQueryId"] = _requests.query_id(context, options.id)
    task_id = _requests.TASK_PREFIX + context["sqlQueryId"]
    with _task_goes_on(task_id):
        client.submit(text, context, options.param)
        if tell:
            print(task_id, flush=True)
        if wait:
            _follow(client, task_id)


@contextmanager
def _task_goes_on(task_id: str) -> Iterator[None]:
    """Says on Ctrl-C that it does not stop the task, and what does."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\ntask {task_id} goes on; `trilith-py watch {task_id}` follows it, "
            f"`trilith-py cancel {task_id}` stops it",
            file=sys.stderr,
        )
        raise


def _follow(client: Client, task_id: str) -> None:
    progress = Progress()
    task = client.wait(task_id, on_progress=progress.show)
    written = "" if progress.rows_written is None else f", {progress.rows_written} rows written"
    print(f"{task_id}: {state_word(task)} in {max(task.duration_ms, 0)} ms{written}", file=sys.stderr)


def _status(client: Client, task_id: str) -> None:
    task = client.task(task_id)
    state = state_word(task)
    print(_state_code(state), flush=True)
    if state == "FAILED":
        raise errors.TaskFailed(task)


def _tasks(client: Client, options: Namespace) -> None:
    rows = [
        (
            task.task_id,
            _state_code(state_word(task)),
            task.datasource,
            druid_json.iso(task.created_time_ms),
            task.duration_ms if task.duration_ms >= 0 else None,
            task.error_message if task.HasField("error_message") else None,
        )
        for task in islice(client.tasks(page_size=options.limit), options.limit)
    ]
    output.records(TASK, rows, options.format, options.output)


def _segments(client: Client, options: Namespace) -> None:
    if options.datasource is not None:
        segments = [
            (segment.segment_id, segment.row_count, segment.size_bytes, segment.shard_spec_json)
            for segment in client.segments(options.datasource)
        ]
        output.records(SEGMENT, segments, options.format, options.output)
    else:
        datasources = [
            (datasource.name, datasource.segment_count, datasource.row_count, datasource.size_bytes)
            for datasource in client.datasources()
        ]
        output.records(DATASOURCE, datasources, options.format, options.output)


def _state_code(state: str) -> str:
    """Druid's word for the outcome of a task."""
    return state if state in ("SUCCESS", "FAILED") else "RUNNING"
