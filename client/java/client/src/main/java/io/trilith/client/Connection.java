package io.trilith.client;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Deadline;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.trilith.datasource.v1.DatasourceServiceGrpc;
import io.trilith.datasource.v1.DatasourceServiceGrpc.DatasourceServiceBlockingStub;
import io.trilith.query.v1.QueryServiceGrpc;
import io.trilith.query.v1.QueryServiceGrpc.QueryServiceBlockingStub;
import io.trilith.task.v1.TaskServiceGrpc;
import io.trilith.task.v1.TaskServiceGrpc.TaskServiceBlockingStub;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import org.apache.arrow.flight.FlightClient;
import org.apache.arrow.flight.FlightGrpcUtils;
import org.apache.arrow.memory.BufferAllocator;
import org.apache.arrow.memory.RootAllocator;

/** One channel with all services and Flight on it, and what must be closed with it. */
final class Connection implements AutoCloseable {
    private static final Duration CLOSE_PATIENCE = Duration.ofSeconds(5);

    private final ManagedChannel channel;
    private final Duration timeout;
    private final Duration streamTimeout;
    private final BufferAllocator callersAllocator;
    private final Set<Runnable> open = ConcurrentHashMap.newKeySet();
    private final ExecutorService background = Executors.newCachedThreadPool(Connection::daemon);
    private BufferAllocator allocator;
    private FlightClient flight;

    /** {@code callersAllocator} may be null. */
    Connection(ManagedChannel channel, Duration timeout, Duration streamTimeout, BufferAllocator callersAllocator) {
        this.channel = channel;
        this.timeout = timeout;
        this.streamTimeout = streamTimeout;
        this.callersAllocator = callersAllocator;
    }

    private static Thread daemon(Runnable work) {
        Thread thread = new Thread(work, "trilith-client");
        thread.setDaemon(true);
        return thread;
    }

    /** For one call with all its tries. */
    Deadline deadline() {
        return Deadline.after(timeout.toNanos(), TimeUnit.NANOSECONDS);
    }

    /** For reading all rows of a result. */
    Deadline streamDeadline() {
        return Deadline.after(streamTimeout.toNanos(), TimeUnit.NANOSECONDS);
    }

    Retry retry(Deadline deadline) {
        return new Retry(channel, deadline);
    }

    /** A call that may be made again. */
    <T> T read(Function<Deadline, T> call) {
        Deadline deadline = deadline();
        return retry(deadline).run(tries -> call.apply(deadline));
    }

    /** A call that must not be made again. */
    <T> T once(Function<Deadline, T> call) {
        return Failures.translated(() -> call.apply(deadline()));
    }

    TaskServiceBlockingStub tasks(Deadline deadline) {
        return TaskServiceGrpc.newBlockingStub(channel).withDeadline(deadline);
    }

    QueryServiceBlockingStub queries(Deadline deadline) {
        return QueryServiceGrpc.newBlockingStub(channel).withDeadline(deadline);
    }

    DatasourceServiceBlockingStub datasources(Deadline deadline) {
        return DatasourceServiceGrpc.newBlockingStub(channel).withDeadline(deadline);
    }

    /** Made when it is first used: Arrow wants a Java option that callers without rows need not give. */
    synchronized FlightClient flight() {
        if (flight == null) {
            flight = FlightGrpcUtils.createFlightClientWithSharedChannel(allocator(), channel);
        }
        return flight;
    }

    /** Where rows live. */
    synchronized BufferAllocator allocator() {
        if (allocator == null) {
            allocator = callersAllocator == null ? new RootAllocator() : callersAllocator;
        }
        return allocator;
    }

    /** Threads for those who do not want to wait themselves. */
    ExecutorService background() {
        return background;
    }

    /** Remembers how to close what must not outlive the connection. */
    void opened(Runnable close) {
        open.add(close);
    }

    void closed(Runnable close) {
        open.remove(close);
    }

    @Override
    public void close() {
        background.shutdownNow();
        List.copyOf(open).forEach(Runnable::run);
        try {
            closeFlight();
            channel.shutdownNow().awaitTermination(CLOSE_PATIENCE.toMillis(), TimeUnit.MILLISECONDS);
        } catch (InterruptedException interrupted) {
            channel.shutdownNow();
            Thread.currentThread().interrupt();
        }
    }

    private synchronized void closeFlight() throws InterruptedException {
        if (flight != null) {
            flight.close();
        }
        if (allocator != null && allocator != callersAllocator) {
            allocator.close();
        }
    }

    /** Adds {@code authorization: Bearer …} to every call. */
    static ClientInterceptor bearer(String token) {
        Metadata.Key<String> key = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
        return new ClientInterceptor() {
            @Override
            public <Q, R> ClientCall<Q, R> interceptCall(
                    MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
                return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
                    @Override
                    public void start(Listener<R> listener, Metadata headers) {
                        headers.put(key, "Bearer " + token);
                        super.start(listener, headers);
                    }
                };
            }
        };
    }
}
