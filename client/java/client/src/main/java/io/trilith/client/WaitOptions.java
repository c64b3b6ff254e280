package io.trilith.client;

import java.time.Duration;
import java.util.function.Consumer;

/** How to wait for a task. Immutable: each method returns a changed copy. */
public final class WaitOptions {
    private static final WaitOptions DEFAULT = new WaitOptions(null, update -> {}, false);

    private final Duration timeout;
    private final Consumer<TaskUpdate> onProgress;
    private final boolean cancelOnTimeout;

    private WaitOptions(Duration timeout, Consumer<TaskUpdate> onProgress, boolean cancelOnTimeout) {
        this.timeout = timeout;
        this.onProgress = onProgress;
        this.cancelOnTimeout = cancelOnTimeout;
    }

    /** As long as the task takes, unless the server stays out of reach; nothing is told. */
    public static WaitOptions defaults() {
        return DEFAULT;
    }

    /** At most so long; then {@link CallTimeoutException}, while the task goes on. */
    public WaitOptions timeout(Duration timeout) {
        return new WaitOptions(timeout, onProgress, cancelOnTimeout);
    }

    /** Tells each change of state, stages or counters to {@code listener}, on the thread that waits. */
    public WaitOptions onProgress(Consumer<TaskUpdate> listener) {
        return new WaitOptions(timeout, listener, cancelOnTimeout);
    }

    /** Whether the task is stopped when the time is over. Default no. */
    public WaitOptions cancelOnTimeout(boolean cancel) {
        return new WaitOptions(timeout, onProgress, cancel);
    }

    /** Null: no limit. */
    Duration timeout() {
        return timeout;
    }

    Consumer<TaskUpdate> onProgress() {
        return onProgress;
    }

    boolean cancelOnTimeout() {
        return cancelOnTimeout;
    }
}
