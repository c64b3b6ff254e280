"""A server for all tests, and the bundled data read without it."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import DATA, Server, ingest_sql

import trilith


def pytest_configure() -> None:
    """Fails at once when the package under test is not the installed one."""
    place = Path(trilith.__file__).resolve()
    assert "site-packages" in place.parts, f"{place} is not an installed package"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all tests share; its table `wikipedia` has the whole file."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        with trilith.connect(running.grpc) as client:
            client.run(ingest_sql("wikipedia"), timeout=120)
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[trilith.Client]:
    """A client of the shared server."""
    with trilith.connect(server.grpc) as connected:
        yield connected


@pytest.fixture(scope="session")
def edits() -> list[dict[str, Any]]:
    """The rows of the file."""
    with gzip.open(DATA / "wikipedia-edits.json.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of a program that a test starts."""
    return {**os.environ, "TRILITH_DATA": str(DATA)}
