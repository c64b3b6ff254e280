"""pydruid's DB-API and its SQLAlchemy dialect."""

from __future__ import annotations

from collections import Counter

import pydruid.db
import pytest
from pydruid.client import PyDruid
from pydruid.db import exceptions
from pydruid.db.api import Type
from pydruid.utils.aggregators import count
from sqlalchemy import MetaData, Table, create_engine, func, inspect, select, types
from sqlalchemy.exc import ProgrammingError


@pytest.fixture
def cursor(druid):
    with pydruid.db.connect(host=druid.host, port=druid.port, path="/druid/v2/sql/", scheme="http") as cursor:
        yield cursor


@pytest.fixture
def engine(druid):
    engine = create_engine(f"druid://{druid.address}/druid/v2/sql/")
    yield engine
    engine.dispose()


def test_rows_and_description(cursor, edits):
    cursor.execute("SELECT channel, COUNT(*) AS n, SUM(added) AS added FROM wikipedia GROUP BY 1 ORDER BY 2 DESC, 1")
    assert [(column[0], column[1]) for column in cursor.description] == [
        ("channel", Type.STRING),
        ("n", Type.NUMBER),
        ("added", Type.NUMBER),
    ]
    rows = cursor.fetchall()
    counts = Counter(row["channel"] for row in edits)
    assert [(row.channel, row.n) for row in rows] == sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    assert sum(row.added for row in rows) == sum(row["added"] for row in edits)


def test_every_row_is_streamed(cursor, edits):
    cursor.execute("SELECT __time, page, added FROM wikipedia")
    expected = Counter((row["time"], row["page"], row["added"]) for row in edits)
    assert Counter((row[0], row.page, row.added) for row in cursor) == expected


def test_fetches(cursor):
    cursor.execute("SELECT page FROM wikipedia LIMIT 7")
    assert cursor.fetchone() is not None
    assert len(cursor.fetchmany(4)) == 4
    assert len(cursor.fetchall()) == 2
    assert cursor.fetchone() is None
    cursor.execute("SELECT page FROM wikipedia LIMIT 7")
    assert cursor.rowcount == 7


def test_parameters_are_written_into_the_statement(cursor, edits):
    sql = (
        "SELECT COUNT(*) AS n FROM wikipedia "
        "WHERE page = %(page)s AND added >= %(added)s AND channel IN (%(channels)s)"
    )
    page = next(row["page"] for row in edits if "'" in row["page"])
    channels = ["#en.wikipedia", "#fr.wikipedia"]
    cursor.execute(sql, {"page": page, "added": 0, "channels": channels})
    expected = sum(row["page"] == page and row["added"] >= 0 and row["channel"] in channels for row in edits)
    assert cursor.fetchone().n == expected


def test_header_context_and_types(druid):
    with pydruid.db.connect(
        host=druid.host, port=druid.port, header=True, context={"sqlTimeZone": "America/Los_Angeles"}
    ) as cursor:
        cursor.execute("SELECT TRUE AS t, 1.5 AS f, NULL AS n, FLOOR(TIMESTAMP '2015-09-12 01:30:00' TO DAY) AS d")
        assert [column[0] for column in cursor.description] == ["t", "f", "n", "d"]
        assert cursor.fetchall() == [(True, 1.5, None, "2015-09-12T00:00:00.000-07:00")]


def test_no_rows(cursor):
    cursor.execute("SELECT page FROM wikipedia WHERE added < 0")
    assert cursor.fetchall() == []


def test_errors_have_druids_text(cursor):
    with pytest.raises(exceptions.ProgrammingError) as raised:
        cursor.execute("SELECT page\nFROM nowhere")
    assert "druidException (INVALID_INPUT): Object 'nowhere' not found (line [2], column [6])" in str(raised.value)


def test_names_are_found(engine):
    found = inspect(engine)
    assert {"druid", "sys"} <= set(found.get_schema_names())
    assert found.get_table_names(schema="druid") == ["wikipedia"]
    assert "COLUMNS" in found.get_table_names(schema="INFORMATION_SCHEMA")
    assert "segments" in found.get_table_names(schema="sys")
    assert found.has_table("wikipedia")
    assert not found.has_table("nowhere")
    columns = {column["name"]: column for column in found.get_columns("wikipedia", schema="druid")}
    assert set(columns) == {"__time", "added", "channel", "deleted", "page"}
    assert isinstance(columns["__time"]["type"], types.TIMESTAMP)
    assert isinstance(columns["added"]["type"], types.BigInteger)
    assert isinstance(columns["page"]["type"], types.String)
    assert columns["page"]["nullable"]
    assert not columns["__time"]["nullable"]


def test_a_table_is_reflected_and_read(engine, edits):
    wikipedia = Table("wikipedia", MetaData(), autoload_with=engine)
    statement = (
        select(wikipedia.c.channel, func.count().label("n"))
        .where(wikipedia.c.added > 100)
        .group_by(wikipedia.c.channel)
        .having(func.count() > 10)
        .order_by(func.count().desc(), wikipedia.c.channel)
        .limit(5)
    )
    counts = Counter(row["channel"] for row in edits if row["added"] > 100)
    expected = sorted(((c, n) for c, n in counts.items() if n > 10), key=lambda item: (-item[1], item[0]))[:5]
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(statement)] == expected


def test_errors_reach_sqlalchemy(engine):
    with engine.connect() as connection, pytest.raises(ProgrammingError, match="Object 'nowhere' not found"):
        connection.exec_driver_sql("SELECT * FROM nowhere")


def test_the_engine_is_pinged(engine):
    with engine.connect() as connection:
        assert engine.dialect.do_ping(connection.connection.dbapi_connection)


def test_native_queries_are_refused_clearly(druid):
    client = PyDruid(druid.url, "druid/v2/")
    with pytest.raises(OSError, match=r"(?i)native"):
        client.timeseries(
            datasource="wikipedia", granularity="hour", intervals="2015-09-12/p1d", aggregations={"n": count("n")}
        )
