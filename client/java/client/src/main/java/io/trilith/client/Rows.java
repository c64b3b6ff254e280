package io.trilith.client;

import io.grpc.Deadline;
import io.trilith.query.v1.RunQueryRequest;
import io.trilith.query.v1.RunQueryResponse;
import io.trilith.task.v1.ResultColumn;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.apache.arrow.flight.CallOption;
import org.apache.arrow.flight.CallOptions;
import org.apache.arrow.flight.FlightDescriptor;
import org.apache.arrow.flight.FlightEndpoint;
import org.apache.arrow.flight.FlightInfo;
import org.apache.arrow.flight.Ticket;

/** Finds the rows of queries and tasks. */
final class Rows {
    private final Connection connection;

    Rows(Connection connection) {
        this.connection = connection;
    }

    QueryResult ofQuery(SqlStatement statement) {
        RunQueryRequest request = RunQueryRequest.newBuilder()
                .setSql(statement.sql())
                .setContextJson(statement.contextJson())
                .addAllParameters(statement.parameterMessages())
                .build();
        // A first try that arrived holds the caller's own id, so that a second one would be refused.
        RunQueryResponse response = statement.queryId() == null
                ? connection.read(deadline -> connection.queries(deadline).runQuery(request))
                : connection.once(deadline -> connection.queries(deadline).runQuery(request));
        List<Ticket> tickets = List.of(new Ticket(response.getTicket().toByteArray()));
        return new QueryResult(connection, response.getQueryId(), response.getColumnsList(), null, tickets);
    }

    QueryResult ofTask(String taskId, List<ResultColumn> columns) {
        FlightDescriptor path = FlightDescriptor.path(taskId);
        FlightInfo info = connection.read(deadline -> connection.flight().getInfo(path, remaining(deadline)));
        List<Ticket> tickets =
                info.getEndpoints().stream().map(FlightEndpoint::getTicket).toList();
        return new QueryResult(connection, taskId, columns, info.getSchemaOptional().orElseThrow(), tickets);
    }

    private static CallOption remaining(Deadline deadline) {
        return CallOptions.timeout(deadline.timeRemaining(TimeUnit.NANOSECONDS), TimeUnit.NANOSECONDS);
    }
}
