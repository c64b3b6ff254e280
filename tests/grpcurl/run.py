#!/usr/bin/env python3
"""Talks to a real server with the real grpcurl, by reflection alone, and checks what it says.

    run.py

Needs Go (grpcurl is built once, at the version below, into ${CARGO_TARGET_DIR:-<repository>/target}/tools) and a
server binary: TRILITH_BIN, else $CARGO_TARGET_DIR/debug/trilith, else target/debug/trilith. Standard library only.
Exit status: 0 when all steps passed.
"""
import base64
import gzip
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import traceback

VERSION = "v1.9.4"
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "tests" / "data"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target").resolve()
PATIENCE_S = 120
# grpcurl exits with 64 and the gRPC code.
INVALID_ARGUMENT, NOT_FOUND = 64 + 3, 64 + 5

ENDLESS = (
    "SELECT COUNT(*) AS n FROM wikipedia AS a CROSS JOIN wikipedia AS b CROSS JOIN wikipedia AS c "
    "WHERE a.added + b.added + c.added = -1"
)


def build() -> pathlib.Path:
    """The directory with grpcurl, built from the Go proxy when it is not there yet."""
    directory = TARGET / "tools" / f"grpcurl-{VERSION}"
    if not (directory / "grpcurl").exists():
        print(f"building grpcurl {VERSION}", flush=True)
        environment = os.environ | {"GOBIN": str(directory), "GOFLAGS": ""}
        package = f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{VERSION}"
        subprocess.run(["go", "install", package], env=environment, check=True, cwd=TARGET)
    return directory


def server_binary() -> str:
    return os.environ.get("TRILITH_BIN") or str(TARGET / "debug" / "trilith")


def equal(got, want, what: str) -> None:
    if got != want:
        raise AssertionError(f"{what} is\n  {got!r}\nnot\n  {want!r}")


def proto_message(name: str) -> list[str]:
    """A message as it stands in the proto file of the task service, line by line."""
    text = (REPOSITORY / "proto/trilith/task/v1/task_service.proto").read_text()
    found = re.search(rf"(?:^//.*\n)+^message {name} \{{\n(?:.*\n)*?^\}}$", text, re.MULTILINE)
    assert found, f"the proto file has no {name}"
    return found.group().splitlines()


def messages(text: str) -> list[dict]:
    """The JSON objects that grpcurl prints one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        found.append(value)
        at += len(text[at:]) - len(text[at:].lstrip())
    return found


class Session:
    """One server, and the steps of the session in their order."""

    def __init__(self, tools: pathlib.Path, directory: pathlib.Path):
        command = [server_binary(), "server", "--data-dir", str(directory / "data"), "--allow-local", str(DATA)]
        command += ["--http-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0", "--worker-slots", "2"]
        with open(directory / "server.log", "wb") as log:
            self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=REPOSITORY)
        line = self.server.stdout.readline()
        assert line, (directory / "server.log").read_text()
        self.address = json.loads(line)["grpc"]
        self.tools = tools
        with gzip.open(DATA / "wikipedia-edits.json.gz", "rt") as lines:
            self.edits = sum(1 for _ in lines)

    def stop(self) -> None:
        self.server.terminate()
        self.server.wait()

    def run(self, *arguments: str, data: dict | None = None, status: int = 0) -> subprocess.CompletedProcess:
        """Runs grpcurl. The address stands before the last arguments, as grpcurl wants it."""
        command = [str(self.tools / "grpcurl"), "-plaintext", "-max-time", str(PATIENCE_S)]
        command += [] if data is None else ["-d", json.dumps(data)]
        done = subprocess.run([*command, self.address, *arguments], capture_output=True, text=True)
        if done.returncode != status:
            raise AssertionError(f"{arguments} ended with {done.returncode}, not {status}: {done.stderr}")
        return done

    def call(self, method: str, data: dict) -> dict:
        answers = messages(self.run(f"trilith.{method}", data=data).stdout)
        equal(len(answers), 1, f"number of answers of {method}")
        return answers[0]

    def fails(self, method: str, data: dict, status: int, code: str, message: str) -> dict:
        """A call that fails: checks code and message, and returns the metadata of its google.rpc.ErrorInfo."""
        text = self.run(f"trilith.{method}", data=data, status=status).stderr
        head, _, details = text.partition("  Details:\n")
        equal(head, f"ERROR:\n  Code: {code}\n  Message: {message}\n", "error")
        detail = json.loads(details.strip().removeprefix("1)"))
        equal(detail.pop("@type"), "type.googleapis.com/google.rpc.ErrorInfo", "type of the details")
        if "@value" in detail:  # the server's reflection does not tell of google.rpc.ErrorInfo
            detail = error_info(base64.b64decode(detail["@value"]))
        equal(detail["domain"], "trilith", "domain")
        return detail

    def submit(self, sql: str, query_id: str, **context) -> str:
        context_json = json.dumps({"sqlQueryId": query_id} | context)
        answer = self.call("task.v1.TaskService/SubmitTask", {"sql": sql, "context_json": context_json})
        equal(answer, {"taskId": f"query-{query_id}", "state": "STATE_RUNNING"}, "answer of SubmitTask")
        return answer["taskId"]

    def watch(self, task_id: str) -> list[dict]:
        return messages(self.run("trilith.task.v1.TaskService/WatchTask", data={"task_id": task_id}).stdout)

    # The steps.

    def step_list(self) -> None:
        services = set(self.run("list").stdout.split())
        public = {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"}
        public |= {f"trilith.{name}.v1.{name.title()}Service" for name in ("datasource", "query", "task")}
        equal(public - services, set(), "services that are not listed")
        methods = "CancelTask GetTask GetTaskReport ListLocks ListTasks ListWorkers SubmitTask WatchTask".split()
        listed = self.run("list", "trilith.task.v1.TaskService").stdout.split()
        equal(listed, [f"trilith.task.v1.TaskService.{name}" for name in methods], "methods")

    def step_describe(self) -> None:
        lines = self.run("describe", "trilith.task.v1.SubmitTaskRequest").stdout.splitlines()
        equal(lines[0], "trilith.task.v1.SubmitTaskRequest is a message:", "first line")
        body = [line.replace(".trilith.task.v1.Parameter", "Parameter") for line in lines[1:]]
        equal(body, proto_message("SubmitTaskRequest"), "description")

    def step_health(self) -> None:
        for service in ("", "trilith.task.v1.TaskService", "trilith.query.v1.QueryService"):
            answer = self.run("grpc.health.v1.Health/Check", data={"service": service}).stdout
            equal(json.loads(answer), {"status": "SERVING"}, f"health of {service!r}")
        self.run("grpc.health.v1.Health/Check", data={"service": "none"}, status=NOT_FOUND)

    def step_ingest(self) -> None:
        source = json.dumps({"type": "local", "baseDir": str(DATA), "filter": "wikipedia-edits.json.gz"})
        sql = f"""REPLACE INTO wikipedia OVERWRITE ALL SELECT TIME_PARSE("time") AS __time, channel, page, added
            FROM TABLE(EXTERN('{source.replace("'", "''")}', '{{"type":"json"}}'))
            EXTEND ("time" VARCHAR, channel VARCHAR, page VARCHAR, added BIGINT)
            PARTITIONED BY DAY CLUSTERED BY channel"""
        task_id = self.submit(sql, "ingest")
        updates = self.watch(task_id)
        equal([int(update["sequence"]) for update in updates], [*range(1, len(updates) + 1)], "sequence")
        states = [update["task"]["state"] for update in updates]
        equal(states[-1], "STATE_SUCCESS", "last state")
        equal("STATE_SUCCESS" in states[:-1] or "STATE_FAILED" in states, False, f"ended early: {states}")

        task = self.call("task.v1.TaskService/GetTask", {"task_id": task_id})["task"]
        got = {key: task[key] for key in ("taskId", "state", "statementType", "datasource", "sql")}
        want = {"taskId": task_id, "state": "STATE_SUCCESS", "statementType": "STATEMENT_TYPE_REPLACE"}
        equal(got, want | {"datasource": "wikipedia", "sql": sql}, "task")
        equal(json.loads(task["contextJson"])["sqlQueryId"], "ingest", "context")

        report = self.call("task.v1.TaskService/GetTaskReport", {"task_id": task_id})["report"]
        equal({stage["phase"] for stage in report["stages"]}, {"FINISHED"}, "phases")
        progress = [counter.get("segmentGenerationProgress", {}) for counter in report["counters"]]
        equal(sum(int(each.get("rowsPushed", 0)) for each in progress), self.edits, "rows in segments")
        read = [c["channel"] for c in report["counters"] if c["name"] == "input0" and "stageNumber" not in c]
        equal(sum(int(rows) for channel in read for rows in channel["rows"]), self.edits, "rows read")

        datasource = self.call("datasource.v1.DatasourceService/ListDatasources", {})["datasources"][0]
        equal((datasource["name"], datasource["rowCount"]), ("wikipedia", str(self.edits)), "datasource")

    def step_select_task(self) -> None:
        task_id = self.submit("SELECT channel, added FROM wikipedia LIMIT 3", "select")
        results = self.watch(task_id)[-1]["report"]["results"]
        columns = [("channel", "STRING", "VARCHAR"), ("added", "LONG", "BIGINT")]
        want = [{"name": name, "type": native, "sqlType": sql} for name, native, sql in columns]
        equal((results["rowCount"], results["columns"]), ("3", want), "results")
        assert base64.b64decode(results["ticket"], validate=True), "there is no ticket"

    def step_list_tasks(self) -> None:
        first = self.call("task.v1.TaskService/ListTasks", {"page_size": 1})
        equal([task["taskId"] for task in first["tasks"]], ["query-select"], "first page")
        second = self.call("task.v1.TaskService/ListTasks", {"page_token": first["nextPageToken"]})
        equal([task["taskId"] for task in second["tasks"]], ["query-ingest"], "second page")
        equal("nextPageToken" in second, False, "another page")
        failed = self.call("task.v1.TaskService/ListTasks", {"states": ["STATE_FAILED"]})
        equal(failed, {}, "failed tasks")

    def step_errors(self) -> None:
        message = "Column 'nonsense' not found in any table (line [1], column [8])"
        detail = self.fails(
            "task.v1.TaskService/SubmitTask", {"sql": "SELECT nonsense FROM wikipedia"},
            INVALID_ARGUMENT, "InvalidArgument", message,
        )
        equal(detail["reason"], "INVALID_INPUT", "reason")
        metadata = detail["metadata"]
        place = {"line": "1", "column": "8", "endLine": "1", "endColumn": "15", "sourceType": "sql"}
        equal(json.loads(metadata.pop("context")), place, "context")
        equal(metadata, {"errorCode": "invalidInput", "category": "INVALID_INPUT", "persona": "USER"}, "metadata")
        for method in ("GetTask", "GetTaskReport", "CancelTask", "WatchTask"):
            detail = self.fails(
                f"task.v1.TaskService/{method}", {"task_id": "query-none"},
                NOT_FOUND, "NotFound", "task [query-none] was not found",
            )
            equal(detail["metadata"]["errorCode"], "notFound", f"error code of {method}")

    def step_failed_task(self) -> None:
        task_id = self.submit(
            """INSERT INTO failing SELECT TIME_PARSE('no time') AS __time, 1 AS x PARTITIONED BY DAY""", "failing"
        )
        self.watch(task_id)
        task = self.call("task.v1.TaskService/GetTask", {"task_id": task_id})["task"]
        equal((task["state"], task["fault"]["errorCode"]), ("STATE_FAILED", "InsertTimeNull"), "task")

    def step_cancel(self) -> None:
        task_id = self.submit(ENDLESS, "endless")
        for _ in range(2):  # it is idempotent
            self.call("task.v1.TaskService/CancelTask", {"task_id": task_id})
        task = self.watch(task_id)[-1]["task"]
        equal((task["state"], task["fault"]["errorCode"]), ("STATE_FAILED", "Canceled"), "task")
        answer = self.call("task.v1.TaskService/CancelTask", {"task_id": task_id})
        equal(answer, {"state": "STATE_FAILED"}, "answer for a task that has ended")

    def step_query(self) -> None:
        context_json = json.dumps({"sqlQueryId": "at-once"})
        sql = "SELECT channel, COUNT(*) AS edits FROM wikipedia GROUP BY 1"
        answer = self.call("query.v1.QueryService/RunQuery", {"sql": sql, "context_json": context_json})
        columns = [("channel", "STRING", "VARCHAR"), ("edits", "LONG", "BIGINT")]
        equal(answer["queryId"], "at-once", "id")
        want = [{"name": name, "type": native, "sqlType": sql_type} for name, native, sql_type in columns]
        equal(answer["columns"], want, "columns")
        assert base64.b64decode(answer["ticket"], validate=True), "there is no ticket"
        equal(self.call("query.v1.QueryService/CancelQuery", {"query_id": "at-once"}), {}, "answer of CancelQuery")
        self.run("trilith.query.v1.QueryService/CancelQuery", data={"query_id": "none"}, status=NOT_FOUND)

    def step_readme(self) -> None:
        """The commands under "By grpcurl" in README.md work as they stand there, but for the address and the task id."""
        text = (REPOSITORY / "README.md").read_text()
        block = re.search(r"\*\*By grpcurl\*\*.*?```\n(.*?)```", text, re.DOTALL)
        assert block, "README.md has no commands under By grpcurl"
        commands = block.group(1).replace("\\\n", "").splitlines()
        commands = [line for line in commands if line.startswith("grpcurl ")]
        equal(len(commands) >= 4, True, f"there are commands: {commands}")
        environment = os.environ | {"PATH": f"{self.tools}:{os.environ['PATH']}"}
        task_id = ""
        for command in commands:
            command = command.replace("127.0.0.1:8889", self.address).replace("query-…", task_id)
            done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
            equal(done.returncode, 0, f"exit status of {command}: {done.stderr}")
            task_id = next(iter(re.findall(r'"taskId": "(.*?)"', done.stdout)), task_id)


def error_info(message: bytes) -> dict:
    """A google.rpc.ErrorInfo: reason = 1, domain = 2, metadata = 3 (a map: key = 1, value = 2)."""

    def fields(message: bytes):
        at = 0
        while at < len(message):
            numbers = []
            for _ in range(2):  # tag, length
                value = shift = 0
                while True:
                    byte, at = message[at], at + 1
                    value |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                numbers.append(value)
            tag, length = numbers
            yield tag >> 3, message[at : at + length]
            at += length

    info = {"reason": "", "domain": "", "metadata": {}}
    for number, value in fields(message):
        if number == 3:
            entry = dict(fields(value))
            info["metadata"][entry[1].decode()] = entry.get(2, b"").decode()
        else:
            info["reason" if number == 1 else "domain"] = value.decode()
    return info


def main() -> int:
    tools = build()
    with tempfile.TemporaryDirectory(prefix="trilith-grpcurl-") as directory:
        session = Session(tools, pathlib.Path(directory))
        try:
            steps = [name for name in vars(Session) if name.startswith("step_")]
            for name in steps:
                getattr(session, name)()
                print(f"ok {name.removeprefix('step_')}", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {name.removeprefix('step_')}")
            return 1
        finally:
            session.stop()
    print(f"{len(steps)} steps passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
