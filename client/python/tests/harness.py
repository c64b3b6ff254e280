"""Servers for tests, and what they ingest."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).resolve().parents[3]
DATA = REPOSITORY / "tests" / "data"
STOP_SECONDS = 30
# More rows than a server can join before it is told to stop.
ENDLESS = "SELECT COUNT(*) AS n FROM wikipedia a, wikipedia b, wikipedia c WHERE a.added + b.added + c.added = 7"
SIGNATURE = (
    '[{"name":"time","type":"string"},{"name":"channel","type":"string"},{"name":"page","type":"string"},'
    '{"name":"user","type":"string"},{"name":"added","type":"long"},{"name":"deleted","type":"long"}]'
)


def binary() -> Path:
    """The program under test."""
    if own := os.environ.get("TRILITH_BIN"):
        return Path(own)
    return Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "debug" / "trilith"


def edits_source() -> str:
    """The bundled edits as a table of a FROM clause."""
    source = json.dumps({"type": "local", "baseDir": str(DATA), "filter": "wikipedia-edits.json.gz"})
    return f"""TABLE(EXTERN('{source}', '{{"type":"json"}}', '{SIGNATURE}'))"""


def ingest_sql(table: str) -> str:
    """Ingests the bundled edits."""
    return (
        f"REPLACE INTO {table} OVERWRITE ALL "
        'SELECT TIME_PARSE("time") AS __time, channel, page, "user", added, deleted '
        f"FROM {edits_source()} PARTITIONED BY DAY CLUSTERED BY channel"
    )


def inline_source(rows: list[dict[str, object] | str]) -> str:
    """Rows as external data with the columns t and n; a text is a line as it stands."""
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    lines = json.dumps({"type": "inline", "data": text})
    columns = '[{"name":"t","type":"string"},{"name":"n","type":"long"}]'
    return f"""TABLE(EXTERN('{lines}', '{{"type":"json"}}', '{columns}'))"""


class Server:
    """A server process; `grpc` and `http` are its "host:port"s."""

    def __init__(self, folder: Path, *, grpc: str = "127.0.0.1:0", http: str = "127.0.0.1:0") -> None:
        self.folder = folder
        self.grpc = grpc
        self.http = http
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it, or starts it again on the same ports with the same data."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(binary()),
                    "server",
                    f"--data-dir={self.folder / 'data'}",
                    f"--http-address={self.http}",
                    f"--grpc-address={self.grpc}",
                    f"--allow-local={DATA}",
                    "--worker-slots=2",
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server did not start: {(self.folder / 'log').read_text()[-2000:]}"
        ready = json.loads(line)
        self.grpc, self.http = ready["grpc"], ready["http"]

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def kill(self) -> None:
        """Ends it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.stop()

    def memory(self) -> int:
        """Bytes of its resident memory."""
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
