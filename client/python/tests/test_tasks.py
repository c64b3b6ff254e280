"""Tasks: submit, follow, fail, cancel."""

from __future__ import annotations

import uuid
from collections import Counter

import grpc
import pytest
from harness import DATA, ENDLESS, edits_source, ingest_sql, inline_source

import trilith
from trilith import pb


def test_what_is_ingested_is_there(client, edits):
    updates = []
    task = client.submit(ingest_sql("ingested"))
    done = task.wait(timeout=120, on_progress=updates.append)
    assert done.state == pb.task.STATE_SUCCESS
    assert done.task_id == task.id

    stages = [update for update in updates if update.report and update.report.stages]
    assert stages, "no update had stages"
    assert updates[-1].final
    assert not any(update.final for update in updates[:-1])
    assert {stage.phase for stage in updates[-1].report.stages} == {"FINISHED"}

    report = task.report()
    assert report.status == "SUCCESS"
    assert report.rows_read == len(edits)
    assert report.rows_written == report.rows_pushed == len(edits)
    assert [stage.number for stage in report.stages] == list(range(len(report.stages)))
    assert report.stages[-1].processor == "segmentGenerator"
    assert report.stages[-1].rows_out == len(edits)

    counted = client.query("SELECT channel, COUNT(*) AS n, SUM(added) AS added FROM ingested GROUP BY 1").read_all()
    assert dict(zip(counted["channel"].to_pylist(), counted["n"].to_pylist(), strict=True)) == Counter(
        row["channel"] for row in edits
    )
    assert sum(counted["added"].to_pylist()) == sum(row["added"] for row in edits)


def test_run_submits_and_waits(client):
    rows = [{"t": "2020-01-01", "n": n} for n in range(5)]
    done = client.run(
        f"INSERT INTO ran SELECT TIME_PARSE(t) AS __time, n FROM {inline_source(rows)} PARTITIONED BY ALL", timeout=60
    )
    assert done.datasource == "ran"
    assert client.query("SELECT SUM(n) AS s FROM ran").read_all()["s"].to_pylist() == [10]


def test_rows_of_a_select_task(client, edits):
    task = client.submit("SELECT page, added FROM wikipedia WHERE channel = ?", parameters=["#de.wikipedia"])
    task.wait(timeout=60)
    table = task.results().read_all()
    assert Counter(zip(table["page"].to_pylist(), table["added"].to_pylist(), strict=True)) == Counter(
        (row["page"], row["added"]) for row in edits if row["channel"] == "#de.wikipedia"
    )
    assert task.report().rows_written == table.num_rows


def test_explain_is_no_task(client):
    before = [task.task_id for task in client.tasks()]
    explanation = client.explain(ingest_sql("explained"))
    assert explanation.attributes["statementType"] == "REPLACE"
    assert explanation.attributes["targetDataSource"] == "explained"
    assert {"name": "wikipedia", "type": "DATASOURCE"} in client.explain("SELECT * FROM wikipedia").resources
    assert explanation.plan
    with pytest.raises(trilith.InvalidInput, match="explain"):
        client.submit("EXPLAIN PLAN FOR SELECT 1")
    assert [task.task_id for task in client.tasks()] == before


def test_bad_sql_has_a_place(client):
    with pytest.raises(trilith.InvalidInput) as raised:
        client.submit("SELECT channel,\n  FROM wikipedia GROUP BY")
    assert raised.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.error_code == "invalidInput"
    assert raised.value.category == "INVALID_INPUT"
    assert raised.value.persona == "USER"
    assert raised.value.context["line"] == "2"
    assert int(raised.value.context["column"]) > 0
    assert "line [2]" in str(raised.value)


@pytest.mark.parametrize("call", ["task", "report", "cancel", "results", "wait"])
def test_a_task_of_nobody_is_not_found(client, call):
    with pytest.raises(trilith.NotFound) as raised:
        getattr(client, call)("query-of-nobody")
    assert raised.value.code == grpc.StatusCode.NOT_FOUND
    assert raised.value.error_code == "notFound"
    assert "query-of-nobody" in raised.value.message


def test_a_null_time_fails_the_task_with_its_fault(client):
    source = inline_source([{"t": "2020-01-01", "n": 1}, {"t": None, "n": 2}])
    task = client.submit(f"INSERT INTO untimed SELECT TIME_PARSE(t) AS __time, n FROM {source} PARTITIONED BY DAY")
    with pytest.raises(trilith.TaskFailed) as raised:
        task.wait(timeout=60)
    assert raised.value.error_code == "InsertTimeNull"
    assert raised.value.task_id == task.id
    assert raised.value.task.state == pb.task.STATE_FAILED
    assert task.id in str(raised.value)
    error = task.report().error
    assert error is not None
    assert error.fault.error_code == "InsertTimeNull"


def test_fields_of_a_fault_are_decoded(client):
    source = inline_source([{"t": "2020-01-01", "n": 1}, "no json"])
    sql = f"INSERT INTO unparsed SELECT TIME_PARSE(t) AS __time, n FROM {source} PARTITIONED BY DAY"
    with pytest.raises(trilith.TaskFailed) as raised:
        client.run(sql, {"maxParseExceptions": 0}, timeout=60)
    assert raised.value.error_code in ("CannotParseExternalData", "TooManyWarnings")
    assert raised.value.fields

    task = client.submit(sql, {"maxParseExceptions": 5})
    task.wait(timeout=60)
    report = task.report()
    assert report.warning_counts == {"CannotParseExternalData": 1}
    assert [warning.fault.error_code for warning in report.warnings] == ["CannotParseExternalData"]


def test_a_running_task_is_cancelled(client):
    task = client.submit(ENDLESS)
    for update in task.watch(timeout=60):
        if update.state == "RUNNING" and update.report and update.report.stages:
            task.cancel()
    with pytest.raises(trilith.TaskFailed) as raised:
        task.wait(timeout=60)
    assert raised.value.error_code == "Canceled"
    assert raised.value.category == "CANCELED"
    assert task.cancel() == "FAILED", "a second time is no error"


def test_cancel_tells_the_state_after_it(client):
    task = client.submit(ENDLESS)
    for update in task.watch(timeout=60):
        if update.state == "RUNNING" and update.report and update.report.stages:
            assert task.cancel() == "FAILED"


def test_waiting_has_an_end_and_the_task_goes_on(client):
    task = client.submit(ENDLESS)
    with pytest.raises(trilith.Timeout) as raised:
        task.wait(timeout=0.5)
    assert isinstance(raised.value, TimeoutError)
    assert client.task(task.id).state in (pb.task.STATE_PENDING, pb.task.STATE_RUNNING)
    with pytest.raises(trilith.Timeout):
        task.wait(timeout=0.5, cancel_on_timeout=True)
    with pytest.raises(trilith.TaskFailed, match="Canceled"):
        task.wait(timeout=60)


def test_an_id_is_taken_once(client):
    own = str(uuid.uuid4())
    task = client.submit("SELECT 1 AS one", id=own)
    assert task.id == f"query-{own}"
    with pytest.raises(trilith.AlreadyExists) as raised:
        client.submit("SELECT 1 AS one", id=own)
    assert raised.value.error_code == "entryAlreadyExists"
    assert isinstance(raised.value, trilith.InvalidInput)
    assert [listed.task_id for listed in client.tasks()].count(task.id) == 1
    named = client.submit("SELECT 1 AS one", {"sqlQueryId": own + "-2"})
    assert named.id == f"query-{own}-2"


def test_lists_follow_their_pages(client):
    ids = [client.submit("SELECT 1 AS one").id for _ in range(5)]
    for id in ids:
        client.wait(id, timeout=60)
    newest = [task.task_id for task in client.tasks(page_size=2)]
    assert newest[:5] == ids[::-1]
    assert len(newest) == len(set(newest)) > 5
    failed = list(client.tasks(states=["FAILED"]))
    assert all(task.state == pb.task.STATE_FAILED for task in failed)
    assert {task.datasource for task in client.tasks(datasource="wikipedia")} == {"wikipedia"}
    with pytest.raises(ValueError, match="STATE_DONE"):
        list(client.tasks(states=["done"]))


def test_what_there_is(client, edits):
    assert "wikipedia" in [datasource.name for datasource in client.datasources()]
    wikipedia = next(datasource for datasource in client.datasources() if datasource.name == "wikipedia")
    assert wikipedia.row_count == len(edits)
    columns = client.schema("wikipedia")
    assert (columns[0].name, columns[0].type) == ("__time", "LONG")
    assert {column.name for column in columns} == {"__time", "channel", "page", "user", "added", "deleted"}
    segments = list(client.segments("wikipedia"))
    assert sum(segment.row_count for segment in segments) == len(edits)
    assert len(segments) == wikipedia.segment_count
    assert sum(worker.slot_count for worker in client.workers()) == 2
    with pytest.raises(trilith.NotFound):
        client.schema("nothing")


def test_a_running_ingestion_holds_its_lock(client):
    sql = (
        'REPLACE INTO locked OVERWRITE ALL SELECT TIME_PARSE(a."time") AS __time, a.page '
        f"FROM {edits_source()} a, wikipedia b, wikipedia c WHERE a.added + b.added + c.added = 7 PARTITIONED BY ALL"
    )
    task = client.submit(sql)
    for update in task.watch(timeout=60):
        if update.state == "RUNNING":
            assert [(lock.task_id, lock.datasource) for lock in client.locks("locked")] == [(task.id, "locked")]
            task.cancel()
    assert client.locks("locked") == []


def test_a_signature_is_inferred(client, edits):
    answer = client.infer_signature(
        {"type": "local", "baseDir": str(DATA), "filter": "wikipedia-edits.json.gz"}, {"type": "json"}
    )
    assert {column.name for column in answer.columns} == set(edits[0])
    assert {column.name: column.type for column in answer.columns}["added"] == "LONG"
    assert answer.sampled_record_count == 1000
