"""The client with blocking calls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from trilith import _flight, _requests, errors, pb
from trilith._address import Address, Tls, metadata
from trilith._generated.datasource.v1 import datasource_service_pb2_grpc as datasource_grpc
from trilith._generated.query.v1 import query_service_pb2_grpc as query_grpc
from trilith._generated.task.v1 import task_service_pb2_grpc as task_grpc
from trilith._retry import STREAM_SECONDS, Deadline, pause_after
from trilith.report import Explanation, Report, Update
from trilith.rows import Rows

Answer = TypeVar("Answer")
OnProgress = Callable[[Update], object]
"""Called with each change of a task."""


def connect(address: str, *, token: str | None = None, tls: Tls | None = None, deadline: float = 30.0) -> Client:
    """A client of "host:port", "http://host:port" (both plaintext) or "https://host:port" (TLS).

    `token` goes with every call as `authorization: Bearer …`; `deadline` is the time in seconds that a call may
    take with its retries, unless it is told otherwise. Connects when it is first used. Errors: ValueError.
    """
    return Client(address, token=token, tls=tls, deadline=deadline)


class Client:
    """A connection to a server. Threads may share it."""

    def __init__(
        self, address: str, *, token: str | None = None, tls: Tls | None = None, deadline: float = 30.0
    ) -> None:
        self._deadline = deadline
        self._metadata = metadata(token)
        self._channel = Address.parse(address, tls).channel()
        self._tasks = task_grpc.TaskServiceStub(self._channel)
        self._queries = query_grpc.QueryServiceStub(self._channel)
        self._datasources = datasource_grpc.DatasourceServiceStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and calls that are under way."""
        self._channel.close()

    # Tasks

    def submit(
        self,
        sql: str,
        context: Mapping[str, Any] | None = None,
        parameters: Sequence[Any] = (),
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Task:
        """Submits a statement as a task and returns before it runs.

        The task's id is "query-" and `id`, the context's sqlQueryId or a fresh UUID. A try that the server may
        not have received is repeated, and the task runs once. Errors: AlreadyExists when the id was taken before
        this call, InvalidInput for a statement that is wrong or an EXPLAIN.
        """
        request = _requests.submit(sql, context or {}, parameters, id)
        answer = self._call(self._tasks.SubmitTask, request, timeout, taken=pb.task.SubmitTaskResponse())
        return Task(self, _requests.task_id(request, answer))

    def explain(
        self, sql: str, context: Mapping[str, Any] | None = None, parameters: Sequence[Any] = ()
    ) -> Explanation:
        """What a statement would do: EXPLAIN PLAN FOR, which is put in front unless it is there."""
        request = _requests.submit(_requests.explained(sql), context or {}, parameters, None)
        return Explanation.of(self._call(self._tasks.SubmitTask, request, None).explanation)

    def run(
        self,
        sql: str,
        context: Mapping[str, Any] | None = None,
        parameters: Sequence[Any] = (),
        *,
        id: str | None = None,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        cancel_on_timeout: bool = False,
    ) -> pb.task.Task:
        """`submit`, then `wait`."""
        task = self.submit(sql, context, parameters, id=id)
        return self.wait(task, timeout=timeout, on_progress=on_progress, cancel_on_timeout=cancel_on_timeout)

    def wait(
        self,
        task: str | Task,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        cancel_on_timeout: bool = False,
    ) -> pb.task.Task:
        """Follows a task to its end and returns it as it is then.

        Errors: TaskFailed; Timeout after `timeout` seconds (the task goes on, unless `cancel_on_timeout`).
        """
        try:
            for update in self.watch(task, timeout=timeout):
                if on_progress is not None:
                    on_progress(update)
                last = update
        except errors.Timeout:
            if cancel_on_timeout:
                self.cancel(task)
            raise
        if last.task.state == pb.task.STATE_FAILED:
            raise errors.TaskFailed(last.task)
        return last.task

    def watch(self, task: str | Task, *, timeout: float | None = None, interval: float = 0.2) -> Iterator[Update]:
        """The task after each change, at most every `interval` seconds, until a final state.

        Goes on after the server was away for less than the client's deadline. Errors: Timeout after `timeout`
        seconds, NotFound, Unavailable.
        """
        request = pb.task.WatchTaskRequest(task_id=_id(task), interval_ms=round(interval * 1000))
        end, outage = Deadline(timeout), Deadline(self._deadline)
        while True:
            stream = self._tasks.WatchTask(request, timeout=end.left(STREAM_SECONDS), metadata=self._metadata)
            try:
                for message in stream:
                    outage = Deadline(self._deadline)
                    update = Update.of(message)
                    yield update
                    if update.final:
                        return
                error = errors.closed_early(request.task_id)
            except grpc.RpcError as status:
                error = errors.from_rpc(status)
            finally:
                stream.cancel()
            if end.left() == 0:
                raise errors.timeout(f"task [{request.task_id}] did not end in {timeout} s")
            if not isinstance(error, errors.Timeout):
                time.sleep(pause_after(error, outage, end))

    def task(self, task: str | Task) -> pb.task.Task:
        """The task with its payload. Errors: NotFound."""
        return self._call(self._tasks.GetTask, pb.task.GetTaskRequest(task_id=_id(task))).task

    def tasks(
        self, *, states: Iterable[str] = (), datasource: str = "", page_size: int = 100
    ) -> Iterator[pb.task.Task]:
        """Tasks, newest first, fetched a page at a time; of these states ("RUNNING", …) and datasource only."""
        request = _requests.list_tasks(states, datasource, page_size)
        while True:
            page = self._call(self._tasks.ListTasks, request)
            yield from page.tasks
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def cancel(self, task: str | Task) -> str:
        """Asks a task to stop; a finished one is left as it is. Returns its state. Errors: NotFound."""
        answer = self._call(self._tasks.CancelTask, pb.task.CancelTaskRequest(task_id=_id(task)))
        return pb.task.State.Name(answer.state).removeprefix("STATE_")

    def report(self, task: str | Task) -> Report:
        """The live report of a running task, the stored one of a finished task. Errors: NotFound."""
        request = pb.task.GetTaskReportRequest(task_id=_id(task))
        return Report(self._call(self._tasks.GetTaskReport, request).report)

    def locks(self, datasource: str = "") -> list[pb.task.Lock]:
        """The locks on time chunks that tasks hold, in the order in which they were granted."""
        request = pb.task.ListLocksRequest(datasource=datasource)
        return list(self._call(self._tasks.ListLocks, request).locks)

    def workers(self) -> list[pb.task.WorkerProcess]:
        """The worker processes, in the order in which they joined."""
        return list(self._call(self._tasks.ListWorkers, pb.task.ListWorkersRequest()).workers)

    # Rows

    def query(
        self,
        sql: str,
        context: Mapping[str, Any] | None = None,
        parameters: Sequence[Any] = (),
        *,
        id: str | None = None,
        timeout: float = STREAM_SECONDS,
    ) -> Rows:
        """Runs a SELECT at once. Its batches come as the server makes them, as fast as they are taken.

        `id` is a name for `cancel_query`; `timeout` the seconds that the query and the reading of its rows may
        take. Closing the rows stops the query.
        """
        end = Deadline(timeout)
        request = _requests.run(sql, context or {}, parameters, id)
        answer = self._call(self._queries.RunQuery, request, end.left(self._deadline))
        return Rows(
            self._open(end),
            [answer.ticket],
            _flight.read_schema(answer.arrow_schema),
            columns=answer.columns,
            query_id=answer.query_id,
        )

    def results(self, task: str | Task, *, timeout: float = STREAM_SECONDS) -> Rows:
        """The rows of a SELECT task that succeeded, page after page. Errors: NotFound."""
        end = Deadline(timeout)
        get_info = self._channel.unary_unary(
            _flight.GET_FLIGHT_INFO,
            request_serializer=_flight.same_bytes,
            response_deserializer=_flight.same_bytes,
        )
        info = self._call(get_info, _flight.task_descriptor(_id(task)), end.left(self._deadline))
        schema, tickets = _flight.tickets(info)
        return Rows(self._open(end), tickets, schema)

    def cancel_query(self, query_id: str) -> None:
        """Stops a query. Errors: NotFound when no such query runs."""
        self._call(self._queries.CancelQuery, pb.query.CancelQueryRequest(query_id=query_id))

    def infer_signature(
        self, source: Mapping[str, Any], format: Mapping[str, Any]
    ) -> pb.query.InferSignatureResponse:
        """The columns of external data, from a sample. `source` and `format` are Druid's, as for EXTERN."""
        request = pb.query.InferSignatureRequest(
            input_source_json=json.dumps(source), input_format_json=json.dumps(format)
        )
        return self._call(self._queries.InferSignature, request)

    # Datasources

    def datasources(self) -> list[pb.datasource.Datasource]:
        """The datasources that have visible segments, by name."""
        request = pb.datasource.ListDatasourcesRequest()
        return list(self._call(self._datasources.ListDatasources, request).datasources)

    def schema(self, datasource: str) -> list[pb.report.Column]:
        """The columns of a datasource, `__time` first. Errors: NotFound."""
        request = pb.datasource.GetSchemaRequest(datasource=datasource)
        return list(self._call(self._datasources.GetSchema, request).columns)

    def segments(
        self, datasource: str = "", *, include_overshadowed: bool = False, unused: bool = False
    ) -> Iterator[pb.datasource.Segment]:
        """Segments by datasource, interval, version and partition, fetched a page at a time."""
        request = pb.datasource.ListSegmentsRequest(
            datasource=datasource, include_overshadowed=include_overshadowed, unused=unused
        )
        while True:
            page = self._call(self._datasources.ListSegments, request)
            yield from page.segments
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _call(
        self,
        method: Callable[..., Answer],
        request: Any,
        timeout: float | None = None,
        *,
        taken: Answer | None = None,
    ) -> Answer:
        """Calls until the deadline while the server is away.

        `taken` is the answer when a later try finds that an earlier one had stored its task.
        """
        deadline = Deadline(self._deadline if timeout is None else timeout)
        while True:
            try:
                return method(request, timeout=deadline.left(), metadata=self._metadata)
            except grpc.RpcError as status:
                error = errors.from_rpc(status)
                if taken is not None and deadline.tries > 0 and isinstance(error, errors.AlreadyExists):
                    return taken
                pause = pause_after(error, deadline)
            time.sleep(pause)

    def _open(self, end: Deadline) -> Callable[[bytes], Any]:
        do_get = self._channel.unary_stream(
            _flight.DO_GET,
            request_serializer=_flight.same_bytes,
            response_deserializer=_flight.same_bytes,
        )
        return lambda ticket: do_get(
            _flight.ticket_message(ticket), timeout=end.left(STREAM_SECONDS), metadata=self._metadata
        )


class Task:
    """A submitted task."""

    def __init__(self, client: Client, id: str) -> None:
        self.client = client
        self.id = id

    def __repr__(self) -> str:
        return f"Task({self.id!r})"

    def wait(
        self,
        *,
        timeout: float | None = None,
        on_progress: OnProgress | None = None,
        cancel_on_timeout: bool = False,
    ) -> pb.task.Task:
        """See `Client.wait`."""
        return self.client.wait(self, timeout=timeout, on_progress=on_progress, cancel_on_timeout=cancel_on_timeout)

    def watch(self, *, timeout: float | None = None, interval: float = 0.2) -> Iterator[Update]:
        """See `Client.watch`."""
        return self.client.watch(self, timeout=timeout, interval=interval)

    def report(self) -> Report:
        """See `Client.report`."""
        return self.client.report(self)

    def results(self) -> Rows:
        """See `Client.results`."""
        return self.client.results(self)

    def cancel(self) -> str:
        """See `Client.cancel`."""
        return self.client.cancel(self)


def _id(task: str | Task) -> str:
    return task if isinstance(task, str) else task.id
