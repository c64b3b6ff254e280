import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import type { Task } from "./gen/trilith/task/v1/task_service_pb.js";

export { Code };

const DOMAIN = "trilith";

/** What is known of a failure. */
export interface ErrorDetail {
  /** gRPC code. */
  readonly code: Code;
  /** Druid's error code, "invalidInput", "notFound", …; "general" when the server gave none. */
  readonly errorCode: string;
  /** "INVALID_INPUT", "NOT_FOUND", "SERVICE_UNAVAILABLE", … */
  readonly category: string;
  /** Who can do something about it: "USER", "ADMIN", "OPERATOR" or "DEVELOPER". */
  readonly persona: string;
  /** Details by name; for SQL errors `line` and `column`, counted from 1. Values are texts. */
  readonly context: Readonly<Record<string, string>>;
  /** How long the server asks to wait before the next try, in milliseconds. */
  readonly retryAfterMs?: number | undefined;
}

/** A call that failed. Every error of this package that a server or the network causes is one. */
export class TrilithError extends Error implements ErrorDetail {
  override readonly name: string = "TrilithError";
  readonly code: Code;
  readonly errorCode: string;
  readonly category: string;
  readonly persona: string;
  readonly context: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;

  constructor(message: string, detail: ErrorDetail, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = detail.code;
    this.errorCode = detail.errorCode;
    this.category = detail.category;
    this.persona = detail.persona;
    this.context = detail.context;
    this.retryAfterMs = detail.retryAfterMs;
  }
}

/** The statement, the context or another argument is wrong. */
export class InvalidInputError extends TrilithError {
  override readonly name = "InvalidInputError";
}
/** The token is missing or wrong. */
export class UnauthorizedError extends TrilithError {
  override readonly name = "UnauthorizedError";
}
/** The caller may not do this. */
export class ForbiddenError extends TrilithError {
  override readonly name = "ForbiddenError";
}
/** No such task, query or datasource. */
export class NotFoundError extends TrilithError {
  override readonly name = "NotFoundError";
}
/** Something else stands in the way. */
export class ConflictError extends TrilithError {
  override readonly name = "ConflictError";
}
/** A limit of the server is reached. */
export class CapacityExceededError extends TrilithError {
  override readonly name = "CapacityExceededError";
}
/** The caller's signal, or somebody else's cancel, stopped it. */
export class CanceledError extends TrilithError {
  override readonly name = "CanceledError";
}
/** The deadline passed. Whether the server did what was asked is not known. */
export class TimeoutError extends TrilithError {
  override readonly name = "TimeoutError";
}
/** Trilith does not do this. */
export class UnsupportedError extends TrilithError {
  override readonly name = "UnsupportedError";
}
/** The server cannot be reached or does not take calls now. */
export class UnavailableError extends TrilithError {
  override readonly name = "UnavailableError";
}

/** A task ended with STATE_FAILED. No call failed, so `code` is Code.Unknown; `errorCode` is Druid's fault code. */
export class TaskFailedError extends TrilithError {
  override readonly name = "TaskFailedError";
  /** Controller task id. */
  readonly taskId: string;
  /** The fault's own fields, for example `maxWarnings`; without code and message. */
  readonly fields: Readonly<Record<string, unknown>>;

  constructor(readonly task: Task) {
    const fault = task.fault;
    const errorCode = fault?.errorCode ?? "UnknownError";
    super(fault?.errorMessage || task.errorMessage || `task ${task.taskId} failed`, {
      code: Code.Unknown,
      errorCode,
      category: errorCode === "Canceled" ? "CANCELED" : "UNCATEGORIZED",
      persona: "USER",
      context: {},
    });
    this.taskId = task.taskId;
    const all = Object.entries(objectOf(fault?.fieldsJson ?? "{}"));
    this.fields = Object.fromEntries(all.filter(([name]) => name !== "errorCode" && name !== "errorMessage"));
  }
}

const CLASSES: Readonly<Record<string, typeof TrilithError>> = {
  INVALID_INPUT: InvalidInputError,
  UNAUTHORIZED: UnauthorizedError,
  FORBIDDEN: ForbiddenError,
  NOT_FOUND: NotFoundError,
  CONFLICT: ConflictError,
  CAPACITY_EXCEEDED: CapacityExceededError,
  CANCELED: CanceledError,
  TIMEOUT: TimeoutError,
  UNSUPPORTED: UnsupportedError,
  SERVICE_UNAVAILABLE: UnavailableError,
};

const CATEGORIES: Readonly<Partial<Record<Code, string>>> = {
  [Code.InvalidArgument]: "INVALID_INPUT",
  [Code.FailedPrecondition]: "INVALID_INPUT",
  [Code.OutOfRange]: "INVALID_INPUT",
  [Code.Unauthenticated]: "UNAUTHORIZED",
  [Code.PermissionDenied]: "FORBIDDEN",
  [Code.NotFound]: "NOT_FOUND",
  [Code.Aborted]: "CONFLICT",
  [Code.AlreadyExists]: "CONFLICT",
  [Code.ResourceExhausted]: "CAPACITY_EXCEEDED",
  [Code.Canceled]: "CANCELED",
  [Code.DeadlineExceeded]: "TIMEOUT",
  [Code.Unimplemented]: "UNSUPPORTED",
  [Code.Unavailable]: "SERVICE_UNAVAILABLE",
  [Code.Internal]: "RUNTIME_FAILURE",
};

/** The typed error for a gRPC code, where no server said more. */
export function errorOfCode(code: Code, message: string, cause?: unknown): TrilithError {
  const category = CATEGORIES[code] ?? "UNCATEGORIZED";
  const detail = { code, errorCode: "general", category, persona: "OPERATOR", context: {} };
  return new (CLASSES[category] ?? TrilithError)(message, detail, cause);
}

/**
 * The typed error for whatever a call threw.
 *
 * An aborted `signal` wins: TimeoutError if it was AbortSignal.timeout's, else CanceledError, with the signal's reason as cause.
 */
export function errorOf(reason: unknown, signal?: AbortSignal): TrilithError {
  if (reason instanceof TrilithError) return reason;
  if (signal?.aborted) {
    const timedOut = signal.reason instanceof Error && signal.reason.name === "TimeoutError";
    const [code, message] = timedOut
      ? [Code.DeadlineExceeded, "the signal's time is over"]
      : [Code.Canceled, "the caller's signal stopped the call"];
    return errorOfCode(code, message, signal.reason);
  }
  const error = ConnectError.from(reason);
  const info = error.findDetails(ErrorInfoSchema).find((detail) => detail.domain === DOMAIN);
  if (info === undefined) return errorOfCode(codeOf(error), error.rawMessage, error);
  const category = info.metadata.category ?? CATEGORIES[error.code] ?? "UNCATEGORIZED";
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const detail = {
    code: error.code,
    errorCode: info.metadata.errorCode ?? "general",
    category,
    persona: info.metadata.persona ?? "OPERATOR",
    context: objectOf(info.metadata.context ?? "{}") as Record<string, string>,
    retryAfterMs: delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6,
  };
  return new (CLASSES[category] ?? TrilithError)(error.rawMessage, detail, error);
}

/** Code of a failure; a call that broke off before any status came counts as unavailable. */
function codeOf(error: ConnectError): Code {
  const answered = error.metadata.has("grpc-status");
  const broken = [Code.Aborted, Code.Canceled, Code.Unknown].includes(error.code);
  const reset = error.code === Code.Internal && (error.cause instanceof Error || error.rawMessage.startsWith("http/2 "));
  return !answered && (broken || reset) ? Code.Unavailable : error.code;
}

function objectOf(json: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
