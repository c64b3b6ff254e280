package io.trilith.client;

import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Status;
import io.trilith.task.v1.WatchTaskRequest;
import io.trilith.task.v1.WatchTaskResponse;
import java.time.Duration;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * The updates of one task as they come; the last one has its final state. When the connection is lost the stream is
 * opened again. {@link #hasNext} waits for the next update and throws {@link CallTimeoutException} when the time allowed is
 * over. Not for several threads, but {@link #close} may be called from another one, which then throws {@link
 * CanceledException} from {@link #hasNext}.
 */
public final class TaskWatch implements Iterator<TaskUpdate>, AutoCloseable {
    /** A stream that is never closed by the server is opened again after this time. */
    private static final Duration LONGEST_STREAM = Duration.ofHours(1);
    /** How long a watch without a time limit tries to reach the server. */
    private static final Duration OUTAGE = Duration.ofMinutes(5);

    private final Connection connection;
    private final WatchTaskRequest request;
    private final Deadline deadline;
    private final Runnable close = this::close;
    private Retry retry;
    private Iterator<WatchTaskResponse> responses;
    private Context.CancellableContext context;
    private TaskUpdate next;
    private boolean ended;
    private volatile boolean closed;

    /** {@code timeout} may be null: no limit. */
    TaskWatch(Connection connection, String taskId, Duration timeout) {
        this.connection = connection;
        this.request = WatchTaskRequest.newBuilder().setTaskId(taskId).build();
        this.deadline = timeout == null ? null : Deadline.after(timeout.toNanos(), TimeUnit.NANOSECONDS);
        connection.opened(close);
    }

    @Override
    public boolean hasNext() {
        while (next == null && !ended) {
            Retry patience = patience();
            try {
                WatchTaskResponse response = Failures.translated(this::receive);
                if (response != null) {
                    next = update(response);
                    ended = next.ended();
                    retry = null;
                }
            } catch (UnavailableException failure) {
                stopStream();
                patience.pauseAfter(failure);
            } catch (CallTimeoutException failure) {
                stopStream();
                if (deadline != null && deadline.isExpired()) {
                    throw failure;
                }
            }
        }
        return next != null;
    }

    @Override
    public TaskUpdate next() {
        if (!hasNext()) {
            throw new NoSuchElementException("the task has ended");
        }
        TaskUpdate update = next;
        next = null;
        return update;
    }

    /** Stops watching; the task goes on. May be called again. */
    @Override
    public void close() {
        closed = true;
        connection.closed(close);
        stopStream();
    }

    private static TaskUpdate update(WatchTaskResponse response) {
        Optional<Report> report =
                response.hasReport() ? Optional.of(new Report(response.getReport())) : Optional.empty();
        return new TaskUpdate(response.getTask(), report);
    }

    /** One for an outage: it ends when an update comes. */
    private Retry patience() {
        if (retry == null) {
            Deadline until = deadline == null ? Deadline.after(OUTAGE.toSeconds(), TimeUnit.SECONDS) : deadline;
            retry = connection.retry(until);
        }
        return retry;
    }

    /** The next message; null when the stream ended before the task did. */
    private WatchTaskResponse receive() {
        Iterator<WatchTaskResponse> stream = stream();
        if (stream.hasNext()) {
            return stream.next();
        }
        stopStream();
        throw ErrorDetails.of(Status.Code.UNAVAILABLE, "the server ended the stream before the task ended")
                .exception(null);
    }

    private synchronized Iterator<WatchTaskResponse> stream() {
        if (closed) {
            throw ErrorDetails.own(Status.Code.CANCELLED, "canceled", "the watch is closed").exception(null);
        }
        if (responses == null) {
            Deadline stream = Deadline.after(LONGEST_STREAM.toSeconds(), TimeUnit.SECONDS);
            Deadline until = deadline == null ? stream : deadline.minimum(stream);
            context = Context.current().withCancellation();
            Context before = context.attach();
            try {
                responses = connection.tasks(until).watchTask(request);
            } finally {
                context.detach(before);
            }
        }
        return responses;
    }

    private synchronized void stopStream() {
        if (context != null) {
            context.cancel(null);
        }
        responses = null;
        context = null;
    }
}
