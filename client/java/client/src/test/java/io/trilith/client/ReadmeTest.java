package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.testing.Readme;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.TestCertificates;
import io.trilith.testing.Wikipedia;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;

/** The Java of README.md compiles and does what it says. */
class ReadmeTest {
    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    @TempDir
    static Path directory;

    private static List<String> blocks() throws IOException {
        return Readme.blocks(section -> !section.equals("JDBC"));
    }

    private static String run(String name, String source) throws Exception {
        return Readme.run(directory, SERVER.server(), name, source);
    }

    @Test
    void theExampleIngestsAndPrintsTheRows() throws Exception {
        String output = run("Example", blocks().get(0));
        String rows = Wikipedia.editsByChannel().entrySet().stream()
                .sorted(Map.Entry.<String, Long>comparingByValue(Comparator.reverseOrder()))
                .limit(5)
                .map(entry -> entry.getKey() + "\t" + entry.getValue() + "\n")
                .collect(Collectors.joining());
        assertTrue(output.contains("channel\tedits\n" + rows), output);
        assertTrue(output.contains(" RUNNING ["), output);
        assertTrue(output.contains(Wikipedia.edits().size() + " rows read"), output);
    }

    @Test
    void theOtherBlocksRunOneAfterTheOther() throws Exception {
        SERVER.ingest("wikipedia");
        // Makes ca.pem, which one block reads.
        new TestCertificates(directory);
        String body = blocks().stream().skip(1).map(block -> "{\n" + block + "}\n").collect(Collectors.joining());
        String output = run(
                "Blocks",
                """
                import io.trilith.client.*;
                import io.trilith.task.v1.Task;
                import java.nio.file.Path;
                import java.time.Duration;
                import java.util.concurrent.CompletableFuture;
                import org.apache.arrow.vector.VectorSchemaRoot;

                public class Blocks {
                    public static void main(String[] args) {
                        try (TrilithClient client = TrilithClient.connect(System.getenv("TRILITH_ADDRESS"))) {
                """
                        + body + "}}}\n");
        assertTrue(output.contains(Wikipedia.edits().size() + " rows read"), output);
        assertTrue(output.contains("STATE_SUCCESS"), output);
        assertTrue(output.contains("nothing") && output.contains("column="), output);
    }
}
