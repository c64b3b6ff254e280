package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.client.NotFoundException;
import io.trilith.client.TaskFailedException;
import io.trilith.client.TaskHandle;
import io.trilith.client.TaskWatch;
import io.trilith.task.v1.State;
import io.trilith.testing.CutProxy;
import io.trilith.testing.ServerExtension;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Stopping what runs. */
class CancelTest {
    /** Takes much longer than any test. */
    private static final String ENDLESS = "SELECT COUNT(*) AS n FROM wikipedia a CROSS JOIN wikipedia b"
            + " CROSS JOIN wikipedia c WHERE a.added + b.added + c.added < -1";

    private static final String ENDLESS_INSERT =
            "INSERT INTO endless SELECT TIMESTAMP '2024-01-01' AS __time, n FROM (" + ENDLESS + ") PARTITIONED BY DAY";
    private static final long PATIENCE_SECONDS = 60;

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static Connection connection;
    /** A connection's only thread is taken until a query's first rows are there. */
    private static Connection beside;

    private static ExecutorService others;

    @BeforeAll
    static void ingest() throws SQLException {
        SERVER.ingest("wikipedia");
        connection = Jdbc.connect(SERVER.server().address());
        beside = Jdbc.connect(SERVER.server().address());
        others = Executors.newCachedThreadPool();
    }

    @AfterAll
    static void close() throws SQLException {
        if (connection != null) {
            others.shutdownNow();
            connection.close();
            beside.close();
        }
    }

    private static String named(String id, String sql) {
        return "SET sqlQueryId = '" + id + "'; " + sql;
    }

    private static boolean isTaken(SQLException refused, String id) {
        return refused.getMessage().contains("a query with the id [" + id + "] is running");
    }

    /** A query's id can be had when no other query has it. */
    private static boolean runs(String id) throws SQLException {
        try {
            Jdbc.rows(beside, named(id, "SELECT 1 AS x"));
            return false;
        } catch (SQLException refused) {
            if (isTaken(refused, id)) {
                return true;
            }
            throw refused;
        }
    }

    /** Starts a query; {@link #runs} may have its id for a moment. */
    private static ResultSet query(Statement statement, String id, String sql) throws SQLException {
        while (true) {
            try {
                return statement.executeQuery(named(id, sql));
            } catch (SQLException refused) {
                if (!isTaken(refused, id)) {
                    throw refused;
                }
            }
        }
    }

    private static void await(Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        while (!condition.call()) {
            assertTrue(System.nanoTime() < deadline, "it took too long");
            Thread.onSpinWait();
        }
    }

    /** Returns when the task runs: before that it cannot be watched. */
    private static TaskHandle running(String taskId) throws Exception {
        await(() -> {
            try (TaskWatch watch = SERVER.client().watch(taskId)) {
                return watch.next().state() == State.STATE_RUNNING;
            } catch (NotFoundException notYet) {
                return false;
            }
        });
        return SERVER.client().handle(taskId);
    }

    private static Throwable failure(Future<?> future) {
        return assertThrows(ExecutionException.class, () -> future.get(PATIENCE_SECONDS, TimeUnit.SECONDS)).getCause();
    }

    @Test
    void aQueryIsStoppedFromAnotherThread() throws Exception {
        try (Statement statement = connection.createStatement()) {
            Future<ResultSet> query = others.submit(() -> query(statement, "stopped", ENDLESS));
            await(() -> runs("stopped"));
            statement.cancel();
            Throwable failure = failure(query);
            assertTrue(failure instanceof SQLException, failure.toString());
            await(() -> !runs("stopped"));
        }
    }

    @Test
    void aConnectionRunsAsManyQueriesAsItHasThreads() throws Exception {
        try (Connection two = Jdbc.connect(SERVER.server().address(), "threadPoolSize=2");
                Statement statement = two.createStatement()) {
            Future<ResultSet> query = others.submit(() -> query(statement, "first", ENDLESS));
            await(() -> runs("first"));
            assertEquals(List.of(List.of(1L)), Jdbc.rows(two, "SELECT 1 AS x"));
            statement.cancel();
            assertTrue(failure(query) instanceof SQLException);
        }
    }

    @Test
    void aResultThatIsClosedEndsItsQuery() throws Exception {
        String sql = "SELECT a.page, b.added FROM wikipedia a CROSS JOIN wikipedia b";
        try (Statement statement = connection.createStatement()) {
            try (ResultSet result = statement.executeQuery(named("closed", sql))) {
                assertTrue(result.next());
                assertTrue(runs("closed"));
            }
            await(() -> !runs("closed"));
            assertEquals(List.of(List.of(1L)), Jdbc.rows(statement.executeQuery("SELECT 1 AS x")), "it can go on");
        }
    }

    @Test
    void aQueryEndsWhenItsTimeIsOver() throws Exception {
        try (Statement statement = connection.createStatement()) {
            // The driver's own clock, until the first rows are there.
            statement.setQueryTimeout(1);
            SQLException failure =
                    assertThrows(SQLException.class, () -> statement.executeQuery(named("late", ENDLESS)));
            assertTrue(Jdbc.messages(failure).contains("Query timed out after 1 SECONDS"), Jdbc.messages(failure));
        }
        await(() -> !runs("late"));
        // The server's.
        SQLException failure =
                assertThrows(SQLException.class, () -> Jdbc.rows(connection, "SET timeout = 300; " + ENDLESS));
        assertTrue(failure.getMessage().endsWith("Query timed out."), failure.getMessage());
    }

    @Test
    void anUpdateIsStoppedByTheIdOfItsTask() throws Exception {
        try (Statement statement = connection.createStatement()) {
            Future<Integer> update = others.submit(() -> statement.executeUpdate(named("load", ENDLESS_INSERT)));
            TaskHandle task = running("query-load");
            // The driver does not pass this on.
            statement.cancel();
            assertEquals(State.STATE_RUNNING, task.get().getState());
            task.cancel();
            Throwable failure = failure(update);
            assertTrue(failure instanceof SQLException, failure.toString());
            assertTrue(failure.getMessage().endsWith("Query canceled."), failure.getMessage());
        }
    }

    @Test
    void aClientThatIsLostTakesItsUpdateAlong() throws Exception {
        try (CutProxy proxy = new CutProxy(SERVER.server().port());
                Connection lost = Jdbc.connect(proxy.address());
                Statement statement = lost.createStatement()) {
            Future<Integer> update = others.submit(() -> statement.executeUpdate(named("lost", ENDLESS_INSERT)));
            TaskHandle task = running("query-lost");
            proxy.cut();
            assertTrue(failure(update) instanceof SQLException);
            TaskFailedException end = assertThrows(TaskFailedException.class, task::waitFor);
            assertEquals("Canceled", end.errorCode());
        }
    }

    @Test
    void aTaskWhoseClientIsLostWhileItIsTakenInEnds() throws Exception {
        for (int round = 0; round < 20; round++) {
            String id = "early-" + round;
            try (CutProxy proxy = new CutProxy(SERVER.server().port());
                    Connection lost = Jdbc.connect(proxy.address());
                    Statement statement = lost.createStatement()) {
                Future<Integer> update = others.submit(() -> statement.executeUpdate(named(id, ENDLESS_INSERT)));
                await(() -> {
                    try {
                        return SERVER.client().task("query-" + id).getCreatedTimeMs() > 0;
                    } catch (NotFoundException notYet) {
                        return false;
                    }
                });
                proxy.cut();
                assertTrue(failure(update) instanceof SQLException);
            }
            await(() -> SERVER.client().task("query-" + id).getState() == State.STATE_FAILED);
        }
    }
}
