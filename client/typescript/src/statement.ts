import { create } from "@bufbuild/protobuf";
import { ParameterSchema, type Parameter } from "./gen/trilith/task/v1/task_service_pb.js";

/** A value that JSON has, and bigint, which is written as a number with all its digits. */
export type JsonValue = string | number | bigint | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** Query context by Druid's names, for example `{ maxNumTasks: 3 }`. */
export type QueryContext = Readonly<Record<string, JsonValue | undefined>>;

/** A value for a `?` with its SQL type: VARCHAR, BIGINT, DOUBLE, FLOAT, BOOLEAN, TIMESTAMP, DATE or ARRAY. */
export interface TypedParameter {
  readonly type: string;
  readonly value: JsonValue;
}

/**
 * A value for a `?` of a statement.
 *
 * string is VARCHAR, boolean BOOLEAN, bigint and whole numbers BIGINT, other numbers DOUBLE, Date TIMESTAMP, arrays ARRAY,
 * null a VARCHAR that is NULL; `{ type, value }` says it.
 */
export type ParameterValue = string | number | bigint | boolean | null | Date | readonly JsonValue[] | TypedParameter;

/** JSON text; entries that are undefined are left out. Throws TypeError for numbers that JSON does not have. */
export function jsonOf(value: JsonValue | QueryContext): string {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`JSON has no ${value}`);
  if (Array.isArray(value)) return `[${(value as readonly JsonValue[]).map(jsonOf).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter((entry): entry is [string, JsonValue] => entry[1] !== undefined);
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${jsonOf(item)}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

/** The parameter as the server takes it. */
export function parameterOf(value: ParameterValue): Parameter {
  const { type, value: json } = typed(value);
  return create(ParameterSchema, { type, valueJson: jsonOf(json) });
}

function typed(value: ParameterValue): TypedParameter {
  if (value === null || typeof value === "string") return { type: "VARCHAR", value };
  if (typeof value === "boolean") return { type: "BOOLEAN", value };
  if (typeof value === "bigint") return { type: "BIGINT", value };
  if (typeof value === "number") return { type: Number.isSafeInteger(value) ? "BIGINT" : "DOUBLE", value };
  if (value instanceof Date) return { type: "TIMESTAMP", value: value.getTime() };
  if (Array.isArray(value)) return { type: "ARRAY", value: value as readonly JsonValue[] };
  return value as TypedParameter;
}

/** A random UUID. `crypto.randomUUID` would be missing in pages that come by plain http. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
