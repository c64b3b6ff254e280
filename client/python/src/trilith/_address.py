"""Where a server is, and how a channel to it is made."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

MESSAGE_BYTES_MAX = 1 << 30
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Calls are tried again at our own pace; a channel that waits for minutes would make that useless.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True)
class Tls:
    """TLS of a connection. `ca` is a PEM file or its bytes; None takes the system's roots, or gRPC's if it has none.

    `server_name` is the name that the certificate must have, when it is not the host of the address.
    """

    ca: str | Path | bytes | None = None
    server_name: str | None = None

    def roots(self) -> bytes | None:
        """The roots in PEM. Errors: OSError when the file cannot be read."""
        if isinstance(self.ca, bytes):
            return self.ca
        file = self.ca or ssl.get_default_verify_paths().cafile
        return Path(file).read_bytes() if file else None


@dataclass(frozen=True)
class Address:
    """A parsed address: gRPC's target, and TLS if it is encrypted."""

    target: str
    tls: Tls | None

    @staticmethod
    def parse(address: str, tls: Tls | None) -> Address:
        """Reads "host:port" and "http://host:port" (plaintext unless `tls` is given), "https://host:port" (TLS).

        Errors: ValueError.
        """
        url = urlsplit(address if "://" in address else f"//{address}")
        if url.scheme not in ("", "http", "https", "grpc", "grpc+tcp", "grpc+tls"):
            raise ValueError(f"address [{address}] has the scheme [{url.scheme}]; use http or https")
        if not url.hostname or url.port is None or url.path not in ("", "/"):
            raise ValueError(f"address [{address}] is not host:port")
        encrypted = url.scheme in ("https", "grpc+tls")
        if tls is not None and url.scheme in ("http", "grpc", "grpc+tcp"):
            raise ValueError(f"address [{address}] is plaintext, but TLS options are given; use https://")
        if encrypted and tls is None:
            tls = Tls()
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        return Address(f"{host}:{url.port}", tls)

    def options(self) -> list[tuple[str, Any]]:
        """Options of a channel."""
        options = list(OPTIONS)
        if self.tls and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def channel(self) -> grpc.Channel:
        """A channel of blocking calls. It connects when it is first used."""
        if self.tls is None:
            return grpc.insecure_channel(self.target, options=self.options())
        return grpc.secure_channel(
            self.target, grpc.ssl_channel_credentials(self.tls.roots()), options=self.options()
        )

    def aio_channel(self) -> grpc.aio.Channel:
        """A channel of asyncio calls. It connects when it is first used."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.target, options=self.options())
        return grpc.aio.secure_channel(
            self.target, grpc.ssl_channel_credentials(self.tls.roots()), options=self.options()
        )


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Metadata of every call."""
    return (("authorization", f"Bearer {token}"),) if token else ()
