import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { StructRow, Table } from "apache-arrow";
import { DATA } from "./server.js";

const FILE = "wikipedia-edits.json.gz";

/** One record of the bundled file, as far as tests look at it. */
export interface Edit {
  time: string;
  channel: string;
  page: string;
  user: string;
  added: number;
  deleted: number;
}

/** The records, read here and not by the server: what tests expect is counted from them. */
export const EDITS: readonly Edit[] = gunzipSync(readFileSync(join(DATA, FILE)))
  .toString()
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line) as Edit);

/** Edits by channel, most first; channels with equal counts by name. */
export function editsByChannel(): { channel: string; edits: number; added: number }[] {
  const sums = new Map<string, { channel: string; edits: number; added: number }>();
  for (const { channel, added } of EDITS) {
    const sum = sums.get(channel) ?? { channel, edits: 0, added: 0 };
    sum.edits += 1;
    sum.added += added;
    sums.set(channel, sum);
  }
  return [...sums.values()].sort((a, b) => b.edits - a.edits || (a.channel < b.channel ? -1 : 1));
}

/** `TABLE(EXTERN(…))` of the bundled file. */
export function extern(): string {
  const source = { type: "local", baseDir: DATA, filter: FILE };
  const columns = ["time", "channel", "page", "user"].map((name) => ({ name, type: "string" }));
  const signature = [...columns, { name: "added", type: "long" }, { name: "deleted", type: "long" }];
  const [sourceText, signatureText] = [source, signature].map((value) => JSON.stringify(value).replaceAll("'", "''"));
  return `TABLE(EXTERN('${sourceText}', '{"type":"json"}', '${signatureText}'))`;
}

/** Replaces a datasource by the bundled file. */
export function ingestion(datasource: string): string {
  return `REPLACE INTO "${datasource}" OVERWRITE ALL
    SELECT TIME_PARSE("time") AS __time, channel, page, "user", added, deleted FROM ${extern()}
    PARTITIONED BY DAY CLUSTERED BY channel`;
}

/** The rows of a table as plain objects. */
export function rowsOf(table: Table): Record<string, unknown>[] {
  return table.toArray().map((row: StructRow) => row.toJSON());
}

const EVERY_PAIR = (table: string) =>
  `SELECT COUNT(*) AS n FROM ${table} a CROSS JOIN ${table} b WHERE a.page || b.page = b."user" || a."user"`;
/** A task that goes on for minutes: every edit with every edit. */
export const ENDLESS_TASK = EVERY_PAIR(extern());
/** A query that does, on the datasource `wikipedia`. */
export const ENDLESS = EVERY_PAIR("wikipedia");
/** More rows than anybody reads to the end: 1.5 billion, of the datasource `wikipedia`. */
export const ROWS_WITHOUT_END = "SELECT a.page, b.channel, a.added FROM wikipedia a CROSS JOIN wikipedia b";
