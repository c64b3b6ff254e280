import { createClient, type Client as Stub, type Transport } from "@connectrpc/connect";
import { Code, errorOf, errorOfCode, InvalidInputError, TaskFailedError, TimeoutError } from "./errors.js";
import { FlightDescriptor_DescriptorType, FlightService, type FlightData } from "./gen/arrow/Flight_pb.js";
import { DatasourceService, type Datasource, type Segment } from "./gen/trilith/datasource/v1/datasource_service_pb.js";
import { QueryService, type InferSignatureResponse } from "./gen/trilith/query/v1/query_service_pb.js";
import type { Column, TaskReport } from "./gen/trilith/task/v1/report_pb.js";
import {
  State,
  TaskService,
  type Explanation,
  type Lock,
  type Task,
  type WorkerProcess,
} from "./gen/trilith/task/v1/task_service_pb.js";
import { closing, Deadline, once, retrying, type CallOptions } from "./retry.js";
import { QueryResult, RowStream } from "./rows.js";
import { jsonOf, parameterOf, uuid, type JsonValue, type ParameterValue, type QueryContext } from "./statement.js";
import { watchTask, type TaskUpdate, type WatchOptions } from "./watch.js";

const DEADLINE_MS = 30_000;
const ROWS_DEADLINE_MS = 3_600_000;
const PAGE_SIZE = 1_000;

/** Settings of a client. */
export interface ClientOptions {
  /** Milliseconds for a call with its retries, where the call says nothing else. Default 30,000. */
  readonly deadlineMs?: number | undefined;
  /** Called by `close`. */
  readonly onClose?: (() => void) | undefined;
}

/** What goes with a statement. */
export interface StatementOptions extends CallOptions {
  readonly context?: QueryContext | undefined;
  /** Values for the `?` of the statement, in order. */
  readonly parameters?: readonly ParameterValue[] | undefined;
  /** `sqlQueryId`. Default: the context's, else a fresh UUID. */
  readonly id?: string | undefined;
}

/** What goes with a statement whose rows are read. */
export interface RowsOptions {
  /** Milliseconds for reading all rows. Default 3,600,000. */
  readonly rowsDeadlineMs?: number | undefined;
}

/** How to wait for a task. */
export interface WaitOptions extends WatchOptions {
  /** Called with each update; the next one waits for a promise that it returns. */
  readonly onProgress?: ((update: TaskUpdate) => void | Promise<void>) | undefined;
  /** On timeout, cancel the task as well. Default false. */
  readonly cancelOnTimeout?: boolean | undefined;
}

/** A task: its id, or anything that has it. */
export type TaskRef = string | { readonly taskId: string };

/** A task that was submitted. */
export interface SubmittedTask {
  /** Controller task id, "query-" and `queryId`. */
  readonly taskId: string;
  /** `sqlQueryId`. */
  readonly queryId: string;
}

/** Which tasks to list. */
export interface TaskFilter {
  readonly states?: readonly State[] | undefined;
  readonly datasource?: string | undefined;
}

/**
 * A client of one server. Safe for any number of calls at once.
 *
 * Every call rejects with a TrilithError. Reads, and what can be repeated without harm, are tried again while the server is
 * unavailable, until their deadline.
 */
export class TrilithClient implements Disposable {
  /** The services themselves, for what this class does not have. Their calls neither retry nor throw TrilithError. */
  readonly rpc: {
    readonly tasks: Stub<typeof TaskService>;
    readonly queries: Stub<typeof QueryService>;
    readonly datasources: Stub<typeof DatasourceService>;
    readonly flight: Stub<typeof FlightService>;
  };
  private readonly deadlineMs: number;

  constructor(
    transport: Transport,
    private readonly options: ClientOptions = {},
  ) {
    this.deadlineMs = options.deadlineMs ?? DEADLINE_MS;
    this.rpc = {
      tasks: createClient(TaskService, transport),
      queries: createClient(QueryService, transport),
      datasources: createClient(DatasourceService, transport),
      flight: createClient(FlightService, transport),
    };
  }

  /** Closes the connection and ends the calls that run. */
  close(): void {
    this.options.onClose?.();
  }

  /** For `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Submits INSERT, REPLACE, DELETE or SELECT as a task and returns before it runs.
   *
   * A retry never runs the statement twice, as it carries the same `sqlQueryId`. An id that was taken before the first try is an
   * InvalidInputError with errorCode "entryAlreadyExists".
   */
  async submit(sql: string, options: StatementOptions = {}): Promise<SubmittedTask> {
    const { queryId, request } = statement(sql, options);
    const submitted = { taskId: `query-${queryId}`, queryId };
    const answer = await retrying(options, this.deadlineMs, async (call, number) => {
      try {
        return await this.rpc.tasks.submitTask(request, call);
      } catch (reason) {
        const error = errorOf(reason, options.signal);
        // The try before arrived, only its answer was lost.
        if (number > 0 && error instanceof InvalidInputError && error.errorCode === "entryAlreadyExists") return submitted;
        throw error;
      }
    });
    if (answer.taskId === "") {
      throw errorOfCode(Code.InvalidArgument, "EXPLAIN PLAN FOR makes no task; use explain()");
    }
    return submitted;
  }

  /** Plans a statement without running it; `sql` with or without EXPLAIN PLAN FOR before it. */
  async explain(sql: string, options: StatementOptions = {}): Promise<Explanation> {
    const text = /^\s*EXPLAIN\s/i.test(sql) ? sql : `EXPLAIN PLAN FOR ${sql}`;
    const { request } = statement(text, options);
    const answer = await retrying(options, this.deadlineMs, (call) => this.rpc.tasks.submitTask(request, call));
    return given(answer.explanation, "explanation");
  }

  /** Updates of a task, from now to its end; the last one has a final state. */
  watch(task: TaskRef, options: WatchOptions = {}): AsyncGenerator<TaskUpdate, void> {
    return watchTask(this.rpc.tasks, idOf(task), options, this.deadlineMs);
  }

  /**
   * Waits for the end of a task and returns it. Throws TaskFailedError when it failed; TimeoutError after `timeoutMs`, while the
   * task goes on.
   */
  async wait(task: TaskRef, options: WaitOptions = {}): Promise<Task> {
    let last: Task | undefined;
    try {
      for await (const update of this.watch(task, options)) {
        last = update.task;
        await options.onProgress?.(update);
      }
    } catch (error) {
      if (error instanceof TimeoutError && options.cancelOnTimeout) await this.cancel(task);
      throw error;
    }
    const ended = given(last, "task");
    if (ended.state === State.FAILED) throw new TaskFailedError(ended);
    return ended;
  }

  /** `submit`, then `wait`. */
  async run(sql: string, options: StatementOptions & WaitOptions = {}): Promise<Task> {
    return this.wait(await this.submit(sql, options), options);
  }

  /** One task, with its payload. */
  async task(task: TaskRef, options: CallOptions = {}): Promise<Task> {
    const answer = await this.read(options, (call) => this.rpc.tasks.getTask({ taskId: idOf(task) }, call));
    return given(answer.task, "task");
  }

  /** Tasks, newest first; further pages are fetched as the loop goes on. */
  async *tasks(filter: TaskFilter = {}, options: CallOptions = {}): AsyncGenerator<Task, void> {
    const request = { pageSize: PAGE_SIZE, states: [...(filter.states ?? [])], datasource: filter.datasource ?? "" };
    for (let pageToken = ""; ; ) {
      const page = await this.read(options, (call) => this.rpc.tasks.listTasks({ ...request, pageToken }, call));
      yield* page.tasks;
      if (page.nextPageToken === "") return;
      pageToken = page.nextPageToken;
    }
  }

  /** Asks a task to stop and returns its state after the call. Idempotent. */
  async cancel(task: TaskRef, options: CallOptions = {}): Promise<State> {
    return (await this.read(options, (call) => this.rpc.tasks.cancelTask({ taskId: idOf(task) }, call))).state;
  }

  /** The live report of a running task, or the stored one. `stages`, `rowsRead`, `rowsPushed`, … read it. */
  async report(task: TaskRef, options: CallOptions = {}): Promise<TaskReport> {
    const answer = await this.read(options, (call) => this.rpc.tasks.getTaskReport({ taskId: idOf(task) }, call));
    return given(answer.report, "report");
  }

  /** Runs a SELECT at once, without a task. Returns as soon as its columns are known. */
  async query(sql: string, options: StatementOptions & RowsOptions = {}): Promise<QueryResult> {
    const { request } = statement(sql, options);
    const answer = await once(options, this.deadlineMs, (call) => this.rpc.queries.runQuery(request, call));
    return QueryResult.start(this.stream(options), answer, options.signal);
  }

  /** Stops a query that runs. NotFoundError when none of this id does. */
  async cancelQuery(queryId: string, options: CallOptions = {}): Promise<void> {
    await once(options, this.deadlineMs, (call) => this.rpc.queries.cancelQuery({ queryId }, call));
  }

  /** Rows of a SELECT task that succeeded; of all its pages in order, if it kept them as pages. */
  async results(task: TaskRef, options: CallOptions & RowsOptions = {}): Promise<RowStream> {
    const descriptor = { type: FlightDescriptor_DescriptorType.PATH, path: [idOf(task)] };
    const info = await this.read(options, (call) => this.rpc.flight.getFlightInfo(descriptor, call));
    const tickets = info.endpoint.map((endpoint) => given(endpoint.ticket, "ticket").ticket);
    return RowStream.open(this.stream(options), tickets, options.signal);
  }

  /** Datasources that have visible segments, by name. */
  async datasources(options: CallOptions = {}): Promise<Datasource[]> {
    return (await this.read(options, (call) => this.rpc.datasources.listDatasources({}, call))).datasources;
  }

  /** Columns of a datasource, `__time` first. */
  async schema(datasource: string, options: CallOptions = {}): Promise<Column[]> {
    return (await this.read(options, (call) => this.rpc.datasources.getSchema({ datasource }, call))).columns;
  }

  /** Used segments of a datasource, by interval, version and partition; further pages are fetched as the loop goes on. */
  async *segments(datasource: string, options: CallOptions = {}): AsyncGenerator<Segment, void> {
    for (let pageToken = ""; ; ) {
      const request = { datasource, pageSize: PAGE_SIZE, pageToken };
      const page = await this.read(options, (call) => this.rpc.datasources.listSegments(request, call));
      yield* page.segments;
      if (page.nextPageToken === "") return;
      pageToken = page.nextPageToken;
    }
  }

  /** Locks on time chunks that tasks hold now; of one datasource or of all. */
  async locks(datasource = "", options: CallOptions = {}): Promise<Lock[]> {
    return (await this.read(options, (call) => this.rpc.tasks.listLocks({ datasource }, call))).locks;
  }

  /** Worker processes, the server's own among them. */
  async workers(options: CallOptions = {}): Promise<WorkerProcess[]> {
    return (await this.read(options, (call) => this.rpc.tasks.listWorkers({}, call))).workers;
  }

  /** Columns of external data, from a sample. `source` and `format` are Druid's inputSource and inputFormat. */
  async inferSignature(source: JsonValue, format: JsonValue, options: CallOptions = {}): Promise<InferSignatureResponse> {
    const request = { inputSourceJson: jsonOf(source), inputFormatJson: jsonOf(format) };
    return this.read(options, (call) => this.rpc.queries.inferSignature(request, call));
  }

  private read<T>(options: CallOptions, call: Parameters<typeof retrying<T>>[2]): Promise<T> {
    return retrying(options, this.deadlineMs, call);
  }

  private stream(options: RowsOptions) {
    const deadline = new Deadline(options.rowsDeadlineMs ?? ROWS_DEADLINE_MS);
    const flight = this.rpc.flight;
    return async function* (ticket: Uint8Array, signal: AbortSignal, stop: AbortController): AsyncGenerator<FlightData, void> {
      try {
        yield* closing(flight.doGet({ ticket }, { signal, timeoutMs: deadline.remainingMs() }), stop);
      } catch (reason) {
        throw errorOf(reason, signal);
      }
    };
  }
}

/** The request, always with a `sqlQueryId`, so that the server knows a retry when it sees one. */
function statement(sql: string, options: StatementOptions) {
  const own = options.context?.sqlQueryId;
  const queryId = options.id ?? (typeof own === "string" && own !== "" ? own : uuid());
  const contextJson = jsonOf({ ...options.context, sqlQueryId: queryId });
  return { queryId, request: { sql, contextJson, parameters: (options.parameters ?? []).map(parameterOf) } };
}

function idOf(task: TaskRef): string {
  return typeof task === "string" ? task : task.taskId;
}

function given<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw errorOfCode(Code.Internal, `the server sent no ${what}`);
  return value;
}
