package io.trilith.client;

import io.grpc.Status;
import io.trilith.task.v1.Fault;
import io.trilith.task.v1.Task;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

/**
 * A task ended with a fault; nothing was published. {@link #errorCode()} is the fault's code, {@code "Canceled"} for a
 * task that was stopped; {@link #context()} has the fault's own fields.
 */
public class TaskFailedException extends TrilithException {
    private static final long serialVersionUID = 1L;

    /** The task as the server stored it. */
    private final Task task;

    TaskFailedException(Task task) {
        super(details(task), null);
        this.task = task;
    }

    private static ErrorDetails details(Task task) {
        Fault fault = task.getFault();
        String message = "task " + task.getTaskId() + " failed: " + fault.getErrorCode();
        if (!fault.getErrorMessage().isEmpty()) {
            message += ": " + fault.getErrorMessage();
        }
        Map<String, Object> fields = new LinkedHashMap<>(Json.objectOrEmpty(fault.getFieldsJson()));
        fields.keySet().removeAll(Set.of("errorCode", "errorMessage"));
        Map<String, Object> context = Collections.unmodifiableMap(fields);
        return new ErrorDetails(
                Status.Code.UNKNOWN, fault.getErrorCode(), "UNCATEGORIZED", "USER", message, context, null);
    }

    /** {@code "query-…"}. */
    public String taskId() {
        return task.getTaskId();
    }

    /** The task as the server stored it. */
    public Task task() {
        return task;
    }

    /** The fault's message alone; empty when it has none. */
    public String faultMessage() {
        return task.getFault().getErrorMessage();
    }
}
