import assert from "node:assert/strict";
import { test } from "node:test";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb";
import * as trilith from "@trilith/client";

const { TaskService, TrilithClient } = trilith;

/** A client of a server that answers GetTask with the errors given, then with a task. */
function answering(...errors: ConnectError[]) {
  const at: number[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(TaskService, {
      getTask({ taskId }) {
        at.push(performance.now());
        const error = errors.shift();
        if (error !== undefined) throw error;
        return { task: { taskId } };
      },
    });
  });
  return { client: new TrilithClient(transport, { deadlineMs: 5_000 }), at };
}

async function thrown(error: ConnectError): Promise<trilith.TrilithError> {
  return answering(error)
    .client.task("query-x")
    .then(
      () => assert.fail("expected an error"),
      (reason: unknown) => reason as trilith.TrilithError,
    );
}

/** As it comes from a server, which is told by its status; one that broke off has none. */
function status(code: Code, details: ConstructorParameters<typeof ConnectError>[3] = []): ConnectError {
  return new ConnectError("as the server said", code, { "grpc-status": String(code) }, details);
}

function detail(category: string, errorCode: string) {
  const metadata = { errorCode, category, persona: "ADMIN", context: '{"limit":"7"}' };
  return { domain: "trilith", reason: "X", metadata };
}

test("a status without details maps from its code", async () => {
  const cases: [Code, string, string][] = [
    [Code.InvalidArgument, "InvalidInputError", "INVALID_INPUT"],
    [Code.FailedPrecondition, "InvalidInputError", "INVALID_INPUT"],
    [Code.Unauthenticated, "UnauthorizedError", "UNAUTHORIZED"],
    [Code.PermissionDenied, "ForbiddenError", "FORBIDDEN"],
    [Code.NotFound, "NotFoundError", "NOT_FOUND"],
    [Code.Aborted, "ConflictError", "CONFLICT"],
    [Code.ResourceExhausted, "CapacityExceededError", "CAPACITY_EXCEEDED"],
    [Code.Canceled, "CanceledError", "CANCELED"],
    [Code.DeadlineExceeded, "TimeoutError", "TIMEOUT"],
    [Code.Unimplemented, "UnsupportedError", "UNSUPPORTED"],
    [Code.Internal, "TrilithError", "RUNTIME_FAILURE"],
    [Code.DataLoss, "TrilithError", "UNCATEGORIZED"],
  ];
  for (const [code, name, category] of cases) {
    const error = await thrown(status(code));
    assert.deepEqual(
      [error.name, error.code, error.category, error.errorCode, error.message, error.context],
      [name, code, category, "general", "as the server said", {}],
    );
  }
});

test("the category of the details decides", async () => {
  const about = (category: string) => ({ desc: ErrorInfoSchema, value: detail(category, "someCode") });
  const error = await thrown(status(Code.Internal, [about("CAPACITY_EXCEEDED")]));
  assert.ok(error instanceof trilith.CapacityExceededError);
  assert.deepEqual([error.code, error.errorCode, error.persona, error.context], [Code.Internal, "someCode", "ADMIN", { limit: "7" }]);
  const unknown = await thrown(status(Code.Internal, [about("NEW_CATEGORY")]));
  assert.deepEqual([unknown.name, unknown.category], ["TrilithError", "NEW_CATEGORY"]);
  const foreign = { desc: ErrorInfoSchema, value: { ...detail("NOT_FOUND", "x"), domain: "elsewhere" } };
  assert.equal((await thrown(status(Code.Internal, [foreign]))).errorCode, "general");
});

test("the server says how long to wait", async () => {
  const info = { desc: ErrorInfoSchema, value: detail("SERVICE_UNAVAILABLE", "unavailable") };
  const delay = { desc: RetryInfoSchema, value: { retryDelay: { seconds: 0n, nanos: 400_000_000 } } };
  const { client, at } = answering(status(Code.Unavailable, [info, delay]), status(Code.Unavailable));
  assert.equal((await client.task("query-x")).taskId, "query-x");
  assert.equal(at.length, 3);
  assert.ok(at[1]! - at[0]! >= 395, "not before it may");
  assert.ok(at[2]! - at[1]! >= 95, "grows from try to try");

  const impatient = answering(status(Code.Unavailable, [info, delay])).client.task("query-x", { deadlineMs: 300 });
  await assert.rejects(impatient, (error) => error instanceof trilith.UnavailableError && error.retryAfterMs === 400);
});

test("a wait between tries ends with the caller's signal", async () => {
  const info = { desc: ErrorInfoSchema, value: detail("SERVICE_UNAVAILABLE", "unavailable") };
  const long = { desc: RetryInfoSchema, value: { retryDelay: { seconds: 4n, nanos: 0 } } };
  const start = performance.now();
  const call = answering(status(Code.Unavailable, [info, long])).client.task("query-x", { signal: AbortSignal.timeout(50) });
  await assert.rejects(call, trilith.TimeoutError);
  assert.ok(performance.now() - start < 2_000);
});
