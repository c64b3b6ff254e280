package io.trilith.client;

import io.trilith.datasource.v1.Datasource;
import io.trilith.datasource.v1.GetSchemaRequest;
import io.trilith.datasource.v1.ListDatasourcesRequest;
import io.trilith.datasource.v1.ListSegmentsRequest;
import io.trilith.datasource.v1.ListSegmentsResponse;
import io.trilith.datasource.v1.Segment;
import io.trilith.query.v1.CancelQueryRequest;
import io.trilith.query.v1.InferSignatureRequest;
import io.trilith.task.v1.Column;
import io.trilith.task.v1.Explanation;
import io.trilith.task.v1.GetTaskReportRequest;
import io.trilith.task.v1.GetTaskRequest;
import io.trilith.task.v1.ListLocksRequest;
import io.trilith.task.v1.ListTasksRequest;
import io.trilith.task.v1.ListTasksResponse;
import io.trilith.task.v1.ListWorkersRequest;
import io.trilith.task.v1.Lock;
import io.trilith.task.v1.State;
import io.trilith.task.v1.Task;
import io.trilith.task.v1.WorkerProcess;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * A connection to a server, for any number of threads. Close it, and results before it.
 *
 * <p>Calls that read are made again while the server cannot be reached, until the client's timeout is over. Every method
 * that calls the server throws a {@link TrilithException}: {@link UnavailableException} when the server cannot be reached,
 * {@link CallTimeoutException}, {@link UnauthorizedException}, {@link NotFoundException} for an unknown id or name, {@link
 * InvalidInputException} for wrong SQL or arguments.
 */
public final class TrilithClient implements AutoCloseable {
    private final Connection connection;
    private final Submission submission;
    private final Waiting waiting;
    private final Rows rows;

    TrilithClient(Connection connection) {
        this.connection = connection;
        this.submission = new Submission(connection);
        this.waiting = new Waiting(connection);
        this.rows = new Rows(connection);
    }

    /** A client of {@code host:port} or {@code http://host:port} (plaintext), or {@code https://host:port} (TLS). */
    public static TrilithClient connect(String address) {
        return builder(address).connect();
    }

    /** The same, with more to say. */
    public static TrilithClientBuilder builder(String address) {
        return new TrilithClientBuilder(address);
    }

    /** {@link #submit(SqlStatement)} of a statement without context and parameters. */
    public TaskHandle submit(String sql) {
        return submit(SqlStatement.of(sql));
    }

    /**
     * Submits a statement as a task and returns before it runs. The task has an id from the start, so that a submission
     * whose answer was lost is tried again until the timeout and still runs once.
     *
     * <p>Throws {@link InvalidInputException} for wrong SQL and, with the error code {@code "entryAlreadyExists"}, for an
     * id that is taken.
     */
    public TaskHandle submit(SqlStatement statement) {
        return handle(submission.submit(statement));
    }

    /** What {@code EXPLAIN PLAN FOR} says of a statement, which may but need not begin with these words. */
    public Explanation explain(SqlStatement statement) {
        return submission.explain(statement);
    }

    /** {@link #run(SqlStatement, WaitOptions)} with the default options. */
    public Task run(String sql) {
        return run(SqlStatement.of(sql), WaitOptions.defaults());
    }

    /** Submits a statement and waits for its task: {@link #submit(SqlStatement)}, then {@link #waitFor}. */
    public Task run(SqlStatement statement, WaitOptions options) {
        return submit(statement).waitFor(options);
    }

    /**
     * Follows a task to its end and returns it. A lost connection is opened again until the options' timeout; without one,
     * until the server was out of reach for five minutes.
     *
     * <p>Throws {@link TaskFailedException} when the task fails, {@link CallTimeoutException} when the time is over.
     */
    public Task waitFor(String taskId, WaitOptions options) {
        return waiting.await(taskId, options);
    }

    /**
     * {@link #waitFor} on a thread of the client, which also calls the listener. Cancelling the future stops waiting, not
     * the task.
     */
    public CompletableFuture<Task> waitForAsync(String taskId, WaitOptions options) {
        return waiting.async(taskId, options);
    }

    /** Follows a task step by step, without a time limit. */
    public TaskWatch watch(String taskId) {
        return new TaskWatch(connection, taskId, null);
    }

    /** A handle for a task by its id; does not ask the server. */
    public TaskHandle handle(String taskId) {
        return new TaskHandle(this, taskId);
    }

    /** One task, with its payload. */
    public Task task(String taskId) {
        GetTaskRequest request = GetTaskRequest.newBuilder().setTaskId(taskId).build();
        return connection.read(deadline -> connection.tasks(deadline).getTask(request).getTask());
    }

    /** Tasks, newest first; all pages. */
    public List<Task> tasks(TaskFilter filter) {
        ListTasksRequest.Builder request = filter.toRequest();
        List<Task> tasks = new ArrayList<>();
        do {
            ListTasksResponse page =
                    connection.read(deadline -> connection.tasks(deadline).listTasks(request.build()));
            tasks.addAll(page.getTasksList());
            request.setPageToken(page.getNextPageToken());
        } while (!request.getPageToken().isEmpty());
        return tasks;
    }

    /** Asks a task to stop and returns its state, which may be the old one for a moment. One that has ended stays as it is. */
    public State cancel(String taskId) {
        return waiting.cancel(taskId);
    }

    /** The report of a task: live while it runs, stored when it ended. */
    public Report report(String taskId) {
        GetTaskReportRequest request =
                GetTaskReportRequest.newBuilder().setTaskId(taskId).build();
        return new Report(
                connection.read(deadline -> connection.tasks(deadline).getTaskReport(request).getReport()));
    }

    /** Rows of a SELECT task that ended well; all pages when it kept them as pages. */
    public QueryResult results(String taskId) {
        return rows.ofTask(taskId, report(taskId).message().getResults().getColumnsList());
    }

    /** {@link #query(SqlStatement)} of a statement without context and parameters. */
    public QueryResult query(String sql) {
        return query(SqlStatement.of(sql));
    }

    /**
     * Runs a SELECT at once, without a task, and returns its rows as they come. A failure while the rows are made is thrown
     * where they are read.
     */
    public QueryResult query(SqlStatement statement) {
        return rows.ofQuery(statement);
    }

    /** Stops a query that runs; whoever reads its rows gets a {@link CanceledException}. */
    public void cancelQuery(String queryId) {
        CancelQueryRequest request =
                CancelQueryRequest.newBuilder().setQueryId(queryId).build();
        connection.once(deadline -> connection.queries(deadline).cancelQuery(request));
    }

    /** Datasources that have visible segments, by name. */
    public List<Datasource> datasources() {
        ListDatasourcesRequest request = ListDatasourcesRequest.getDefaultInstance();
        return connection.read(deadline ->
                connection.datasources(deadline).listDatasources(request).getDatasourcesList());
    }

    /** Columns of a datasource, {@code __time} first. */
    public List<Column> schema(String datasource) {
        GetSchemaRequest request =
                GetSchemaRequest.newBuilder().setDatasource(datasource).build();
        return connection.read(
                deadline -> connection.datasources(deadline).getSchema(request).getColumnsList());
    }

    /** Visible segments of a datasource by interval, version and partition; all pages. Of all datasources if empty. */
    public List<Segment> segments(String datasource) {
        ListSegmentsRequest.Builder request =
                ListSegmentsRequest.newBuilder().setDatasource(datasource);
        List<Segment> segments = new ArrayList<>();
        do {
            ListSegmentsResponse page =
                    connection.read(deadline -> connection.datasources(deadline).listSegments(request.build()));
            segments.addAll(page.getSegmentsList());
            request.setPageToken(page.getNextPageToken());
        } while (!request.getPageToken().isEmpty());
        return segments;
    }

    /** Locks on time chunks that tasks hold now; of all datasources if empty. */
    public List<Lock> locks(String datasource) {
        ListLocksRequest request =
                ListLocksRequest.newBuilder().setDatasource(datasource).build();
        return connection.read(
                deadline -> connection.tasks(deadline).listLocks(request).getLocksList());
    }

    /** Worker processes in the order in which they joined. */
    public List<WorkerProcess> workers() {
        ListWorkersRequest request = ListWorkersRequest.getDefaultInstance();
        return connection.read(
                deadline -> connection.tasks(deadline).listWorkers(request).getWorkersList());
    }

    /** Columns of external data, from a sample; both arguments are Druid's JSON. */
    public List<Column> inferSignature(String inputSourceJson, String inputFormatJson) {
        InferSignatureRequest request = InferSignatureRequest.newBuilder()
                .setInputSourceJson(inputSourceJson)
                .setInputFormatJson(inputFormatJson)
                .build();
        return connection.read(
                deadline -> connection.queries(deadline).inferSignature(request).getColumnsList());
    }

    /** Stops what still runs on this side (open results, watches, futures) and ends the connection; tasks go on. */
    @Override
    public void close() {
        connection.close();
    }
}
