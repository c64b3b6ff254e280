package io.trilith.testing;

import io.trilith.client.SqlStatement;
import io.trilith.client.TrilithClient;
import io.trilith.client.WaitOptions;
import org.junit.jupiter.api.extension.AfterAllCallback;
import org.junit.jupiter.api.extension.BeforeAllCallback;
import org.junit.jupiter.api.extension.ExtensionContext;

/** A server and a client for the tests of one class. */
public final class ServerExtension implements BeforeAllCallback, AfterAllCallback {
    private TestServer server;
    private TrilithClient client;

    @Override
    public void beforeAll(ExtensionContext context) {
        server = TestServer.start();
        client = server.client();
    }

    @Override
    public void afterAll(ExtensionContext context) {
        if (client != null) {
            client.close();
        }
        if (server != null) {
            server.close();
        }
    }

    /** The server. */
    public TestServer server() {
        return server;
    }

    /** A client of it. */
    public TrilithClient client() {
        return client;
    }

    /** Fills a datasource with all edits. */
    public void ingest(String datasource) {
        client.run(SqlStatement.of(Wikipedia.replaceInto(datasource)), WaitOptions.defaults());
    }
}
