package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.testing.ServerExtension;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLFeatureNotSupportedException;
import java.sql.Statement;
import java.util.List;
import java.util.Properties;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** Opening, using and closing connections. */
class ConnectionTest {
    private static final String MIDNIGHT = "SELECT TIME_FORMAT(MILLIS_TO_TIMESTAMP(0), 'HH:mm') AS t";

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static Connection connect(String... parameters) throws SQLException {
        return Jdbc.connect(SERVER.server().address(), parameters);
    }

    private static String first(Connection connection, String sql) throws SQLException {
        return String.valueOf(Jdbc.rows(connection, sql).get(0).get(0));
    }

    private static String encoded(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8);
    }

    @Test
    void anyUserAndTokenAreLetIn() throws SQLException {
        for (String[] parameters : new String[][] {
            {}, {"user=somebody"}, {"user=somebody", "password=" + encoded("pass word&1")}, {"token=secret"}
        }) {
            try (Connection connection = connect(parameters)) {
                assertTrue(connection.isValid(5));
                assertEquals("1", first(connection, "SELECT 1 AS x"));
            }
        }
        Properties properties = new Properties();
        properties.put("user", "somebody");
        properties.put("password", "secret");
        String url = Jdbc.url(SERVER.server().address());
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            assertEquals("somebody", connection.getMetaData().getUserName());
            assertEquals("1", first(connection, "SELECT 1 AS x"));
        }
    }

    @Test
    void contextOfTheUrlHoldsForEveryStatement() throws SQLException {
        String context = "{\"sqlTimeZone\": \"Asia/Kolkata\", \"maxNumTasks\": 3}";
        try (Connection connection = connect("trilith-context=" + encoded(context))) {
            assertEquals("05:30", first(connection, MIDNIGHT));
            assertEquals("09:00", first(connection, "SET sqlTimeZone = 'Asia/Tokyo'; " + MIDNIGHT), "SET wins");
            try (PreparedStatement prepared = connection.prepareStatement(MIDNIGHT + " WHERE 1 = ? + 0")) {
                prepared.setLong(1, 1);
                try (ResultSet result = prepared.executeQuery()) {
                    assertEquals(List.of(List.of("05:30")), Jdbc.rows(result));
                }
            }
            try (Statement statement = connection.createStatement()) {
                String insert = "INSERT INTO kolkata SELECT TIMESTAMP '2024-01-01' AS __time PARTITIONED BY DAY";
                assertEquals(1, statement.executeUpdate(insert));
            }
            assertEquals(
                    "2023-12-31T18:30:00.000Z",
                    first(connection, "SET sqlTimeZone = 'Etc/UTC'; SELECT TIME_FORMAT(__time) AS t FROM kolkata"));
        }
        Properties properties = new Properties();
        properties.put("trilith-context", context);
        String url = Jdbc.url(SERVER.server().address());
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            assertEquals("05:30", first(connection, MIDNIGHT));
        }
        try (Connection connection = connect("trilith-context=" + encoded("{\"maxNumTasks\": \"many\"}"))) {
            SQLException failure = assertThrows(SQLException.class, () -> first(connection, MIDNIGHT));
            assertTrue(failure.getMessage().contains("[maxNumTasks] must be an integer"), failure.getMessage());
        }
        try (Connection connection = connect("trilith-context=3")) {
            SQLException failure = assertThrows(SQLException.class, () -> first(connection, MIDNIGHT));
            assertTrue(failure.getMessage().contains("[trilith-context] is not a JSON object"), failure.getMessage());
        }
    }

    @Test
    void thereAreNoTransactions() throws SQLException {
        try (Connection connection = connect()) {
            assertFalse(connection.getMetaData().supportsTransactions());
            assertTrue(connection.getAutoCommit());
            assertEquals(Connection.TRANSACTION_NONE, connection.getTransactionIsolation());
            assertThrows(SQLFeatureNotSupportedException.class, connection::setSavepoint);
            // The driver takes these in and does nothing: the row is there before commit, and after rollback.
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.executeUpdate("INSERT INTO kept SELECT TIMESTAMP '2024-01-01' AS __time PARTITIONED BY DAY");
            }
            try (Connection other = connect()) {
                assertEquals("1", first(other, "SELECT COUNT(*) AS n FROM kept"));
            }
            connection.rollback();
            assertEquals("1", first(connection, "SELECT COUNT(*) AS n FROM kept"));
            connection.commit();
        }
    }

    @Test
    void statementsRunSideBySide() throws SQLException {
        try (Connection connection = connect();
                Statement one = connection.createStatement();
                Statement two = connection.createStatement();
                ResultSet first = one.executeQuery("SELECT x FROM (VALUES ('a'), ('b')) AS t (x) ORDER BY x");
                ResultSet second = two.executeQuery("SELECT x FROM (VALUES ('c'), ('d')) AS t (x) ORDER BY x")) {
            for (String[] expected : new String[][] {{"a", "c"}, {"b", "d"}}) {
                assertTrue(first.next());
                assertTrue(second.next());
                assertEquals(expected[0], first.getString(1));
                assertEquals(expected[1], second.getString(1));
            }
            assertFalse(first.next());
            assertFalse(second.next());
            assertNull(connection.getWarnings());
        }
    }

    @Test
    void whatIsClosedIsRefused() throws SQLException {
        Connection connection = connect();
        Statement statement = connection.createStatement();
        connection.close();
        assertTrue(connection.isClosed());
        assertFalse(connection.isValid(1));
        assertThrows(SQLException.class, () -> statement.executeQuery("SELECT 1"));
        SQLException failure = assertThrows(SQLException.class, connection::createStatement);
        assertTrue(failure.getMessage().contains("closed"), failure.getMessage());
        try (Connection open = connect()) {
            Statement closed = open.createStatement();
            closed.close();
            failure = assertThrows(SQLException.class, () -> closed.executeQuery("SELECT 1"));
            assertTrue(failure.getMessage().contains("Statement closed"), failure.getMessage());
        }
    }

    @Test
    void aServerThatIsNotThereOrAnotherIsTold() throws IOException, SQLException {
        String address;
        try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            address = "127.0.0.1:" + free.getLocalPort();
        }
        // With a user or token the driver says hello at once.
        SQLException failure = assertThrows(SQLException.class, () -> Jdbc.connect(address, "user=somebody"));
        assertTrue(Jdbc.messages(failure).contains("Connection refused"), Jdbc.messages(failure));
        try (Connection connection = Jdbc.connect(address)) {
            failure = assertThrows(SQLException.class, () -> first(connection, "SELECT 1"));
            assertTrue(Jdbc.messages(failure).contains("Connection refused"), Jdbc.messages(failure));
        }
        // The driver speaks TLS unless it is told not to.
        String encrypted = "jdbc:arrow-flight-sql://" + SERVER.server().address() + "?user=somebody";
        failure = assertThrows(SQLException.class, () -> DriverManager.getConnection(encrypted));
        assertTrue(Jdbc.messages(failure).contains("not an SSL/TLS record"), Jdbc.messages(failure));
        failure = assertThrows(
                SQLException.class, () -> DriverManager.getConnection("jdbc:arrow-flight-sql://127.0.0.1"));
        assertTrue(failure.getMessage().contains("must have a port"), failure.getMessage());
    }
}
