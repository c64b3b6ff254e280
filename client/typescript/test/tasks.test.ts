import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { connect, rowsPushed, rowsRead, rowsWritten, stages, State, type TaskUpdate, type TrilithClient } from "@trilith/client/node";
import { Server } from "./server.js";
import { EDITS, editsByChannel, extern, ingestion, rowsOf } from "./wikipedia.js";

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

test("an ingestion reports its stages, and its rows can be queried", async () => {
  const updates: TaskUpdate[] = [];
  const task = await client.run(ingestion("edits"), { intervalMs: 20, onProgress: (update) => void updates.push(update) });
  assert.equal(task.state, State.SUCCESS);
  assert.equal(task.datasource, "edits");
  const last = updates.at(-1)!;
  assert.equal(last.task.state, State.SUCCESS);
  assert.deepEqual(
    stages(last.report!).map((stage) => [stage.number, stage.processor, stage.phase]),
    [
      [0, "scan", "FINISHED"],
      [1, "segmentGenerator", "FINISHED"],
    ],
  );
  assert.ok(updates.length > 1, "progress before the end");

  const report = await client.report(task);
  const rows = BigInt(EDITS.length);
  assert.deepEqual([rowsRead(report), rowsPushed(report), rowsWritten(report)], [rows, rows, rows]);
  assert.deepEqual(
    stages(report).map((stage) => stage.rowsRead),
    [rows, rows],
  );

  const sql = "SELECT channel, COUNT(*) AS edits, SUM(added) AS added FROM edits GROUP BY 1 ORDER BY 2 DESC, 1";
  const result = await client.query(sql);
  assert.deepEqual(
    result.columns.map((column) => [column.name, column.sqlType]),
    [
      ["channel", "VARCHAR"],
      ["edits", "BIGINT"],
      ["added", "BIGINT"],
    ],
  );
  const table = await result.table();
  assert.deepEqual(
    rowsOf(table),
    editsByChannel().map(({ channel, edits, added }) => ({ channel, edits: BigInt(edits), added: BigInt(added) })),
  );
});

test("the rows of a SELECT task", async () => {
  const task = await client.run(`SELECT page, added FROM ${extern()} WHERE channel = '#de.wikipedia'`);
  const expected = EDITS.filter((edit) => edit.channel === "#de.wikipedia").map(({ page, added }) => ({ page, added: BigInt(added) }));
  const rows = await client.results(task);
  assert.equal(rows.schema.fields.map((field) => field.name).join(), "page,added");
  assert.deepEqual(sorted(rowsOf(await rows.table()) as Row[]), sorted(expected));
  assert.equal(rowsWritten(await client.report(task)), BigInt(expected.length));

  const none = await client.run(`SELECT page FROM ${extern()} WHERE channel = 'none'`);
  const empty = await (await client.results(none)).table();
  assert.deepEqual([empty.numRows, empty.schema.fields[0]!.name], [0, "page"]);
});

type Row = { page: string; added: bigint };

function sorted(rows: Row[]): string[] {
  return rows.map((row) => `${row.page} ${row.added}`).sort();
}

test("parameters keep their types and all their digits", async () => {
  const big = 9_007_199_254_740_993n;
  const instant = new Date("2015-09-12T12:00:00Z");
  const result = await client.query(
    "SELECT COUNT(*) AS n, MAX(? + 0) AS big, MAX(CAST(? AS DOUBLE)) AS half FROM wikipedia WHERE channel = ? AND __time >= ? AND added > ?",
    { parameters: [big, 0.5, "#en.wikipedia", instant, { type: "BIGINT", value: 100 }] },
  );
  const expected = EDITS.filter(
    (edit) => edit.channel === "#en.wikipedia" && new Date(edit.time) >= instant && edit.added > 100,
  ).length;
  assert.deepEqual((await result.table()).get(0)!.toJSON(), { n: BigInt(expected), big, half: 0.5 });
  const nothing = await client.query("SELECT COUNT(*) AS n FROM wikipedia WHERE channel = ?", { parameters: [null] });
  assert.equal((await nothing.table()).get(0)!.n, 0n);
});

test("context and id go with the statement", async () => {
  const task = await client.run(ingestion("by_id"), { id: "mine", context: { maxNumTasks: 2, sqlQueryId: "not-this" } });
  assert.equal(task.taskId, "query-mine");
  const context = JSON.parse((await client.task("query-mine")).contextJson) as Record<string, unknown>;
  assert.deepEqual([context.maxNumTasks, context.sqlQueryId], [2, "mine"]);
  const own = await client.submit("SELECT 1", { context: { sqlQueryId: "own" } });
  assert.deepEqual(own, { taskId: "query-own", queryId: "own" });
  await client.wait(own);
});

test("lists, schema, segments, workers, locks", async () => {
  const ids = new Set<string>();
  for await (const task of client.tasks({ datasource: "wikipedia", states: [State.SUCCESS] })) ids.add(task.taskId);
  assert.equal(ids.size, 1);
  const datasource = (await client.datasources()).find(({ name }) => name === "wikipedia");
  assert.equal(datasource?.rowCount, BigInt(EDITS.length));
  assert.deepEqual(
    (await client.schema("wikipedia")).map(({ name, type }) => [name, type]),
    [
      ["__time", "LONG"],
      ["channel", "STRING"],
      ["page", "STRING"],
      ["user", "STRING"],
      ["added", "LONG"],
      ["deleted", "LONG"],
    ],
  );
  let rows = 0n;
  const days = new Set<string>();
  for await (const segment of client.segments("wikipedia")) {
    rows += segment.rowCount;
    days.add(segment.interval.slice(0, 10));
  }
  assert.equal(rows, BigInt(EDITS.length));
  assert.deepEqual([...days].sort(), [...new Set(EDITS.map((edit) => edit.time.slice(0, 10)))].sort());
  assert.deepEqual(
    (await client.workers()).map(({ slotCount }) => slotCount),
    [2],
  );
  assert.deepEqual(await client.locks(), []);
});

test("a signature from a sample, and a plan", async () => {
  const source = { type: "inline", data: '{"a":1,"b":"x"}\n{"a":2.5,"b":"y"}' };
  const inferred = await client.inferSignature(source, { type: "json" });
  assert.equal(inferred.sampledRecordCount, 2n);
  assert.deepEqual(
    inferred.columns.map(({ name, type }) => [name, type]),
    [
      ["a", "DOUBLE"],
      ["b", "STRING"],
    ],
  );
  const id = { id: "plan" };
  const plan = await client.explain("SELECT channel FROM wikipedia", id);
  assert.equal((JSON.parse(plan.attributesJson) as { statementType: string }).statementType, "SELECT");
  assert.deepEqual(await client.explain("EXPLAIN PLAN FOR SELECT channel FROM wikipedia", id), plan);
});
