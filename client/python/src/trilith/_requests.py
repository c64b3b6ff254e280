"""Requests from Python values."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from trilith import errors
from trilith._generated.query.v1 import query_service_pb2 as query_pb2
from trilith._generated.task.v1 import task_service_pb2 as task_pb2

TASK_PREFIX = "query-"
EXPLAIN = re.compile(r"(?:^|;)\s*EXPLAIN\s+PLAN\s+FOR\b", re.IGNORECASE)


@dataclass(frozen=True)
class Parameter:
    """A value of a `?` with its SQL type given, such as Parameter("DATE", "2015-09-12")."""

    sql_type: str
    value: Any


def query_id(context: Mapping[str, Any], own: str | None) -> str:
    """The sqlQueryId: the caller's, the context's, or a fresh UUID. A task's id ("query-…") is read as well."""
    chosen = own or context.get("sqlQueryId") or str(uuid.uuid4())
    return str(chosen).removeprefix(TASK_PREFIX) if own else str(chosen)


def submit(
    sql: str, context: Mapping[str, Any], parameters: Sequence[Any], own_id: str | None
) -> task_pb2.SubmitTaskRequest:
    """A submission. It always names its task, so that a retry cannot run it twice."""
    return task_pb2.SubmitTaskRequest(
        sql=sql,
        context_json=json.dumps({**context, "sqlQueryId": query_id(context, own_id)}),
        parameters=[parameter(value) for value in parameters],
    )


def task_id(request: task_pb2.SubmitTaskRequest, answer: task_pb2.SubmitTaskResponse) -> str:
    """The id of the task that a submission made. Errors: InvalidInput for an EXPLAIN, which makes none."""
    if answer.HasField("explanation"):
        raise errors.InvalidInput("EXPLAIN PLAN FOR is no task; use explain()", category="INVALID_INPUT")
    return answer.task_id or TASK_PREFIX + json.loads(request.context_json)["sqlQueryId"]


def explained(sql: str) -> str:
    """The statement behind EXPLAIN PLAN FOR."""
    return sql if EXPLAIN.search(sql) else f"EXPLAIN PLAN FOR {sql}"


def list_tasks(states: Iterable[str], datasource: str, page_size: int) -> task_pb2.ListTasksRequest:
    """A list request. Errors: ValueError for a state that there is not."""
    return task_pb2.ListTasksRequest(
        page_size=page_size,
        states=[task_pb2.State.Value(f"STATE_{state.upper()}") for state in states],
        datasource=datasource,
    )


def run(
    sql: str, context: Mapping[str, Any], parameters: Sequence[Any], own_id: str | None
) -> query_pb2.RunQueryRequest:
    """A query to run at once, by a name under which it can be cancelled."""
    return query_pb2.RunQueryRequest(
        sql=sql,
        context_json=json.dumps({**context, "sqlQueryId": query_id(context, own_id)}),
        parameters=[parameter(value) for value in parameters],
    )


def parameter(value: Any) -> task_pb2.Parameter:
    """The SQL type and JSON text of a value. Errors: TypeError for a type that has none."""
    if isinstance(value, Parameter):
        return task_pb2.Parameter(type=value.sql_type, value_json=json.dumps(value.value))
    sql_type, plain = _typed(value)
    return task_pb2.Parameter(type=sql_type, value_json=json.dumps(plain))


def _typed(value: Any) -> tuple[str, Any]:
    match value:
        case None | str():
            return "VARCHAR", value
        case bool():
            return "BOOLEAN", value
        case int():
            return "BIGINT", value
        case float() | Decimal():
            return "DOUBLE", float(value)
        case datetime():
            # One without a zone is read in the query's sqlTimeZone.
            moment = value.isoformat() if value.tzinfo is None else round(value.timestamp() * 1000)
            return "TIMESTAMP", moment
        case date():
            return "DATE", value.isoformat()
        case list() | tuple():
            return "ARRAY", [_typed(item)[1] for item in value]
    raise TypeError(f"a parameter cannot be of type {type(value).__name__}; wrap it into trilith.Parameter")
