package io.trilith.testing;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.zip.GZIPInputStream;

/** The bundled edits, read without the server. */
public final class Wikipedia {
    private static final String FILE = "wikipedia-edits.json.gz";
    private static List<JsonNode> edits;

    private Wikipedia() {}

    /** All edits in the order of the file. */
    public static synchronized List<JsonNode> edits() {
        if (edits == null) {
            edits = read();
        }
        return edits;
    }

    private static List<JsonNode> read() {
        ObjectMapper mapper = new ObjectMapper();
        List<JsonNode> read = new ArrayList<>();
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(
                new GZIPInputStream(Files.newInputStream(TestServer.data().resolve(FILE))), StandardCharsets.UTF_8))) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                read.add(mapper.readTree(line));
            }
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
        return read;
    }

    /** How many edits each channel has, by channel. */
    public static Map<String, Long> editsByChannel() {
        return edits().stream()
                .collect(Collectors.groupingBy(
                        edit -> edit.get("channel").asText(), TreeMap::new, Collectors.counting()));
    }

    /** Sum of a number over all edits. */
    public static long sum(String column) {
        return edits().stream().mapToLong(edit -> edit.get(column).asLong()).sum();
    }

    /** Druid's input source for the file. */
    public static String inputSource() {
        return "{\"type\":\"local\",\"baseDir\":\"" + TestServer.data() + "\",\"filter\":\"" + FILE + "\"}";
    }

    /** EXTERN of the file with the columns time, channel, page, user, added, deleted. */
    public static String extern() {
        String columns = List.of("time string", "channel string", "page string", "user string", "added long", "deleted long")
                .stream()
                .map(column -> column.split(" "))
                .map(column -> "{\"name\":\"" + column[0] + "\",\"type\":\"" + column[1] + "\"}")
                .collect(Collectors.joining(",", "[", "]"));
        return "TABLE(EXTERN('" + inputSource() + "', '{\"type\":\"json\"}', '" + columns + "'))";
    }

    /** A statement that fills a datasource with all edits. */
    public static String replaceInto(String datasource) {
        return "REPLACE INTO " + datasource + " OVERWRITE ALL SELECT TIME_PARSE(\"time\") AS __time, channel, page, \"user\","
                + " added, deleted FROM " + extern() + " PARTITIONED BY DAY CLUSTERED BY channel";
    }
}
