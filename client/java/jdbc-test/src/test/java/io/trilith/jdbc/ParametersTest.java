package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.Wikipedia;
import java.sql.Connection;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.Calendar;
import java.util.List;
import java.util.TimeZone;
import java.util.function.Predicate;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Prepared statements. */
class ParametersTest {
    private static final String COUNT =
            "SELECT COUNT(*) AS n FROM wikipedia WHERE added > ? AND channel = ? AND __time >= ? AND (added > 1000) = ?";

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static Connection connection;

    @BeforeAll
    static void ingest() throws SQLException {
        SERVER.ingest("wikipedia");
        connection = Jdbc.connect(SERVER.server().address());
    }

    @AfterAll
    static void close() throws SQLException {
        if (connection != null) {
            connection.close();
        }
    }

    private static Object value(PreparedStatement prepared) throws SQLException {
        try (ResultSet result = prepared.executeQuery()) {
            List<List<Object>> rows = Jdbc.rows(result);
            assertEquals(1, rows.size());
            return rows.get(0).get(0);
        }
    }

    private static long count(Predicate<JsonNode> edits) {
        return Wikipedia.edits().stream().filter(edits).count();
    }

    private static long count(long added, String channel, String time, boolean large) {
        return count(edit -> edit.get("added").asLong() > added
                && edit.get("channel").asText().equals(channel)
                && edit.get("time").asText().compareTo(time) >= 0
                && edit.get("added").asLong() > 1000 == large);
    }

    private static Timestamp at(String instant) {
        return Timestamp.from(Instant.parse(instant));
    }

    @Test
    void valuesOfEachTypeSelectRowsAgainAndAgain() throws SQLException {
        try (PreparedStatement prepared = connection.prepareStatement(COUNT)) {
            ParameterMetaData parameters = prepared.getParameterMetaData();
            assertEquals(
                    List.of(Types.BIGINT, Types.VARCHAR, Types.TIMESTAMP, Types.BOOLEAN),
                    IntStream.rangeClosed(1, parameters.getParameterCount())
                            .mapToObj(index -> type(parameters, index))
                            .toList());
            assertEquals("n", prepared.getMetaData().getColumnLabel(1));
            assertEquals(Types.BIGINT, prepared.getMetaData().getColumnType(1));
            prepared.setLong(1, 100);
            prepared.setString(2, "#en.wikipedia");
            prepared.setTimestamp(3, at("2015-09-12T12:00:00Z"));
            prepared.setBoolean(4, false);
            long expected = count(100, "#en.wikipedia", "2015-09-12T12", false);
            assertTrue(expected > 0);
            assertEquals(expected, value(prepared));
            assertEquals(expected, value(prepared));
            // What is not set again stays.
            prepared.setInt(1, 5);
            prepared.setString(2, "#vi.wikipedia");
            assertEquals(count(5, "#vi.wikipedia", "2015-09-12T12", false), value(prepared));
            prepared.setObject(1, 500L);
            prepared.setObject(2, "#fr.wikipedia");
            prepared.setObject(3, at("2015-09-12T06:30:00Z"));
            prepared.setObject(4, true);
            assertEquals(count(500, "#fr.wikipedia", "2015-09-12T06:30", true), value(prepared));
            Calendar utc = Calendar.getInstance(TimeZone.getTimeZone("UTC"));
            prepared.setTimestamp(3, at("2015-09-12T18:00:00Z"), utc);
            assertEquals(count(500, "#fr.wikipedia", "2015-09-12T18", true), value(prepared));
        }
    }

    private static int type(ParameterMetaData parameters, int index) {
        try {
            return parameters.getParameterType(index);
        } catch (SQLException failure) {
            throw new IllegalStateException(failure);
        }
    }

    @Test
    void valuesComeThroughUnchanged() throws SQLException {
        String sql = "SELECT ? + 0.5 AS d, ? + 1 AS l, ? AS s, ? IS NULL AS n";
        try (PreparedStatement prepared = connection.prepareStatement(sql)) {
            prepared.setDouble(1, 2.25);
            prepared.setLong(2, 1L << 53);
            prepared.setString(3, "it's \"ü\" \\ ? 漢字");
            prepared.setNull(4, Types.VARCHAR);
            try (ResultSet result = prepared.executeQuery()) {
                assertEquals(
                        List.of(List.of(2.75, (1L << 53) + 1, "it's \"ü\" \\ ? 漢字", true)), Jdbc.rows(result));
            }
        }
    }

    @Test
    void nullsOfEachTypeAreNull() throws SQLException {
        for (int index = 1; index <= 4; index++) {
            try (PreparedStatement prepared = connection.prepareStatement(COUNT)) {
                prepared.setLong(1, 100);
                prepared.setString(2, "#en.wikipedia");
                prepared.setTimestamp(3, at("2015-09-12T00:00:00Z"));
                prepared.setBoolean(4, false);
                assertTrue((long) value(prepared) > 0);
                prepared.setNull(index, prepared.getParameterMetaData().getParameterType(index));
                assertEquals(0L, value(prepared), "parameter " + index);
            }
        }
    }

    @Test
    void aBatchInsertsItsRows() throws SQLException {
        String insert = "INSERT INTO pairs SELECT TIME_PARSE(?) AS __time, ? + 0 AS n, ? + 0.0 AS d, ? AS s PARTITIONED BY DAY";
        try (PreparedStatement prepared = connection.prepareStatement(insert)) {
            for (int day = 1; day <= 3; day++) {
                prepared.setString(1, "2024-01-0" + day);
                prepared.setLong(2, day);
                prepared.setDouble(3, day / 2.0);
                prepared.setString(4, day == 2 ? null : "day " + day);
                prepared.addBatch();
            }
            // One sum for all rows of the batch.
            assertEquals(List.of(3), IntStream.of(prepared.executeBatch()).boxed().toList());
        }
        List<List<Object>> expected = new ArrayList<>();
        for (int day = 1; day <= 3; day++) {
            List<Object> row = new ArrayList<>(List.of("2024-01-0" + day, (long) day, day / 2.0));
            row.add(day == 2 ? null : "day " + day);
            expected.add(row);
        }
        String rows = "SELECT TIME_FORMAT(__time, 'yyyy-MM-dd') AS t, n, d, s FROM pairs ORDER BY n";
        assertEquals(expected, Jdbc.rows(connection, rows));
    }

    @Test
    void preparedUpdatesReturnWhatTheyWrote() throws SQLException {
        String replace = "REPLACE INTO one_channel OVERWRITE ALL SELECT __time, channel FROM wikipedia WHERE channel = ? PARTITIONED BY DAY";
        try (PreparedStatement prepared = connection.prepareStatement(replace)) {
            for (String channel : List.of("#de.wikipedia", "#ja.wikipedia")) {
                long edits = Wikipedia.editsByChannel().get(channel);
                prepared.setString(1, channel);
                assertEquals(edits, prepared.executeUpdate());
                assertEquals(edits, prepared.executeLargeUpdate());
                assertEquals(
                        List.of(List.of(channel, edits)),
                        Jdbc.rows(connection, "SELECT channel, COUNT(*) AS n FROM one_channel GROUP BY 1"));
            }
            // Versions of the driver before 19 take every prepared statement for a query: a row says what was written.
            long edits = Wikipedia.editsByChannel().get("#ja.wikipedia");
            if (prepared.execute()) {
                try (ResultSet result = prepared.getResultSet()) {
                    assertTrue(result.next());
                    assertEquals(edits, result.getLong("rows_written"));
                    assertTrue(result.getString("task_id").startsWith("query-"));
                }
            } else {
                assertEquals(edits, prepared.getLargeUpdateCount());
            }
        }
    }

    @Test
    void wrongParametersAreRefused() throws SQLException {
        // A connection of its own: the driver does not give back the memory of values that do not fit.
        Connection own = Jdbc.connect(SERVER.server().address());
        try (PreparedStatement prepared = own.prepareStatement("SELECT COUNT(*) AS n FROM wikipedia WHERE added > ?")) {
            SQLException failure = assertThrows(SQLException.class, () -> prepared.setLong(2, 1));
            assertTrue(failure.getMessage().contains("parameter ordinal 2 out of range"), failure.getMessage());
            assertThrows(SQLException.class, prepared::executeQuery, "not set");
            prepared.setString(1, "many");
            failure = assertThrows(SQLException.class, prepared::executeQuery);
            assertTrue(
                    failure.getMessage().contains("Binding value of type STRING is not yet supported for expected Arrow type Int"),
                    failure.getMessage());
            prepared.setLong(1, 100);
            assertEquals(count(edit -> edit.get("added").asLong() > 100), value(prepared));
        }
        own.close();
        SQLException failure = assertThrows(
                SQLException.class, () -> connection.prepareStatement("SELECT nothing FROM wikipedia"));
        assertTrue(Jdbc.messages(failure).contains("(line [1], column [8])"), Jdbc.messages(failure));
        String floor = "SELECT TIME_FLOOR(TIMESTAMP '2024-01-01', ?) AS t";
        try (PreparedStatement prepared = connection.prepareStatement(floor)) {
            prepared.setString(1, "never");
            // The driver throws this one unchecked.
            Exception refused = assertThrows(Exception.class, prepared::executeQuery);
            assertTrue(refused.getMessage().contains("never"), refused.getMessage());
        }
    }

    @Test
    void aCastOrFunctionTellsTheTypeOfItsParameter() throws SQLException {
        String sql = "SELECT CAST(? AS BIGINT) AS l, CAST(? AS DOUBLE) AS d, NOT ? AS b, TIME_FORMAT(?) AS t,"
                + " MILLIS_TO_TIMESTAMP(?) AS m FROM (VALUES (1), (2)) AS x (y) LIMIT ?";
        try (PreparedStatement prepared = connection.prepareStatement(sql)) {
            prepared.setLong(1, 7);
            prepared.setDouble(2, 0.25);
            prepared.setBoolean(3, true);
            prepared.setTimestamp(4, at("2015-09-12T00:46:58.771Z"));
            prepared.setLong(5, 0);
            prepared.setLong(6, 1);
            try (ResultSet result = prepared.executeQuery()) {
                LocalDateTime epoch = LocalDateTime.parse("1970-01-01T00:00:00");
                assertEquals(
                        List.of(List.of(7L, 0.25, false, "2015-09-12T00:46:58.771Z", epoch)), Jdbc.rows(result));
            }
        }
    }

    @Test
    void aStatementThatCannotRunIsNotPrepared() {
        SQLException failure =
                assertThrows(SQLException.class, () -> connection.prepareStatement("SELECT ? AS x FROM nowhere"));
        assertTrue(Jdbc.messages(failure).contains("Object 'nowhere' not found"), Jdbc.messages(failure));
    }
}
