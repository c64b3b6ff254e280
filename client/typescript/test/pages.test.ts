import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect, type TrilithClient } from "@trilith/client/node";
import { Gate } from "./proxy.js";
import { Server } from "./server.js";
import { EDITS, extern, rowsOf } from "./wikipedia.js";

let server: Server;
let gate: Gate;
let client: TrilithClient;
let storage: string;

before(async () => {
  storage = mkdtempSync(join(tmpdir(), "trilith-durable-"));
  server = await Server.start("--durable-storage", `file://${storage}`);
  gate = await Gate.open(server.grpc);
  client = connect(gate.address);
});

after(async () => {
  client.close();
  await gate.close();
  await server.stop();
  rmSync(storage, { recursive: true, force: true });
});

test("results that were kept as pages come in order, a page when its turn comes", async () => {
  const context = { selectDestination: "durableStorage", rowsPerPage: 10_000 };
  const task = await client.run(`SELECT page, added FROM ${extern()} ORDER BY added DESC, page`, { context });
  const pages = (await client.report(task)).results!.pages;
  assert.equal(pages.length, Math.ceil(EDITS.length / 10_000));

  const opened = () => gate.calls.filter(({ path }) => path.endsWith("/DoGet")).length;
  const rows = await client.results(task);
  assert.equal(opened(), 1);
  const read = rowsOf(await rows.table()).map(({ page, added }) => [page, Number(added)]);
  assert.equal(opened(), pages.length);
  const bytes = (text: string) => Buffer.from(text);
  const expected = EDITS.map(({ page, added }) => [page, added] as const);
  expected.sort((a, b) => b[1] - a[1] || Buffer.compare(bytes(a[0]), bytes(b[0])));
  assert.deepEqual(read, expected);
});

test("every type of the server is decoded", async () => {
  const result = await client.query(`SELECT 9007199254740993 AS long_value, CAST(1.5 AS DOUBLE) AS double_value,
    CAST(0.5 AS FLOAT) AS float_value, 1 = 1 AS boolean_value, SUBSTRING('päge', 2, 2) AS string_value, CAST(NULL AS VARCHAR) AS none,
    TIMESTAMP '2015-09-12 00:46:58.771' AS time_value, ARRAY[1, 2] AS longs, ARRAY['a', NULL] AS strings,
    JSON_OBJECT('a':ARRAY[1]) AS json`);
  const [row] = rowsOf(await result.table());
  const { longs, strings, ...scalars } = row as Record<string, unknown> & { longs: Iterable<bigint>; strings: Iterable<string | null> };
  assert.deepEqual(scalars, {
    long_value: 9_007_199_254_740_993n,
    double_value: 1.5,
    float_value: 0.5,
    boolean_value: true,
    string_value: "äg",
    none: null,
    time_value: Date.parse("2015-09-12T00:46:58.771Z"),
    json: '{"a":[1]}',
  });
  assert.deepEqual([[...longs], [...strings]], [
    [1n, 2n],
    ["a", null],
  ]);
  assert.deepEqual(
    result.columns.map(({ sqlType }) => sqlType),
    ["BIGINT", "DOUBLE", "FLOAT", "BOOLEAN", "VARCHAR", "VARCHAR", "TIMESTAMP", "ARRAY", "ARRAY", "OTHER"],
  );
});

test("no rows are a table with columns", async () => {
  const empty = await (await client.query("SELECT 1 AS n, 'x' AS t WHERE 1 = 0")).table();
  assert.deepEqual([empty.numRows, empty.schema.fields.map(({ name }) => name)], [0, ["n", "t"]]);
});
