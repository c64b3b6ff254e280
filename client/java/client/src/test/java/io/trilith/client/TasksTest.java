package io.trilith.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.trilith.datasource.v1.Datasource;
import io.trilith.datasource.v1.Segment;
import io.trilith.task.v1.Column;
import io.trilith.task.v1.StageReport;
import io.trilith.task.v1.State;
import io.trilith.task.v1.Task;
import io.trilith.testing.Cells;
import io.trilith.testing.ServerExtension;
import io.trilith.testing.Wikipedia;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.types.pojo.Field;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.RegisterExtension;

/** An ingestion, what is told of it, and statements on what it wrote. */
class TasksTest {
    @RegisterExtension
    static final ServerExtension SERVER = new ServerExtension();

    private static final List<TaskUpdate> UPDATES = new ArrayList<>();
    private static TrilithClient client;
    private static Task ingestion;

    @BeforeAll
    static void ingest() {
        client = SERVER.client();
        SqlStatement statement = SqlStatement.of(Wikipedia.replaceInto("wikipedia")).context("maxNumTasks", 3);
        ingestion = client.run(statement, WaitOptions.defaults().onProgress(UPDATES::add));
    }

    private static List<List<Object>> editsByChannel() {
        List<List<Object>> expected = new ArrayList<>();
        Wikipedia.editsByChannel().forEach((channel, edits) -> expected.add(List.of(channel, edits)));
        return expected;
    }

    @Test
    void aQuerySeesWhatWasIngested() {
        try (QueryResult result =
                        client.query("SELECT channel, COUNT(*) AS edits FROM wikipedia GROUP BY 1 ORDER BY 1");
                VectorSchemaRoot table = result.readAll()) {
            assertEquals(editsByChannel(), Cells.of(table));
            assertEquals(List.of("VARCHAR", "BIGINT"), result.columns().stream().map(c -> c.getSqlType()).toList());
            assertEquals("channel", result.schema().getFields().get(0).getName());
        }
    }

    @Test
    void aSelectTaskKeepsItsRows() {
        Task task = client.run("SELECT channel, COUNT(*) AS edits FROM wikipedia GROUP BY 1 ORDER BY 1");
        for (int time = 0; time < 2; time++) {
            try (QueryResult result = client.results(task.getTaskId())) {
                assertEquals(List.of("channel", "edits"), result.columns().stream().map(c -> c.getName()).toList());
                assertEquals(editsByChannel(), Cells.of(result));
            }
        }
        assertEquals(Wikipedia.editsByChannel().size(), client.report(task.getTaskId()).rowsWritten());
    }

    @Test
    void pagesOfATaskAreReadInOrder() {
        SqlStatement statement = SqlStatement.of("SELECT page, added FROM wikipedia ORDER BY page, added")
                .context(Map.of("selectDestination", "durableStorage", "rowsPerPage", 10_000));
        Task task = client.run(statement, WaitOptions.defaults());
        assertTrue(client.report(task.getTaskId()).message().getResults().getPagesCount() > 1);
        try (QueryResult pages = client.results(task.getTaskId());
                QueryResult once = client.query(statement.sql())) {
            List<List<Object>> rows = Cells.of(pages);
            assertEquals(Wikipedia.edits().size(), rows.size());
            assertEquals(Cells.of(once), rows);
        }
    }

    @Test
    void aResultWithoutRowsHasASchema() {
        SqlStatement statement = SqlStatement.of("SELECT page, added FROM wikipedia WHERE added < 0");
        List<String> names = List.of("page", "added");
        for (String destination : List.of("taskReport", "durableStorage")) {
            Task task = client.run(statement.context("selectDestination", destination), WaitOptions.defaults());
            try (QueryResult result = client.results(task.getTaskId())) {
                assertEquals(names, result.schema().getFields().stream().map(Field::getName).toList());
                assertEquals(List.of(), Cells.of(result));
            }
        }
        try (QueryResult result = client.query(statement);
                VectorSchemaRoot table = result.readAll()) {
            assertEquals(names, table.getSchema().getFields().stream().map(Field::getName).toList());
            assertEquals(0, table.getRowCount());
        }
    }

    @Test
    void progressTellsOfStatesStagesAndRows() {
        TaskUpdate last = UPDATES.get(UPDATES.size() - 1);
        assertEquals(State.STATE_SUCCESS, ingestion.getState());
        assertEquals(ingestion, last.task());
        assertFalse(UPDATES.get(0).ended());
        List<TaskUpdate> running = UPDATES.stream().filter(update -> update.state() == State.STATE_RUNNING).toList();
        assertTrue(
                running.stream()
                        .flatMap(update -> update.report().stream())
                        .flatMap(report -> report.stages().stream())
                        .anyMatch(StageReport::hasPhase),
                "no update of the running task shows a stage's phase: " + UPDATES);
        long edits = Wikipedia.edits().size();
        Report report = last.report().orElseThrow();
        assertEquals(edits, report.rowsRead());
        assertEquals(edits, report.rowsWritten());
        assertEquals(edits, report.rowsPushed());
        assertEquals(List.of(), report.warnings());
        assertTrue(report.stages().stream().allMatch(stage -> stage.getPhase().equals("FINISHED")), report.toString());
        assertEquals(report.stages(), client.report(ingestion.getTaskId()).stages());
    }

    @Test
    void listsTellOfTheDatasource() {
        Datasource datasource = client.datasources().stream()
                .filter(each -> each.getName().equals("wikipedia"))
                .findFirst()
                .orElseThrow();
        assertEquals(Wikipedia.edits().size(), datasource.getRowCount());
        assertEquals(
                List.of("__time LONG", "channel STRING", "page STRING", "user STRING", "added LONG", "deleted LONG"),
                columns(client.schema("wikipedia")));
        List<Segment> segments = client.segments("wikipedia");
        assertEquals(datasource.getSegmentCount(), segments.size());
        assertEquals(
                Wikipedia.edits().size(),
                segments.stream().mapToLong(Segment::getRowCount).sum());
        assertEquals(List.of(), client.locks("wikipedia"));
        assertEquals(2, client.workers().get(0).getSlotCount());
        assertEquals(ingestion.getTaskId(), client.task(ingestion.getTaskId()).getTaskId());
    }

    private static List<String> columns(List<Column> columns) {
        return columns.stream().map(column -> column.getName() + " " + column.getType()).toList();
    }

    @Test
    void theListOfTasksFollowsItsPages() {
        // One page holds at most 100 tasks by default.
        int count = 103;
        List<String> submitted = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            submitted.add(0, client.submit("SELECT " + number + " AS n").taskId());
        }
        submitted.forEach(id -> client.waitFor(id, WaitOptions.defaults()));
        List<String> listed = client.tasks(TaskFilter.ofDatasource("__query_select")).stream()
                .map(Task::getTaskId)
                .filter(submitted::contains)
                .toList();
        assertEquals(submitted, listed);
        assertEquals(
                List.of(ingestion.getTaskId()),
                client.tasks(TaskFilter.ofDatasource("wikipedia")).stream().map(Task::getTaskId).toList());
        assertEquals(List.of(), client.tasks(TaskFilter.inStates(State.STATE_WAITING)));
    }

    @Test
    void columnsOfExternalDataAreFound() {
        List<String> found = columns(client.inferSignature(Wikipedia.inputSource(), "{\"type\":\"json\"}"));
        assertTrue(found.containsAll(List.of("time STRING", "channel STRING", "added LONG")), found.toString());
        assertEquals(Wikipedia.edits().get(0).size(), found.size());
    }

    @Test
    void explainTellsThePlanAndMakesNoTask() {
        int before = client.tasks(TaskFilter.ofDatasource("planned")).size();
        SqlStatement statement = SqlStatement.of(Wikipedia.replaceInto("planned"));
        String attributes = client.explain(statement).getAttributesJson();
        Map<String, Object> fields = Json.objectOrEmpty(attributes);
        assertEquals("REPLACE", fields.get("statementType"), attributes);
        SqlStatement explicit = SqlStatement.of("EXPLAIN PLAN FOR " + statement.sql());
        assertEquals(attributes, client.explain(explicit).getAttributesJson());
        InvalidInputException refused = assertThrows(InvalidInputException.class, () -> client.submit(explicit));
        assertTrue(refused.getMessage().contains("explain"), refused.getMessage());
        assertEquals(before, client.tasks(TaskFilter.ofDatasource("planned")).size());
    }
}
