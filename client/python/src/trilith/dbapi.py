"""DB-API 2.0 (PEP 249) by ADBC's Flight SQL driver. Needs trilith[dbapi].

Connections and cursors are ADBC's own, with its extensions (`fetch_arrow_table`, `fetch_df`, `adbc_get_objects`, …).
`server_error` reads what the server said out of ADBC's exceptions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from trilith import errors
from trilith._address import MESSAGE_BYTES_MAX, Address, Tls
from trilith._retry import STREAM_SECONDS

try:
    from adbc_driver_flightsql import DatabaseOptions
    from adbc_driver_flightsql import dbapi as flightsql
    from adbc_driver_flightsql.dbapi import (
        BINARY,
        DATETIME,
        NUMBER,
        ROWID,
        STRING,
        Connection,
        Cursor,
        DatabaseError,
        DataError,
        Date,
        DateFromTicks,
        Error,
        IntegrityError,
        InterfaceError,
        InternalError,
        NotSupportedError,
        OperationalError,
        ProgrammingError,
        Time,
        TimeFromTicks,
        Timestamp,
        TimestampFromTicks,
        Warning,
        apilevel,
        paramstyle,
        threadsafety,
    )
except ImportError as missing:
    raise ImportError("trilith.dbapi needs ADBC's Flight SQL driver: pip install 'trilith[dbapi]'") from missing

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "server_error",
    "threadsafety",
]

Binary = bytes

CONTEXT_HEADER = "trilith-context"
DETAILS_KEYS = (b"grpc-status-details-bin", "grpc-status-details-bin")
# "INVALID_ARGUMENT: [FlightSQL] <message> (InvalidArgument; Prepare)", perhaps with more behind it.
MESSAGE = re.compile(r"^[A-Z_]+: (?:\[FlightSQL\] )?(?P<text>.*) \((?P<code>\w+); \w+[^)]*\)", re.DOTALL)


def connect(
    address: str,
    *,
    token: str | None = None,
    tls: Tls | None = None,
    context: Mapping[str, Any] | None = None,
    timeout: float | None = STREAM_SECONDS,
    autocommit: bool = True,
    options: Mapping[str, str] | None = None,
) -> Connection:
    """A connection to the server at `address`, whose forms are those of `trilith.connect`.

    `context` is the query context of all statements. `timeout` is the seconds that each call may take (a query, the
    reading of its rows, an INSERT or REPLACE with its task), None for ever. `options` are further options of
    the driver's database. Every statement publishes by itself, so commit and rollback do nothing. Errors:
    ValueError for a malformed address, NotSupportedError for `autocommit=False`. A server that cannot be reached
    is an error of the first statement.
    """
    if not autocommit:
        raise NotSupportedError(
            "there are no transactions: every statement publishes its rows by itself; leave autocommit=True"
        )
    parsed = Address.parse(address, tls)
    given = {DatabaseOptions.WITH_MAX_MSG_SIZE.value: str(MESSAGE_BYTES_MAX)}
    if token:
        given[DatabaseOptions.AUTHORIZATION_HEADER.value] = f"Bearer {token}"
    if context:
        given[DatabaseOptions.RPC_CALL_HEADER_PREFIX.value + CONTEXT_HEADER] = json.dumps(context)
    if timeout is not None:
        for option in (
            DatabaseOptions.TIMEOUT_QUERY,
            DatabaseOptions.TIMEOUT_FETCH,
            DatabaseOptions.TIMEOUT_UPDATE,
        ):
            given[option.value] = str(float(timeout))
    if parsed.tls is not None:
        given.update(_tls_options(parsed.tls))
    scheme = "grpc" if parsed.tls is None else "grpc+tls"
    return flightsql.connect(f"{scheme}://{parsed.target}", {**given, **(options or {})}, autocommit=True)


def server_error(error: BaseException) -> errors.TrilithError:
    """What the server said, as the client's other calls raise it: `error_code`, `category`, `context` (line, …).

    `error` is an exception of a statement, or one that another library raised from such a one. A failed task has
    its fault's code, and its id in `context["taskId"]`. What the driver itself refused is a plain TrilithError.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, Error):
        seen = seen.__cause__ or seen.__context__
    if seen is None:
        return errors.TrilithError(str(error))
    text = str(seen)
    message = MESSAGE.match(text)
    code = _code(message["code"]) if message else None
    return errors.from_details(code, message["text"] if message else text, _details(seen))


def _tls_options(tls: Tls) -> dict[str, str]:
    options = {}
    # Without roots of its own the driver takes the system's.
    if tls.ca is not None and (roots := tls.roots()):
        options[DatabaseOptions.TLS_ROOT_CERTS.value] = roots.decode()
    if tls.server_name:
        options[DatabaseOptions.TLS_OVERRIDE_HOSTNAME.value] = tls.server_name
    return options


def _code(name: str) -> grpc.StatusCode | None:
    """The code of Go's name for it, such as "InvalidArgument"."""
    if name == "Canceled":
        return grpc.StatusCode.CANCELLED
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
    return grpc.StatusCode.__members__.get(word)


def _details(error: Error) -> list[any_pb2.Any]:
    details = []
    for key, value in error.details or ():
        if key in DETAILS_KEYS:
            detail = any_pb2.Any()
            try:
                detail.ParseFromString(value)
            except DecodeError:
                continue
            details.append(detail)
    return details
