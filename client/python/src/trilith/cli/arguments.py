"""What the command line may say."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from trilith import _requests

FORMATS = ("table", "json", "csv", "parquet", "arrow")
TYPED = re.compile(
    r"(TINYINT|SMALLINT|INTEGER|BIGINT|FLOAT|REAL|DOUBLE|DECIMAL|NUMERIC|BOOLEAN|CHAR|VARCHAR|TIMESTAMP|DATE|ARRAY):(.*)",
    re.DOTALL,
)
# What a statement's words cannot be in: comments, texts, quoted names.
NO_WORDS = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", re.DOTALL)
WRITES = re.compile(r"(?:^|;)\s*(?:EXPLAIN\s+PLAN\s+FOR\s+)?(?:INSERT|REPLACE|DELETE)\b", re.IGNORECASE)


def parser() -> argparse.ArgumentParser:
    """The parser; what it reads has the name of the verb in `verb`."""
    root = argparse.ArgumentParser(
        prog="trilith-py", description="Runs SQL on a Trilith server, and follows its tasks."
    )
    verbs = root.add_subparsers(dest="verb", required=True, metavar="VERB")
    server, statement, task, rows = _server(), _statement(), _task(), _rows()

    def add(verb: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return verbs.add_parser(verb, help=text, description=f"{text}.", parents=[server, *parents])

    add("sql", "Run SQL: SELECT at once, INSERT, REPLACE and DELETE as a task that is waited for", statement, rows)
    submit = add("submit", "Submit a statement as a task and print its id", statement)
    submit.add_argument("--wait", action="store_true", help="wait for the end, with progress; fail if the task fails")
    add("status", "Print the state of a task; fail if it failed", task)
    add("report", "Print the report of a task as Druid's JSON", task)
    add("watch", "Follow a task until it ends; fail if it fails", task)
    add("cancel", "Stop a task and print its state", task)
    tasks = add("tasks", "List tasks, newest first", rows)
    tasks.add_argument("--limit", type=limit, default=50, metavar="N", help="most tasks to list [default: 50]")
    segments = add("segments", "List the segments of a datasource, or all datasources", rows)
    segments.add_argument("datasource", nargs="?", metavar="DATASOURCE")
    return root


def statement(given: argparse.Namespace) -> str | None:
    """The statement, from -e, -f or standard input; None when there is none. Errors: OSError."""
    if given.execute is not None:
        return str(given.execute)
    if given.file is not None and str(given.file) != "-":
        return Path(given.file).read_text(encoding="utf-8")
    if given.file is None and sys.stdin.isatty():
        return None
    return sys.stdin.read()


def writes(sql: str) -> bool:
    """True for INSERT, REPLACE and DELETE, also behind SET or EXPLAIN PLAN FOR."""
    return WRITES.search(NO_WORDS.sub(" ", sql)) is not None


def explains(sql: str) -> bool:
    """True for EXPLAIN PLAN FOR, also behind SET."""
    return _requests.EXPLAIN.search(NO_WORDS.sub(" ", sql)) is not None


def _server() -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    group.add_argument(
        "--server",
        default=os.environ.get("TRILITH_SERVER") or "http://127.0.0.1:8889",
        metavar="ADDRESS",
        help="gRPC address: host:port, http://… or https://… [env: TRILITH_SERVER; default: http://127.0.0.1:8889]",
    )
    group.add_argument(
        "--token",
        default=os.environ.get("TRILITH_TOKEN"),
        help="sent with every call as a bearer token [env: TRILITH_TOKEN]",
    )
    group.add_argument(
        "--ca-file",
        default=os.environ.get("TRILITH_CA_FILE"),
        metavar="FILE",
        help="PEM file with the certificates to trust at an https:// address "
        "[env: TRILITH_CA_FILE; default: those of the system]",
    )
    group.add_argument(
        "--deadline",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long to try again while the server cannot be reached [default: 30]",
    )
    return group


def _statement() -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    source = group.add_mutually_exclusive_group()
    source.add_argument("-e", "--execute", metavar="SQL", help="statement")
    source.add_argument("-f", "--file", metavar="FILE", help='file with the statement; "-" reads standard input')
    group.add_argument(
        "-c",
        "--context",
        type=pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="query context; JSON values keep their type",
    )
    group.add_argument(
        "--param",
        type=parameter,
        action="append",
        default=[],
        metavar="VALUE",
        help="value of the next ?: JSON (100, true, null, [1,2]), TYPE:VALUE (DATE:2015-09-12), else a text",
    )
    group.add_argument("--id", help="sqlQueryId; the task is query-ID [default: a random one]")
    return group


def _task() -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    group.add_argument("task_id", metavar="TASK_ID")
    return group


def _rows() -> argparse.ArgumentParser:
    group = argparse.ArgumentParser(add_help=False)
    group.add_argument("--format", choices=FORMATS, default="table", help="format of the rows [default: table]")
    group.add_argument("-o", "--output", metavar="FILE", help="write rows to a file")
    return group


def pair(text: str) -> tuple[str, Any]:
    """Key and value of query context."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"[{text}] is not key=value")
    return key, _json(value)


def parameter(text: str) -> Any:
    """The value of a `?`: that of JSON, but for objects; of TYPE:VALUE; else the text itself."""
    if typed := TYPED.fullmatch(text):
        kind, value = typed[1], typed[2]
        return _requests.Parameter(kind, value if kind in ("CHAR", "VARCHAR") else _json(value))
    value = _json(text)
    if isinstance(value, dict):
        return text
    try:
        _requests.parameter(value)
    except TypeError as error:
        raise argparse.ArgumentTypeError(f"[{text}] cannot be a parameter: {error}") from None
    return value


def _json(text: str) -> Any:
    """The value of a JSON text, else the text. NaN and Infinity are no JSON."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def limit(text: str) -> int:
    """How many tasks."""
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and 10000")
    return number


def seconds(text: str) -> float:
    """A time to wait."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no time to wait")
    return number
