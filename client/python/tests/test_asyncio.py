"""The asyncio client."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections import Counter

import pytest
from harness import ENDLESS, ingest_sql
from proxies import Authority, Proxy

import trilith
from trilith import pb

CROSS = "SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b"


@pytest.fixture
async def client(server):
    """A client of the shared server, in the test's loop."""
    async with trilith.AsyncClient(server.grpc) as connected:
        yield connected


async def test_ingest_and_query(client, edits):
    seen = []

    async def progress(update: trilith.Update) -> None:
        await asyncio.sleep(0)
        seen.append(update)

    done = await client.run(ingest_sql("by_asyncio"), timeout=120, on_progress=progress)
    assert done.state == pb.task.STATE_SUCCESS
    assert any(update.report and update.report.stages for update in seen)
    assert (await client.report(done.task_id)).rows_written == len(edits)
    table = await (await client.query("SELECT channel, COUNT(*) AS n FROM by_asyncio GROUP BY 1")).read_all()
    assert dict(zip(table["channel"].to_pylist(), table["n"].to_pylist(), strict=True)) == Counter(
        row["channel"] for row in edits
    )


async def test_rows_of_a_select_task(client, edits):
    task = await client.submit("SELECT page FROM wikipedia WHERE added > ?", parameters=[1000])
    await task.wait(timeout=60, on_progress=lambda update: None)
    frame = await (await task.results()).to_pandas()
    assert sorted(frame["page"]) == sorted(row["page"] for row in edits if row["added"] > 1000)
    assert (await task.report()).rows_written == len(frame)


async def test_queries_run_beside_each_other(client, edits):
    async def count(channel: str) -> int:
        rows = await client.query("SELECT COUNT(*) AS n FROM wikipedia WHERE channel = ?", parameters=[channel])
        return (await rows.read_all())["n"][0].as_py()

    expected = Counter(row["channel"] for row in edits)
    channels = list(expected)[:8]
    assert await asyncio.gather(*map(count, channels)) == [expected[channel] for channel in channels]


async def test_errors_are_typed(client):
    with pytest.raises(trilith.InvalidInput) as raised:
        await client.query("SELECT *\nFROM nowhere")
    assert raised.value.context["line"] == "2"
    for call in (client.task, client.report, client.cancel, client.wait, client.results):
        with pytest.raises(trilith.NotFound):
            await call("query-of-nobody")
    with pytest.raises(trilith.NotFound):
        await client.cancel_query("nothing")


async def test_waiting_has_an_end(client):
    task = await client.submit(ENDLESS)
    with pytest.raises(trilith.Timeout):
        await task.wait(timeout=0.5)
    assert (await client.task(task)).state in (pb.task.STATE_PENDING, pb.task.STATE_RUNNING)
    with pytest.raises(trilith.Timeout):
        await task.wait(timeout=0.5, cancel_on_timeout=True)
    with pytest.raises(trilith.TaskFailed) as raised:
        await task.wait(timeout=60)
    assert raised.value.error_code == "Canceled"


@pytest.mark.parametrize("how", ["close", "forget", "cancel"])
async def test_a_query_ends_with_its_rows(client, how):
    id = str(uuid.uuid4())
    rows = await client.query(CROSS, id=id)
    assert (await anext(rows)).num_rows > 0
    if how == "close":
        async with rows:
            pass
        with pytest.raises(ValueError, match="closed"):
            await anext(rows)
    elif how == "forget":
        del rows
        gc.collect()
    else:
        reading = asyncio.create_task(rows.read_all())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        del reading, rows
        gc.collect()
    for _ in range(1000):
        try:
            await client.cancel_query(id)
        except trilith.NotFound:
            return
    pytest.fail("the query still runs")


async def test_lists(client, edits):
    ids = [(await client.submit("SELECT 1 AS one")).id for _ in range(3)]
    newest = [task.task_id async for task in client.tasks(page_size=2)]
    assert newest[:3] == ids[::-1]
    assert sum([segment.row_count async for segment in client.segments("wikipedia")]) == len(edits)
    assert "wikipedia" in [datasource.name for datasource in await client.datasources()]
    assert (await client.schema("wikipedia"))[0].name == "__time"
    assert await client.locks("wikipedia") == []
    assert sum(worker.slot_count for worker in await client.workers()) == 2
    explained = await client.explain("SELECT * FROM wikipedia")
    assert {"name": "wikipedia", "type": "DATASOURCE"} in explained.resources
    inferred = await client.infer_signature({"type": "inline", "data": '{"a":1}'}, {"type": "json"})
    assert [(column.name, column.type) for column in inferred.columns] == [("a", "LONG")]


async def test_an_answer_that_is_lost_does_not_run_a_task_twice(server, client):
    sql = "SELECT 1 AS one -- lost for asyncio"
    with Proxy(server.grpc, marker=b"lost for asyncio", losses=1) as proxy:
        async with trilith.AsyncClient(proxy.address) as through:
            task = await through.submit(sql)
            assert proxy.lost == 1
            await task.wait(timeout=60)
    assert [listed.sql async for listed in client.tasks()].count(sql) == 1


async def test_tls(server, tmp_path):
    authority = Authority(tmp_path)
    with Proxy(server.grpc, tls=authority.server_context()) as proxy:
        tls = trilith.Tls(ca=authority.ca, server_name="trilith.test")
        async with trilith.AsyncClient(f"https://{proxy.address}", tls=tls) as client:
            rows = await client.query("SELECT 1 AS one")
            assert (await rows.to_polars())["one"].to_list() == [1]
