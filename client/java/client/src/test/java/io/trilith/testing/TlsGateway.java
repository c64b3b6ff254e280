package io.trilith.testing;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.HandlerRegistry;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCredentials;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status;
import io.grpc.TlsServerCredentials;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.NettyServerBuilder;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Stands before a server: speaks TLS, lets calls with one bearer token through, whatever method they call, and remembers
 * these methods.
 */
public final class TlsGateway implements AutoCloseable {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final ManagedChannel backend;
    private final Server front;
    private final String expected;
    private final Set<String> passed = ConcurrentHashMap.newKeySet();

    /** A gateway on a free port. */
    public TlsGateway(String serverAddress, TestCertificates certificates, String token) throws IOException {
        expected = "Bearer " + token;
        backend = NettyChannelBuilder.forTarget(serverAddress, InsecureChannelCredentials.create()).build();
        ServerCredentials tls = TlsServerCredentials.newBuilder()
                .keyManager(certificates.keyManagers())
                .build();
        front = NettyServerBuilder.forAddress(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), tls)
                .fallbackHandlerRegistry(new AnyMethod())
                .build()
                .start();
    }

    /** {@code https://host:port}. */
    public String address() {
        return "https://127.0.0.1:" + front.getPort();
    }

    /** Methods that were let through, {@code package.Service/Method}. */
    public Set<String> passed() {
        return Set.copyOf(passed);
    }

    @Override
    public void close() {
        front.shutdownNow();
        backend.shutdownNow();
    }

    private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
        @Override
        public InputStream stream(byte[] value) {
            return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException failure) {
                throw new UncheckedIOException(failure);
            }
        }
    }

    private final class AnyMethod extends HandlerRegistry {
        @Override
        public ServerMethodDefinition<?, ?> lookupMethod(String name, String authority) {
            MethodDescriptor<byte[], byte[]> method = MethodDescriptor.<byte[], byte[]>newBuilder()
                    .setType(MethodDescriptor.MethodType.BIDI_STREAMING)
                    .setFullMethodName(name)
                    .setRequestMarshaller(new Bytes())
                    .setResponseMarshaller(new Bytes())
                    .build();
            return ServerMethodDefinition.create(method, (call, headers) -> forward(method, call, headers));
        }
    }

    private ServerCall.Listener<byte[]> forward(
            MethodDescriptor<byte[], byte[]> method, ServerCall<byte[], byte[]> call, Metadata headers) {
        if (!expected.equals(headers.get(AUTHORIZATION))) {
            call.close(Status.UNAUTHENTICATED.withDescription("no token"), new Metadata());
            return new ServerCall.Listener<>() {};
        }
        passed.add(method.getFullMethodName());
        ClientCall<byte[], byte[]> onward = backend.newCall(method, CallOptions.DEFAULT);
        onward.start(new Answers(call), new Metadata());
        call.request(1);
        return new Requests(call, onward);
    }

    /** From the server to the client. */
    private static final class Answers extends ClientCall.Listener<byte[]> {
        private final ServerCall<byte[], byte[]> call;

        Answers(ServerCall<byte[], byte[]> call) {
            this.call = call;
        }

        @Override
        public void onHeaders(Metadata headers) {
            call.sendHeaders(headers);
        }

        @Override
        public void onMessage(byte[] message) {
            call.sendMessage(message);
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            call.close(status, trailers);
        }
    }

    /** From the client to the server. */
    private static final class Requests extends ServerCall.Listener<byte[]> {
        private final ServerCall<byte[], byte[]> call;
        private final ClientCall<byte[], byte[]> onward;

        Requests(ServerCall<byte[], byte[]> call, ClientCall<byte[], byte[]> onward) {
            this.call = call;
            this.onward = onward;
        }

        @Override
        public void onMessage(byte[] message) {
            onward.sendMessage(message);
            call.request(1);
        }

        @Override
        public void onHalfClose() {
            onward.halfClose();
            // The test's results are small: no need to hold them back.
            onward.request(Integer.MAX_VALUE);
        }

        @Override
        public void onCancel() {
            onward.cancel("the client went away", null);
        }
    }
}
