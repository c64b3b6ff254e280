import { Table, type RecordBatch, type Schema } from "apache-arrow";
import { decode, type Decoded } from "./arrow.js";
import { CanceledError, Code, errorOf, errorOfCode, TrilithError } from "./errors.js";
import type { FlightData } from "./gen/arrow/Flight_pb.js";
import type { ResultColumn } from "./gen/trilith/task/v1/report_pb.js";

/** Starts the Flight stream of one ticket. `signal` stops it, `stop` is one way to abort that. What it throws is a TrilithError. */
export type OpenStream = (ticket: Uint8Array, signal: AbortSignal, stop: AbortController) => AsyncGenerator<FlightData, void>;

/**
 * Rows of a statement, batch by batch, in order. They can be read once.
 *
 * The server is not asked for more than the reader takes. Leaving the loop early, or `close`, stops the query.
 */
export class RowStream implements AsyncIterable<RecordBatch>, AsyncDisposable {
  private taken = false;

  /** Made by `Client.query` and `Client.results`. */
  protected constructor(
    /** Arrow schema of the batches. */
    readonly schema: Schema,
    private readonly source: AsyncGenerator<RecordBatch>,
    private readonly stop: AbortController,
  ) {}

  /** Opens the first ticket, so that its schema or error is known, and the others when their turn comes. */
  static async open(open: OpenStream, tickets: readonly Uint8Array[], signal?: AbortSignal): Promise<RowStream> {
    return new RowStream(...(await RowStream.parts(open, tickets, signal)));
  }

  protected static async parts(
    open: OpenStream,
    tickets: readonly Uint8Array[],
    signal?: AbortSignal,
  ): Promise<[Schema, AsyncGenerator<RecordBatch>, AbortController]> {
    const stop = new AbortController();
    const either = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
    const [first, ...others] = tickets;
    if (first === undefined) throw errorOfCode(Code.Internal, "the server named no ticket for the rows");
    try {
      const decoded = await decode(open(first, either, stop));
      return [decoded.schema, pages(decoded, others, (ticket) => decode(open(ticket, either, stop)), stop, either), stop];
    } catch (reason) {
      stop.abort();
      throw rowsError(reason, signal);
    }
  }

  /** The batches; none of them is empty. Throws TrilithError when the query fails on its way. */
  [Symbol.asyncIterator](): AsyncIterator<RecordBatch> {
    if (this.taken) throw new TypeError("rows can be read once");
    this.taken = true;
    return this.source;
  }

  /** All rows that are left, in memory. */
  async table(): Promise<Table> {
    const batches: RecordBatch[] = [];
    for await (const batch of this) batches.push(batch);
    return new Table(this.schema, batches);
  }

  /** Stops the query, if it still runs. Idempotent. */
  async close(): Promise<void> {
    this.taken = true;
    this.stop.abort();
    try {
      // What is under way comes to its end; a generator that was not started yet would not clean up on return().
      while (!(await this.source.next()).done);
    } catch (reason) {
      if (!(reason instanceof CanceledError)) throw reason;
    }
  }

  /** For `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Rows of a SELECT that ran at once. */
export class QueryResult extends RowStream {
  private constructor(
    /** `sqlQueryId`, for `Client.cancelQuery`. */
    readonly queryId: string,
    /** Columns with Druid's and SQL types, in the order of the SELECT list. */
    readonly columns: readonly ResultColumn[],
    ...parts: [Schema, AsyncGenerator<RecordBatch>, AbortController]
  ) {
    super(...parts);
  }

  /** Opens the stream of a query that was started. */
  static async start(
    open: OpenStream,
    query: { readonly queryId: string; readonly columns: readonly ResultColumn[]; readonly ticket: Uint8Array },
    signal?: AbortSignal,
  ): Promise<QueryResult> {
    return new QueryResult(query.queryId, query.columns, ...(await RowStream.parts(open, [query.ticket], signal)));
  }
}

async function* pages(
  first: Decoded,
  others: readonly Uint8Array[],
  open: (ticket: Uint8Array) => Promise<Decoded>,
  stop: AbortController,
  signal: AbortSignal,
): AsyncGenerator<RecordBatch> {
  try {
    yield* first.batches;
    for (const ticket of others) yield* (await open(ticket)).batches;
  } catch (reason) {
    throw rowsError(reason, signal);
  } finally {
    stop.abort();
  }
}

/** `open` throws typed errors only; what is neither of these nor an abort comes from Arrow's reader. */
function rowsError(reason: unknown, signal?: AbortSignal): TrilithError {
  if (reason instanceof TrilithError || signal?.aborted) return errorOf(reason, signal);
  const text = reason instanceof Error ? reason.message : String(reason);
  return errorOfCode(Code.Internal, `rows cannot be read: ${text}`, reason);
}
