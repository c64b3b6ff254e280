import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { DATA, PACKAGE, Server } from "./server.js";
import { editsByChannel } from "./wikipedia.js";

const run = promisify(execFile);

let server: Server;
let project: string;
let packed: string[];

before(async () => {
  server = await Server.start();
  project = mkdtempSync(join(tmpdir(), "trilith-package-"));
  const npm = (...args: string[]) => execFileSync("npm", args, { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  // `pretest` built it.
  const answer = npm("pack", PACKAGE, "--json", "--ignore-scripts");
  const tarballs = Object.values(JSON.parse(answer) as Record<string, { filename: string; files: { path: string }[] }>);
  packed = tarballs[0]!.files.map(({ path }) => path);
  writeFileSync(join(project, "package.json"), '{"private":true,"type":"module"}');
  npm("install", "--prefer-offline", "--no-audit", "--no-fund", join(project, tarballs[0]!.filename));
});

after(async () => {
  rmSync(project, { recursive: true, force: true });
  await server.stop();
});

/** Runs a module in the project; it must end by itself. */
async function execute(text: string): Promise<string> {
  writeFileSync(join(project, "main.mjs"), text);
  const env = { ...process.env, TRILITH_ADDRESS: server.grpc, TRILITH_DATA: DATA };
  return (await run(process.execPath, ["main.mjs"], { cwd: project, env, timeout: 30_000 })).stdout;
}

test("the package holds what it exports, and nothing else", () => {
  const manifest = JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf8")) as {
    exports: Record<string, Record<string, string>>;
  };
  for (const file of Object.values(manifest.exports).flatMap((entry) => Object.values(entry))) {
    assert.ok(packed.includes(file.slice(2)), file);
  }
  assert.deepEqual(
    packed.filter((path) => !/^dist\/.+\.(js|d\.ts)$/.test(path)).sort(),
    ["NOTICE", "README.md", "package.json"],
  );
  assert.deepEqual(
    packed.filter((path) => /worker/.test(path)),
    [],
  );
});

test("the README's example runs from the package", async () => {
  const readme = readFileSync(join(PACKAGE, "README.md"), "utf8");
  const example = /## An ingestion and a query[^]*?```js\n([^]*?)```/.exec(readme)?.[1];
  assert.ok(example);
  const output = await execute(example);
  assert.match(output, /scan: \d+, segmentGenerator: \d+/);
  for (const { channel, edits } of editsByChannel().slice(0, 3)) {
    assert.match(output, new RegExp(`'${channel}'[^\\n]*${edits}n`));
  }
});

test("a program that leaves its rows and waits early ends by itself", async () => {
  const output = await execute(`
    import { connect } from "@trilith/client/node";
    const client = connect(process.env.TRILITH_ADDRESS);
    for await (const batch of await client.query("SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b")) break;
    await (await client.query("SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b")).close();
    const task = await client.submit("SELECT COUNT(*) FROM wikipedia");
    for await (const update of client.watch(task)) break;
    await client.wait(task);
    console.log("done");
  `);
  assert.equal(output, "done\n");
});
