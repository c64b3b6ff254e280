package io.trilith.client;

import io.trilith.task.v1.State;
import io.trilith.task.v1.Task;
import java.util.concurrent.CompletableFuture;

/** A task of a server: one that was submitted, or any other by {@link TrilithClient#handle}. */
public final class TaskHandle {
    private final TrilithClient client;
    private final String taskId;

    TaskHandle(TrilithClient client, String taskId) {
        this.client = client;
        this.taskId = taskId;
    }

    /** {@code "query-…"}. */
    public String taskId() {
        return taskId;
    }

    /** {@link TrilithClient#waitFor} with the default options. */
    public Task waitFor() {
        return waitFor(WaitOptions.defaults());
    }

    /** {@link TrilithClient#waitFor}. */
    public Task waitFor(WaitOptions options) {
        return client.waitFor(taskId, options);
    }

    /** {@link TrilithClient#waitForAsync}. */
    public CompletableFuture<Task> waitForAsync(WaitOptions options) {
        return client.waitForAsync(taskId, options);
    }

    /** {@link TrilithClient#watch}. */
    public TaskWatch watch() {
        return client.watch(taskId);
    }

    /** {@link TrilithClient#task}. */
    public Task get() {
        return client.task(taskId);
    }

    /** {@link TrilithClient#report}. */
    public Report report() {
        return client.report(taskId);
    }

    /** {@link TrilithClient#cancel}. */
    public State cancel() {
        return client.cancel(taskId);
    }

    /** {@link TrilithClient#results}. */
    public QueryResult results() {
        return client.results(taskId);
    }

    @Override
    public String toString() {
        return taskId;
    }
}
