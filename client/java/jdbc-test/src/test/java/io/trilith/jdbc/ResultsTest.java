package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.Wikipedia;
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Rows of queries: every type, streaming, limits. */
class ResultsTest {
    private static final String TYPED = "SET arrayIngestMode = 'array'; REPLACE INTO typed OVERWRITE ALL"
            + " SELECT TIME_PARSE(\"time\") AS __time, channel, \"cityName\" AS city, added, CAST(delta AS DOUBLE) / 4 AS quarter,"
            + " CAST(delta AS FLOAT) AS small, ARRAY[channel, \"user\"] AS names, ARRAY[added, deleted] AS counts,"
            + " JSON_OBJECT('page': page, 'added': added) AS doc"
            + " FROM TABLE(EXTERN('" + Wikipedia.inputSource() + "', '{\"type\":\"json\"}')) EXTEND (\"time\" VARCHAR,"
            + " channel VARCHAR, page VARCHAR, \"user\" VARCHAR, \"cityName\" VARCHAR, added BIGINT, deleted BIGINT, delta BIGINT)"
            + " PARTITIONED BY DAY";
    /** Billions of rows. */
    private static final String MANY_ROWS = "SELECT a.channel, b.added FROM typed a CROSS JOIN typed b";

    private static final ObjectMapper JSON = new ObjectMapper();

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static Connection connection;

    @BeforeAll
    static void ingest() throws SQLException {
        connection = Jdbc.connect(SERVER.server().address());
        try (Statement statement = connection.createStatement()) {
            statement.execute(TYPED);
        }
    }

    @AfterAll
    static void close() throws SQLException {
        if (connection != null) {
            connection.close();
        }
    }

    private static List<Object> expected(JsonNode edit) {
        long added = edit.get("added").asLong();
        List<Object> row = new ArrayList<>();
        row.add(LocalDateTime.ofInstant(Instant.parse(edit.get("time").asText()), ZoneOffset.UTC));
        row.add(edit.get("channel").asText());
        row.add(edit.get("cityName").isNull() ? null : edit.get("cityName").asText());
        row.add(added);
        row.add(edit.get("delta").asLong() / 4.0);
        row.add((float) edit.get("delta").asLong());
        row.add(List.of(edit.get("channel").asText(), edit.get("user").asText()));
        row.add(List.of(added, edit.get("deleted").asLong()));
        row.add(JSON.createObjectNode().put("page", edit.get("page").asText()).put("added", (int) added));
        row.add(added > 100);
        return row;
    }

    @Test
    void everyTypeComesBackAsItWentIn() throws Exception {
        List<List<Object>> rows = new ArrayList<>();
        String sql = "SELECT __time, channel, city, added, quarter, small, names, counts, doc, added > 100 AS big FROM typed";
        try (Statement statement = connection.createStatement();
                ResultSet result = statement.executeQuery(sql)) {
            while (result.next()) {
                List<Object> row = new ArrayList<>();
                row.add(result.getTimestamp("__time").toLocalDateTime());
                row.add(result.getString("channel"));
                row.add(result.getString("city"));
                assertEquals(row.get(2) == null, result.wasNull());
                row.add(result.getLong("added"));
                row.add(result.getDouble("quarter"));
                row.add(result.getFloat("small"));
                row.add(Jdbc.list(result.getArray("names")));
                row.add(Jdbc.list(result.getArray("counts")));
                row.add(JSON.readTree(result.getString("doc")));
                row.add(result.getBoolean("big"));
                rows.add(row);
            }
        }
        // What is missing counts up, what is too much down.
        Map<List<Object>, Integer> differences = new HashMap<>();
        Wikipedia.edits().forEach(edit -> differences.merge(expected(edit), 1, Integer::sum));
        rows.forEach(row -> differences.merge(row, -1, Integer::sum));
        differences.values().removeIf(difference -> difference == 0);
        assertEquals(
                List.of(), differences.entrySet().stream().limit(4).toList(), () -> differences.size() + " differences");
    }

    @Test
    void columnsAreDescribed() throws SQLException {
        String sql = "SELECT __time, channel, added, quarter, small AS \"the small\", names, doc, added > 100, NULL AS nothing FROM typed";
        try (Statement statement = connection.createStatement();
                ResultSet result = statement.executeQuery(sql)) {
            ResultSetMetaData columns = result.getMetaData();
            List<String> labels = new ArrayList<>();
            List<Integer> types = new ArrayList<>();
            for (int column = 1; column <= columns.getColumnCount(); column++) {
                labels.add(columns.getColumnLabel(column));
                types.add(columns.getColumnType(column));
            }
            assertEquals(
                    List.of("__time", "channel", "added", "quarter", "the small", "names", "doc", "EXPR$7", "nothing"),
                    labels);
            // TIMESTAMP_WITH_TIMEZONE since 18.3 of the driver.
            assertTrue(List.of(Types.TIMESTAMP, Types.TIMESTAMP_WITH_TIMEZONE).contains(types.get(0)));
            assertEquals(
                    List.of(
                            Types.VARCHAR,
                            Types.BIGINT,
                            Types.DOUBLE,
                            Types.FLOAT,
                            Types.ARRAY,
                            Types.VARCHAR,
                            Types.BOOLEAN,
                            Types.NULL),
                    types.subList(1, types.size()));
            assertEquals("BIGINT", columns.getColumnTypeName(3));
            assertEquals(5, result.findColumn("the small"));
        }
    }

    @Test
    void valuesAreConverted() throws SQLException {
        String sql = "SELECT 9007199254740993 AS l, 2.5 AS d, '17' AS s, TRUE AS b, CAST(NULL AS BIGINT) AS n,"
                + " TIMESTAMP '2015-09-12 23:46:58.771' AS t, ARRAY['a', NULL] AS a, JSON_OBJECT('k': 1) AS j";
        try (Statement statement = connection.createStatement();
                ResultSet result = statement.executeQuery(sql)) {
            assertTrue(result.next());
            assertEquals(9_007_199_254_740_993L, result.getObject("l"));
            assertEquals("9007199254740993", result.getString("l"));
            assertEquals(new BigDecimal("9007199254740993"), result.getBigDecimal("l"));
            assertEquals(2.5, result.getObject("d"));
            assertEquals(2, result.getInt("d"));
            assertEquals(17, result.getInt("s"));
            assertEquals(true, result.getObject("b"));
            assertEquals(0L, result.getLong("n"));
            assertTrue(result.wasNull());
            assertNull(result.getObject("n"));
            // In New York, where this runs, that was still the 12th.
            assertEquals("2015-09-12 23:46:58.771", result.getString("t"));
            assertEquals("2015-09-12 23:46:58.771", result.getTimestamp("t").toString());
            assertEquals("2015-09-12", result.getDate("t").toString());
            assertEquals(Arrays.asList("a", null), Jdbc.list(result.getArray("a")));
            assertEquals("[\"a\",null]", result.getString("a"));
            assertEquals("{\"k\":1}", result.getString("j"));
            assertFalse(result.next());
        }
    }

    @Test
    void anEmptyResultHasNoRows() throws SQLException {
        assertEquals(List.of(), Jdbc.rows(connection, "SELECT channel FROM typed WHERE channel = 'none'"));
        try (Statement statement = connection.createStatement()) {
            assertTrue(statement.execute("SELECT 1 AS x"));
            assertEquals(-1, statement.getUpdateCount());
            assertFalse(statement.getMoreResults());
            assertEquals(-1, statement.getUpdateCount());
        }
    }

    @Test
    void rowsComeBeforeTheLastOneIsKnown() throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(1_000);
            try (ResultSet result = statement.executeQuery(MANY_ROWS)) {
                for (int row = 0; row < 200_000; row++) {
                    assertTrue(result.next());
                }
                assertTrue(Wikipedia.editsByChannel().containsKey(result.getString("channel")));
            }
        }
    }

    @Test
    void maxRowsEndsAResult() throws SQLException {
        try (Statement statement = connection.createStatement()) {
            // The driver counts the rows of each batch anew: more than a batch has do not end.
            statement.setMaxRows(200);
            try (ResultSet result = statement.executeQuery(MANY_ROWS)) {
                assertEquals(200, Jdbc.rows(result).size());
            }
        }
    }

    @Test
    void aPlanIsExplained() throws SQLException {
        String plan = (String) Jdbc.rows(connection, "EXPLAIN PLAN FOR " + TYPED.substring(TYPED.indexOf("REPLACE")))
                .get(0)
                .get(2);
        assertTrue(plan.contains("\"targetDataSource\":\"typed\""), plan);
    }
}
