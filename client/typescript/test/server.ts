import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

/** This package's directory; tests run from it. */
export const PACKAGE = process.cwd();
const REPOSITORY = resolve(PACKAGE, "../..");
/** Directory with the bundled input files, which every server may read. */
export const DATA = join(REPOSITORY, "tests/data");

function binary(): string {
  return process.env.TRILITH_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(REPOSITORY, "target"), "debug/trilith");
}

/** A server process of a test, with a data directory of its own. */
export class Server {
  private constructor(
    private readonly directory: string,
    private readonly arguments_: readonly string[],
    private process: ChildProcess,
    /** "127.0.0.1:port" of gRPC, Flight and gRPC-web. */
    readonly grpc: string,
    private readonly http: string,
  ) {}

  static async start(...arguments_: string[]): Promise<Server> {
    const directory = mkdtempSync(join(tmpdir(), "trilith-ts-"));
    const [process, addresses] = await launch(directory, "127.0.0.1:0", "127.0.0.1:0", arguments_);
    return new Server(directory, arguments_, process, addresses.grpc, addresses.http);
  }

  /** As a crash would. */
  async kill(): Promise<void> {
    await end(this.process, "SIGKILL");
  }

  /** Starts again what was killed, with the same data and the same ports. */
  async restart(): Promise<void> {
    [this.process] = await launch(this.directory, this.http, this.grpc, this.arguments_);
  }

  async stop(): Promise<void> {
    await end(this.process, "SIGTERM");
    rmSync(this.directory, { recursive: true, force: true });
  }
}

async function end(process: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return;
  const exit = once(process, "exit");
  process.kill(signal);
  await exit;
}

async function launch(
  directory: string,
  http: string,
  grpc: string,
  more: readonly string[],
): Promise<[ChildProcess, { http: string; grpc: string }]> {
  const fixed = ["--data-dir", directory, "--http-address", http, "--grpc-address", grpc, "--allow-local", DATA];
  const child = spawn(binary(), ["server", ...fixed, "--worker-slots", "2", ...more], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, RUST_LOG: "warn" },
  });
  const log: string[] = [];
  child.stderr.on("data", (text: Buffer) => log.push(text.toString()));
  // once() rejects when the program cannot be started at all.
  const ended = once(child, "exit").then(
    () => log.join(""),
    (reason: unknown) => String(reason),
  );
  const failed = ended.then((why) => {
    throw new Error(`${binary()} (TRILITH_BIN names another one) did not start: ${why}`);
  });
  const [line] = (await Promise.race([once(createInterface({ input: child.stdout }), "line"), failed])) as [string];
  failed.catch(() => undefined);
  return [child, JSON.parse(line) as { http: string; grpc: string }];
}
