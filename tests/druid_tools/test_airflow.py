"""Apache Airflow's provider for Druid: its hooks and its operator. Connections come from the environment."""

from __future__ import annotations

import json

import pytest
from airflow.exceptions import AirflowException
from airflow.providers.apache.druid.hooks.druid import DruidDbApiHook, DruidHook, IngestionType
from airflow.providers.apache.druid.operators.druid import DruidOperator

from conftest import edits_sql

# More rows than a server can join before it is told to stop.
ENDLESS = "SELECT COUNT(*) FROM wikipedia a, wikipedia b, wikipedia c WHERE a.added + b.added + c.added = 7"


@pytest.fixture(autouse=True)
def connections(druid, monkeypatch):
    """Both connections that Airflow's Druid provider uses by default."""
    for name, kind, extra in (
        ("INGEST", "http", {"msq_endpoint": "druid/v2/sql/task"}),
        ("BROKER", "druid", {"endpoint": "/druid/v2/sql"}),
    ):
        value = {"conn_type": kind, "host": druid.host, "port": druid.port, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_DRUID_{name}_DEFAULT", json.dumps(value))


def spec(sql: str, **context: object) -> str:
    """What a MSQ job is made of."""
    return json.dumps({"query": sql, "context": context})


def test_the_hook_waits_for_success(druid, edits):
    DruidHook().submit_indexing_job(spec(edits_sql("by_hook"), maxNumTasks=2), IngestionType.MSQ)
    assert druid.sql("SELECT COUNT(*) AS n FROM by_hook") == [{"n": len(edits)}]


def test_the_operator_waits_for_success(druid, edits):
    operator = DruidOperator(
        task_id="ingest", json_index_file=spec(edits_sql("by_operator")), ingestion_type=IngestionType.MSQ
    )
    operator.execute({})
    assert druid.sql("SELECT SUM(added) AS s FROM by_operator") == [{"s": sum(row["added"] for row in edits)}]


def test_a_task_that_fails_raises(druid):
    source = json.dumps({"type": "inline", "data": '{"t":null}'})
    columns = '[{"name":"t","type":"string"}]'
    sql = (
        f"""INSERT INTO untimed SELECT TIME_PARSE(t) AS __time FROM TABLE(EXTERN('{source}', '{{"type":"json"}}', """
        f"'{columns}')) PARTITIONED BY DAY"
    )
    with pytest.raises(AirflowException, match="Druid indexing job failed"):
        DruidHook().submit_indexing_job(spec(sql, sqlQueryId="airflow-untimed"), IngestionType.MSQ)
    assert "InsertTimeNull" in druid.status("query-airflow-untimed")["errorMsg"]


def test_a_statement_that_is_refused_raises_and_is_logged(capfd):
    with pytest.raises(AirflowException, match="Did not get 200 or 202"):
        DruidHook().submit_indexing_job(spec("SELECT * FROM nowhere"), IngestionType.MSQ)
    logged = "".join(capfd.readouterr())
    assert "Object 'nowhere' not found (line [1], column [15])" in logged.replace("\\'", "'")


def test_a_job_that_takes_too_long_is_stopped(druid):
    hook = DruidHook(timeout=1, max_ingestion_time=1)
    with pytest.raises(AirflowException, match="took more than 1 seconds"):
        hook.submit_indexing_job(spec(ENDLESS, sqlQueryId="airflow-endless"), IngestionType.MSQ)
    status = druid.wait("query-airflow-endless")
    assert status["status"] == "FAILED"
    report = druid.get("/druid/indexer/v1/task/query-airflow-endless/reports")
    error = report["multiStageQuery"]["payload"]["status"]["errorReport"]["error"]
    assert error["errorCode"] == "Canceled"


def test_the_query_hook(edits):
    hook = DruidDbApiHook(context={"sqlTimeZone": "America/Los_Angeles"})
    assert hook.get_first("SELECT COUNT(*) AS n FROM wikipedia") == (len(edits),)
    assert hook.get_records("SELECT TIME_FORMAT(MIN(__time), 'HH') AS h FROM wikipedia") == [("17",)]
    rows = hook.get_records(
        "SELECT channel FROM wikipedia WHERE channel = %(name)s LIMIT 2", {"name": "#en.wikipedia"}
    )
    assert rows == [("#en.wikipedia",)] * 2
    with pytest.raises(Exception, match="Object 'nowhere' not found"):
        hook.get_records("SELECT * FROM nowhere")
