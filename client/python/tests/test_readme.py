"""What the README shows runs as it stands, but for addresses and files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from harness import ingest_sql, inline_source
from proxies import Authority, Proxy

README = Path(__file__).resolve().parents[1] / "README.md"
CLIENTS = README.parents[2] / "docs" / "clients.md"
PRELUDE = """
import os, trilith
client = trilith.connect(os.environ["TRILITH_ADDRESS"])
sql = os.environ.get("SQL")
"""


def blocks(section: str, language: str, page: Path = README) -> list[str]:
    """The blocks of a language in a section."""
    text = page.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def run(server, environment, tmp_path):
    """Runs a program with the server's address in place of the default one; returns what it printed."""

    def run(program: list[str], code: str, **variables: str) -> str:
        code = code.replace("localhost:8889", server.grpc).replace("127.0.0.1:8889", server.grpc)
        path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        addresses = {"TRILITH_ADDRESS": server.grpc, "TRILITH_SERVER": server.grpc}
        ran = subprocess.run(
            [*program, "-c", code],
            env={**environment, **addresses, "PATH": path, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return run


@pytest.fixture
def python(run):
    """Runs Python."""

    def python(code: str, **variables: str) -> str:
        return run([sys.executable], code, **variables)

    return python


@pytest.fixture
def counts(edits):
    """Edits with more than 100 characters added, by channel."""
    return Counter(row["channel"] for row in edits if row["added"] > 100)


def test_every_block_is_run_by_a_test():
    tested = {"Example", "Tasks", "Rows", "Asyncio", "Errors", "TLS and token", "Command line", "DB-API"}
    introduction, *sections = README.read_text().split("\n## ")
    assert {section.splitlines()[0] for section in sections if "```" in section} == tested
    # pip install, which test.sh does with the wheel.
    assert introduction.count("```") == 2


def test_the_example(python, counts):
    (code,) = blocks("Example", "python")
    printed = python(code)
    assert "SUCCESS" in printed
    assert "Stage(number=0, processor='scan'" in printed
    channel, count = counts.most_common(1)[0]
    assert re.search(rf"^0\s+{re.escape(channel)}\s+{count}$", printed, re.MULTILINE), printed


def test_tasks(python, client, edits):
    (code,) = blocks("Tasks", "python")
    printed = python(PRELUDE + code, SQL="SELECT page FROM wikipedia WHERE added > 1000")
    written = sum(row["added"] > 1000 for row in edits)
    assert f"\n{len(edits)} {written} {{}}\npyarrow.Table\npage: string" in printed
    assert "\nSUCCESS Report(message=" in printed
    assert client.task("query-nightly-2015-09-12").sql == "SELECT page FROM wikipedia WHERE added > 1000"


def test_rows(python, edits):
    (code,) = blocks("Rows", "python")
    check = """
import pandas, polars, pyarrow
print("total", table.num_rows, len(frame), reader.read_all().num_rows)
assert isinstance(table, pyarrow.Table) and isinstance(frame, polars.DataFrame)
"""
    *batches, total = python(PRELUDE + code + check).splitlines()
    assert sum(map(int, batches)) == len(edits)
    assert total == f"total {len(edits)} {len(edits)} {len(edits)}"


def test_asyncio(python, edits):
    (code,) = blocks("Asyncio", "python")
    show = "def show(update):\n    print(update.state)\n"
    main = "import asyncio\nasync def main():\n" + textwrap.indent(code, "    ") + "asyncio.run(main())\n"
    printed = python(PRELUDE + show + main, SQL=ingest_sql("by_readme")).splitlines()
    assert "SUCCESS" in printed
    assert sum(int(line) for line in printed if line.isdigit()) == len(edits)


def test_errors(python):
    (code,) = blocks("Errors", "python")
    source = inline_source([{"t": None, "n": 1}])
    sql = f"INSERT INTO untimed_readme SELECT TIME_PARSE(t) AS __time, n FROM {source} PARTITIONED BY DAY"
    assert re.fullmatch(r"InsertTimeNull \{.*\} query-\S+\n", python(PRELUDE + code, SQL=sql))
    assert re.fullmatch(r"2 6 .*nowhere.*\n", python(PRELUDE + code, SQL="SELECT *\nFROM nowhere"))


def test_tls_and_token(python, server, tmp_path):
    (code,) = blocks("TLS and token", "python")
    authority = Authority(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.ca)
    check = '\nprint(client.query("SELECT 1 AS one").read_all()["one"].to_pylist())'
    with Proxy(server.grpc, tls=authority.server_context()) as proxy:
        code = code.replace("10.0.0.7:8889", proxy.address).replace("trilith.internal", "trilith.test")
        assert python(f"{PRELUDE}token = 'secret'\n{code}{check}") == "[1]\n"


def test_the_command_line(run, client, counts, tmp_path):
    (code,) = blocks("Command line", "sh")
    (tmp_path / "insert.sql").write_text(ingest_sql("by_readme_cli"))
    task_id, header, *rows = run(["bash", "-e"], code).splitlines()
    assert client.task(task_id).datasource == "by_readme_cli"
    assert header == "channel,EXPR$1"
    assert dict(row.split(",") for row in rows) == {channel: str(count) for channel, count in counts.items()}


def test_dbapi(python, counts, edits):
    (code,) = blocks("DB-API", "python")
    printed = python(code)
    assert "pyarrow.Table\nchannel: string" in printed
    added = sum(row["added"] for row in edits if row["channel"] == "#en.wikipedia")
    assert re.search(rf"^\d+ +#en\.wikipedia +{added}$", printed, re.MULTILINE), printed
    assert printed.endswith("\ninvalidInput 1 8\n")


def test_flight_sql_in_docs_clients(python, counts):
    (code,) = blocks("Flight SQL", "python", CLIENTS)
    assert python(code).startswith("pyarrow.Table\nchannel: string")
