package io.trilith.client;

import io.trilith.task.v1.CancelTaskRequest;
import io.trilith.task.v1.State;
import io.trilith.task.v1.Task;
import java.util.concurrent.CompletableFuture;

/** Follows tasks to their end. */
final class Waiting {
    private final Connection connection;

    Waiting(Connection connection) {
        this.connection = connection;
    }

    State cancel(String taskId) {
        CancelTaskRequest request = CancelTaskRequest.newBuilder().setTaskId(taskId).build();
        return connection.read(deadline -> connection.tasks(deadline).cancelTask(request).getState());
    }

    Task await(String taskId, WaitOptions options) {
        return await(taskId, options, new TaskWatch(connection, taskId, options.timeout()));
    }

    CompletableFuture<Task> async(String taskId, WaitOptions options) {
        TaskWatch watch = new TaskWatch(connection, taskId, options.timeout());
        CompletableFuture<Task> future =
                CompletableFuture.supplyAsync(() -> await(taskId, options, watch), connection.background());
        future.whenComplete((task, failure) -> watch.close());
        return future;
    }

    private Task await(String taskId, WaitOptions options, TaskWatch watch) {
        try (watch) {
            TaskUpdate update;
            do {
                update = watch.next();
                options.onProgress().accept(update);
            } while (!update.ended());
            if (update.state() == State.STATE_FAILED) {
                throw new TaskFailedException(update.task());
            }
            return update.task();
        } catch (CallTimeoutException timeout) {
            if (options.cancelOnTimeout()) {
                cancelAfter(timeout, taskId);
            }
            throw timeout;
        }
    }

    private void cancelAfter(CallTimeoutException timeout, String taskId) {
        try {
            cancel(taskId);
        } catch (TrilithException failure) {
            timeout.addSuppressed(failure);
        }
    }
}
