import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { constants } from "node:http2";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { connect, type TrilithClient } from "@trilith/client/node";
import { Gate, Wire } from "./proxy.js";
import { Server } from "./server.js";
import { EDITS, ENDLESS, ingestion, ROWS_WITHOUT_END } from "./wikipedia.js";

const MEBIBYTE = 2 ** 20;
const MILLION = 1_000_000;
setFlagsFromString("--expose-gc");
/** What is measured is held, not merely garbage that nobody collected yet. */
const collectGarbage = runInNewContext("gc") as () => void;
const HELD_CHECK_BATCHES = 20;
/** Some 300 bytes a row. */
const WIDE = `SELECT REPEAT(a.channel, 20) AS wide, a.added, b."user" FROM wikipedia a JOIN wikipedia b ON a.channel = b.channel LIMIT ${MILLION}`;

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

test("a million rows go through little memory", async () => {
  const wire = await Wire.open(server.grpc);
  const through = connect(wire.address);
  collectGarbage();
  const start = process.memoryUsage().arrayBuffers;
  const longest = 20 * Math.max(...EDITS.map((edit) => edit.channel.length));
  let rows = 0;
  let batches = 0;
  let peak = 0;
  for await (const batch of await through.query(WIDE)) {
    rows += batch.numRows;
    if (batches++ % HELD_CHECK_BATCHES === 0) {
      collectGarbage();
      peak = Math.max(peak, process.memoryUsage().arrayBuffers - start);
    }
    const wide = batch.getChild("wide")!.get(0) as string;
    assert.ok(wide.length <= longest && wide.startsWith("#"));
  }
  through.close();
  await wire.close();
  assert.equal(rows, MILLION);
  assert.ok(wire.received > 200 * MEBIBYTE, `${wire.received} bytes came`);
  assert.ok(peak < wire.received / 10, `${peak} bytes were held of ${wire.received}`);
});

test("the server sends no more than the reader takes", async () => {
  const wire = await Wire.open(server.grpc);
  const slow = connect(wire.address);
  const rows = (await slow.query(ROWS_WITHOUT_END))[Symbol.asyncIterator]();
  assert.equal((await rows.next()).done, false);
  // Meanwhile another reader gets a million rows.
  let others = 0;
  for await (const batch of await client.query(WIDE)) others += batch.numRows;
  assert.equal(others, MILLION);
  assert.ok(wire.received < 16 * MEBIBYTE, `${wire.received} bytes came for one batch`);
  await rows.return?.();
  slow.close();
  await wire.close();
});

test("leaving the loop, or close, stops the stream", async () => {
  const gate = await Gate.open(server.grpc);
  const through = connect(gate.address);
  const closed = () => gate.calls.filter(({ path }) => path.endsWith("/DoGet")).at(-1)!.closed;

  for await (const batch of await through.query(ROWS_WITHOUT_END)) {
    assert.ok(batch.numRows > 0);
    break;
  }
  assert.equal(await closed(), constants.NGHTTP2_CANCEL);

  const unread = await through.query(ROWS_WITHOUT_END);
  await unread.close();
  assert.equal(await closed(), constants.NGHTTP2_CANCEL);
  await unread.close();

  {
    await using waiting = await through.query(ENDLESS);
    assert.equal(waiting.schema.fields[0]!.name, "n");
  }
  assert.equal(await closed(), constants.NGHTTP2_CANCEL);
  await assert.rejects(unread.table(), TypeError, "rows can be read once");
  through.close();
  await gate.close();
});

test("a batch does not wait for the next one", async () => {
  // One batch, then nothing for minutes: the second part of the union joins everything with everything.
  const sql = `SELECT 1 AS n UNION ALL ${ENDLESS}`;
  await using rows = await client.query(sql, { rowsDeadlineMs: 20_000 });
  for await (const batch of rows) {
    assert.equal(batch.getChild("n")!.get(0), 1n);
    break;
  }
});
