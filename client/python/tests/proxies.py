"""What stands between client and server in tests: a proxy that loses an answer or speaks TLS, and a witness."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

HEADERS_FRAME = 1
FRAME_HEADER_BYTES = 9
CHUNK = 1 << 16


class Proxy:
    """Forwards TCP to a "host:port"; TLS towards the client if it is given a context.

    Once a client has sent `marker`, `losses` connections are cut when their answer comes, before it is forwarded.
    """

    def __init__(
        self,
        target: str,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        marker: bytes = b"",
        losses: int = 0,
    ) -> None:
        self.address = ""
        self.lost = 0
        self._target = target.rsplit(":", 1)
        self._host = host
        self._tls = tls
        self._marker = marker
        self._losses = losses
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, self._host, 0, ssl=self._tls)
        self.address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
        return server

    async def _end(self) -> None:
        self._server.close()
        running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        armed = asyncio.Event()
        pumps = [
            asyncio.create_task(self._requests(reader, upstream_writer, armed)),
            asyncio.create_task(self._answers(upstream_reader, writer, armed)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            upstream_writer.transport.abort()
            writer.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, armed: asyncio.Event
    ) -> None:
        seen = b""
        while data := await reader.read(CHUNK):
            if self.lost < self._losses and not armed.is_set():
                seen += data
                if self._marker in seen:
                    armed.set()
            writer.write(data)
            await writer.drain()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, armed: asyncio.Event
    ) -> None:
        while True:
            header = await reader.readexactly(FRAME_HEADER_BYTES)
            body = await reader.readexactly(int.from_bytes(header[:3], "big"))
            if armed.is_set() and header[3] == HEADERS_FRAME:
                self.lost += 1
                return
            writer.write(header + body)
            await writer.drain()


class Authority:
    """A certificate authority with one server certificate for "trilith.test"; `ca` is its own in PEM."""

    def __init__(self, folder: Path) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)

        def certificate(name: str, key: ec.EllipticCurvePrivateKey, issuer: str) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
                .public_key(key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - day)
                .not_valid_after(now + day)
            )

        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca = certificate("test authority", ca_key, "test authority").add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        names = [x509.DNSName("trilith.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.2"))]
        server = certificate("trilith.test", key, "test authority").add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        pem = serialization.Encoding.PEM
        self.ca = ca.sign(ca_key, hashes.SHA256()).public_bytes(pem)
        self._chain = folder / "server.pem"
        self._chain.write_bytes(
            server.sign(ca_key, hashes.SHA256()).public_bytes(pem)
            + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    def server_context(self) -> ssl.SSLContext:
        """What a server of HTTP/2 uses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._chain)
        context.set_alpn_protocols(["h2"])
        return context


class Witness(grpc.GenericRpcHandler):
    """Refuses every call with details, and remembers its method and metadata."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str | bytes]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of any method."""
        self.calls.append((details.method, dict(details.invocation_metadata)))

        def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
            context.set_trailing_metadata((("grpc-status-details-bin", refusal().SerializeToString()),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "come back later")

        return grpc.unary_unary_rpc_method_handler(refuse)


def refusal() -> status_pb2.Status:
    """A status with both kinds of details."""
    details = []
    for message in (
        error_details_pb2.ErrorInfo(
            domain="trilith",
            reason="QUERY_CAPACITY_EXCEEDED",
            metadata={
                "errorCode": "queryCapacityExceeded",
                "category": "CAPACITY_EXCEEDED",
                "persona": "USER",
                "context": '{"limit":"3"}',
            },
        ),
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000)),
    ):
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)
    return status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="come back later", details=details)


@contextmanager
def witness() -> Iterator[tuple[str, Witness]]:
    """The address of a witness, and it."""
    seen = Witness()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(seen,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", seen
    server.stop(None).wait()
