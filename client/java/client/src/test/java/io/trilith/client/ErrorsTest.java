package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import io.trilith.testing.ServerExtension;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.function.Executable;

/** Every failure has its type and says what the server said. */
class ErrorsTest {
    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static String inline(String lines, String column, String type) {
        return "TABLE(EXTERN('{\"type\":\"inline\",\"data\":\"" + lines.replace("\"", "\\\"").replace("\n", "\\n")
                + "\"}', '{\"type\":\"json\"}', '[{\"name\":\"" + column + "\",\"type\":\"" + type + "\"}]'))";
    }

    @Test
    void wrongSqlIsPlaced() {
        String sql = "SELECT 1 AS x,\n  nowhere\nFROM (SELECT 2 AS y)";
        for (Executable call : List.<Executable>of(
                () -> SERVER.client().submit(sql),
                () -> SERVER.client().query(sql),
                () -> SERVER.client().explain(SqlStatement.of(sql)))) {
            InvalidInputException failure = assertThrows(InvalidInputException.class, call);
            assertEquals(Status.Code.INVALID_ARGUMENT, failure.code());
            assertEquals("invalidInput", failure.errorCode());
            assertEquals("INVALID_INPUT", failure.category());
            assertEquals("USER", failure.persona());
            assertEquals("sql", failure.context().get("sourceType"));
            assertTrue(failure.getMessage().contains("nowhere"), failure.getMessage());
        }
        InvalidInputException failure =
                assertThrows(InvalidInputException.class, () -> SERVER.client().submit(sql));
        // The explained statement is the same, with words before it; the others have the place as it was written.
        assertEquals("2", failure.context().get("line"), failure.context().toString());
        assertEquals("3", failure.context().get("column"), failure.context().toString());
    }

    @Test
    void unknownNamesAreNotFound() {
        TrilithClient client = SERVER.client();
        for (Executable call : List.<Executable>of(
                () -> client.task("query-none"),
                () -> client.report("query-none"),
                () -> client.cancel("query-none"),
                () -> client.results("query-none"),
                () -> client.waitFor("query-none", WaitOptions.defaults()),
                () -> client.watch("query-none").hasNext(),
                () -> client.cancelQuery("none"),
                () -> client.schema("none"))) {
            NotFoundException failure = assertThrows(NotFoundException.class, call);
            assertEquals(Status.Code.NOT_FOUND, failure.code());
            assertEquals("notFound", failure.errorCode());
            assertEquals("NOT_FOUND", failure.category());
            assertFalse(failure.getMessage().isEmpty());
        }
    }

    @Test
    void aFailedTaskNamesItsFault() {
        String sql = "INSERT INTO t SELECT TIME_PARSE(x) AS __time FROM " + inline("{\"x\":\"no\"}", "x", "string")
                + " PARTITIONED BY DAY";
        TaskFailedException failure =
                assertThrows(TaskFailedException.class, () -> SERVER.client().run(sql));
        assertEquals("InsertTimeNull", failure.errorCode());
        assertEquals(failure.taskId(), failure.task().getTaskId());
        assertTrue(failure.faultMessage().contains("__time"), failure.faultMessage());
        assertTrue(failure.getMessage().contains(failure.taskId()), failure.getMessage());
        assertTrue(failure.getMessage().contains(failure.faultMessage()), failure.getMessage());
        assertEquals(
                "InsertTimeNull",
                SERVER.client().report(failure.taskId()).error().orElseThrow().getFault().getErrorCode());
    }

    @Test
    void theFieldsOfAFaultAreDecoded() {
        String broken = inline("{\"n\":1}\n{broken\n{\"n\":2}\n{more\n{most", "n", "long");
        SqlStatement statement = SqlStatement.of("SELECT n FROM " + broken);
        TaskFailedException first = assertThrows(
                TaskFailedException.class,
                () -> SERVER.client().run(statement.context("maxParseExceptions", 0), WaitOptions.defaults()));
        assertEquals("CannotParseExternalData", first.errorCode());
        assertTrue(first.faultMessage().contains("{broken"), first.faultMessage());
        TaskFailedException many = assertThrows(
                TaskFailedException.class,
                () -> SERVER.client().run(statement.context("maxParseExceptions", 2), WaitOptions.defaults()));
        assertEquals("TooManyWarnings", many.errorCode());
        assertEquals(Map.of("maxWarnings", 2, "rootErrorCode", "CannotParseExternalData"), many.context());
    }

    @Test
    void warningsAreCountedAndShown() {
        String broken = inline("{\"n\":1}\n{broken\n{\"n\":2}", "n", "long");
        SqlStatement statement = SqlStatement.of("SELECT n FROM " + broken).context("maxParseExceptions", 5);
        Report report = SERVER.client()
                .report(SERVER.client().run(statement, WaitOptions.defaults()).getTaskId());
        assertEquals(
                List.of("CannotParseExternalData"),
                report.warnings().stream().map(warning -> warning.getFault().getErrorCode()).toList());
        assertEquals(2, report.rowsWritten());
    }

    @Test
    void aServerThatIsNotThereIsUnavailable() throws IOException {
        int port;
        try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            port = free.getLocalPort();
        }
        Duration timeout = Duration.ofMillis(700);
        try (TrilithClient client =
                TrilithClient.builder("127.0.0.1:" + port).timeout(timeout).connect()) {
            for (Executable call : List.<Executable>of(
                    client::workers, () -> client.submit("SELECT 1"), () -> client.query("SELECT 1"))) {
                long started = System.nanoTime();
                UnavailableException failure = assertThrows(UnavailableException.class, call);
                assertEquals("SERVICE_UNAVAILABLE", failure.category());
                assertEquals("general", failure.errorCode());
                assertTrue(System.nanoTime() - started < timeout.multipliedBy(3).toNanos());
            }
        }
    }

    @Test
    void aCallThatGetsNoAnswerTimesOut() throws IOException {
        // It accepts connections and says nothing.
        try (ServerSocket mute = new ServerSocket(0, 8, InetAddress.getLoopbackAddress());
                TrilithClient client = TrilithClient.builder("http://127.0.0.1:" + mute.getLocalPort())
                        .timeout(Duration.ofMillis(300))
                        .connect()) {
            CallTimeoutException failure = assertThrows(CallTimeoutException.class, client::datasources);
            assertEquals(Status.Code.DEADLINE_EXCEEDED, failure.code());
            assertEquals("TIMEOUT", failure.category());
        }
    }

    @Test
    void addressesAreChecked() {
        for (String address : List.of("", "ftp://host:1", "host name:1", "https://", "host:port")) {
            assertThrows(IllegalArgumentException.class, () -> TrilithClient.connect(address), address);
        }
        TrilithClientBuilder plain = TrilithClient.builder("127.0.0.1:1").serverName("x");
        assertThrows(IllegalArgumentException.class, plain::connect);
        TrilithClient.connect("http://[::1]:8889").close();
    }
}
