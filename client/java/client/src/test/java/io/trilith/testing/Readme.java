package io.trilith.testing;

import java.io.IOException;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.JavaCompiler;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;

/** The Java of README.md. */
public final class Readme {
    private static final Pattern JAVA = Pattern.compile("```java\n(.*?)```", Pattern.DOTALL);

    private Readme() {}

    /** The blocks of the sections whose titles are asked for, in order. */
    public static List<String> blocks(Predicate<String> sections) throws IOException {
        String readme = Files.readString(TestServer.repository().resolve("client/java/README.md"));
        List<String> blocks = new ArrayList<>();
        for (String section : readme.split("\n## ")) {
            if (sections.test(section.lines().findFirst().orElseThrow())) {
                for (Matcher matcher = JAVA.matcher(section); matcher.find(); ) {
                    blocks.add(matcher.group(1));
                }
            }
        }
        return blocks;
    }

    /** Compiles a class in a directory and runs it in a JVM of its own against a server; returns what it printed. */
    public static String run(Path directory, TestServer server, String name, String source)
            throws IOException, InterruptedException {
        Path file = Files.writeString(directory.resolve(name + ".java"), source);
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        StringWriter messages = new StringWriter();
        try (StandardJavaFileManager files = compiler.getStandardFileManager(null, null, null)) {
            List<String> options = List.of("-d", directory.toString(), "-Xlint:all,-classfile");
            if (!compiler.getTask(messages, files, null, options, null, files.getJavaFileObjects(file))
                    .call()) {
                throw new IllegalStateException(messages.toString());
            }
        }
        ProcessBuilder builder = new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "--add-opens=java.base/java.nio=ALL-UNNAMED",
                "-cp",
                directory + System.getProperty("path.separator") + System.getProperty("java.class.path"),
                name);
        builder.environment().put("TRILITH_ADDRESS", server.address());
        builder.environment().put("TRILITH_DATA", TestServer.data().toString());
        Process process = builder.directory(directory.toFile()).redirectErrorStream(true).start();
        String output = new String(process.getInputStream().readAllBytes());
        if (process.waitFor() != 0) {
            throw new IllegalStateException(output);
        }
        return output;
    }
}
