"""Client of Trilith: SQL-based ingestion with Druid's dialect, and Arrow results.

`connect` (or `AsyncClient`) is where to begin; README.md has an example.
"""

from trilith._address import Tls
from trilith._requests import Parameter
from trilith.aio import AsyncClient, AsyncTask
from trilith.client import Client, Task, connect
from trilith.errors import (
    AlreadyExists,
    Canceled,
    CapacityExceeded,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    RuntimeFailure,
    TaskFailed,
    Timeout,
    TrilithError,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from trilith.report import Explanation, Report, Stage, Update
from trilith.rows import AsyncRows, Rows

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "AsyncRows",
    "AsyncTask",
    "Canceled",
    "CapacityExceeded",
    "Client",
    "Conflict",
    "Explanation",
    "Forbidden",
    "InvalidInput",
    "NotFound",
    "Parameter",
    "Report",
    "Rows",
    "RuntimeFailure",
    "Stage",
    "Task",
    "TaskFailed",
    "Timeout",
    "Tls",
    "TrilithError",
    "Unauthorized",
    "Unavailable",
    "Unsupported",
    "Update",
    "connect",
]
