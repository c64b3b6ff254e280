"""How Trilith scales on one machine: slots, worker processes, one large file, and the fixed cost of a task.

Prints medians with the range of the repetitions, and says which targets are missed. Two cores are needed.
"""

import argparse
import http.client
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import generate
from run import DATA, Server, ingest_sql

TRIVIAL = "REPLACE INTO one OVERWRITE ALL SELECT TIMESTAMP '2000-01-01' AS __time, 1 AS x PARTITIONED BY DAY"


class Cluster(Server):
    """A server with slots of its own and worker processes of one slot each."""

    def __init__(self, program: str, directory: str, slots: int, workers: int, cores: str | None = None):
        super().__init__(program, directory, slots, cores)
        self.workers = []
        for number in range(workers):
            command = [program, "worker", "--server", self.grpc, "--slots", "1"]
            command += ["--data-dir", str(pathlib.Path(directory) / f"worker{number}")]
            with open(pathlib.Path(directory) / f"worker{number}.log", "wb") as log:
                worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
            worker.stdout.readline()
            self.workers.append(worker)

    def stop(self) -> float:
        for worker in self.workers:
            worker.terminate()
            worker.wait()
        return super().stop()


def ingest(program: str, folder: pathlib.Path, rows: int, slots: int, workers: int, cores: str | None) -> float:
    with tempfile.TemporaryDirectory(dir=DATA) as directory:
        server = Cluster(program, directory, slots, workers, cores)
        started = time.perf_counter()
        server.run(ingest_sql(folder), {"maxNumTasks": 3, "forceSegmentSortByTime": False})
        seconds = time.perf_counter() - started
        found = server.call("/druid/v2/sql", {"query": "SELECT COUNT(*) AS n FROM edits"})[0]["n"]
        server.stop()
    if found != rows:
        raise SystemExit(f"Trilith published {found} of {rows} rows")
    return seconds


def fixed_cost(program: str, workers: int, rounds: int) -> list[float]:
    """Seconds of trivial tasks from sending the statement to hearing SUCCESS, over one kept connection."""
    with tempfile.TemporaryDirectory(dir=DATA) as directory:
        server = Cluster(program, directory, 0 if workers else 2, workers)
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))

        def call(path: str, body=None):
            data = None if body is None else json.dumps(body)
            method = "GET" if body is None else "POST"
            connection.request(method, path, data, {"Content-Type": "application/json"})
            return json.load(connection.getresponse())

        took = []
        for number in range(rounds + 5):
            started = time.perf_counter()
            task = call("/druid/v2/sql/task", {"query": TRIVIAL, "context": {"maxNumTasks": 2}})["taskId"]
            while True:
                status = call(f"/druid/indexer/v1/task/{task}/status")["status"]
                if status["statusCode"] != "RUNNING":
                    break
                time.sleep(0.0002)
            if status["statusCode"] != "SUCCESS":
                raise SystemExit(f"Trilith: {status['errorMsg']}")
            # The first ones warm up.
            if number >= 5:
                took.append(time.perf_counter() - started)
        server.stop()
    return took


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):6.2f} s ({min(times):.2f} to {max(times):.2f})"


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def scale(program: str, rounds: int) -> None:
    rows = generate.generate(DATA / "x1", 48)
    one = DATA / "x1" / "one"
    one.mkdir(exist_ok=True)
    whole = one / "edits.json"
    if not whole.exists():
        with whole.open("wb") as out:
            for file in sorted((DATA / "x1" / "json").iterdir()):
                out.write(file.read_bytes())
    shapes = {
        "1 slot on 1 core": (1, 0, "0"),
        "1 slot": (1, 0, None),
        "2 slots": (2, 0, None),
        "2 workers": (0, 2, None),
    }
    for name, folder in (("8 json files", "json"), ("8 gz files", "gz"), ("1 json file", "one")):
        times: dict[str, list[float]] = {shape: [] for shape in shapes}
        for _ in range(rounds):
            # In turn, so that a slow minute of the machine hits all of them.
            for shape, (slots, workers, cores) in shapes.items():
                times[shape].append(ingest(program, DATA / "x1" / folder, rows, slots, workers, cores))
        medians = {shape: statistics.median(all) for shape, all in times.items()}
        print(f"{name}, {rows} rows, median of {rounds}:")
        for shape, all in times.items():
            print(f"  {shape:<17} {spread(all)}")
        alone = medians["1 slot on 1 core"] / medians["2 slots"]
        free = medians["1 slot"] / medians["2 slots"]
        processes = medians["2 workers"] / medians["2 slots"]
        print(f"  1 slot → 2 slots: {free:.2f} × as fast; with a core for each slot {alone:.2f} × (1.8: {verdict(alone >= 1.8)})")
        print(f"  2 worker processes take {processes:.2f} of the time of 2 slots (1.25: {verdict(processes <= 1.25)})")
    for name, workers, most in (("in process", 0, 30), ("with 2 worker processes", 2, 100)):
        took = [seconds * 1000 for seconds in fixed_cost(program, workers, 101)]
        median = statistics.median(took)
        tail = sorted(took)[len(took) * 95 // 100]
        print(f"trivial task {name}: median {median:.1f} ms, 95 % within {tail:.1f} ms ({most} ms: {verdict(median <= most)})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trilith", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    scale(arguments.trilith, arguments.rounds)
