package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.testing.ServerExtension;
import io.trilith.testing.Wikipedia;
import java.sql.Connection;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Statements that write, and statements that fail. */
class UpdatesTest {
    /** A row without a time. */
    private static final String NULL_TIME = "INSERT INTO failing SELECT TIME_PARSE(x) AS __time FROM TABLE(EXTERN("
            + "'{\"type\":\"inline\",\"data\":\"{\\\"x\\\":\\\"no\\\"}\"}', '{\"type\":\"json\"}')) EXTEND (x VARCHAR)"
            + " PARTITIONED BY DAY";

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static Connection connection;
    private static Statement statement;

    @BeforeAll
    static void connect() throws SQLException {
        connection = Jdbc.connect(SERVER.server().address());
        statement = connection.createStatement();
    }

    @AfterAll
    static void close() throws SQLException {
        if (connection != null) {
            statement.close();
            connection.close();
        }
    }

    private static long stored(String table) throws SQLException {
        return (long) Jdbc.rows(connection, "SELECT COUNT(*) AS n FROM " + table).get(0).get(0);
    }

    @Test
    void writtenRowsAreCounted() throws SQLException {
        long all = Wikipedia.edits().size();
        long english = Wikipedia.editsByChannel().get("#en.wikipedia");
        assertEquals(all, statement.executeUpdate(Wikipedia.replaceInto("edits")));
        assertEquals(all, stored("edits"));
        String insert = "INSERT INTO edits SELECT * FROM edits WHERE channel = '#en.wikipedia' PARTITIONED BY DAY";
        assertEquals(english, statement.executeLargeUpdate(insert));
        assertEquals(all + english, stored("edits"));
        // Written are the rows that stay.
        String delete = "DELETE FROM edits WHERE channel = '#en.wikipedia'";
        assertEquals(all - english, statement.executeUpdate(delete));
        assertEquals(all - english, stored("edits"));
        assertFalse(statement.execute("REPLACE INTO edits OVERWRITE ALL SELECT * FROM edits WHERE channel LIKE '#de%'"
                + " PARTITIONED BY DAY"));
        long german = Wikipedia.editsByChannel().get("#de.wikipedia");
        assertEquals(german, statement.getUpdateCount());
        assertEquals(german, statement.getLargeUpdateCount());
        assertEquals(german, stored("edits"));
        // Rows of equal dimensions become one.
        String rollup = "SET finalizeAggregations = FALSE; INSERT INTO channels SELECT FLOOR(__time TO DAY) AS __time, channel,"
                + " COUNT(*) AS edits FROM edits GROUP BY 1, 2 PARTITIONED BY DAY";
        long days = Wikipedia.edits().stream()
                .filter(edit -> edit.get("channel").asText().startsWith("#de"))
                .map(edit -> edit.get("time").asText().substring(0, 10))
                .distinct()
                .count();
        assertEquals(days, statement.executeUpdate(rollup));
    }

    @Test
    void wrongStatementsAreRefusedWithTheirPlace() throws SQLException {
        for (String[] wrong : new String[][] {
            {"SELECT 1 AS x,\n  nowhere\nFROM (SELECT 2 AS y)", "Column 'nowhere' not found", "line [2], column [3]"},
            {"SELECT *\nFROM nowhere", "Object 'nowhere' not found", "line [2], column [6]"},
            {"SELECT 1 +", "", "line [1], column ["},
            {"INSERT INTO t SELECT 1 AS __time", "PARTITIONED BY", ""},
            {"CREATE TABLE t (x INT)", "a statement begins with SELECT", "line [1], column [1]"},
            {"SELECT 1; SELECT 2", "non-SET statement[SELECT 1]", "line [1], column [9]"},
        }) {
            SQLException failure = assertThrows(SQLException.class, () -> statement.execute(wrong[0]), wrong[0]);
            String message = failure.getMessage().replace(wrong[0], "");
            assertTrue(message.contains(wrong[1]) && message.contains(wrong[2]), failure.getMessage());
        }
        assertEquals(List.of(List.of(1L)), Jdbc.rows(connection, "SELECT 1 AS x"), "the connection goes on");
    }

    @Test
    void aFailedTaskSaysWhy() {
        SQLException failure = assertThrows(SQLException.class, () -> statement.executeUpdate(NULL_TIME));
        assertTrue(failure.getMessage().contains("Null timestamp (__time)"), failure.getMessage());
        assertTrue(failure.getMessage().contains("\"x\" is 'no'"), failure.getMessage());
    }

    @Test
    void aFailedTaskNamesItsFault() {
        SQLException failure = assertThrows(SQLException.class, () -> statement.executeUpdate(NULL_TIME));
        assertTrue(failure.getMessage().contains("InsertTimeNull"), failure.getMessage());
    }

    @Test
    void aQueryThatFailsWhileItRunsSaysWhy() {
        SQLException failure = assertThrows(
                SQLException.class,
                () -> Jdbc.rows(connection, "SELECT 1 / (x - 2) AS q FROM (VALUES (1), (2)) AS t (x)"));
        assertTrue(Jdbc.messages(failure).contains("Divide by zero"), Jdbc.messages(failure));
    }

    @Test
    void externIsForStatementsThatWrite() {
        SQLException failure = assertThrows(
                SQLException.class, () -> statement.executeQuery("SELECT * FROM " + Wikipedia.extern()));
        assertTrue(failure.getMessage().contains("Cannot use [EXTERN]"), failure.getMessage());
    }
}
