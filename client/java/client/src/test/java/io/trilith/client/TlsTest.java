package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import io.trilith.task.v1.State;
import io.trilith.testing.Cells;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.TestCertificates;
import io.trilith.testing.TlsGateway;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
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
        certificates = new TestCertificates(directory);
        gateway = new TlsGateway(SERVER.server().address(), certificates, TOKEN);
    }

    @AfterAll
    static void stop() {
        if (gateway != null) {
            gateway.close();
        }
    }

    private static TrilithClientBuilder builder() {
        return TrilithClient.builder(gateway.address()).timeout(Duration.ofSeconds(2));
    }

    @Test
    void everyKindOfCallCarriesTheTokenThroughTls() throws Exception {
        byte[] authority = Files.readAllBytes(certificates.authority());
        try (TrilithClient client = TrilithClient.builder(gateway.address())
                .caCertificates(authority)
                .serverName(TestCertificates.SERVER_NAME)
                .token(TOKEN)
                .connect()) {
            TaskHandle task = client.submit("SELECT 1 AS x");
            assertEquals(State.STATE_SUCCESS, task.waitFor().getState());
            try (QueryResult rows = task.results()) {
                assertEquals(List.of(List.of(1L)), Cells.of(rows));
            }
            try (QueryResult rows = client.query("SELECT 2 AS x")) {
                assertEquals(List.of(List.of(2L)), Cells.of(rows));
            }
            assertEquals(List.of(), client.datasources());
        }
        assertTrue(
                gateway.passed().containsAll(List.of(
                        "trilith.task.v1.TaskService/SubmitTask",
                        "trilith.task.v1.TaskService/WatchTask",
                        "trilith.query.v1.QueryService/RunQuery",
                        "trilith.datasource.v1.DatasourceService/ListDatasources",
                        "arrow.flight.protocol.FlightService/GetFlightInfo",
                        "arrow.flight.protocol.FlightService/DoGet")),
                gateway.passed().toString());
    }

    @Test
    void aMissingOrWrongTokenIsUnauthorized() {
        TrilithClientBuilder trusting =
                builder().caCertificates(certificates.authority()).serverName(TestCertificates.SERVER_NAME);
        for (String token : new String[] {null, "wrong"}) {
            try (TrilithClient client = trusting.token(token).connect()) {
                UnauthorizedException failure = assertThrows(UnauthorizedException.class, client::datasources);
                assertEquals(Status.Code.UNAUTHENTICATED, failure.code());
                assertEquals("UNAUTHORIZED", failure.category());
                assertThrows(UnauthorizedException.class, () -> client.submit("SELECT 1"));
            }
        }
    }

    @Test
    void aServerThatCannotBeTrustedIsNotTalkedTo() {
        List<TrilithClientBuilder> doubtful = List.of(
                // Another name than the certificate's.
                builder().caCertificates(certificates.authority()).token(TOKEN),
                // An authority that the system does not know.
                builder().serverName(TestCertificates.SERVER_NAME).token(TOKEN));
        for (TrilithClientBuilder builder : doubtful) {
            try (TrilithClient client = builder.connect()) {
                UnavailableException failure = assertThrows(UnavailableException.class, client::workers);
                assertTrue(failure.getMessage().toLowerCase().contains("ssl")
                        || failure.getMessage().toLowerCase().contains("certificate")
                        || failure.getMessage().toLowerCase().contains("cert"), failure.getMessage());
            }
        }
    }
}
