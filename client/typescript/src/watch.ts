import type { Client as Stub } from "@connectrpc/connect";
import { errorOf, TimeoutError, UnavailableError } from "./errors.js";
import { State, type Task, type TaskService } from "./gen/trilith/task/v1/task_service_pb.js";
import type { TaskReport } from "./gen/trilith/task/v1/report_pb.js";
import { Backoff, closing, Deadline, pause, timedOut } from "./retry.js";

/** A stream is renewed after this time, so that one that died unnoticed does not last for ever. */
const STREAM_MS = 600_000;

/** A task as it stands. */
export interface TaskUpdate {
  readonly task: Task;
  /** Stages, counters, phases. Unset until the controller has planned the statement. */
  readonly report?: TaskReport | undefined;
}

/** How to follow a task. */
export interface WatchOptions {
  readonly signal?: AbortSignal | undefined;
  /** Shortest time between two updates, in milliseconds. Default 200, at least 20. */
  readonly intervalMs?: number | undefined;
  /** Milliseconds until TimeoutError. Default: no limit. The task goes on. */
  readonly timeoutMs?: number | undefined;
}

/** True for STATE_SUCCESS and STATE_FAILED. */
export function isFinal(state: State): boolean {
  return state === State.SUCCESS || state === State.FAILED;
}

/**
 * Updates until a final state. The stream is opened again when it breaks: until `timeoutMs`, or without one
 * until nothing was heard for `outageMs`.
 */
export async function* watchTask(
  stub: Stub<typeof TaskService>,
  taskId: string,
  options: WatchOptions,
  outageMs: number,
): AsyncGenerator<TaskUpdate, void> {
  const limit = options.timeoutMs === undefined ? undefined : new Deadline(options.timeoutMs);
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal]);
  const backoff = new Backoff();
  let outage: Deadline | undefined;
  for (;;) {
    const call = { signal, timeoutMs: Math.min(STREAM_MS, limit?.remainingMs() ?? STREAM_MS) };
    try {
      const request = { taskId, intervalMs: options.intervalMs ?? 0 };
      for await (const update of closing(stub.watchTask(request, call), stop)) {
        outage = undefined;
        backoff.reset();
        if (update.task === undefined) continue;
        yield { task: update.task, report: update.report };
        if (isFinal(update.task.state)) return;
      }
    } catch (reason) {
      const error = errorOf(reason, options.signal);
      if (limit?.passed()) throw timedOut(`task ${taskId}`, limit.totalMs);
      const renewed = error instanceof TimeoutError && !options.signal?.aborted;
      if (!renewed && !(error instanceof UnavailableError)) throw error;
      outage ??= limit ?? new Deadline(outageMs);
      const delay = backoff.next(error);
      if (outage !== limit && delay >= outage.remainingMs()) throw error;
      await pause(Math.min(delay, outage.remainingMs()), options.signal);
    }
  }
}
