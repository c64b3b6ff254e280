"""The rows of a statement, as a stream of Arrow batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa

from trilith import errors, pb
from trilith._flight import BatchDecoder

if TYPE_CHECKING:
    import pandas
    import polars


class Rows:
    """Iterates over `pyarrow.RecordBatch`es; each row is there once.

    `schema` is Arrow's; `columns` has Druid's types and `query_id` the name for `cancel_query`, both of a query
    only. Close it (or leave its `with` block) to stop a query that is not read to its end.
    """

    def __init__(
        self,
        open_stream: Callable[[bytes], Any],
        tickets: Sequence[bytes],
        schema: pa.Schema,
        *,
        columns: Iterable[pb.report.ResultColumn] = (),
        query_id: str = "",
    ) -> None:
        self.schema = schema
        self.columns = list(columns)
        self.query_id = query_id
        self._open = open_stream
        self._tickets = list(tickets)
        self._decoder = BatchDecoder()
        self._closed = False
        # At once, because the ticket of a query expires.
        self._stream = self._open(self._tickets.pop(0)) if self._tickets else None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        while self._stream is not None:
            try:
                for message in self._stream:
                    batch = self._decoder.decode(message)
                    if batch is not None:
                        return batch
            except grpc.RpcError as status:
                self._stream = None
                raise errors.from_rpc(status) from None
            self._decoder = BatchDecoder()
            self._stream = self._open(self._tickets.pop(0)) if self._tickets else None
        if self._closed:
            raise ValueError("these rows are closed")
        raise StopIteration

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the stream, and with it a query that still runs."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
            self._closed = True
        self._tickets.clear()

    def reader(self) -> pa.RecordBatchReader:
        """The same rows for what takes a reader, such as DuckDB or `pyarrow.dataset`."""
        return pa.RecordBatchReader.from_batches(self.schema, self)

    def read_all(self) -> pa.Table:
        """All rows that are left, in memory."""
        return pa.Table.from_batches(list(self), self.schema)

    def to_pandas(self) -> pandas.DataFrame:
        """All rows that are left. Needs trilith[pandas]."""
        return self.read_all().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """All rows that are left. Needs trilith[polars]."""
        return polars_frame(self.read_all())


class AsyncRows:
    """`Rows` for asyncio: iterate with `async for`."""

    def __init__(
        self,
        open_stream: Callable[[bytes], Any],
        tickets: Sequence[bytes],
        schema: pa.Schema,
        *,
        columns: Iterable[pb.report.ResultColumn] = (),
        query_id: str = "",
    ) -> None:
        self.schema = schema
        self.columns = list(columns)
        self.query_id = query_id
        self._open = open_stream
        self._tickets = list(tickets)
        self._decoder = BatchDecoder()
        self._closed = False
        self._stream = self._open(self._tickets.pop(0)) if self._tickets else None

    def __aiter__(self) -> AsyncIterator[pa.RecordBatch]:
        return self

    async def __anext__(self) -> pa.RecordBatch:
        while self._stream is not None:
            try:
                while (message := await self._stream.read()) is not grpc.aio.EOF:
                    batch = self._decoder.decode(message)
                    if batch is not None:
                        return batch
            except grpc.aio.AioRpcError as status:
                self._stream = None
                raise errors.from_rpc(status) from None
            self._decoder = BatchDecoder()
            self._stream = self._open(self._tickets.pop(0)) if self._tickets else None
        if self._closed:
            raise ValueError("these rows are closed")
        raise StopAsyncIteration

    async def __aenter__(self) -> AsyncRows:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops the stream, and with it a query that still runs."""
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None
            self._closed = True
        self._tickets.clear()

    async def read_all(self) -> pa.Table:
        """All rows that are left, in memory."""
        return pa.Table.from_batches([batch async for batch in self], self.schema)

    async def to_pandas(self) -> pandas.DataFrame:
        """All rows that are left. Needs trilith[pandas]."""
        return (await self.read_all()).to_pandas()

    async def to_polars(self) -> polars.DataFrame:
        """All rows that are left. Needs trilith[polars]."""
        return polars_frame(await self.read_all())


def polars_frame(table: pa.Table) -> polars.DataFrame:
    """A table as Polars has it."""
    import polars

    frame = polars.from_arrow(table)
    assert isinstance(frame, polars.DataFrame)
    return frame
