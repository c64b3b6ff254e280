import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { baseUrl, bearer } from "./address.js";
import { TrilithClient } from "./client.js";

export * from "./index.js";

/** Settings of a connection. */
export interface ConnectOptions {
  /** Sent as `authorization: Bearer …` with every call. */
  readonly token?: string | undefined;
  /** Milliseconds for a call with its retries, where the call says nothing else. Default 30,000. */
  readonly deadlineMs?: number | undefined;
}

/**
 * A client of "host:port" or "http://host:port", or "https://host:port", by gRPC-web. The server must allow the page's origin
 * (`--allow-origin`); a browser does not tell a refusal from a server that is down, both are UnavailableError.
 *
 * Throws TypeError for a malformed address.
 */
export function connect(address: string, options: ConnectOptions = {}): TrilithClient {
  const transport = createGrpcWebTransport({ baseUrl: baseUrl(address), interceptors: bearer(options.token) });
  return new TrilithClient(transport, { deadlineMs: options.deadlineMs });
}
