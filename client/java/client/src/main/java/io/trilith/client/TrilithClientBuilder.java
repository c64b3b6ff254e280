package io.trilith.client;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import org.apache.arrow.memory.BufferAllocator;

/** Says how to reach a server. */
public final class TrilithClientBuilder {
    private static final int MESSAGE_BYTES_MAX = 1 << 30;
    private static final Duration KEEP_ALIVE = Duration.ofSeconds(20);

    private final String address;
    private byte[] caCertificates;
    private String serverName;
    private String token;
    private Duration timeout = Duration.ofSeconds(30);
    private Duration streamTimeout = Duration.ofHours(1);
    private BufferAllocator allocator;

    TrilithClientBuilder(String address) {
        this.address = address;
    }

    /** Trusts the certificates (PEM) of this file, instead of the system's. Needs an {@code https://} address. */
    public TrilithClientBuilder caCertificates(Path pem) {
        try {
            return caCertificates(Files.readAllBytes(pem));
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    /** Trusts these certificates (PEM), instead of the system's. Needs an {@code https://} address. */
    public TrilithClientBuilder caCertificates(byte[] pem) {
        this.caCertificates = pem.clone();
        return this;
    }

    /** Name that the server's certificate must have, instead of the address's host. Needs an {@code https://} address. */
    public TrilithClientBuilder serverName(String name) {
        this.serverName = name;
        return this;
    }

    /** Sends {@code authorization: Bearer …} with every call. */
    public TrilithClientBuilder token(String token) {
        this.token = token;
        return this;
    }

    /** Time for a call with all its tries. Default 30 s. */
    public TrilithClientBuilder timeout(Duration timeout) {
        this.timeout = timeout;
        return this;
    }

    /** Time for reading all rows of a result. Default one hour. */
    public TrilithClientBuilder streamTimeout(Duration timeout) {
        this.streamTimeout = timeout;
        return this;
    }

    /** Where rows are kept; stays open when the client is closed. Default: one of the client's own, without a limit. */
    public TrilithClientBuilder allocator(BufferAllocator allocator) {
        this.allocator = allocator;
        return this;
    }

    /** The client. It connects when it is first used. Throws {@link IllegalArgumentException} for a malformed address. */
    public TrilithClient connect() {
        URI uri = parse(address);
        boolean tls = uri.getScheme().equals("https");
        if (!tls && (caCertificates != null || serverName != null)) {
            throw new IllegalArgumentException("CA certificates and a server name need an https:// address");
        }
        ManagedChannelBuilder<?> builder = Grpc.newChannelBuilderForAddress(
                        uri.getHost(), port(uri), tls ? tlsCredentials() : InsecureChannelCredentials.create())
                .maxInboundMessageSize(MESSAGE_BYTES_MAX)
                .keepAliveTime(KEEP_ALIVE.toSeconds(), TimeUnit.SECONDS)
                .keepAliveWithoutCalls(true);
        if (serverName != null) {
            builder.overrideAuthority(serverName);
        }
        if (token != null) {
            builder.intercept(Connection.bearer(token));
        }
        ManagedChannel channel = builder.build();
        return new TrilithClient(new Connection(channel, timeout, streamTimeout, allocator));
    }

    private static URI parse(String address) {
        String text = address.contains("://") ? address : "http://" + address;
        try {
            URI uri = new URI(text);
            boolean known = "http".equals(uri.getScheme()) || "https".equals(uri.getScheme());
            if (known && uri.getHost() != null) {
                return uri;
            }
        } catch (URISyntaxException malformed) {
            throw new IllegalArgumentException("server address [" + address + "]: " + malformed.getReason(), malformed);
        }
        throw new IllegalArgumentException(
                "server address [" + address + "] is none of host:port, http://host:port, https://host:port");
    }

    private static int port(URI uri) {
        if (uri.getPort() >= 0) {
            return uri.getPort();
        }
        return uri.getScheme().equals("https") ? 443 : 80;
    }

    private ChannelCredentials tlsCredentials() {
        if (caCertificates == null) {
            return TlsChannelCredentials.create();
        }
        try {
            return TlsChannelCredentials.newBuilder()
                    .trustManager(new ByteArrayInputStream(caCertificates))
                    .build();
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }
}
