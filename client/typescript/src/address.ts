import type { Interceptor } from "@connectrpc/connect";

/** Base URL for "host:port" (plain text), "http://…" or "https://…". Throws TypeError for anything else. */
export function baseUrl(address: string): string {
  const url = new URL(address.includes("://") ? address : `http://${address}`);
  if (!["http:", "https:"].includes(url.protocol)) {
    throw new TypeError(`server address [${address}]: use host:port, http://host:port or https://host:port`);
  }
  return url.origin;
}

/** Adds `authorization: Bearer …` to every call, Flight included. */
export function bearer(token: string | undefined): Interceptor[] {
  if (token === undefined) return [];
  return [
    (next) => (request) => {
      request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    },
  ];
}
