import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import { chromium, type BrowserContext } from "playwright-core";
import type { Outcome } from "./page.js";
import { PACKAGE, Server } from "./server.js";
import { EDITS, editsByChannel, extern, ingestion } from "./wikipedia.js";

const CHROMIUM = "/usr/bin/chromium";
const ARGUMENTS = [
  ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
  ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
];
const QUERY = "SELECT channel, COUNT(*) AS edits FROM wikipedia GROUP BY 1 ORDER BY 2 DESC, 1";
const skip = existsSync(CHROMIUM) ? false : `${CHROMIUM} is not there (apt-get install chromium)`;

let allowing: Server;
let silent: Server;
let pages: HttpServer;
let profile: string;
let browser: BrowserContext;

before(async () => {
  if (skip) return;
  const bundle = await build({
    entryPoints: [join(PACKAGE, "build/test/page.js")],
    bundle: true,
    format: "esm",
    platform: "browser",
    write: false,
  });
  pages = createServer((request, response) => {
    const script = request.url === "/page.js";
    response.setHeader("content-type", script ? "text/javascript" : "text/html");
    response.end(script ? bundle.outputFiles[0]!.text : '<!doctype html><body><script type="module" src="/page.js"></script>');
  });
  pages.listen(0, "127.0.0.1");
  await once(pages, "listening");
  allowing = await Server.start("--allow-origin", origin());
  silent = await Server.start();
  profile = mkdtempSync(join(tmpdir(), "trilith-chromium-"));
  browser = await chromium.launchPersistentContext(profile, { executablePath: CHROMIUM, args: ARGUMENTS });
});

after(async () => {
  if (skip) return;
  await browser.close();
  pages.close();
  await Promise.all([allowing.stop(), silent.stop()]);
  rmSync(profile, { recursive: true, force: true });
});

function origin(): string {
  return `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
}

/** Opens the page with settings and returns what became of it; the picture is for people. */
async function open(settings: Record<string, string>, picture?: string): Promise<{ outcome: Outcome; log: string }> {
  const page = await browser.newPage();
  const log: string[] = [];
  page.on("console", (message) => log.push(message.text()));
  await page.goto(`${origin()}/?${new URLSearchParams({ deadlineMs: "30000", query: QUERY, ...settings }).toString()}`);
  const done = page.locator("body[data-outcome]");
  const outcome = await done.getAttribute("data-outcome", { timeout: 30_000 });
  if (picture !== undefined) await page.screenshot({ path: join(PACKAGE, "build", picture) });
  await page.close();
  return { outcome: JSON.parse(outcome!) as Outcome, log: log.join("\n") };
}

test("a page ingests, sees progress and reads rows", { skip }, async () => {
  const settings = { address: allowing.grpc, ingestion: ingestion("wikipedia"), token: "secret" };
  const { outcome, log } = await open(settings, "browser.png");
  assert.equal(outcome.error, undefined, log);
  assert.ok(outcome.updates > 1, "progress before the end");
  assert.equal(outcome.pushed, String(EDITS.length));
  assert.deepEqual(
    outcome.rows,
    editsByChannel().map(({ channel, edits }) => ({ channel, edits: String(edits) })),
  );
  assert.equal(readFileSync(join(PACKAGE, "build/browser.png")).subarray(1, 4).toString(), "PNG");
});

test("a page gets typed errors", { skip }, async () => {
  const sql = await open({ address: allowing.grpc, ingestion: "SELECT 1,\n  nope FROM wikipedia" });
  assert.deepEqual([sql.outcome.error?.name, sql.outcome.error?.errorCode, sql.outcome.error?.line], ["InvalidInputError", "invalidInput", "2"]);
  const timeless = `INSERT INTO timeless SELECT TIME_PARSE("page") AS __time FROM ${extern()} PARTITIONED BY DAY`;
  const failed = await open({ address: allowing.grpc, ingestion: timeless });
  assert.deepEqual([failed.outcome.error?.name, failed.outcome.error?.errorCode], ["TaskFailedError", "InsertTimeNull"]);
  const query = await open({ address: allowing.grpc, ingestion: ingestion("wikipedia"), query: "SELECT nope FROM wikipedia" });
  assert.deepEqual([query.outcome.error?.name, query.outcome.error?.line], ["InvalidInputError", "1"]);
});

test("a page whose origin is not allowed is refused by the browser", { skip }, async () => {
  const { outcome, log } = await open({ address: silent.grpc, ingestion: ingestion("wikipedia"), deadlineMs: "300" });
  assert.equal(outcome.error?.name, "UnavailableError");
  assert.match(log, /blocked by CORS policy/);
});
