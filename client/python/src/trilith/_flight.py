"""Arrow batches from the messages of Flight's DoGet.

The calls are made on the client's own gRPC channel, so deadlines, token and errors are those of all its calls.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.flight as flight

DO_GET = "/arrow.flight.protocol.FlightService/DoGet"
GET_FLIGHT_INFO = "/arrow.flight.protocol.FlightService/GetFlightInfo"

CONTINUATION = b"\xff\xff\xff\xff"
HEADER_FIELD = 2
BODY_FIELD = 1000
LENGTH_DELIMITED = 2


def same_bytes(message: bytes) -> bytes:
    """What gRPC calls for messages that stay as they are."""
    return message


def ticket_message(ticket: bytes) -> bytes:
    """The message of a ticket."""
    return bytes(flight.Ticket(ticket).serialize())


def task_descriptor(task_id: str) -> bytes:
    """The message that asks for the rows of a SELECT task."""
    return bytes(flight.FlightDescriptor.for_path(task_id).serialize())


def tickets(info: bytes) -> tuple[pa.Schema, list[bytes]]:
    """Schema, and one ticket for each page of rows, in order."""
    read = flight.FlightInfo.deserialize(info)
    return read.schema, [endpoint.ticket.ticket for endpoint in read.endpoints]


def read_schema(message: bytes) -> pa.Schema:
    """The schema of RunQuery's answer: an IPC message, with the prefix that streams have or without it."""
    framed = message if message.startswith(CONTINUATION) else frame(message)
    return pa.ipc.read_schema(pa.py_buffer(framed))


def frame(header: bytes | memoryview, body: bytes | memoryview = b"") -> bytes:
    """An IPC message as it stands in a stream."""
    return b"".join((CONTINUATION, len(header).to_bytes(4, "little"), header, body))


class BatchDecoder:
    """Turns the messages of one stream into batches."""

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None

    def decode(self, message: bytes) -> pa.RecordBatch | None:
        """The batch of a message; None for the schema and for what only carries metadata."""
        header, body = split(message)
        if not header:
            return None
        ipc = pa.ipc.read_message(pa.py_buffer(frame(header, body)))
        if ipc.type == "schema":
            self.schema = pa.ipc.read_schema(ipc)
            return None
        if self.schema is None:
            raise pa.ArrowInvalid("the stream of rows does not begin with their schema")
        return pa.ipc.read_record_batch(ipc, self.schema)


def split(message: bytes) -> tuple[memoryview, memoryview]:
    """IPC header and body of a FlightData message, without a copy."""
    view = memoryview(message)
    parts = {HEADER_FIELD: view[:0], BODY_FIELD: view[:0]}
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        if key & 7 != LENGTH_DELIMITED:
            raise pa.ArrowInvalid("a Flight message is malformed")
        length, at = _varint(view, at)
        parts[key >> 3] = view[at : at + length]
        at += length
    return parts[HEADER_FIELD], parts[BODY_FIELD]


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
