"""Queries at once: rows, parameters, streams."""

from __future__ import annotations

import datetime
import gc
import resource
import uuid
from collections import Counter

import pyarrow as pa
import pytest

import trilith

MILLION = (
    "SELECT a.page, a.channel, a.added, b.page AS other FROM wikipedia a "
    "CROSS JOIN (SELECT page FROM wikipedia LIMIT 41) b LIMIT 1000000"
)


def test_batches_have_schema_and_types(client, edits):
    with client.query("SELECT __time, channel, added FROM wikipedia") as rows:
        assert rows.schema.names == ["__time", "channel", "added"]
        assert [(column.name, column.sql_type) for column in rows.columns] == [
            ("__time", "TIMESTAMP"),
            ("channel", "VARCHAR"),
            ("added", "BIGINT"),
        ]
        count = 0
        for batch in rows:
            assert batch.schema.equals(rows.schema)
            count += batch.num_rows
    assert count == len(edits)


def test_no_row_is_a_table_too(client):
    table = client.query("SELECT page FROM wikipedia WHERE added < 0").read_all()
    assert table.num_rows == 0
    assert table.schema.names == ["page"]


def test_parameters_keep_their_type(client, edits):
    sql = "SELECT COUNT(*) AS n FROM wikipedia WHERE channel = ? AND added > ? AND __time >= ?"
    hour = datetime.datetime(2015, 9, 12, 12, tzinfo=datetime.timezone.utc)
    expected = sum(
        row["channel"] == "#en.wikipedia" and row["added"] > 100 and row["time"] >= "2015-09-12T12" for row in edits
    )
    assert expected > 0
    for moment in (hour, hour.replace(tzinfo=None), trilith.Parameter("TIMESTAMP", "2015-09-12 12:00:00")):
        table = client.query(sql, parameters=["#en.wikipedia", 100, moment]).read_all()
        assert table["n"].to_pylist() == [expected]
    table = client.query(
        "SELECT ? AS t, ? AS f, ? AS n, ? AS d", parameters=[True, 1.5, None, datetime.date(2020, 2, 29)]
    ).read_all()
    assert table.to_pylist()[0]["f"] == 1.5
    assert table.to_pylist()[0]["n"] is None
    assert table.to_pylist()[0]["t"] in (True, 1)
    with pytest.raises(TypeError, match=r"trilith\.Parameter"):
        client.query("SELECT ?", parameters=[object()])


def test_errors_of_queries_are_typed(client):
    with pytest.raises(trilith.InvalidInput, match="nowhere") as raised:
        client.query("SELECT *\nFROM nowhere")
    assert raised.value.context["line"] == "2"
    with pytest.raises(trilith.InvalidInput):
        client.query("SELECT ? + 1")
    with pytest.raises(trilith.NotFound):
        client.cancel_query("nothing")


def test_the_context_is_sent(client):
    zone = {"sqlTimeZone": "America/Los_Angeles"}
    table = client.query("SELECT FLOOR(TIMESTAMP '2015-09-12 01:30:00' TO DAY) AS d", zone).read_all()
    assert table["d"].to_pylist()[0].hour == 7


def test_frames(client, edits):
    sql = "SELECT channel, COUNT(*) AS n FROM wikipedia GROUP BY 1"
    expected = Counter(row["channel"] for row in edits)
    frame = client.query(sql).to_pandas()
    assert dict(zip(frame["channel"], frame["n"], strict=True)) == expected
    polars = client.query(sql).to_polars()
    assert dict(zip(polars["channel"], polars["n"], strict=True)) == expected
    assert client.query(sql).reader().read_all().num_rows == len(expected)


def test_a_million_rows_are_streamed(client, server):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = 0
    bytes_seen = 0
    for batch in client.query(MILLION):
        count += batch.num_rows
        bytes_seen += batch.nbytes
        del batch
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert count == 1_000_000
    assert bytes_seen > 50_000_000
    assert grown < bytes_seen / 2, f"{grown} bytes for {bytes_seen} bytes of rows"


@pytest.mark.parametrize("how", ["close", "with", "forget"])
def test_a_query_ends_with_its_rows(client, how):
    id = str(uuid.uuid4())
    endless = "SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b"
    rows = client.query(endless, id=id)
    assert rows.query_id == id
    assert next(rows).num_rows > 0
    if how == "close":
        rows.close()
        with pytest.raises(ValueError, match="closed"):
            next(rows)
    elif how == "with":
        with rows:
            pass
    else:
        del rows
        gc.collect()
    for _ in range(1000):
        try:
            client.cancel_query(id)
        except trilith.NotFound:
            return
    pytest.fail("the query still runs")


def test_a_query_is_cancelled_by_its_id(client):
    id = str(uuid.uuid4())
    rows = client.query("SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b", id=id)
    next(rows)
    client.cancel_query(id)
    with pytest.raises(trilith.Canceled):
        for _batch in rows:
            pass


def test_a_query_has_a_deadline(client):
    rows = client.query("SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b", timeout=0.7)
    with pytest.raises(trilith.Timeout):
        for _batch in rows:
            pass


def test_reading_a_stream_twice_yields_nothing(client):
    rows = client.query("SELECT 1 AS one")
    assert rows.read_all().to_pylist() == [{"one": 1}]
    assert rows.read_all() == pa.Table.from_batches([], rows.schema)
