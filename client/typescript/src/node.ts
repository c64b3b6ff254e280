import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { readFileSync } from "node:fs";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { baseUrl, bearer } from "./address.js";
import { TrilithClient } from "./client.js";

export * from "./index.js";

const PING_INTERVAL_MS = 20_000;
const PING_TIMEOUT_MS = 10_000;
const MESSAGE_BYTES_MAX = 2 ** 30;
/** What may be on its way unread, by stream and by connection; HTTP/2's 64 KiB would bound throughput by distance. */
const WINDOW_BYTES = 4 * 2 ** 20;

/** How to trust a server behind https. */
export interface TlsOptions {
  /** Certificates of authorities, PEM. Default: those of Node. */
  readonly ca?: string | Uint8Array | undefined;
  /** A file with them. */
  readonly caFile?: string | undefined;
  /** Name that the certificate must have, if it is not the address's host. */
  readonly serverName?: string | undefined;
}

/** Settings of a connection. */
export interface ConnectOptions {
  readonly tls?: TlsOptions | undefined;
  /** Sent as `authorization: Bearer …` with every call. */
  readonly token?: string | undefined;
  /** Milliseconds for a call with its retries, where the call says nothing else. Default 30,000. */
  readonly deadlineMs?: number | undefined;
}

/**
 * A client of "host:port" or "http://host:port" (plain text), or "https://host:port" (TLS), by gRPC over one HTTP/2 connection.
 *
 * Connects when it is first used, and again when the connection is lost. Throws TypeError for a malformed address, and what
 * reading `tls.caFile` throws.
 */
export function connect(address: string, options: ConnectOptions = {}): TrilithClient {
  const url = baseUrl(address);
  const ca = options.tls?.caFile === undefined ? options.tls?.ca : readFileSync(options.tls.caFile);
  const sessionManager = new Sessions(
    url,
    // Pings while calls run; a connection that was idle for longer is tried by a ping before it is used again.
    { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_TIMEOUT_MS },
    {
      settings: { initialWindowSize: WINDOW_BYTES },
      ...(ca === undefined ? {} : { ca: Buffer.from(ca) }),
      ...(options.tls?.serverName === undefined ? {} : { servername: options.tls.serverName }),
    },
  );
  const transport = createGrpcTransport({
    baseUrl: url,
    sessionManager,
    interceptors: bearer(options.token),
    readMaxBytes: MESSAGE_BYTES_MAX,
  });
  const onClose = () => {
    sessionManager.abort();
  };
  return new TrilithClient(transport, { deadlineMs: options.deadlineMs, onClose });
}

/** Widens the window of each connection that it opens. */
class Sessions extends Http2SessionManager {
  private readonly widened = new WeakSet<ClientHttp2Session>();

  override async request(...request: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    const stream = await super.request(...request);
    const session = stream.session as ClientHttp2Session | undefined;
    if (session !== undefined && !this.widened.has(session)) {
      this.widened.add(session);
      session.setLocalWindowSize(WINDOW_BYTES);
    }
    return stream;
  }
}
