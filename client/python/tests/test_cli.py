"""The command line, as a process of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
import uuid
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from harness import ENDLESS, ingest_sql, inline_source
from proxies import Authority, Proxy, witness

import trilith
from trilith import pb

COMMAND = [sys.executable, "-m", "trilith"]
CHANNELS = "SELECT channel, COUNT(*) AS edits FROM wikipedia GROUP BY 1"
TIMELESS = inline_source([{"t": "2020-01-01", "n": 1}, {"t": None, "n": 2}])


@pytest.fixture
def run(server, tmp_path):
    """Runs a command on the shared server, in a folder of its own. Its output is text."""

    def run(*arguments: str, input: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TRILITH_")}
        return subprocess.run(
            [*COMMAND, *arguments],
            env={**environment, "TRILITH_SERVER": server.grpc, **variables},
            cwd=tmp_path,
            input=input,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return run


@pytest.fixture
def counts(edits):
    """Edits by channel."""
    return Counter(row["channel"] for row in edits)


def test_formats_of_rows(run, counts, tmp_path):
    ran = run("sql", "--format", "csv", "-e", CHANNELS)
    assert (ran.returncode, ran.stderr) == (0, "")
    header, *rows = csv.reader(io.StringIO(ran.stdout))
    assert header == ["channel", "edits"]
    assert {channel: int(edits) for channel, edits in rows} == counts

    lines = run("sql", "--format", "json", "-e", CHANNELS).stdout.splitlines()
    assert {row["channel"]: row["edits"] for row in map(json.loads, lines)} == counts

    for format, read in (
        ("parquet", parquet.read_table),
        ("arrow", lambda file: pa.ipc.open_stream(file).read_all()),
    ):
        file = tmp_path / format
        ran = run("sql", "--format", format, "-o", str(file), "-e", CHANNELS)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        table = read(file)
        assert dict(zip(table["channel"].to_pylist(), table["edits"].to_pylist(), strict=True)) == counts


def test_a_table_is_a_box(run):
    ran = run(
        "sql",
        "-e",
        "SELECT 'a' AS one, 'né' AS two UNION ALL SELECT 'b', NULL UNION ALL SELECT 'c', '東京' ORDER BY 1",
    )
    assert ran.stdout == (
        "┌─────┬──────┐\n"
        "│ one ┆ two  │\n"
        "╞═════╪══════╡\n"
        "│ a   ┆ né   │\n"
        "│ b   ┆      │\n"
        "│ c   ┆ 東京 │\n"
        "└─────┴──────┘\n"
        "3 rows\n"
    )


def test_no_row_is_an_answer_in_every_format(run, tmp_path):
    sql = "SELECT page, added FROM wikipedia WHERE added < 0"
    assert run("sql", "--format", "csv", "-e", sql).stdout == "page,added\n"
    assert run("sql", "--format", "json", "-e", sql).stdout == ""
    assert run("sql", "-e", sql).stdout.endswith("0 rows\n")
    assert run("sql", "--format", "parquet", "-o", "none", "-e", sql).returncode == 0
    assert parquet.read_table(tmp_path / "none").schema.names == ["page", "added"]


def test_values_of_each_type(run):
    sql = (
        "SELECT MILLIS_TO_TIMESTAMP(1442018818771) AS t, MILLIS_TO_TIMESTAMP(1442018818000) AS s, 1.5 AS d, "
        "ARRAY['x,y', NULL] AS a, ARRAY[1, 2] AS n, 'quote \" and, comma' AS q, NULL AS e, "
        "MILLIS_TO_TIMESTAMP(9223372036854775) AS far, TRUE AS b"
    )
    ran = run("sql", "--format", "json", "-e", sql)
    assert json.loads(ran.stdout) == {
        "t": "2015-09-12T00:46:58.771Z",
        "s": "2015-09-12T00:46:58.000Z",
        "d": 1.5,
        "a": ["x,y", None],
        "n": [1, 2],
        "q": 'quote " and, comma',
        "e": None,
        "far": 9223372036854775,
        "b": True,
    }
    _header, row = csv.reader(io.StringIO(run("sql", "--format", "csv", "-e", sql).stdout))
    assert row == [
        "2015-09-12T00:46:58.771Z",
        "2015-09-12T00:46:58.000Z",
        "1.5",
        '["x,y", null]',
        "[1, 2]",
        'quote " and, comma',
        "",
        "9223372036854775",
        "true",
    ]


@pytest.mark.parametrize("source", ["-f", "-f -", "stdin"])
def test_statements_come_from_files(run, tmp_path, source):
    sql = "-- one\nSELECT 1 AS one"
    if source == "-f":
        (tmp_path / "one.sql").write_text(sql)
        ran = run("sql", "--format", "csv", "-f", "one.sql")
    else:
        ran = run("sql", "--format", "csv", *(["-f", "-"] if source == "-f -" else []), input=sql)
    assert ran.stdout == "one\n1\n"


def test_parameters_have_types(run, edits):
    sql = "SELECT COUNT(*) AS n FROM wikipedia WHERE channel = ? AND added > ? AND __time >= ?"
    expected = sum(
        row["channel"] == "#en.wikipedia" and row["added"] > 100 and row["time"] >= "2015-09-12T12" for row in edits
    )
    moment = "TIMESTAMP:2015-09-12T12:00:00Z"
    ran = run("sql", "--format", "csv", "-e", sql, "--param", "#en.wikipedia", "--param", "100", "--param", moment)
    assert ran.stdout == f"n\n{expected}\n"
    values = ["VARCHAR:100", "null", "2.5", '"5"', "VARCHAR:DATE:x", '{"a":1}', "NaN", "DATE:2020-02-29"]
    sql = "SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e, ? AS f, ? AS g, TIME_FORMAT(?, 'yyyy-MM-dd') AS h"
    given = [argument for value in values for argument in ("--param", value)]
    row = json.loads(run("sql", "--format", "json", "-e", sql, *given).stdout)
    assert list(row.values()) == ["100", None, 2.5, "5", "DATE:x", '{"a":1}', "NaN", "2020-02-29"]
    assert run("sql", "-e", "SELECT ?", "--param", '[{"a":1}]').returncode == 2


def test_context_is_sent(run):
    sql = "SELECT TIME_FORMAT(MILLIS_TO_TIMESTAMP(0), 'HH:mm') AS t"
    ran = run("sql", "--format", "csv", "-c", "sqlTimeZone=Asia/Kolkata", "-e", sql)
    assert ran.stdout == "t\n05:30\n"
    ran = run("sql", "-c", "sqlTimeZone", "-e", sql)
    assert ran.returncode == 2
    assert "key=value" in ran.stderr


def test_submit_waits_with_progress(run, client, edits):
    id = str(uuid.uuid4())
    ran = run("submit", "--wait", "--id", id, "-c", "maxNumTasks=2", "-e", ingest_sql("by_cli"))
    assert (ran.returncode, ran.stdout) == (0, f"query-{id}\n")
    assert re.search(r"^stage 0 scan +FINISHED +1 workers", ran.stderr, re.MULTILINE), ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert re.fullmatch(rf"query-{id}: SUCCESS in \d+ ms, {len(edits)} rows written", last)
    assert json.loads(client.task(f"query-{id}").context_json)["maxNumTasks"] == 2
    again = run("submit", "--id", id, "-e", "SELECT 1 AS one")
    assert again.returncode == 1
    assert "errorCode=entryAlreadyExists" in again.stderr


@pytest.mark.parametrize("comment", ["", "SET a = 'x;y'; -- z;\n/* ; */ "])
def test_sql_runs_what_writes_as_a_task(run, client, comment):
    rows = [{"t": "2020-01-01", "n": n} for n in range(5)]
    table = f"by_cli_{uuid.uuid4().hex}"
    sql = f"insert INTO {table} SELECT TIME_PARSE(t) AS __time, n FROM {inline_source(rows)} PARTITIONED BY ALL;"
    ran = run("sql", "-e", comment + sql)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert ", 5 rows written" in ran.stderr
    assert client.query(f"SELECT SUM(n) AS s FROM {table}").read_all()["s"].to_pylist() == [10]


def test_a_query_that_names_a_writing_verb_is_a_query(run):
    ran = run("sql", "--format", "csv", "-e", "SELECT 'a; INSERT INTO b' AS t -- ;DELETE")
    assert ran.stdout == "t\na; INSERT INTO b\n"


def test_explain(run, client):
    before = [task.task_id for task in client.tasks()]
    ran = run("submit", "-e", "EXPLAIN PLAN FOR SELECT * FROM wikipedia WHERE added > ?", "--param", "1")
    (native,) = json.loads(ran.stdout)
    (expected,) = client.explain("SELECT * FROM wikipedia WHERE added > 1").plan
    for plan in (native, expected):
        # It has the random sqlQueryId.
        del plan["query"]["context"]
    assert native == expected
    for sql, kind in ((ingest_sql("explained"), "REPLACE"), (CHANNELS, "SELECT")):
        row = json.loads(run("sql", "--format", "json", "-e", f"EXPLAIN PLAN FOR {sql}").stdout)
        assert list(row) == ["PLAN", "RESOURCES", "ATTRIBUTES"]
        assert json.loads(row["ATTRIBUTES"])["statementType"] == kind
    assert [task.task_id for task in client.tasks()] == before


def test_states_of_a_task(run, client):
    task = client.submit(ENDLESS)
    for update in task.watch(timeout=60):
        if update.state == "RUNNING":
            break
    ran = run("status", task.id)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "RUNNING\n", "")
    assert run("cancel", task.id).stdout == "FAILED\n"
    ran = run("status", task.id)
    assert (ran.returncode, ran.stdout) == (1, "FAILED\n")
    assert f"task {task.id} failed: Canceled" in ran.stderr
    ran = run("watch", task.id)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "errorCode=Canceled" in ran.stderr
    task = client.submit("SELECT 1 AS one")
    ran = run("watch", task.id)
    assert ran.returncode == 0
    assert ran.stderr.splitlines()[-1].startswith(f"{task.id}: SUCCESS in ")
    assert run("status", task.id).stdout == "SUCCESS\n"


def test_the_report_is_druids(run, client, server):
    unreadable = inline_source([{"t": "2020-01-01", "n": 1}, "no json", {"t": "2020-01-01", "n": "x"}])
    statements = [
        ingest_sql("reported"),
        "SELECT page FROM wikipedia WHERE added > 1000",
        f"INSERT INTO reported SELECT TIME_PARSE(t) AS __time, n FROM {TIMELESS} PARTITIONED BY DAY",
        f"INSERT INTO reported_too SELECT TIME_PARSE(t) AS __time, n FROM {unreadable} PARTITIONED BY DAY",
        "INSERT INTO reported SELECT FLOOR(__time TO DAY) AS __time, channel, COUNT(*) AS n FROM wikipedia "
        "GROUP BY 1, 2 PARTITIONED BY DAY",
    ]
    for sql in statements:
        task = client.submit(sql, {"maxParseExceptions": 5, "waitUntilSegmentsLoad": True})
        for _update in task.watch(timeout=60):
            pass
        with urllib.request.urlopen(f"http://{server.http}/druid/indexer/v1/task/{task.id}/reports") as answer:
            expected = json.load(answer)
        if results := expected["multiStageQuery"]["payload"].get("results"):
            results["results"] = []
        assert json.loads(run("report", task.id).stdout) == expected


def test_lists(run, client, edits):
    task = client.submit("SELECT 1 AS one")
    task.wait(timeout=60)
    (row,) = run("tasks", "--limit", "1", "--format", "json").stdout.splitlines()
    row = json.loads(row)
    assert (row["task"], row["state"], row["datasource"]) == (task.id, "SUCCESS", "__query_select")
    assert row["duration_ms"] >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["created"])
    assert task.id in run("tasks").stdout
    datasources = csv.DictReader(io.StringIO(run("segments", "--format", "csv").stdout))
    (wikipedia,) = (row for row in datasources if row["datasource"] == "wikipedia")
    assert int(wikipedia["rows"]) == len(edits)
    segments = list(csv.DictReader(io.StringIO(run("segments", "wikipedia", "--format", "csv").stdout)))
    assert len(segments) == int(wikipedia["segments"])
    assert sum(int(segment["rows"]) for segment in segments) == len(edits)
    assert json.loads(segments[0]["shard_spec"])["type"]
    assert run("segments", "nothing").stdout.endswith("0 rows\n")


def test_errors_name_code_and_place(run):
    ran = run("sql", "-e", "SELECT *\nFROM nowhere")
    assert (ran.returncode, ran.stdout) == (1, "")
    message, details = ran.stderr.splitlines()
    assert message.startswith("trilith-py: ")
    assert "nowhere" in message
    assert details.split()[:3] == ["code=INVALID_ARGUMENT", "errorCode=invalidInput", "category=INVALID_INPUT"]
    assert {"line=2", "column=6"} <= set(details.split())
    for verb in ("status", "report", "watch", "cancel"):
        ran = run(verb, "query-of-nobody")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "code=NOT_FOUND errorCode=notFound" in ran.stderr


@pytest.mark.parametrize("verb", [["sql"], ["submit", "--wait"]])
def test_a_task_that_fails_fails_the_command(run, client, verb):
    sql = f"INSERT INTO untimed_cli SELECT TIME_PARSE(t) AS __time, n FROM {TIMELESS} PARTITIONED BY DAY"
    ran = run(*verb, "-e", sql)
    assert ran.returncode == 1
    (task_id,) = set(re.findall(r"task (query-\S+) failed: InsertTimeNull: ", ran.stderr))
    assert "errorCode=InsertTimeNull" in ran.stderr.splitlines()[-1]
    assert client.task(task_id).state == pb.task.STATE_FAILED
    assert run("submit", "-e", sql).returncode == 0, "without --wait nobody knows yet"


def test_nobody_there(run):
    ran = run("tasks", "--server", "127.0.0.1:1", "--deadline", "0.5")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "code=UNAVAILABLE" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["sql", "-e", "SELECT 1", "-f", "one.sql"],
        ["sql", "--format", "xml", "-e", "SELECT 1"],
        ["status"],
        ["tasks", "--limit", "0"],
        ["tasks", "--deadline", "nan"],
    ],
)
def test_wrong_use(run, arguments):
    ran = run(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: trilith-py")


def test_what_cannot_be_opened(run):
    for arguments in (["sql", "-f", "nothing.sql"], ["sql", "-o", "no/folder", "-e", "SELECT 1"]):
        ran = run(*arguments)
        assert ran.returncode == 1
        assert "No such file or directory" in ran.stderr
    ran = run("tasks", "--server", "localhost")
    assert ran.returncode == 1
    assert "host:port" in ran.stderr


def test_help_names_every_verb(run):
    ran = run("--help", TRILITH_TOKEN="secret")
    assert ran.returncode == 0
    for verb in ("sql", "submit", "status", "report", "watch", "cancel", "tasks", "segments"):
        assert re.search(rf"^    {verb} ", ran.stdout, re.MULTILINE)
        shown = run(verb, "--help", TRILITH_TOKEN="secret").stdout
        assert "TRILITH_SERVER" in shown
        assert "secret" not in shown


def test_a_token_goes_along(run):
    with witness() as (address, seen):
        assert run("tasks", "--server", address, "--token", "mine").returncode == 1
        ran = run("tasks", TRILITH_SERVER=address, TRILITH_TOKEN="theirs")
        assert "errorCode=queryCapacityExceeded" in ran.stderr
        assert "limit=3" in ran.stderr
    assert [metadata["authorization"] for _method, metadata in seen.calls] == ["Bearer mine", "Bearer theirs"]


def test_tls(run, server, tmp_path):
    authority = Authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.ca)
    sql = ["sql", "--format", "csv", "-e", "SELECT 1 AS one"]
    with Proxy(server.grpc, host="127.0.0.2", tls=authority.server_context()) as proxy:
        address = f"https://{proxy.address}"
        assert run(*sql, "--server", address, "--ca-file", "ca.pem").stdout == "one\n1\n"
        assert run(*sql, TRILITH_SERVER=address, TRILITH_CA_FILE="ca.pem").stdout == "one\n1\n"
        ran = run(*sql, "--server", address, "--deadline", "1")
        assert ran.returncode == 1
        assert "code=UNAVAILABLE" in ran.stderr


def _interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def test_ctrl_c_leaves_the_task_alone_and_says_so(server, client):
    id = f"query-{uuid.uuid4()}"
    command = [*COMMAND, "submit", "--server", server.grpc, "--wait", "--id", id, "-e", ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == f"{id}\n"
        assert process.stderr.readline().startswith(f"{id}: ")
        code, stderr = _interrupt(process)
    assert code == 130
    assert f"trilith-py watch {id}" in stderr
    assert f"trilith-py cancel {id}" in stderr
    assert "Traceback" not in stderr
    assert client.task(id).state in (pb.task.STATE_PENDING, pb.task.STATE_RUNNING)
    client.cancel(id)


def test_whoever_reads_may_leave(server):
    sql = "SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b"
    command = [*COMMAND, "sql", "--server", server.grpc, "--format", "csv", "-e", sql]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "page\n"
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == ""


def test_ctrl_c_stops_a_query(server, client):
    id = str(uuid.uuid4())
    sql = "SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b"
    command = [*COMMAND, "sql", "--server", server.grpc, "--format", "csv", "--id", id, "-e", sql]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "page\n"
        assert _interrupt(process) == (130, "")
    for _ in range(1000):
        try:
            client.cancel_query(id)
        except trilith.NotFound:
            return
    pytest.fail("the query still runs")


def test_progress_on_a_terminal_is_redrawn(server):
    leader, follower = pty.openpty()
    command = [*COMMAND, "submit", "--server", server.grpc, "--wait", "-e", ingest_sql("by_terminal")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, text=True) as process:
        os.close(follower)
        seen = b""
        try:
            while part := os.read(leader, 1 << 16):
                seen += part
        except OSError:
            # How Linux says that nobody has the other side open any more.
            pass
        assert process.wait(60) == 0
    os.close(leader)
    assert b"\x1b[2A\r" in seen
    assert re.search(rb"stage 1 segmentGenerator +FINISHED", seen)


def test_no_extra_is_needed(server):
    code = (
        "import sys\n"
        "for name in ('pandas', 'polars', 'adbc_driver_flightsql', 'adbc_driver_manager'): sys.modules[name] = None\n"
        "from trilith.cli import main\n"
        f"sys.exit(main(['sql', '--server', '{server.grpc}', '--format', 'csv', '-e', 'SELECT 1 AS one']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "one\n1\n", "")
