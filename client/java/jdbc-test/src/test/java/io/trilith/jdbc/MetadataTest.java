package io.trilith.jdbc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.testing.ServerExtension;
import io.trilith.testing.TestServer;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** What a tool such as DBeaver asks when it connects and when its tree is unfolded. */
class MetadataTest {
    private static final List<String> SYSTEM_SCHEMAS = List.of("INFORMATION_SCHEMA", "sys");

    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static Connection connection;
    private static DatabaseMetaData metadata;

    @BeforeAll
    static void ingest() throws SQLException {
        SERVER.ingest("wikipedia");
        SERVER.ingest("wiki_2");
        SERVER.ingest("\"wikiX2\"");
        connection = Jdbc.connect(SERVER.server().address());
        metadata = connection.getMetaData();
    }

    @AfterAll
    static void close() throws SQLException {
        if (connection != null) {
            connection.close();
        }
    }

    private static List<String> tables(String catalog, String schema, String table, String... types)
            throws SQLException {
        return Jdbc.texts(
                metadata.getTables(catalog, schema, table, types.length == 0 ? null : types), "TABLE_NAME");
    }

    @Test
    void theProductAndWhatItIsCapableOfAreTold() throws IOException, SQLException {
        assertEquals("Trilith", metadata.getDatabaseProductName());
        List<String> manifest = Files.readAllLines(TestServer.repository().resolve("Cargo.toml"));
        assertTrue(manifest.contains("version = \"" + metadata.getDatabaseProductVersion() + "\""));
        assertEquals("\"", metadata.getIdentifierQuoteString());
        assertEquals("\\", metadata.getSearchStringEscape());
        assertEquals("catalog", metadata.getCatalogTerm());
        assertEquals("schema", metadata.getSchemaTerm());
        assertTrue(metadata.isCatalogAtStart());
        assertFalse(metadata.isReadOnly());
        assertFalse(metadata.supportsTransactions());
        assertFalse(metadata.supportsTransactionIsolationLevel(Connection.TRANSACTION_SERIALIZABLE));
        assertFalse(metadata.supportsSavepoints());
        assertFalse(metadata.supportsStoredProcedures());
        assertTrue(metadata.supportsBatchUpdates());
        assertTrue(metadata.supportsUnionAll());
        assertTrue(metadata.supportsSubqueriesInIns());
        assertTrue(metadata.supportsResultSetType(ResultSet.TYPE_FORWARD_ONLY));
        assertFalse(metadata.supportsResultSetType(ResultSet.TYPE_SCROLL_SENSITIVE));
        assertTrue(Arrays.asList(metadata.getSQLKeywords().split(", ")).contains("PARTITIONED"));
        assertTrue(Arrays.asList(metadata.getTimeDateFunctions().split(", ")).contains("TIME_FLOOR"));
        assertTrue(Arrays.asList(metadata.getStringFunctions().split(", ")).contains("REGEXP_EXTRACT"));
        assertTrue(Arrays.asList(metadata.getNumericFunctions().split(", ")).contains("SAFE_DIVIDE"));
        assertTrue(Arrays.asList(metadata.getSystemFunctions().split(", ")).contains("NVL"));
    }

    @Test
    void catalogsSchemasAndTableTypesAreListed() throws SQLException {
        assertEquals(List.of("druid"), Jdbc.texts(metadata.getCatalogs(), "TABLE_CAT"));
        assertEquals(List.of("SYSTEM_TABLE", "TABLE"), Jdbc.texts(metadata.getTableTypes(), "TABLE_TYPE"));
        List<String> schemas = Jdbc.texts(metadata.getSchemas(), "TABLE_SCHEM");
        assertTrue(schemas.contains("druid") && schemas.containsAll(SYSTEM_SCHEMAS), schemas.toString());
        assertEquals(schemas, Jdbc.texts(metadata.getSchemas("druid", "%"), "TABLE_SCHEM"));
        assertEquals(List.of("druid"), Jdbc.texts(metadata.getSchemas(null, "dru_d"), "TABLE_SCHEM"));
        assertEquals(List.of("druid"), Jdbc.texts(metadata.getSchemas("druid", "druid"), "TABLE_CATALOG"));
        assertEquals(List.of(), Jdbc.texts(metadata.getSchemas("other", "%"), "TABLE_SCHEM"));
    }

    @Test
    void tablesAreFoundByPatternAndType() throws SQLException {
        List<String> all = List.of("wikiX2", "wiki_2", "wikipedia");
        assertEquals(all, tables("druid", "druid", "%"));
        assertEquals(all, tables(null, null, "wiki%", "TABLE"));
        assertEquals(List.of(), tables("druid", "druid", "%", "SYSTEM_TABLE"));
        assertEquals(List.of(), tables("druid", "druid", "%", "VIEW"));
        assertEquals(List.of(), tables("other", null, "%"));
        assertEquals(List.of("wikiX2", "wiki_2"), tables("druid", "druid", "wiki_2"));
        assertEquals(List.of("wiki_2"), tables("druid", "druid", "wiki" + metadata.getSearchStringEscape() + "_2"));
        assertTrue(tables("druid", "sys", null, "SYSTEM_TABLE", "TABLE").containsAll(List.of("segments", "tasks")));
        assertTrue(tables("druid", "INFORMATION\\_SCHEMA", "%").containsAll(List.of("COLUMNS", "TABLES")));
        try (ResultSet table = metadata.getTables("druid", "druid", "wikipedia", new String[] {"TABLE"})) {
            assertTrue(table.next());
            assertEquals("druid", table.getString("TABLE_CAT"));
            assertEquals("druid", table.getString("TABLE_SCHEM"));
            assertEquals("TABLE", table.getString("TABLE_TYPE"));
            assertFalse(table.next());
        }
    }

    @Test
    void columnsHaveTypesAndPlaces() throws SQLException {
        List<List<Object>> columns = new ArrayList<>();
        try (ResultSet result = metadata.getColumns("druid", "druid", "wikipedia", "%")) {
            while (result.next()) {
                assertEquals("wikipedia", result.getString("TABLE_NAME"));
                boolean time = result.getString("COLUMN_NAME").equals("__time");
                // TIMESTAMP_WITH_TIMEZONE since 18.3 of the driver: times are UTC.
                int type = time && result.getInt("DATA_TYPE") == Types.TIMESTAMP_WITH_TIMEZONE
                        ? Types.TIMESTAMP
                        : result.getInt("DATA_TYPE");
                columns.add(List.of(
                        result.getInt("ORDINAL_POSITION"),
                        result.getString("COLUMN_NAME"),
                        type,
                        result.getString("TYPE_NAME"),
                        result.getInt("NULLABLE"),
                        result.getString("IS_NULLABLE")));
            }
        }
        int nullable = DatabaseMetaData.columnNullable;
        assertEquals(
                List.of(
                        List.of(1, "__time", Types.TIMESTAMP, "TIMESTAMP", nullable, "YES"),
                        List.of(2, "channel", Types.VARCHAR, "VARCHAR", nullable, "YES"),
                        List.of(3, "page", Types.VARCHAR, "VARCHAR", nullable, "YES"),
                        List.of(4, "user", Types.VARCHAR, "VARCHAR", nullable, "YES"),
                        List.of(5, "added", Types.BIGINT, "BIGINT", nullable, "YES"),
                        List.of(6, "deleted", Types.BIGINT, "BIGINT", nullable, "YES")),
                columns);
        assertEquals(
                List.of("added", "deleted"),
                Jdbc.texts(metadata.getColumns(null, "druid", "wikipedia", "_%ed"), "COLUMN_NAME"));
        assertTrue(Jdbc.texts(metadata.getColumns("druid", "sys", "segments", null), "COLUMN_NAME")
                .contains("segment_id"));
        assertEquals(
                3 * columns.size(),
                Jdbc.texts(metadata.getColumns(null, "druid", null, null), "COLUMN_NAME").size());
    }

    private interface Listing {
        ResultSet list() throws SQLException;
    }

    @Test
    void whatThereIsNotIsListedAsNothing() throws SQLException {
        for (Listing listing : List.<Listing>of(
                () -> metadata.getPrimaryKeys("druid", "druid", "wikipedia"),
                () -> metadata.getImportedKeys("druid", "druid", "wikipedia"),
                () -> metadata.getExportedKeys("druid", "druid", "wikipedia"),
                () -> metadata.getCrossReference("druid", "druid", "wikipedia", "druid", "druid", "wiki_2"),
                () -> metadata.getIndexInfo("druid", "druid", "wikipedia", false, true),
                () -> metadata.getBestRowIdentifier("druid", "druid", "wikipedia", 0, true),
                () -> metadata.getVersionColumns("druid", "druid", "wikipedia"),
                () -> metadata.getProcedures("druid", "druid", "%"),
                () -> metadata.getProcedureColumns("druid", "druid", "%", "%"),
                () -> metadata.getFunctions("druid", "druid", "%"),
                () -> metadata.getFunctionColumns("druid", "druid", "%", "%"),
                () -> metadata.getUDTs("druid", "druid", "%", null),
                () -> metadata.getAttributes("druid", "druid", "%", "%"),
                () -> metadata.getSuperTables("druid", "druid", "%"),
                () -> metadata.getTablePrivileges("druid", "druid", "%"),
                () -> metadata.getClientInfoProperties(),
                // The driver does not ask the server for these.
                () -> metadata.getTypeInfo())) {
            try (ResultSet result = listing.list()) {
                assertFalse(result.next());
            }
        }
    }

    /** A tool puts the three names of a table together, in quotes. */
    @Test
    void aTableHasThreeNames() throws SQLException {
        List<List<Object>> one = List.of(List.of(1L));
        String count = "SELECT COUNT(DISTINCT \"wikipedia\".\"page\") / COUNT(DISTINCT \"page\") AS n FROM ";
        assertEquals(one, Jdbc.rows(connection, count + "\"druid\".\"druid\".\"wikipedia\""));
        assertEquals(one, Jdbc.rows(connection, count + "druid.wikipedia AS \"wikipedia\""));
        assertEquals(
                List.of(List.of("wikipedia")),
                Jdbc.rows(
                        connection,
                        "SELECT TABLE_NAME FROM \"druid\".\"INFORMATION_SCHEMA\".\"TABLES\" t WHERE TABLE_NAME LIKE 'wikip%'"));
    }

    /** DatabaseMetaData's questions without arguments; the driver answers many of them from GetSqlInfo. */
    @Test
    void everyQuestionIsAnswered() throws IllegalAccessException {
        Map<String, Throwable> failures = new TreeMap<>();
        for (Method question : DatabaseMetaData.class.getMethods()) {
            if (question.getParameterCount() == 0) {
                try {
                    if (question.invoke(metadata) instanceof ResultSet result) {
                        result.close();
                    }
                } catch (InvocationTargetException failure) {
                    failures.put(question.getName(), failure.getCause());
                } catch (SQLException failure) {
                    failures.put(question.getName(), failure);
                }
            }
        }
        assertEquals(Map.of(), failures);
    }
}
