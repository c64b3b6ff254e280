package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.testing.ServerExtension;
import io.trilith.testing.TestCertificates;
import io.trilith.testing.TestServer;
import io.trilith.testing.Wikipedia;
import java.io.IOException;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import javax.tools.JavaCompiler;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;

/** The Java of README.md compiles and does what it says. */
class ReadmeTest {
    private static final Pattern JAVA = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL);

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    @TempDir
    static Path directory;

    private static List<String> blocks() throws IOException {
        String readme = Files.readString(TestServer.repository().resolve("client/java/README.md"));
        List<String> blocks = new ArrayList<>();
        for (Matcher matcher = JAVA.matcher(readme); matcher.find(); ) {
            blocks.add(matcher.group(1));
        }
        return blocks;
    }

    /** Compiles a class and runs it in a JVM of its own; returns what it printed. */
    private static String run(String name, String source) throws Exception {
        Path file = Files.writeString(directory.resolve(name + ".java"), source);
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StringWriter messages = new StringWriter();
        try (StandardJavaFileManager files = compiler.getStandardFileManager(null, null, null)) {
            List<String> options = List.of("-d", directory.toString(), "-Xlint:all,-classfile");
            boolean compiled = compiler.getTask(messages, files, null, options, null, files.getJavaFileObjects(file))
                    .call();
            assertTrue(compiled, messages.toString());
        }
        ProcessBuilder builder = new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--add-opens=java.base/java.nio=ALL-UNNAMED",
                "-cp",
                directory + System.getProperty("path.separator") + System.getProperty("java.class.path"),
                name);
        builder.environment().put("TRILITH_ADDRESS", SERVER.server().address());
        builder.environment().put("TRILITH_DATA", TestServer.data().toString());
        Process process = builder.directory(directory.toFile()).redirectErrorStream(true).start();
        String output = new String(process.getInputStream().readAllBytes());
        assertEquals(0, process.waitFor(), output);
        return output;
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
