import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";

/** A TCP proxy that can lose what the server says. */
export class Wire {
  /** Bytes that went from the server to the client. */
  received = 0;
  private mute = false;
  private readonly sockets = new Set<net.Socket>();

  private constructor(private readonly listener: net.Server) {}

  /** "127.0.0.1:port". */
  get address(): string {
    return addressOf(this.listener);
  }

  static async open(target: string): Promise<Wire> {
    const listener = net.createServer();
    const wire = new Wire(listener);
    listener.on("connection", (client) => {
      wire.join(client, net.connect(Number(target.split(":")[1]), "127.0.0.1"));
    });
    listener.listen(0, "127.0.0.1");
    await once(listener, "listening");
    return wire;
  }

  private join(client: net.Socket, server: net.Socket): void {
    client.pipe(server);
    server.on("data", (bytes: Buffer) => {
      if (this.mute) return;
      this.received += bytes.length;
      if (!client.write(bytes)) {
        server.pause();
        client.once("drain", () => server.resume());
      }
    });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.sockets.add(one);
      one.on("error", () => undefined);
      one.on("close", () => {
        this.sockets.delete(one);
        other.destroy();
      });
    }
  }

  /** From now on what the server says is lost, until `cut`. */
  muffle(): void {
    this.mute = true;
  }

  /** Ends all connections: with a reset, or in an orderly way. New ones work. */
  cut(how: "reset" | "end" = "reset"): void {
    this.mute = false;
    for (const socket of this.sockets) {
      if (how === "reset") socket.resetAndDestroy();
      else socket.end();
    }
  }

  async close(): Promise<void> {
    this.cut();
    this.listener.close();
    await once(this.listener, "close");
  }
}

/** One call that went through a `Gate`. */
export interface Call {
  readonly path: string;
  readonly authorization: string | undefined;
  /** HTTP/2 code with which the client closed it. */
  readonly closed: Promise<number>;
}

/** An HTTP/2 proxy that writes down what it forwards; with a key and a certificate it speaks TLS. */
export class Gate {
  readonly calls: Call[] = [];

  private constructor(
    private readonly listener: http2.Http2Server | http2.Http2SecureServer,
    private readonly upstream: http2.ClientHttp2Session,
  ) {}

  /** "127.0.0.1:port". */
  get address(): string {
    return addressOf(this.listener);
  }

  static async open(target: string, tls?: { key: string; cert: string }): Promise<Gate> {
    const listener = tls ? http2.createSecureServer({ ...tls, ALPNProtocols: ["h2"] }) : http2.createServer();
    const gate = new Gate(listener, http2.connect(`http://${target}`));
    listener.on("stream", (stream, headers) => {
      gate.forward(stream, headers);
    });
    listener.listen(0, "127.0.0.1");
    await once(listener, "listening");
    return gate;
  }

  private forward(stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders): void {
    const closed = new Promise<number>((resolve) => {
      stream.on("close", () => {
        resolve(stream.rstCode);
      });
    });
    this.calls.push({ path: headers[":path"] as string, authorization: headers.authorization, closed });
    const ofThisHop = [":authority", ":scheme"];
    const answer = this.upstream.request(Object.fromEntries(Object.entries(headers).filter(([name]) => !ofThisHop.includes(name))));
    let trailers: http2.IncomingHttpHeaders = {};
    answer.on("response", (response) => {
      stream.respond(response, { waitForTrailers: true });
      answer.pipe(stream);
    });
    answer.on("trailers", (given: http2.IncomingHttpHeaders) => {
      trailers = given;
    });
    stream.on("wantTrailers", () => {
      stream.sendTrailers(trailers);
    });
    for (const end of [stream, answer]) end.on("error", () => undefined);
    void closed.then((code) => {
      answer.close(code);
    });
    stream.pipe(answer);
  }

  async close(): Promise<void> {
    this.upstream.destroy();
    this.listener.close();
    await once(this.listener, "close");
  }
}

function addressOf(listener: net.Server | http2.Http2Server | http2.Http2SecureServer): string {
  return `127.0.0.1:${(listener.address() as net.AddressInfo).port}`;
}
