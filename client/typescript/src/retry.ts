import { errorOf, errorOfCode, Code, TrilithError, UnavailableError } from "./errors.js";

const BACKOFF_MS = 100;
const BACKOFF_MAX_MS = 2_000;
/** Longest time that timers know. */
const TIMER_MAX_MS = 0x7fffffff;

/** How long a call may take, and what stops it. */
export interface CallOptions {
  /** Stops the call; it then rejects with CanceledError, or TimeoutError for AbortSignal.timeout. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds for the call with all its tries. Default: the client's `deadlineMs`. */
  readonly deadlineMs?: number | undefined;
}

/** What one try gets. */
export interface Try {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs: number;
}

/** A point in time that does not move with the wall clock. */
export class Deadline {
  private readonly end: number;

  constructor(readonly totalMs: number) {
    this.end = performance.now() + totalMs;
  }

  /** Milliseconds left, at least 1 as 0 would mean no limit. */
  remainingMs(): number {
    return Math.min(TIMER_MAX_MS, Math.max(1, Math.ceil(this.end - performance.now())));
  }

  passed(): boolean {
    return performance.now() >= this.end;
  }
}

/** Grows from try to try, with jitter, so that callers who lost the same server do not return together. */
export class Backoff {
  private tries = 0;

  /** Milliseconds to wait before the next try, not less than what the server asked for. */
  next(error: TrilithError): number {
    const full = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** this.tries++);
    return Math.max(full * (0.5 + Math.random() / 2), error.retryAfterMs ?? 0);
  }

  reset(): void {
    this.tries = 0;
  }
}

/** Waits; rejects with a typed error as soon as `signal` is aborted. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted) throw errorOf(signal.reason, signal);
  await new Promise<void>((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(errorOf(signal?.reason, signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** One try; whatever it throws becomes a typed error. */
export async function once<T>(options: CallOptions, deadlineMs: number, call: (options: Try) => Promise<T>): Promise<T> {
  const timeoutMs = new Deadline(options.deadlineMs ?? deadlineMs).remainingMs();
  try {
    return await call({ signal: options.signal, timeoutMs });
  } catch (reason) {
    throw errorOf(reason, options.signal);
  }
}

/** Tries again while the server is unavailable and the deadline has not passed. `number` counts the tries from 0. */
export async function retrying<T>(
  options: CallOptions,
  deadlineMs: number,
  call: (options: Try, number: number) => Promise<T>,
): Promise<T> {
  const deadline = new Deadline(options.deadlineMs ?? deadlineMs);
  const backoff = new Backoff();
  for (let number = 0; ; number++) {
    try {
      return await call({ signal: options.signal, timeoutMs: deadline.remainingMs() }, number);
    } catch (reason) {
      const error = errorOf(reason, options.signal);
      if (!(error instanceof UnavailableError)) throw error;
      const delay = backoff.next(error);
      if (delay >= deadline.remainingMs()) throw error;
      await pause(delay, options.signal);
    }
  }
}

/** The error of a wait that took longer than its caller allowed. */
export function timedOut(what: string, ms: number): TrilithError {
  return errorOfCode(Code.DeadlineExceeded, `${what} did not end within ${ms} ms`);
}

/**
 * The messages of a stream. Left early, it aborts `stop`, which must be what ends the call, and waits until it did: Connect's
 * streams do neither by themselves, and keep a timer until the deadline.
 */
export async function* closing<T>(stream: AsyncIterable<T>, stop: AbortController): AsyncGenerator<T, void> {
  const messages = stream[Symbol.asyncIterator]();
  let ended = false;
  try {
    for (;;) {
      ended = true; // A next() that throws ends the stream, too.
      const message = await messages.next();
      if (message.done) return;
      ended = false;
      yield message.value;
    }
  } finally {
    if (!ended) {
      stop.abort();
      await drained(messages);
    }
  }
}

/** Reads what had arrived before the abort, and the abort. */
async function drained(messages: AsyncIterator<unknown>): Promise<void> {
  try {
    while (!(await messages.next()).done);
  } catch {
    // The abort itself, or the failure that came before it: nobody reads on.
  }
}
