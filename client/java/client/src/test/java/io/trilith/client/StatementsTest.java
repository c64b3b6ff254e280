package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.task.v1.State;
import io.trilith.task.v1.Task;
import io.trilith.testing.Cells;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.Wikipedia;
import java.math.BigDecimal;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Parameters, ids, waiting, stopping. */
class StatementsTest {
    /** Takes much longer than any test. */
    static final String ENDLESS = "SELECT COUNT(*) AS n FROM wikipedia a CROSS JOIN wikipedia b WHERE a.added + b.added < -1";

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static TrilithClient client;

    @BeforeAll
    static void ingest() {
        client = SERVER.client();
        SERVER.ingest("wikipedia");
    }

    private static List<List<Object>> rows(SqlStatement statement) {
        try (QueryResult result = client.query(statement)) {
            return Cells.of(result);
        }
    }

    @Test
    void parametersOfEachKindArrive() {
        SqlStatement statement = SqlStatement.of("SELECT ? AS s, ? AS i, ? AS l, ? AS d, ? AS m, ? AS b, ? IS NULL AS n,"
                        + " TIME_FORMAT(?) AS t, TIME_FORMAT(?) AS u, TIME_FORMAT(?) AS v, ARRAY_LENGTH(?) AS a")
                .parameters(
                        "it's",
                        7,
                        1L << 53,
                        0.25,
                        new BigDecimal("2.5"),
                        true,
                        null,
                        Instant.parse("2015-09-12T00:46:58.771Z"),
                        LocalDateTime.parse("2015-09-12T12:00:00"),
                        LocalDate.parse("2015-09-13"),
                        List.of("x", "y", "z"));
        List<Object> row = new ArrayList<>(rows(statement.context("sqlTimeZone", "America/New_York")).get(0));
        assertEquals(
                Arrays.asList(
                        "it's",
                        7L,
                        1L << 53,
                        0.25,
                        2.5,
                        true,
                        true,
                        "2015-09-11T20:46:58.771-04:00",
                        "2015-09-12T12:00:00.000-04:00",
                        "2015-09-13T00:00:00.000-04:00"),
                row.subList(0, 10));
        assertEquals(3, ((Number) row.get(10)).intValue());
    }

    @Test
    void parametersSelectTheRowsOfATask() {
        String channel = "#de.wikipedia";
        long expected = Wikipedia.edits().stream()
                .filter(edit -> edit.get("channel").asText().equals(channel))
                .filter(edit -> edit.get("added").asLong() > 100)
                .count();
        SqlStatement statement = SqlStatement.of("SELECT COUNT(*) AS n FROM wikipedia WHERE channel = ? AND added > ?")
                .parameters(channel, 100);
        assertEquals(List.of(List.of(expected)), rows(statement));
        TaskHandle task = client.submit(statement);
        task.waitFor();
        try (QueryResult result = task.results()) {
            assertEquals(List.of(List.of(expected)), Cells.of(result));
        }
    }

    @Test
    void whatIsNoParameterIsRefused() {
        SqlStatement statement = SqlStatement.of("SELECT ?");
        assertThrows(IllegalArgumentException.class, () -> statement.parameters(Double.NaN));
        assertThrows(IllegalArgumentException.class, () -> statement.parameters(new Object()));
        assertEquals(List.of(List.of(5L)), rows(statement.parameters(new SqlParameter("BIGINT", "5"))));
    }

    @Test
    void theCallersIdIsTheTasksIdAndHoldsOnce() {
        String id = UUID.randomUUID().toString();
        SqlStatement statement = SqlStatement.of("SELECT 1 AS x").id(id);
        TaskHandle task = client.submit(statement);
        assertEquals("query-" + id, task.taskId());
        assertEquals(State.STATE_SUCCESS, task.waitFor().getState());
        InvalidInputException taken = assertThrows(InvalidInputException.class, () -> client.submit(statement));
        assertEquals("entryAlreadyExists", taken.errorCode());
        assertEquals("query-" + id, taken.context().get("taskId"));
        assertTrue(client.submit("SELECT 1 AS x").taskId().matches("query-[0-9a-f-]{36}"));
    }

    @Test
    void aRunningTaskIsStopped() throws Exception {
        TaskHandle task = client.submit(ENDLESS);
        CountDownLatch running = new CountDownLatch(1);
        CompletableFuture<Task> end = task.waitForAsync(WaitOptions.defaults().onProgress(update -> {
            if (update.state() == State.STATE_RUNNING) {
                running.countDown();
            }
        }));
        assertTrue(running.await(60, TimeUnit.SECONDS));
        task.cancel();
        ExecutionException thrown = assertThrows(ExecutionException.class, () -> end.get(60, TimeUnit.SECONDS));
        TaskFailedException failure = (TaskFailedException) thrown.getCause();
        assertEquals("Canceled", failure.errorCode());
        assertEquals(task.taskId(), failure.taskId());
        assertEquals(State.STATE_FAILED, task.cancel(), "it has ended");
    }

    @Test
    void waitingEndsInTimeAndTheTaskGoesOnUnlessAskedOtherwise() {
        TaskHandle task = client.submit(ENDLESS);
        WaitOptions shortly = WaitOptions.defaults().timeout(Duration.ofMillis(300));
        assertThrows(CallTimeoutException.class, () -> task.waitFor(shortly));
        assertTrue(List.of(State.STATE_PENDING, State.STATE_RUNNING).contains(task.get().getState()));
        assertThrows(CallTimeoutException.class, () -> task.waitFor(shortly.cancelOnTimeout(true)));
        TaskFailedException failure = assertThrows(TaskFailedException.class, task::waitFor);
        assertEquals("Canceled", failure.errorCode());
    }

    @Test
    void aFutureCompletesAndCancellingItLeavesTheTaskAlone() throws Exception {
        TaskHandle quick = client.submit("SELECT 1 AS x");
        Task ended = quick.waitForAsync(WaitOptions.defaults()).get(60, TimeUnit.SECONDS);
        assertEquals(State.STATE_SUCCESS, ended.getState());
        TaskHandle task = client.submit(ENDLESS);
        CountDownLatch watched = new CountDownLatch(1);
        CompletableFuture<Task> end =
                task.waitForAsync(WaitOptions.defaults().onProgress(update -> watched.countDown()));
        assertTrue(watched.await(60, TimeUnit.SECONDS));
        end.cancel(true);
        assertTrue(List.of(State.STATE_PENDING, State.STATE_RUNNING).contains(task.get().getState()));
        task.cancel();
    }

    @Test
    void aWatchEndsWithTheFinalState() {
        List<State> states = new ArrayList<>();
        TaskHandle task = client.submit("SELECT channel, SUM(added) AS added FROM wikipedia GROUP BY 1");
        try (TaskWatch watch = task.watch()) {
            watch.forEachRemaining(update -> states.add(update.state()));
        }
        assertEquals(State.STATE_SUCCESS, states.get(states.size() - 1));
        assertEquals(1, states.stream().filter(State.STATE_SUCCESS::equals).count());
    }
}
