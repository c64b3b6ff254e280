"""A server for all tests, loaded as a user of Druid loads it: over HTTP."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "tests" / "data"
ENDED = ("SUCCESS", "FAILED")
CALL_SECONDS = 30


class Druid:
    """A server, seen as Druid."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.url = f"http://{address}"
        self.host = urlsplit(self.url).hostname
        self.port = urlsplit(self.url).port

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        answer = requests.get(self.url + path, timeout=CALL_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def status(self, task_id: str) -> dict[str, Any]:
        """The status of a task."""
        return self.get(f"/druid/indexer/v1/task/{task_id}/status")["status"]

    def tasks(self) -> list[str]:
        """The ids of all tasks, newest first."""
        return [task["id"] for task in self.get("/druid/indexer/v1/tasks")]

    def wait(self, task_id: str) -> dict[str, Any]:
        """The status of a task when it ended. The time limit is pytest's."""
        while True:
            status = self.status(task_id)
            if status["status"] in ENDED:
                return status

    def sql(self, query: str) -> list[Any]:
        """Rows as objects."""
        answer = requests.post(self.url + "/druid/v2/sql", json={"query": query}, timeout=CALL_SECONDS)
        answer.raise_for_status()
        return answer.json()

    def run(self, query: str) -> None:
        """Runs a task to its good end."""
        answer = requests.post(self.url + "/druid/v2/sql/task", json={"query": query}, timeout=CALL_SECONDS)
        answer.raise_for_status()
        status = self.wait(answer.json()["taskId"])
        assert status["status"] == "SUCCESS", status


def edits_sql(table: str) -> str:
    """Ingests the bundled edits."""
    source = json.dumps({"type": "local", "baseDir": str(DATA), "filter": "wikipedia-edits.json.gz"})
    columns = [("time", "string"), ("channel", "string"), ("page", "string"), ("added", "long"), ("deleted", "long")]
    signature = json.dumps([{"name": name, "type": kind} for name, kind in columns])
    return (
        f'REPLACE INTO {table} OVERWRITE ALL SELECT TIME_PARSE("time") AS __time, channel, page, added, deleted '
        f"""FROM TABLE(EXTERN('{source}', '{{"type":"json"}}', '{signature}')) PARTITIONED BY DAY"""
    )


@pytest.fixture(scope="session")
def druid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Druid]:
    """A server with the bundled edits in the table `wikipedia`."""
    folder = tmp_path_factory.mktemp("server")
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    binary = os.environ.get("TRILITH_BIN", str(target / "debug" / "trilith"))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                "server",
                f"--data-dir={folder / 'data'}",
                "--http-address=127.0.0.1:0",
                "--grpc-address=127.0.0.1:0",
                f"--allow-local={DATA}",
                "--worker-slots=2",
            ],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        line = process.stdout.readline()
        assert line, f"the server did not start: {(folder / 'log').read_text()[-2000:]}"
        server = Druid(json.loads(line)["http"])
        server.run(edits_sql("wikipedia"))
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def edits() -> list[dict[str, Any]]:
    """The rows of the file."""
    with gzip.open(DATA / "wikipedia-edits.json.gz", "rt") as lines:
        return [json.loads(line) for line in lines]
