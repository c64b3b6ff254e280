"""Large jobs in a small process: each case prints seconds, the peak of resident memory and what was spilled.

Rows are generated while they are read, over HTTP. Every case checks its rows against sums that are known
beforehand, and that the peak stays below the limit + 300 MB.
"""

import argparse
import http.server
import importlib.util
import json
import multiprocessing
import os
import pathlib
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from run import DATA, PACKAGES, peak_mb, python

MARGIN_MB = 300
COMMENT = "a comment that is about as long as what people write below an edit, number "
FILES = 8
COLUMNS = [("time", "string"), ("id", "long"), ("user", "string"), ("country", "string"), ("page", "string"),
           ("comment", "string"), ("agent", "string"), ("added", "long"), ("deleted", "long"), ("delta", "long"),
           ("score", "double")]


def wide(first: int, count: int):
    """JSON lines of about 300 bytes; `id` counts up."""
    step = 5_000
    row = (
        '{"time":"2024-01-%02dT%02d:%02d:%02d.%03dZ","id":%d,"user":"user-%d","country":"country-%d",'
        '"page":"Page of the encyclopaedia %d","comment":"' + COMMENT + '%d","agent":"agent/%d.0 (compatible; '
        'crawler)","added":%d,"deleted":%d,"delta":%d,"score":%d.5}\n'
    )
    for start in range(first, first + count, step):
        yield "".join([
            row % (1 + n % 10, n % 24, n % 60, n // 60 % 60, n % 1000, n, n * 7919 % 1_000_003, n % 197,
                   n * 31 % 5_000_011, n, n % 13, n % 1000, n % 77, n % 1000 - n % 77, n % 501)
            for n in range(start, min(start + step, first + count))
        ]).encode()


def chunks(first: int, count: int):
    """20 rows in each of `count` hours."""
    for hour in range(first, first + count):
        at = hour * 3_600_000
        yield "".join(['{"t":%d,"id":%d}\n' % (at + n, hour * 20 + n) for n in range(20)]).encode()


def skewed(first: int, count: int):
    """Nine of ten rows have the key 'hot'."""
    step = 10_000
    for start in range(first, first + count, step):
        yield "".join([
            '{"k":"%s","id":%d,"text":"%s%d"}\n' % ("hot" if n % 10 else "k%d" % n, n, COMMENT, n)
            for n in range(start, min(start + step, first + count))
        ]).encode()


def columns(first: int, count: int):
    """Rows of 1,990 columns."""
    for n in range(first, first + count):
        yield ("{" + ",".join(['"c%d":%d' % (c, n + c) for c in range(1990)]) + "}\n").encode()


def huge(_first: int, _count: int):
    """A row of 50 MB between two small ones."""
    yield b'{"t":1,"text":"a"}\n{"t":2,"text":"'
    for _ in range(50):
        yield b"x" * 1_000_000
    yield b'"}\n{"t":3,"text":"b"}\n'


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /<generator>/<first>/<count>"""

    def do_GET(self):
        _, name, first, count = self.path.split("/")
        self.send_response(200)
        self.end_headers()
        for block in globals()[name](int(first), int(count)):
            self.wfile.write(block)

    def log_message(self, *_):
        pass


class Source(socketserver.ForkingMixIn, http.server.HTTPServer):
    """One process for each file that is being read."""


class Server:
    """A server with a memory limit and a directory of its own."""

    def __init__(self, program: str, directory: str, limit_mb: int, slots: int):
        command = [program, "server", "--data-dir", directory, "--http-address", "127.0.0.1:0"]
        command += ["--grpc-address", "127.0.0.1:0", "--worker-slots", str(slots), "--allow-http", "127.0.0.1"]
        command += ["--memory-limit", f"{limit_mb}MB", "--durable-storage", f"file://{directory}/durable"]
        log = open(os.path.join(directory, "log"), "wb")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        addresses = json.loads(self.process.stdout.readline())
        self.url, self.grpc = "http://" + addresses["http"], addresses["grpc"]
        self.directory = pathlib.Path(directory)

    def call(self, path: str, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            sys.exit(f"{path}: {error.read().decode()}")

    def rows(self, sql: str):
        return self.call("/druid/v2/sql", {"query": sql, "resultFormat": "array"})

    def run(self, sql: str, context: dict, fault: str | None = None) -> tuple[str, float]:
        started = time.perf_counter()
        task = self.call("/druid/v2/sql/task", {"query": sql, "context": context})["taskId"]
        while True:
            status = self.call(f"/druid/indexer/v1/task/{task}/status")["status"]
            self.disk = max(self.disk, self.spilled())
            if status["statusCode"] != "RUNNING":
                break
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        report = self.call(f"/druid/indexer/v1/task/{task}/reports")["multiStageQuery"]["payload"]
        error = report["status"].get("errorReport")
        found = error and error["error"]["errorCode"]
        if found != fault:
            log = (self.directory / "log").read_text().splitlines()[-5:]
            sys.exit("\n".join([f"expected {fault or 'success'}, found {error}", *log]))
        return task, seconds

    def spilled(self) -> int:
        found = 0
        for file in (self.directory / "spill").rglob("*"):
            try:
                found += file.stat().st_size if file.is_file() else 0
            except FileNotFoundError:
                pass
        return found

    def reset_peak(self) -> None:
        self.disk = 0
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def extern(port: int, generator: str, count: int, signature, files: int = FILES, first: int = 0) -> str:
    each = -(-count // files)
    parts = [(first + start, min(each, count - start)) for start in range(0, count, each)]
    uris = [f"http://127.0.0.1:{port}/{generator}/{start}/{rows}" for start, rows in parts]
    types = [{"name": name, "type": kind} for name, kind in signature]
    source = json.dumps({"type": "http", "uris": uris})
    return f"""TABLE(EXTERN('{source}', '{{"type":"json"}}', '{json.dumps(types)}'))"""


def expect(what: str, found, expected) -> None:
    if found != expected:
        sys.exit(f"{what}: found {found}, expected {expected}")


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


CONTEXT = {"maxNumTasks": 3}


@case
def ingest(server: Server, port: int, rows: int):
    """Wide rows into ten days, sorted by user."""
    sql = f"""REPLACE INTO wide OVERWRITE ALL SELECT TIME_PARSE("time") AS __time, id, "user", country, page, "comment",
        agent, added, deleted, delta, score FROM {extern(port, "wide", rows, COLUMNS)}
        PARTITIONED BY DAY CLUSTERED BY "user" """
    _, seconds = server.run(sql, {**CONTEXT, "forceSegmentSortByTime": False})
    expect("wide", server.rows("SELECT COUNT(*), SUM(id) FROM wide"), [[rows, rows * (rows - 1) // 2]])
    return seconds


@case
def groups(server: Server, port: int, rows: int):
    """As many groups as half the rows, from and into a table."""
    half = rows // 2
    sql = f"""REPLACE INTO groups OVERWRITE ALL SELECT TIMESTAMP '2000-01-01' AS __time, MOD(id, {half}) AS k,
        COUNT(*) AS c, SUM(id) AS s FROM wide GROUP BY 2 PARTITIONED BY ALL CLUSTERED BY k"""
    _, seconds = server.run(sql, {**CONTEXT, "finalizeAggregations": True})
    found = server.rows("SELECT COUNT(*), SUM(c), MIN(c), MAX(c), SUM(s) FROM groups")
    expect("groups", found, [[half, rows, 2, 2, rows * (rows - 1) // 2]])
    return seconds


@case
def join(server: Server, port: int, rows: int):
    """Sort-merge join of the two halves of the table."""
    half = rows // 2
    sql = f"""REPLACE INTO joined OVERWRITE ALL SELECT a.__time, a.id, b.id AS other, a.page, b."user"
        FROM (SELECT __time, id, page FROM wide WHERE id < {half}) a
        JOIN (SELECT id, id - {half} AS k, "user" FROM wide WHERE id >= {half}) b ON a.id = b.k PARTITIONED BY ALL"""
    _, seconds = server.run(sql, {**CONTEXT, "sqlJoinAlgorithm": "sortMerge"})
    found = server.rows("SELECT COUNT(*), SUM(other - id), SUM(id) FROM joined")
    expect("joined", found, [[half, half * half, half * (half - 1) // 2]])
    return seconds


@case
def broadcast(server: Server, port: int, rows: int):
    """The same join without a hint: neither side fits into memory."""
    half = rows // 2
    sql = f"""SELECT COUNT(*) AS n, SUM(b.id - a.id) AS s
        FROM (SELECT id, page, "comment" FROM wide WHERE id < {half}) a
        JOIN (SELECT id, id - {half} AS k, "user", "comment" FROM wide WHERE id >= {half}) b
        ON a.id = b.k WHERE a."comment" < b."comment" OR a."comment" >= b."comment" """
    task, seconds = server.run(sql, CONTEXT)
    report = server.call(f"/druid/indexer/v1/task/{task}/reports")["multiStageQuery"]["payload"]
    expect("broadcast", report["results"]["results"], [[half, half * half]])
    return seconds


@case
def order(server: Server, port: int, rows: int):
    """ORDER BY of half the rows; a client reads all of them by Flight."""
    half = rows // 2
    sql = f'SELECT page, id, "comment" FROM wide WHERE id < {half} ORDER BY page, id'
    task, seconds = server.run(sql, {**CONTEXT, "selectDestination": "durableStorage", "rowsPerPage": 1_000_000})
    client = subprocess.run(
        [client_python(), __file__, "--read", server.grpc, task], stdout=subprocess.PIPE, check=True
    )
    found = json.loads(client.stdout)
    expect("rows read", [found["rows"], found["sum"], found["sorted"]], [half, half * (half - 1) // 2, True])
    print(f"    the client read {found['rows']} rows in {found['seconds']:.1f} s, peak {found['peak_mb']:.0f} MB")
    return seconds


@case
def time_chunks(server: Server, port: int, rows: int):
    """5,000 time chunks, and one more than that."""
    signature = [("t", "long"), ("id", "long")]

    def sql(count: int):
        return f"""REPLACE INTO hours OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(t) AS __time, id
            FROM {extern(port, "chunks", count, signature)} PARTITIONED BY HOUR"""

    _, seconds = server.run(sql(5_000), CONTEXT)
    expect("hours", server.rows("SELECT COUNT(*), SUM(id) FROM hours"), [[100_000, 100_000 * 99_999 // 2]])
    server.run(sql(5_001), CONTEXT, "TooManyBuckets")
    return seconds


@case
def hot_key(server: Server, port: int, rows: int):
    """One key holds 90 % of the rows: clustering, and joining on it."""
    count = rows // 4
    signature = [("k", "string"), ("id", "long"), ("text", "string")]
    sql = f"""REPLACE INTO hot OVERWRITE ALL SELECT TIMESTAMP '2000-01-01' AS __time, k, id, text
        FROM {extern(port, "skewed", count, signature)} PARTITIONED BY ALL CLUSTERED BY k"""
    _, seconds = server.run(sql, {**CONTEXT, "rowsPerSegment": 500_000})
    hot = count - -(-count // 10)
    found = server.rows("SELECT COUNT(*), SUM(id), SUM(CASE WHEN k = 'hot' THEN 1 ELSE 0 END) FROM hot")
    expect("hot", found, [[count, count * (count - 1) // 2, hot]])
    sql = """REPLACE INTO hotter OVERWRITE ALL SELECT a.__time, a.id, b.c FROM hot a
        JOIN (SELECT k, COUNT(*) AS c FROM hot GROUP BY k) b ON a.k = b.k PARTITIONED BY ALL"""
    _, more = server.run(sql, {**CONTEXT, "sqlJoinAlgorithm": "sortMerge"})
    found = server.rows("SELECT COUNT(*), SUM(id), MAX(c) FROM hotter")
    expect("hotter", found, [[count, count * (count - 1) // 2, hot]])
    return seconds + more


@case
def huge_row(server: Server, port: int, rows: int):
    """A row of 50 MB is refused by name."""
    sql = f"""REPLACE INTO huge OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(t) AS __time, text
        FROM {extern(port, "huge", 1, [("t", "long"), ("text", "string")], 1)} PARTITIONED BY DAY"""
    return server.run(sql, CONTEXT, "RowTooLarge")[1]


@case
def many_columns(server: Server, port: int, rows: int):
    """1,990 columns."""
    count = max(rows // 500, 100)
    signature = [(f"c{number}", "long") for number in range(1990)]
    names = ", ".join(name for name, _ in signature)
    sql = f"""REPLACE INTO columns OVERWRITE ALL SELECT MILLIS_TO_TIMESTAMP(c0) AS __time, {names}
        FROM {extern(port, "columns", count, signature)} PARTITIONED BY ALL CLUSTERED BY c1989"""
    _, seconds = server.run(sql, {**CONTEXT, "forceSegmentSortByTime": False})
    found = server.rows("SELECT COUNT(*), SUM(c1989) - SUM(c0) FROM columns")
    expect("columns", found, [[count, count * 1989]])
    return seconds


def client_python() -> str:
    """An interpreter with pyarrow: this one, or one with the package from PyPI."""
    if importlib.util.find_spec("pyarrow"):
        return sys.executable
    PACKAGES["pyarrow"] = "pyarrow"
    return python(["pyarrow"])


def read(address: str, task: str) -> None:
    """Streams the rows of a task and prints what they are."""
    import pyarrow.compute as compute
    import pyarrow.flight as flight

    client = flight.connect(f"grpc://{address}")
    started = time.perf_counter()
    rows = total = 0
    in_order, last = True, None
    # What GetTaskReport gives as the ticket of the results.
    for chunk in client.do_get(flight.Ticket(json.dumps({"task": task}).encode())):
        batch = chunk.data
        rows += batch.num_rows
        total += compute.sum(batch.column("id")).as_py()
        pages = batch.column("page")
        ascending = compute.all(compute.less_equal(pages[:-1], pages[1:])).as_py() if len(pages) > 1 else True
        in_order &= ascending and (last is None or last <= pages[0].as_py())
        last = pages[-1].as_py()
    found = {"rows": rows, "sum": total, "sorted": bool(in_order), "peak_mb": peak_mb(os.getpid())}
    print(json.dumps({**found, "seconds": time.perf_counter() - started}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trilith")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--limit-mb", type=int, default=512)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--read", nargs=2, metavar=("ADDRESS", "TASK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        return read(*arguments.read)
    DATA.mkdir(exist_ok=True)
    source = Source(("127.0.0.1", 0), Handler)
    threading.Thread(target=source.serve_forever, daemon=True).start()
    port = source.server_address[1]
    bound = arguments.limit_mb + MARGIN_MB
    failed = []
    print(f"memory limit {arguments.limit_mb} MB, {arguments.slots} slots, {arguments.rows} rows")
    with tempfile.TemporaryDirectory(dir=DATA) as directory:
        server = Server(arguments.trilith, directory, arguments.limit_mb, arguments.slots)
        try:
            for name in arguments.cases:
                server.reset_peak()
                seconds = CASES[name](server, port, arguments.rows)
                peak = peak_mb(server.process.pid)
                verdict = "" if peak <= bound else f"  above {bound} MB"
                failed += [name] if verdict else []
                disk = server.disk / 1e6
                print(f"  {name:<13} {seconds:7.1f} s  peak {peak:5.0f} MB  on disk {disk:6.0f} MB{verdict}", flush=True)
                # The end of a task is known a moment before the last of its files is gone.
                until = time.monotonic() + 5
                while server.spilled() and time.monotonic() < until:
                    time.sleep(0.01)
                expect("files left in the spill directory", server.spilled(), 0)
        finally:
            server.stop()
    if failed:
        sys.exit(f"too much memory: {', '.join(failed)}")


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
