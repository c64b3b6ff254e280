"""What a failing call raises, read from the status that the server sends."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from trilith._generated.task.v1 import task_service_pb2 as task_pb2

DOMAIN = "trilith"
DETAILS_KEY = "grpc-status-details-bin"


class TrilithError(Exception):
    """A call that failed.

    `code` is the gRPC code, None for a task that failed; `error_code` Druid's errorCode ("general" when the
    server sent none), `category` and `persona` Druid's words, `context` details of the error (strings: line,
    column, …), `retry_after` how long the server asks to wait, if it says.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        error_code: str = "general",
        category: str = "UNCATEGORIZED",
        persona: str = "OPERATOR",
        context: dict[str, Any] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.error_code = error_code
        self.category = category
        self.persona = persona
        self.context = context or {}
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.message


class InvalidInput(TrilithError):
    """The statement, a parameter or another argument is wrong; `context` may have line and column."""


class AlreadyExists(InvalidInput):
    """A task with this id was submitted before, by somebody else or by an earlier call."""


class Unauthorized(TrilithError):
    """There is no token, or it is not valid."""


class Forbidden(TrilithError):
    """The token does not permit this."""


class NotFound(TrilithError):
    """No such task, query or datasource."""


class Conflict(TrilithError):
    """The state of the server does not permit this now."""


class CapacityExceeded(TrilithError):
    """The server has no room for this."""


class Canceled(TrilithError):
    """The call, query or task was canceled."""


class Timeout(TrilithError, builtins.TimeoutError):
    """The deadline passed. A task that was waited for goes on, unless it was told to stop."""


class Unsupported(TrilithError):
    """Trilith does not do this."""


class Unavailable(TrilithError):
    """The server cannot be reached, and retries did not help before the deadline."""


class RuntimeFailure(TrilithError):
    """A failure inside the server; its log says more."""


class TaskFailed(TrilithError):
    """A task that ended with a fault.

    `error_code` is the fault's code such as "InsertTimeNull", `fields` the fault's own fields, `task` the task
    as the server last had it.
    """

    def __init__(self, task: task_pb2.Task) -> None:
        fault = task.fault
        super().__init__(
            fault.error_message or task.error_message or "the task failed",
            error_code=fault.error_code or "UnknownError",
            category="CANCELED" if fault.error_code == "Canceled" else "RUNTIME_FAILURE",
            persona="USER",
        )
        self.task = task
        self.task_id: str = task.task_id
        self.fields: dict[str, Any] = json.loads(fault.fields_json or "{}")

    def __str__(self) -> str:
        return f"task {self.task_id} failed: {self.error_code}: {self.message}"


_CLASSES: dict[str, type[TrilithError]] = {
    "INVALID_INPUT": InvalidInput,
    "UNAUTHORIZED": Unauthorized,
    "FORBIDDEN": Forbidden,
    "NOT_FOUND": NotFound,
    "CONFLICT": Conflict,
    "CAPACITY_EXCEEDED": CapacityExceeded,
    "CANCELED": Canceled,
    "TIMEOUT": Timeout,
    "UNSUPPORTED": Unsupported,
    "SERVICE_UNAVAILABLE": Unavailable,
    "RUNTIME_FAILURE": RuntimeFailure,
    "DEFENSIVE": RuntimeFailure,
}

_CATEGORIES: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_INPUT",
    grpc.StatusCode.FAILED_PRECONDITION: "INVALID_INPUT",
    grpc.StatusCode.OUT_OF_RANGE: "INVALID_INPUT",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHORIZED",
    grpc.StatusCode.PERMISSION_DENIED: "FORBIDDEN",
    grpc.StatusCode.NOT_FOUND: "NOT_FOUND",
    grpc.StatusCode.ABORTED: "CONFLICT",
    grpc.StatusCode.ALREADY_EXISTS: "CONFLICT",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "CAPACITY_EXCEEDED",
    grpc.StatusCode.CANCELLED: "CANCELED",
    grpc.StatusCode.DEADLINE_EXCEEDED: "TIMEOUT",
    grpc.StatusCode.UNIMPLEMENTED: "UNSUPPORTED",
    grpc.StatusCode.UNAVAILABLE: "SERVICE_UNAVAILABLE",
    grpc.StatusCode.INTERNAL: "RUNTIME_FAILURE",
}


def from_status(
    code: grpc.StatusCode, message: str, metadata: Iterable[tuple[str, str | bytes]] = ()
) -> TrilithError:
    """The error of a status and its trailing metadata."""
    return from_details(code, message, _details(metadata))


def from_details(code: grpc.StatusCode | None, message: str, details: Iterable[any_pb2.Any]) -> TrilithError:
    """The error of a status and its details. Without a code, the category is that of the details."""
    info: dict[str, str] = {}
    retry_after = None
    for detail in details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            error_info = error_details_pb2.ErrorInfo()
            detail.Unpack(error_info)
            if error_info.domain == DOMAIN:
                info = dict(error_info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToTimedelta()
    # How the server's gRPC library words it when the call's deadline passes there first.
    if code is grpc.StatusCode.CANCELLED and message == "Timeout expired" and not info:
        code = grpc.StatusCode.DEADLINE_EXCEEDED
    category = info.get("category") or (_CATEGORIES.get(code) if code else None) or "UNCATEGORIZED"
    error_code = info.get("errorCode", "general")
    kind = AlreadyExists if error_code == "entryAlreadyExists" else _CLASSES.get(category, TrilithError)
    return kind(
        message,
        code=code,
        error_code=error_code,
        category=category,
        persona=info.get("persona", "OPERATOR"),
        context=_context(info.get("context")),
        retry_after=retry_after,
    )


def from_rpc(error: grpc.RpcError) -> TrilithError:
    """The error of a call made with `grpc` or `grpc.aio`."""
    if isinstance(error, grpc.aio.AioRpcError):
        trailing = error.trailing_metadata()
        return from_status(error.code(), error.details() or "", [(key, value) for key, value in trailing])
    if isinstance(error, grpc.Call):
        return from_status(error.code(), error.details() or "", error.trailing_metadata() or ())
    return TrilithError(str(error))


def timeout(message: str) -> Timeout:
    """The error of a deadline that the client itself kept."""
    return Timeout(
        message,
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
        error_code="clientTimeout",
        category="TIMEOUT",
        persona="USER",
    )


def closed_early(task_id: str) -> TrilithError:
    """The error of a stream that ended before its task did."""
    return Unavailable(
        f"the server stopped following task [{task_id}]",
        code=grpc.StatusCode.UNAVAILABLE,
        category="SERVICE_UNAVAILABLE",
    )


def _details(metadata: Iterable[tuple[str, str | bytes]]) -> list[any_pb2.Any]:
    for key, value in metadata:
        if key == DETAILS_KEY:
            status = status_pb2.Status()
            status.ParseFromString(value if isinstance(value, bytes) else value.encode("latin-1"))
            return list(status.details)
    return []


def _context(text: str | None) -> dict[str, Any]:
    try:
        context = json.loads(text or "{}")
    except ValueError:
        return {}
    return context if isinstance(context, dict) else {}
