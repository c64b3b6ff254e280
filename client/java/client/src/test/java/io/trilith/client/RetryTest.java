package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.task.v1.State;
import io.trilith.task.v1.Task;
import io.trilith.testing.Cells;
import io.trilith.testing.CutProxy;
import io.trilith.testing.TestServer;
import io.trilith.testing.Wikipedia;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** Lost answers and lost servers. */
class RetryTest {
    private static TestServer server;
    private static CutProxy proxy;
    private static TrilithClient client;

    @BeforeAll
    static void start() throws Exception {
        server = TestServer.start();
        proxy = new CutProxy(server.port());
        client = TrilithClient.connect(proxy.address());
    }

    @AfterAll
    static void stop() throws Exception {
        client.close();
        proxy.close();
        server.close();
    }

    private static List<String> tasks(String datasource) {
        return client.tasks(TaskFilter.ofDatasource(datasource)).stream().map(Task::getTaskId).toList();
    }

    @Test
    void aSubmissionWhoseAnswerIsLostRunsOnce() {
        int lost = proxy.answersLost();
        proxy.loseAnswers(2);
        TaskHandle task = client.submit(Wikipedia.replaceInto("once"));
        assertEquals(lost + 2, proxy.answersLost());
        assertEquals(State.STATE_SUCCESS, task.waitFor().getState());
        assertEquals(List.of(task.taskId()), tasks("once"));
        try (QueryResult rows = client.query("SELECT COUNT(*) FROM \"once\"")) {
            assertEquals(List.of(List.of((long) Wikipedia.edits().size())), Cells.of(rows));
        }
    }

    @Test
    void anIdThatWasTakenBeforeIsAnErrorEvenIfTheAnswerIsNotLost() {
        SqlStatement statement = SqlStatement.of("SELECT 1 AS x").id("taken");
        client.submit(statement).waitFor();
        int lost = proxy.answersLost();
        InvalidInputException failure = assertThrows(InvalidInputException.class, () -> client.submit(statement));
        assertEquals("entryAlreadyExists", failure.errorCode());
        assertEquals(lost, proxy.answersLost());
    }

    @Test
    void readsAndWatchesGoOnAfterLostAnswers() {
        TaskHandle task = client.submit(Wikipedia.replaceInto("watched"));
        proxy.loseAnswers(2);
        assertEquals(State.STATE_SUCCESS, task.waitFor().getState());
        int lost = proxy.answersLost();
        proxy.loseAnswers(1);
        assertEquals(task.taskId(), task.get().getTaskId());
        assertEquals(lost + 1, proxy.answersLost());
    }

    @Test
    void aRestartedServerIsFoundAgain() throws Exception {
        try (TestServer restarted = TestServer.start();
                TrilithClient direct = restarted.client()) {
            SqlStatement statement = SqlStatement.of(Wikipedia.replaceInto("kept")).context("faultTolerance", true);
            List<TaskUpdate> updates = new ArrayList<>();
            CountDownLatch seen = new CountDownLatch(1);
            TaskHandle task = direct.submit(statement);
            CompletableFuture<Task> end = task.waitForAsync(WaitOptions.defaults()
                    .timeout(Duration.ofSeconds(60))
                    .onProgress(update -> {
                        updates.add(update);
                        seen.countDown();
                    }));
            assertTrue(seen.await(60, TimeUnit.SECONDS));
            restarted.kill();
            restarted.launch();
            assertEquals(State.STATE_SUCCESS, end.get(60, TimeUnit.SECONDS).getState());
            try (QueryResult rows = direct.query("SELECT COUNT(*) FROM kept")) {
                assertEquals(List.of(List.of((long) Wikipedia.edits().size())), Cells.of(rows));
            }
        }
    }

    @Test
    void aSubmissionWaitsForTheServerToComeBack() throws Exception {
        try (TestServer restarted = TestServer.start();
                TrilithClient direct = restarted.client()) {
            assertEquals(List.of(), direct.tasks(TaskFilter.all()));
            restarted.kill();
            CompletableFuture<TaskHandle> submitted =
                    CompletableFuture.supplyAsync(() -> direct.submit("SELECT 1 AS x"));
            restarted.launch();
            TaskHandle task = submitted.get(60, TimeUnit.SECONDS);
            assertEquals(State.STATE_SUCCESS, task.waitFor().getState());
            assertEquals(1, direct.tasks(TaskFilter.all()).size());
        }
    }
}
