package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import io.trilith.testing.Readme;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.Wikipedia;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;
import org.junit.jupiter.api.io.TempDir;

/** The Java of README.md's part about JDBC compiles and does what it says. */
class ReadmeTest {
    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    @TempDir
    static Path directory;

    private static String run(String name, String source) throws Exception {
        String output = Readme.run(directory, SERVER.server(), name, source);
        // The driver says on stderr how it allocates: a line with the date, a line with the text.
        return output.lines()
                .filter(line -> !line.contains("shaded.org.apache.arrow.memory") && !line.startsWith("INFO: "))
                .map(line -> line + "\n")
                .collect(Collectors.joining());
    }

    @Test
    void theExampleIngestsAndPrintsTheRows() throws Exception {
        Map<String, List<JsonNode>> large = Wikipedia.edits().stream()
                .filter(edit -> edit.get("added").asLong() > 100)
                .filter(edit -> edit.get("time").asText().compareTo("2015-09-12T12") >= 0)
                .collect(Collectors.groupingBy(edit -> edit.get("channel").asText()));
        String rows = large.entrySet().stream()
                .sorted(Comparator.comparing(channel -> -channel.getValue().size()))
                .limit(5)
                .map(channel -> channel.getKey() + " " + channel.getValue().size() + " " + latest(channel.getValue()) + "\n")
                .collect(Collectors.joining());
        String output = run("JdbcExample", Readme.blocks("JDBC"::equals).get(0));
        assertEquals(Wikipedia.edits().size() + " rows written\n" + rows, output);
    }

    /** As Timestamp prints it: "2015-09-12 23:59:59.2" for …:59.200Z. */
    private static String latest(List<JsonNode> edits) {
        String latest = edits.stream().map(edit -> edit.get("time").asText()).max(Comparator.naturalOrder()).orElseThrow();
        return latest.replace('T', ' ').replace("Z", "").replaceAll("0{1,2}$", "");
    }

    @Test
    void contextComesFromProperties() throws Exception {
        String source = "import java.sql.*;\nimport java.util.Properties;\n\npublic class Context {\n"
                + "public static void main(String[] args) throws SQLException {\n"
                + Readme.blocks("JDBC"::equals).get(1) + "}}\n";
        assertEquals("05:30\n", run("Context", source));
    }
}
