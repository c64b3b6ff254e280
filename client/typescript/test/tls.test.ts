import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect, UnavailableError, type ConnectOptions } from "@trilith/client/node";
import { Gate } from "./proxy.js";
import { Server } from "./server.js";
import { EDITS, ingestion } from "./wikipedia.js";

const NAME = "trilith.test";
const skip = spawnSync("openssl", ["version"]).status === 0 ? false : "openssl, which makes the certificates, is not installed";

let server: Server;
let directory: string;
let gate: Gate;

/** An authority, and a certificate of it for NAME. */
function certificates(): { key: string; cert: string } {
  const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test authority");
  openssl("req", ...key, "-keyout", "server.key", "-out", "server.csr", "-subj", `/CN=${NAME}`);
  writeFileSync(join(directory, "names"), `subjectAltName=DNS:${NAME}`);
  const signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"];
  openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", ...signing);
  const [privateKey, cert] = ["server.key", "server.pem"].map((file) => readFileSync(join(directory, file), "utf8"));
  return { key: privateKey!, cert: cert! };
}

before(async () => {
  if (skip) return;
  directory = mkdtempSync(join(tmpdir(), "trilith-tls-"));
  server = await Server.start();
  gate = await Gate.open(server.grpc, certificates());
});

after(async () => {
  if (skip) return;
  await gate.close();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
});

test("TLS with a token, which every call carries", { skip }, async () => {
  const caFile = join(directory, "ca.pem");
  for (const tls of [
    { caFile, serverName: NAME },
    { ca: readFileSync(caFile, "utf8"), serverName: NAME },
    { ca: readFileSync(caFile), serverName: NAME },
  ]) {
    gate.calls.length = 0;
    const client = connect(`https://${gate.address}`, { tls, token: "secret" });
    await client.run(ingestion("wikipedia"));
    const result = await client.query("SELECT COUNT(*) AS n FROM wikipedia");
    assert.equal((await result.table()).get(0)!.n, BigInt(EDITS.length));
    client.close();
    assert.deepEqual(
      gate.calls.map(({ path, authorization }) => [path.split("/").at(-1), authorization]),
      ["SubmitTask", "WatchTask", "RunQuery", "DoGet"].map((method) => [method, "Bearer secret"]),
    );
  }
});

test("without a token there is none", { skip }, async () => {
  gate.calls.length = 0;
  const client = connect(`https://${gate.address}`, { tls: { caFile: join(directory, "ca.pem"), serverName: NAME } });
  await client.workers();
  client.close();
  assert.deepEqual(
    gate.calls.map(({ authorization }) => authorization),
    [undefined],
  );
});

test("an unknown authority and a wrong name are refused", { skip }, async () => {
  gate.calls.length = 0;
  const caFile = join(directory, "ca.pem");
  const refused: [ConnectOptions, RegExp][] = [
    [{ tls: { serverName: NAME } }, /certificate/],
    [{ tls: { caFile } }, /altnames|does not match/],
    [{ tls: { caFile, serverName: "other.test" } }, /altnames|does not match/],
  ];
  for (const [options, message] of refused) {
    const client = connect(`https://${gate.address}`, { ...options, deadlineMs: 2_000 });
    await assert.rejects(client.workers(), (error) => error instanceof UnavailableError && message.test(error.message));
    client.close();
  }
  assert.equal(gate.calls.length, 0);
  assert.throws(() => connect(`https://${gate.address}`, { tls: { caFile: join(directory, "none.pem") } }), /ENOENT/);
});
