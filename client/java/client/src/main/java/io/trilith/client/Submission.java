package io.trilith.client;

import io.grpc.Deadline;
import io.grpc.Status;
import io.trilith.task.v1.Explanation;
import io.trilith.task.v1.SubmitTaskRequest;
import io.trilith.task.v1.SubmitTaskResponse;
import java.util.UUID;

/** Submits statements so that a retry never runs one twice. */
final class Submission {
    private static final String EXISTS = "entryAlreadyExists";
    private static final String TASK_ID_PREFIX = "query-";

    private final Connection connection;

    Submission(Connection connection) {
        this.connection = connection;
    }

    /** Returns the task's id. */
    String submit(SqlStatement statement) {
        SqlStatement named = statement.queryId() == null ? statement.id(UUID.randomUUID().toString()) : statement;
        SubmitTaskRequest request = request(named);
        Deadline deadline = connection.deadline();
        SubmitTaskResponse response = connection.retry(deadline).run(tries -> {
            try {
                return Failures.translated(() -> connection.tasks(deadline).submitTask(request));
            } catch (InvalidInputException failure) {
                if (tries > 0 && failure.errorCode().equals(EXISTS)) {
                    // An earlier try arrived; only its answer was lost.
                    return SubmitTaskResponse.newBuilder().setTaskId(TASK_ID_PREFIX + named.queryId()).build();
                }
                throw failure;
            }
        });
        if (response.hasExplanation()) {
            String message = "EXPLAIN PLAN FOR makes no task; use explain";
            throw ErrorDetails.own(Status.Code.INVALID_ARGUMENT, "invalidInput", message).exception(null);
        }
        return response.getTaskId();
    }

    Explanation explain(SqlStatement statement) {
        SubmitTaskRequest request = request(statement.explained());
        return connection.read(
                deadline -> connection.tasks(deadline).submitTask(request).getExplanation());
    }

    private static SubmitTaskRequest request(SqlStatement statement) {
        return SubmitTaskRequest.newBuilder()
                .setSql(statement.sql())
                .setContextJson(statement.contextJson())
                .addAllParameters(statement.parameterMessages())
                .build();
    }
}
