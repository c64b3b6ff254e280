package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.testing.ServerExtension;
import io.trilith.testing.TestCertificates;
import io.trilith.testing.TlsGateway;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.Properties;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;

/** TLS and tokens, against a gateway that ends the TLS and wants the token with every call. */
class TlsTest {
    private static final String TOKEN = "open-sesame";

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    @TempDir
    static Path directory;

    private static TestCertificates certificates;
    private static TlsGateway gateway;

    @BeforeAll
    static void start() throws Exception {
        certificates = new TestCertificates(directory, "ip:127.0.0.1");
        gateway = new TlsGateway(SERVER.server().address(), certificates, TOKEN);
    }

    @AfterAll
    static void stop() {
        if (gateway != null) {
            gateway.close();
        }
    }

    private static Properties properties(String token) {
        Properties properties = new Properties();
        properties.put("token", token);
        return properties;
    }

    private static Connection connect(Properties properties) throws SQLException {
        return DriverManager.getConnection(gateway.address().replace("https:", "jdbc:arrow-flight-sql:"), properties);
    }

    @Test
    void everyKindOfCallCarriesTheTokenThroughTls() throws SQLException {
        Properties properties = properties(TOKEN);
        properties.put("tlsRootCerts", certificates.authority().toString());
        try (Connection connection = connect(properties)) {
            assertEquals(List.of(List.of(1L)), Jdbc.rows(connection, "SELECT 1 AS x"));
            try (Statement statement = connection.createStatement();
                    PreparedStatement prepared = connection.prepareStatement("SELECT ? + 1 AS x")) {
                String insert = "INSERT INTO t SELECT TIMESTAMP '2024-01-01' AS __time PARTITIONED BY DAY";
                assertEquals(1, statement.executeUpdate(insert));
                prepared.setLong(1, 2);
                try (ResultSet result = prepared.executeQuery()) {
                    assertEquals(List.of(List.of(3L)), Jdbc.rows(result));
                }
            }
            assertEquals(List.of("druid"), Jdbc.texts(connection.getMetaData().getCatalogs(), "TABLE_CAT"));
        }
        String service = "arrow.flight.protocol.FlightService/";
        for (String method : List.of("Handshake", "GetFlightInfo", "DoGet", "DoPut", "DoAction")) {
            assertTrue(gateway.passed().contains(service + method), gateway.passed().toString());
        }
    }

    @Test
    void aCertificateNeedNotBeChecked() throws SQLException {
        Properties properties = properties(TOKEN);
        properties.put("disableCertificateVerification", "true");
        try (Connection connection = connect(properties)) {
            assertEquals(List.of(List.of(1L)), Jdbc.rows(connection, "SELECT 1 AS x"));
        }
    }

    @Test
    void aWrongTokenIsRefused() {
        Properties properties = properties("wrong");
        properties.put("tlsRootCerts", certificates.authority().toString());
        SQLException failure = assertThrows(SQLException.class, () -> connect(properties));
        assertTrue(failure.getMessage().contains("UNAUTHENTICATED"), failure.getMessage());
    }

    @Test
    void aServerThatCannotBeTrustedIsNotTalkedTo() {
        SQLException failure = assertThrows(SQLException.class, () -> connect(properties(TOKEN)));
        assertTrue(Jdbc.messages(failure).contains("certification path"), Jdbc.messages(failure));
    }
}
