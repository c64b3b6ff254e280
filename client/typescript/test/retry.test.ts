import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import { connect, NotFoundError, State, TrilithError, UnavailableError, type TrilithClient } from "@trilith/client/node";
import { Wire } from "./proxy.js";
import { Server } from "./server.js";
import { EDITS, ENDLESS_TASK, ingestion, ROWS_WITHOUT_END } from "./wikipedia.js";

let server: Server;
let direct: TrilithClient;

before(async () => {
  server = await Server.start();
  direct = connect(server.grpc);
  await direct.run(ingestion("wikipedia"));
});

after(async () => {
  direct.close();
  await server.stop();
});

/** A client whose connection the test can break. */
async function through(t: TestContext): Promise<{ wire: Wire; client: TrilithClient }> {
  const wire = await Wire.open(server.grpc);
  const client = connect(wire.address);
  t.after(async () => {
    client.close();
    await wire.close();
  });
  return { wire, client };
}

/** A client of the server itself. */
function clientOf(t: TestContext): TrilithClient {
  const client = connect(server.grpc);
  t.after(() => {
    client.close();
  });
  return client;
}

/** Waits until a task runs or has run. A report comes later than the place in the list. */
async function started(taskId: string): Promise<void> {
  for (;;) {
    try {
      await direct.report(taskId);
      return;
    } catch (error) {
      if (!(error instanceof NotFoundError)) throw error;
    }
  }
}

for (const how of ["reset", "end"] as const) {
  test(`a submission whose answer is lost (${how}) runs once`, async (t) => {
    const { wire, client } = await through(t);
    await client.datasources();
    wire.muffle();
    const submitted = client.submit(ingestion(`lost_${how}`), { id: `lost-${how}` });
    await started(`query-lost-${how}`);
    wire.cut(how);
    const task = await submitted;
    assert.equal(task.taskId, `query-lost-${how}`);
    assert.equal((await client.wait(task)).state, State.SUCCESS);
    const ids: string[] = [];
    for await (const { taskId } of direct.tasks({ datasource: `lost_${how}` })) ids.push(taskId);
    assert.deepEqual(ids, [task.taskId]);
    const count = await (await direct.query(`SELECT COUNT(*) AS n FROM lost_${how}`)).table();
    assert.equal(count.get(0)!.n, BigInt(EDITS.length));
  });

  test(`a wait goes on when its connection breaks (${how})`, async (t) => {
    const { wire, client } = await through(t);
    let cuts = 0;
    const task = await client.run(ingestion(`broken_${how}`), {
      intervalMs: 20,
      onProgress: () => {
        if (cuts++ === 0) wire.cut(how);
      },
    });
    assert.equal(task.state, State.SUCCESS);
    assert.ok(cuts > 1);
  });

  test(`rows whose connection breaks are an error, not fewer rows (${how})`, async (t) => {
    const { wire, client } = await through(t);
    const rows = await client.query(ROWS_WITHOUT_END);
    let batches = 0;
    await assert.rejects(async () => {
      for await (const batch of rows) {
        assert.ok(batch.numRows > 0);
        if (batches++ === 0) wire.cut(how);
      }
    }, UnavailableError);
    assert.ok(batches > 0);
  });
}

test("calls wait for a server that starts again", async (t) => {
  const client = clientOf(t);
  await client.run(ingestion("before"), { id: "before" });
  await server.kill();
  const [task, listed] = [client.submit("SELECT 1", { id: "while-down" }), client.datasources()];
  const impatient = client.datasources({ deadlineMs: 300 });
  await assert.rejects(impatient, UnavailableError);
  await assert.rejects(client.query("SELECT 1"), UnavailableError);
  await server.restart();
  assert.equal((await client.wait(await task)).state, State.SUCCESS);
  assert.ok((await listed).some(({ name }) => name === "before"));
  assert.equal((await client.task("query-before")).state, State.SUCCESS);
});

test("a wait for a task outlives the server's restart", async (t) => {
  const client = clientOf(t);
  let killed = false;
  const waited = client.run(ENDLESS_TASK, {
    intervalMs: 20,
    onProgress: async ({ task }) => {
      if (killed || task.state !== State.RUNNING) return;
      killed = true;
      await server.kill();
      await server.restart();
    },
  });
  // The server fails what ran when it went down; the wait hears of it from the server that came after.
  await assert.rejects(waited, (error: unknown) => error instanceof TrilithError && error.name === "TaskFailedError");
  assert.ok(killed);
});

test("closing a client ends its calls", async () => {
  const client = connect(server.grpc);
  const rows = await client.query(ROWS_WITHOUT_END);
  client.close();
  await assert.rejects(rows.table(), TrilithError);
});
