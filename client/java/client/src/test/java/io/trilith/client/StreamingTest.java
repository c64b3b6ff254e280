package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.testing.Cells;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.Wikipedia;
import java.time.Duration;
import java.util.List;
import org.apache.arrow.memory.RootAllocator;
import org.apache.arrow.vector.BigIntVector;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Results that are read as they come. */
class StreamingTest {
    private static final int MANY = 1_000_000;
    private static final String MANY_ROWS =
            "SELECT a.page, b.added FROM wikipedia a JOIN wikipedia b ON a.channel = b.channel LIMIT " + MANY;

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    @BeforeAll
    static void ingest() {
        SERVER.ingest("wikipedia");
    }

    @Test
    void aLargeResultNeedsLittleMemory() {
        long peak;
        long rows = 0;
        long bytes = 0;
        try (RootAllocator allocator = new RootAllocator(Long.MAX_VALUE);
                TrilithClient client = TrilithClient.builder(SERVER.server().address())
                        .allocator(allocator)
                        .connect()) {
            try (QueryResult result = client.query(MANY_ROWS)) {
                for (VectorSchemaRoot batch : result) {
                    rows += batch.getRowCount();
                    bytes += batch.getFieldVectors().stream()
                            .mapToLong(vector -> vector.getBufferSize())
                            .sum();
                }
                assertNull(result.next());
            }
            peak = allocator.getPeakMemoryAllocation();
            assertEquals(0, allocator.getAllocatedMemory());
        }
        assertEquals(MANY, rows);
        assertTrue(peak < bytes / 8, "peak " + peak + " of " + bytes + " bytes");
    }

    @Test
    void allRowsMakeOneTable() {
        try (QueryResult result = SERVER.client().query("SELECT added, channel FROM wikipedia");
                VectorSchemaRoot table = result.readAll()) {
            BigIntVector added = (BigIntVector) table.getVector("added");
            long sum = 0;
            for (int row = 0; row < table.getRowCount(); row++) {
                sum += added.get(row);
            }
            assertEquals(Wikipedia.edits().size(), table.getRowCount());
            assertEquals(Wikipedia.sum("added"), sum);
        }
    }

    @Test
    void closingEarlyStopsTheQuery() {
        TrilithClient client = SERVER.client();
        String id;
        try (QueryResult result =
                client.query("SELECT a.page, b.page AS other FROM wikipedia a CROSS JOIN wikipedia b")) {
            id = result.id();
            assertTrue(result.next().getRowCount() > 0);
            assertThrows(
                    InvalidInputException.class,
                    () -> client.query(SqlStatement.of("SELECT 1").id(id)),
                    "the id must be held while the query runs");
        }
        awaitFree(id);
    }

    /** The id of a query is free again when the server has let it go; that it does so soon is the point. */
    private static void awaitFree(String id) {
        long end = System.nanoTime() + Duration.ofSeconds(30).toNanos();
        while (true) {
            try (QueryResult result = SERVER.client().query(SqlStatement.of("SELECT 1 AS x").id(id))) {
                assertEquals(List.of(List.of(1L)), Cells.of(result));
                return;
            } catch (InvalidInputException held) {
                if (System.nanoTime() > end) {
                    throw held;
                }
            }
        }
    }

    @Test
    void aCancelledQueryEndsItsReader() {
        TrilithClient client = SERVER.client();
        try (QueryResult result =
                client.query("SELECT a.page, b.page AS other FROM wikipedia a CROSS JOIN wikipedia b")) {
            assertTrue(result.next().getRowCount() > 0);
            client.cancelQuery(result.id());
            CanceledException failure = assertThrows(CanceledException.class, () -> {
                while (result.next() != null) {
                    assertTrue(result.schema().getFields().size() == 2);
                }
            });
            assertEquals("CANCELED", failure.category());
        }
    }

    @Test
    void readingHasATimeLimit() {
        try (TrilithClient client = TrilithClient.builder(SERVER.server().address())
                        .streamTimeout(Duration.ofMillis(500))
                        .connect();
                QueryResult result = client.query(StatementsTest.ENDLESS)) {
            assertThrows(CallTimeoutException.class, result::next);
        }
    }

    @Test
    void aFailureWhileRowsAreMadeIsTyped() {
        SqlStatement statement = SqlStatement.of(StatementsTest.ENDLESS).context("timeout", 200);
        try (QueryResult result = SERVER.client().query(statement)) {
            TrilithException failure = assertThrows(TrilithException.class, result::next);
            assertEquals("Canceled", failure.errorCode());
        }
    }

    @Test
    void aClientThatIsClosedClosesItsResults() {
        TrilithClient client = SERVER.server().client();
        QueryResult result = client.query("SELECT a.page FROM wikipedia a CROSS JOIN wikipedia b");
        assertTrue(result.next().getRowCount() > 0);
        client.close();
        assertThrows(IllegalStateException.class, result::next);
    }
}
