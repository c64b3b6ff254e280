"""Ingests the generated edits in Trilith and in other engines, side by side; median of the rounds.

Prints seconds, peak memory (MB) and the ratio to Trilith's time. Then: four times the data.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv

import generate

HERE = pathlib.Path(__file__).resolve().parent
DATA = HERE / "data"
PACKAGES = {"duckdb": "duckdb", "chdb": "chdb", "polars": "polars", "datafusion": "datafusion"}
SIGNATURE = [
    {"name": name, "type": "long" if name in ("added", "deleted", "delta") else "string"}
    for name in ("time", "channel", "page", "user", "comment", "added", "deleted", "delta")
]


def python(peers: list[str]) -> str:
    """An environment with the peers from PyPI."""
    path = HERE / ".venv"
    if not (path / "bin" / "python").exists():
        venv.create(path, with_pip=True)
    wanted = [PACKAGES[peer] for peer in peers]
    if wanted:
        subprocess.run([path / "bin" / "python", "-m", "pip", "install", "-q", *wanted], check=True)
    return str(path / "bin" / "python")


def peak_mb(pid: int) -> float:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


class Server:
    """A server with a directory of its own."""

    def __init__(self, program: str, directory: str, slots: int = 2, cores: str | None = None):
        command = ["taskset", "-c", cores] if cores else []
        command += [program, "server", "--data-dir", directory, "--http-address", "127.0.0.1:0"]
        command += ["--grpc-address", "127.0.0.1:0", "--worker-slots", str(slots), "--allow-local", str(DATA)]
        log = open(os.path.join(directory, "log"), "wb")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        ready = json.loads(self.process.stdout.readline())
        self.url, self.grpc = "http://" + ready["http"], ready["grpc"]

    def call(self, path: str, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def run(self, sql: str, context: dict) -> None:
        task = self.call("/druid/v2/sql/task", {"query": sql, "context": context})["taskId"]
        while True:
            status = self.call(f"/druid/indexer/v1/task/{task}/status")["status"]
            if status["statusCode"] == "SUCCESS":
                return
            if status["statusCode"] == "FAILED":
                sys.exit(f"Trilith: {status['errorMsg']}")
            time.sleep(0.002)

    def stop(self) -> float:
        peak = peak_mb(self.process.pid)
        self.process.terminate()
        self.process.wait()
        return peak


def ingest_sql(folder: pathlib.Path) -> str:
    source = json.dumps({"type": "local", "baseDir": str(folder), "filter": "*.json*"})
    return f"""REPLACE INTO edits OVERWRITE ALL
        SELECT TIME_PARSE("time") AS __time, channel, page, "user", "comment", added, deleted, delta
        FROM TABLE(EXTERN('{source}', '{{"type":"json"}}', '{json.dumps(SIGNATURE)}'))
        PARTITIONED BY DAY CLUSTERED BY channel"""


def trilith(program: str, folder: pathlib.Path, rows: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(dir=DATA) as directory:
        server = Server(program, directory)
        started = time.perf_counter()
        server.run(ingest_sql(folder), {"maxNumTasks": 3, "forceSegmentSortByTime": False})
        seconds = time.perf_counter() - started
        found = server.call("/druid/v2/sql", {"query": "SELECT COUNT(*) AS n FROM edits"})[0]["n"]
        peak = server.stop()
    if found != rows:
        sys.exit(f"Trilith published {found} of {rows} rows")
    return seconds, peak


def peer(name: str, interpreter: str, folder: pathlib.Path, rows: int) -> tuple[float, float]:
    files = sorted(str(file) for file in folder.iterdir())
    with tempfile.TemporaryDirectory(dir=DATA) as out:
        started = time.perf_counter()
        process = subprocess.Popen(
            [interpreter, str(HERE / "peers.py"), name, out, *files], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, errors = process.communicate()
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    if process.returncode != 0:
        print(f"  {name} failed: {errors.decode().strip().splitlines()[-1]}", file=sys.stderr)
        return float("nan"), float("nan")
    found = int(output.split()[-1])
    if found != rows:
        print(f"  {name} wrote {found} of {rows} rows", file=sys.stderr)
    return seconds, peak


def compare(arguments, interpreter: str, kind: str, rows: int) -> None:
    folder = DATA / "x1" / kind
    contestants = ["trilith", *arguments.peers]
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    peaks: dict[str, float] = {name: 0.0 for name in contestants}
    for _ in range(arguments.rounds):
        for name in contestants:
            if name == "trilith":
                took, peak = trilith(arguments.trilith, folder, rows)
            else:
                took, peak = peer(name, interpreter, folder, rows)
            seconds[name].append(took)
            peaks[name] = max(peaks[name], peak)
    base = statistics.median(seconds["trilith"])
    print(f"{kind}, {rows} rows, median of {arguments.rounds}:")
    for name in contestants:
        median = statistics.median(seconds[name])
        memory = f"{peaks[name]:7.0f} MB" if name == "trilith" else "          "
        print(f"  {name:<10} {median:7.2f} s  {memory}  trilith takes {base / median:5.2f} of its time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trilith", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=list(PACKAGES))
    parser.add_argument("--no-scale", action="store_true", help="leave out the run with four times the data")
    arguments = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    rows = generate.generate(DATA / "x1", 48)
    interpreter = python(arguments.peers)
    for kind in ("json", "gz"):
        compare(arguments, interpreter, kind, rows)
    if not arguments.no_scale:
        four = generate.generate(DATA / "x4", 192)
        once, _ = trilith(arguments.trilith, DATA / "x1" / "gz", rows)
        times, peak = trilith(arguments.trilith, DATA / "x4" / "gz", four)
        print(f"four times the data (gz): {times:.2f} s, {times / once:.2f} times as long, peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
