"""DB-API: ADBC's Flight SQL driver against a real server."""

from __future__ import annotations

import datetime
import subprocess
import sys
import uuid
from collections import Counter

import grpc
import pandas
import polars
import pyarrow as pa
import pytest
from harness import ENDLESS, ingest_sql, inline_source
from proxies import Authority, Proxy, witness

import trilith
from trilith import dbapi


@pytest.fixture
def connection(server):
    """A connection to the shared server."""
    with dbapi.connect(server.grpc) as connected:
        yield connected


@pytest.fixture
def cursor(connection):
    """A cursor on the shared server."""
    with connection.cursor() as opened:
        yield opened


def test_the_module_is_pep_249():
    assert (dbapi.apilevel, dbapi.threadsafety, dbapi.paramstyle) == ("2.0", 1, "qmark")
    assert issubclass(dbapi.ProgrammingError, dbapi.DatabaseError)
    assert issubclass(dbapi.DatabaseError, dbapi.Error)
    assert dbapi.Binary(b"a") == b"a"
    assert dbapi.Date(2015, 9, 12) == datetime.date(2015, 9, 12)


def test_rows_and_their_description(cursor, edits):
    cursor.execute("SELECT __time, channel, added FROM wikipedia WHERE added > 1000")
    assert [column[0] for column in cursor.description] == ["__time", "channel", "added"]
    types = [column[1] for column in cursor.description]
    assert types[0] == dbapi.DATETIME
    assert types[1] == dbapi.STRING
    assert types[2] == dbapi.NUMBER
    expected = Counter(
        (datetime.datetime.fromisoformat(row["time"].replace("Z", "+00:00")), row["channel"], row["added"])
        for row in edits
        if row["added"] > 1000
    )
    first = cursor.fetchone()
    some = cursor.fetchmany(10)
    rest = cursor.fetchall()
    assert len(some) == 10
    assert Counter([first, *some, *rest]) == expected
    assert cursor.fetchone() is None


def test_parameters_and_frames(cursor, edits):
    sql = "SELECT channel, COUNT(*) AS n FROM wikipedia WHERE added > ? AND __time >= ? AND channel <> ? GROUP BY 1"
    values = (100, datetime.datetime(2015, 9, 12, 12), "#en.wikipedia")
    expected = Counter(
        row["channel"]
        for row in edits
        if row["added"] > 100 and row["time"] >= "2015-09-12T12" and row["channel"] != "#en.wikipedia"
    )
    assert expected
    table = cursor.execute(sql, values).fetch_arrow_table()
    assert dict(zip(table["channel"].to_pylist(), table["n"].to_pylist(), strict=True)) == expected
    frame = cursor.execute(sql, values).fetch_df()
    assert isinstance(frame, pandas.DataFrame)
    assert dict(zip(frame["channel"], frame["n"], strict=True)) == expected
    frame = cursor.execute(sql, values).fetch_polars()
    assert dict(zip(frame["channel"], frame["n"], strict=True)) == expected


def test_pandas_and_polars_read_by_the_connection(connection, edits):
    sql = "SELECT channel, SUM(added) AS added FROM wikipedia GROUP BY 1"
    expected: Counter[str] = Counter()
    for row in edits:
        expected[row["channel"]] += row["added"]
    frame = pandas.read_sql(sql, connection)
    assert dict(zip(frame["channel"], frame["added"], strict=True)) == expected
    frame = polars.read_database(sql, connection)
    assert dict(zip(frame["channel"], frame["added"], strict=True)) == expected


def test_what_is_written_is_counted(connection, cursor, edits):
    cursor.execute(ingest_sql("by_dbapi"))
    (task_id, rows), *more = cursor.fetchall()
    assert more == []
    assert rows == len(edits)
    assert task_id.startswith("query-")
    insert = "INSERT INTO by_dbapi_pairs SELECT TIME_PARSE(?) AS __time, CAST(? AS BIGINT) AS v PARTITIONED BY DAY"
    cursor.executemany(insert, [("2024-01-01", 1), ("2024-01-02", 2), ("2024-01-03", 3)])
    assert cursor.rowcount == 3
    cursor.execute("SELECT __time, v FROM by_dbapi_pairs ORDER BY v")
    assert cursor.fetchall() == [
        (datetime.datetime(2024, 1, day, tzinfo=datetime.timezone.utc), day) for day in (1, 2, 3)
    ]
    cursor.executemany(insert, [])
    assert connection.execute("SELECT COUNT(*) FROM by_dbapi_pairs").fetchall() == [(3,)]


def test_bad_sql_has_code_and_place(cursor):
    with pytest.raises(dbapi.ProgrammingError, match="nowhere") as raised:
        cursor.execute("SELECT *\nFROM nowhere")
    error = dbapi.server_error(raised.value)
    assert isinstance(error, trilith.InvalidInput)
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    assert error.error_code == "invalidInput"
    assert error.persona == "USER"
    assert error.context["line"] == "2"
    assert "nowhere" in error.message
    assert "FlightSQL" not in error.message
    assert cursor.execute("SELECT 1 AS one").fetchall() == [(1,)], "the cursor can go on"


@pytest.mark.parametrize("how", ["execute", "executemany"])
def test_a_failed_task_has_its_fault_and_id(client, cursor, how):
    source = inline_source([{"t": "2020-01-01", "n": 1}, {"t": None, "n": 2}])
    sql = f"INSERT INTO untimed_dbapi SELECT TIME_PARSE(t) AS __time, n FROM {source} WHERE n < ? PARTITIONED BY DAY"
    with pytest.raises(dbapi.Error) as raised:
        cursor.execute(sql, (9,)) if how == "execute" else cursor.executemany(sql, [(9,)])
    error = dbapi.server_error(raised.value)
    assert error.error_code == "InsertTimeNull"
    assert client.task(error.context["taskId"]).fault.error_code == "InsertTimeNull"


def test_an_error_that_another_library_wraps_is_found(connection):
    with pytest.raises(Exception, match="nowhere") as raised:
        pandas.read_sql("SELECT *\nFROM nowhere", connection)
    assert dbapi.server_error(raised.value).context["line"] == "2"
    assert type(dbapi.server_error(ValueError("own"))) is trilith.TrilithError


def test_details_of_any_refusal_are_read():
    with witness() as (address, seen), dbapi.connect(address, token="secret", context={"a": "é"}) as connection:
        with pytest.raises(dbapi.Error) as raised:
            connection.execute("SELECT 1")
        error = dbapi.server_error(raised.value)
        assert isinstance(error, trilith.CapacityExceeded)
        assert (error.message, error.error_code) == ("come back later", "queryCapacityExceeded")
        assert error.context == {"limit": "3"}
        assert error.retry_after == datetime.timedelta(seconds=2.5)
    assert {metadata["authorization"] for _method, metadata in seen.calls} == {"Bearer secret"}
    assert {metadata["trilith-context"] for _method, metadata in seen.calls} == {'{"a": "\\u00e9"}'}


def test_nobody_there_is_unavailable():
    with dbapi.connect("127.0.0.1:1") as connection, pytest.raises(dbapi.OperationalError) as raised:
        connection.execute("SELECT 1")
    error = dbapi.server_error(raised.value)
    assert isinstance(error, trilith.Unavailable)
    assert error.code == grpc.StatusCode.UNAVAILABLE


def test_transactions_are_refused(server, connection):
    with pytest.raises(dbapi.NotSupportedError, match="no transactions"):
        dbapi.connect(server.grpc, autocommit=False)
    connection.commit()
    with pytest.raises(dbapi.NotSupportedError, match="transaction"):
        connection.adbc_connection.set_autocommit(False)


def test_the_context_goes_with_every_statement(server):
    sql = "SELECT TIME_FORMAT(MILLIS_TO_TIMESTAMP(0), 'HH:mm') AS t"
    with dbapi.connect(server.grpc, context={"sqlTimeZone": "Asia/Kolkata"}) as connection:
        assert connection.execute(sql).fetchall() == [("05:30",)]
    with dbapi.connect(server.grpc) as connection:
        assert connection.execute(sql).fetchall() == [("00:00",)]
        assert connection.execute(f"SET sqlTimeZone = 'Asia/Kolkata'; {sql}").fetchall() == [("05:30",)]


def test_queries_have_a_deadline(server):
    sql = "SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b"
    with dbapi.connect(server.grpc, timeout=0.7) as connection, pytest.raises(dbapi.Error) as raised:
        connection.execute(sql).fetch_arrow_table()
    assert isinstance(dbapi.server_error(raised.value), trilith.Timeout)


@pytest.mark.parametrize("how", ["execute", "executemany"])
def test_a_task_ends_with_its_call(server, client, how):
    sql = f"INSERT INTO never SELECT TIMESTAMP '2020-01-01' AS __time, * FROM ({ENDLESS}) PARTITIONED BY DAY"
    context = {"sqlQueryId": str(uuid.uuid4())}
    with (
        dbapi.connect(server.grpc, timeout=0.7, context=context) as connection,
        connection.cursor() as cursor,
        pytest.raises(dbapi.Error) as raised,
    ):
        cursor.execute(sql) if how == "execute" else cursor.executemany(sql, None)
    assert isinstance(dbapi.server_error(raised.value), trilith.Timeout)
    with pytest.raises(trilith.TaskFailed, match="Canceled"):
        client.wait(f"query-{context['sqlQueryId']}", timeout=60)


def test_metadata(connection):
    (catalog,) = connection.adbc_get_objects(table_name_filter="wikipedia").read_all().to_pylist()
    assert catalog["catalog_name"] == "druid"
    schemas = {schema["db_schema_name"]: schema["db_schema_tables"] for schema in catalog["catalog_db_schemas"]}
    assert {"druid", "sys", "INFORMATION_SCHEMA"} <= set(schemas)
    (table,) = schemas["druid"]
    assert (table["table_name"], table["table_type"]) == ("wikipedia", "TABLE")
    names = ["__time", "channel", "page", "user", "added", "deleted"]
    assert [column["column_name"] for column in table["table_columns"]] == names
    schema = connection.adbc_get_table_schema("wikipedia", db_schema_filter="druid")
    assert schema.names == names
    assert schema.field("added").type == pa.int64()
    assert sorted(connection.adbc_get_table_types()) == ["SYSTEM_TABLE", "TABLE"]


@pytest.mark.parametrize("prefix", ["", "http://", "grpc://"])
def test_forms_of_addresses(server, prefix):
    with dbapi.connect(prefix + server.grpc) as connection:
        assert connection.execute("SELECT 1 AS one").fetchall() == [(1,)]


def test_wrong_addresses():
    with pytest.raises(ValueError, match="host:port"):
        dbapi.connect("localhost")
    with pytest.raises(ValueError, match="plaintext"):
        dbapi.connect("http://localhost:1", tls=trilith.Tls())


def test_tls_with_an_own_authority_and_a_token(server, tmp_path):
    authority = Authority(tmp_path)
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.ca)
    with Proxy(server.grpc, tls=authority.server_context()) as proxy:
        for ca in (authority.ca, file, str(file)):
            tls = trilith.Tls(ca=ca, server_name="trilith.test")
            with dbapi.connect(f"https://{proxy.address}", tls=tls, token="t") as connection:
                assert connection.execute("SELECT ? AS one", (1,)).fetchall() == [(1,)]


@pytest.mark.parametrize("own", [False, True])
def test_tls_refuses_whom_it_does_not_know(server, tmp_path, own):
    authority = Authority(tmp_path)
    tls = trilith.Tls(ca=authority.ca) if own else None
    with (
        Proxy(server.grpc, tls=authority.server_context()) as proxy,
        dbapi.connect(f"https://{proxy.address}", tls=tls, timeout=5) as connection,
        pytest.raises(dbapi.Error) as raised,
    ):
        connection.execute("SELECT 1")
    assert isinstance(dbapi.server_error(raised.value), (trilith.Unavailable, trilith.Timeout))


def test_further_options_reach_the_driver():
    with witness() as (address, seen):
        header = "adbc.flight.sql.rpc.call_header.x-own"
        with dbapi.connect(address, options={header: "mine"}) as connection, pytest.raises(dbapi.Error):
            connection.execute("SELECT 1")
    assert {metadata["x-own"] for _method, metadata in seen.calls} == {"mine"}


def test_without_the_driver_the_extra_is_named():
    code = "import sys; sys.modules['adbc_driver_flightsql'] = None; import trilith, trilith.dbapi"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "pip install 'trilith[dbapi]'" in ran.stderr
