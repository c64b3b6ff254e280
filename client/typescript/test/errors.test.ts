import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  CanceledError,
  Code,
  connect,
  InvalidInputError,
  NotFoundError,
  State,
  TaskFailedError,
  TimeoutError,
  TrilithError,
  type TrilithClient,
} from "@trilith/client/node";
import { Server } from "./server.js";
import { ENDLESS, ENDLESS_TASK, extern, ingestion } from "./wikipedia.js";

const NOPE = "SELECT channel,\n  nope FROM wikipedia";

let server: Server;
let client: TrilithClient;

before(async () => {
  server = await Server.start();
  client = connect(server.grpc);
  await client.run(ingestion("wikipedia"));
});

after(async () => {
  client.close();
  await server.stop();
});

/** The error with which `call` rejects; it must be of the class. */
async function failure<E extends TrilithError>(call: Promise<unknown>, type: new (...parts: never[]) => E): Promise<E> {
  const error: unknown = await call.then(
    () => assert.fail(`expected ${type.name}`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof type, `expected ${type.name}, got ${String(error)}`);
  assert.ok(error instanceof TrilithError && error instanceof Error);
  assert.equal(error.name, type.name);
  return error;
}

test("wrong SQL names its place", async () => {
  for (const call of [() => client.query(NOPE), () => client.submit(NOPE), () => client.explain(NOPE)]) {
    const error = await failure(call(), InvalidInputError);
    assert.equal(error.code, Code.InvalidArgument);
    assert.deepEqual([error.errorCode, error.category, error.persona], ["invalidInput", "INVALID_INPUT", "USER"]);
    assert.match(error.message, /^Column 'nope' not found/);
    assert.deepEqual([error.context.sourceType, error.context.line, error.context.column], ["sql", "2", "3"]);
  }
});

test("what is not there", async () => {
  const unknown = await failure(client.task("query-unknown"), NotFoundError);
  assert.deepEqual([unknown.code, unknown.errorCode, unknown.category], [Code.NotFound, "notFound", "NOT_FOUND"]);
  assert.match(unknown.message, /query-unknown/);
  for (const call of [
    () => client.report("query-unknown"),
    () => client.cancel("query-unknown"),
    () => client.wait("query-unknown"),
    () => client.results("query-unknown"),
    () => client.schema("unknown"),
    () => client.cancelQuery("unknown"),
  ]) {
    await failure(call(), NotFoundError);
  }
});

test("a task that fails tells its fault", async () => {
  const timeless = `INSERT INTO timeless SELECT TIME_PARSE("page") AS __time, channel FROM ${extern()} PARTITIONED BY DAY`;
  const task = await client.submit(timeless);
  const error = await failure(client.wait(task), TaskFailedError);
  assert.equal(error.taskId, task.taskId);
  assert.equal(error.errorCode, "InsertTimeNull");
  assert.match(error.message, /__time/);
  assert.equal((await client.task(task)).state, State.FAILED);

  const source = JSON.stringify({ type: "inline", data: '{"a":1}\nnot json\nnor this' });
  const table = `TABLE(EXTERN('${source}', '{"type":"json"}', '[{"name":"a","type":"long"}]'))`;
  const strict = await failure(client.run(`SELECT a FROM ${table}`, { context: { maxParseExceptions: 0 } }), TaskFailedError);
  assert.equal(strict.errorCode, "CannotParseExternalData");
  const some = await failure(client.run(`SELECT a FROM ${table}`, { context: { maxParseExceptions: 1 } }), TaskFailedError);
  assert.equal(some.errorCode, "TooManyWarnings");
  assert.deepEqual(some.fields, { maxWarnings: 1, rootErrorCode: "CannotParseExternalData" });
});

test("an ingestion has no rows to read", async () => {
  await failure(client.results(await client.run(ingestion("no_rows"))), NotFoundError);
});

test("an id is taken once", async () => {
  const task = await client.run("SELECT 1", { id: "once" });
  assert.equal(task.taskId, "query-once");
  const error = await failure(client.submit("SELECT 2", { id: "once" }), InvalidInputError);
  assert.equal(error.errorCode, "entryAlreadyExists");
  assert.equal((await client.task("query-once")).sql, "SELECT 1");
});

test("cancel ends a running task", async () => {
  const task = await client.submit(ENDLESS_TASK);
  const states: State[] = [];
  const waited = client.wait(task, {
    intervalMs: 20,
    onProgress: async (update) => {
      states.push(update.task.state);
      if (update.task.state === State.RUNNING) await client.cancel(task);
    },
  });
  const error = await failure(waited, TaskFailedError);
  assert.equal(error.errorCode, "Canceled");
  assert.ok(states.includes(State.RUNNING));
  assert.equal(await client.cancel(task), State.FAILED, "cancel is idempotent");
});

test("a wait that takes too long leaves the task alone, or cancels it", async () => {
  const task = await client.submit(ENDLESS_TASK);
  const error = await failure(client.wait(task, { timeoutMs: 300 }), TimeoutError);
  assert.equal(error.code, Code.DeadlineExceeded);
  assert.notEqual((await client.task(task)).state, State.FAILED);
  await failure(client.wait(task, { timeoutMs: 300, cancelOnTimeout: true }), TimeoutError);
  assert.equal((await failure(client.wait(task), TaskFailedError)).errorCode, "Canceled");
});

test("signals stop waits, queries and their rows", async () => {
  const task = await client.submit(ENDLESS_TASK);
  const stop = new AbortController();
  const waited = client.wait(task, {
    signal: stop.signal,
    onProgress: () => {
      stop.abort(new Error("enough"));
    },
  });
  const error = await failure(waited, CanceledError);
  assert.equal((error.cause as Error).message, "enough");
  await client.cancel(task);

  await failure(client.datasources({ signal: AbortSignal.abort() }), CanceledError);
  await failure(client.query(ENDLESS, { signal: AbortSignal.timeout(200) }).then((rows) => rows.table()), TimeoutError);
  await failure(client.query(ENDLESS, { rowsDeadlineMs: 200 }).then((rows) => rows.table()), TimeoutError);
});

test("a query can be stopped by its id", async () => {
  const rows = await client.query(ENDLESS, { id: "to-stop" });
  const read = rows.table();
  await client.cancelQuery("to-stop");
  assert.equal((await failure(read, CanceledError)).code, Code.Canceled);
});

test("an EXPLAIN makes no task", async () => {
  await failure(client.submit("EXPLAIN PLAN FOR SELECT 1"), InvalidInputError);
});

test("addresses and parameters that cannot be", async () => {
  assert.throws(() => connect("ftp://127.0.0.1:1"), TypeError);
  await assert.rejects(client.query("SELECT ?", { parameters: [Number.NaN] }), TypeError);
});
