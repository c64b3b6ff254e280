package io.trilith.testing;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.trilith.client.TrilithClient;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** A server process with a directory of its own; gone when closed. */
public final class TestServer implements AutoCloseable {
    /** Longer than anything may take. */
    private static final long PATIENCE_SECONDS = 60;

    private final Path directory;
    private Process process;
    private String http = "127.0.0.1:0";
    private String grpc = "127.0.0.1:0";

    private TestServer(Path directory) {
        this.directory = directory;
    }

    /** A server that was started on free ports. */
    public static TestServer start() {
        try {
            TestServer server = new TestServer(Files.createTempDirectory("trilith-java"));
            server.launch();
            return server;
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    /** The repository's directory. */
    public static Path repository() {
        return Path.of(System.getProperty("trilith.repository")).normalize().toAbsolutePath();
    }

    /** Where the bundled data is, which the server may read. */
    public static Path data() {
        return repository().resolve("tests/data");
    }

    private static Path binary() {
        String binary = System.getenv("TRILITH_BIN");
        if (binary != null) {
            return Path.of(binary);
        }
        String target = System.getenv("CARGO_TARGET_DIR");
        Path directory = target == null ? repository().resolve("target") : Path.of(target);
        return directory.resolve("debug/trilith");
    }

    /** Starts the process, again on the ports that it had. */
    public void launch() {
        List<String> command = new ArrayList<>(List.of(binary().toString(), "server"));
        command.addAll(List.of("--data-dir", directory.resolve("data").toString()));
        command.addAll(List.of("--http-address", http, "--grpc-address", grpc));
        command.addAll(List.of("--allow-local", data().toString(), "--worker-slots", "2"));
        command.addAll(List.of("--durable-storage", directory.resolve("durable").toUri().toString()));
        Path log = directory.resolve("log");
        try {
            process = new ProcessBuilder(command)
                    .redirectError(ProcessBuilder.Redirect.appendTo(log.toFile()))
                    .start();
            BufferedReader stdout = process.inputReader(StandardCharsets.UTF_8);
            String line = stdout.readLine();
            if (line == null) {
                throw new IllegalStateException("no ready line: " + Files.readString(log));
            }
            JsonNode ready = new ObjectMapper().readTree(line);
            http = ready.get("http").asText();
            grpc = ready.get("grpc").asText();
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    /** {@code host:port} of gRPC and Flight. */
    public String address() {
        return grpc;
    }

    /** The port of gRPC and Flight. */
    public int port() {
        return Integer.parseInt(grpc.substring(grpc.lastIndexOf(':') + 1));
    }

    /** A client with default settings. */
    public TrilithClient client() {
        return TrilithClient.connect(address());
    }

    /** SIGKILL. */
    public void kill() {
        process.destroyForcibly();
        awaitEnd();
    }

    private void awaitEnd() {
        try {
            if (!process.waitFor(PATIENCE_SECONDS, TimeUnit.SECONDS)) {
                process.destroyForcibly();
                throw new IllegalStateException("the server does not stop");
            }
        } catch (InterruptedException interrupted) {
            process.destroyForcibly();
            throw new IllegalStateException(interrupted);
        }
    }

    /** SIGTERM, and the directory removed. */
    @Override
    public void close() {
        process.destroy();
        awaitEnd();
        try (Stream<Path> files = Files.walk(directory)) {
            for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                Files.delete(file);
            }
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }
}
