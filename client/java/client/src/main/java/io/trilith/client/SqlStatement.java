package io.trilith.client;

import io.trilith.task.v1.Parameter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** A statement with its query context and the values of its {@code ?}. Immutable: each method returns a changed copy. */
public final class SqlStatement {
    static final String QUERY_ID = "sqlQueryId";

    private final String sql;
    private final Map<String, Object> context;
    private final List<SqlParameter> parameters;

    private SqlStatement(String sql, Map<String, Object> context, List<SqlParameter> parameters) {
        this.sql = Objects.requireNonNull(sql, "sql");
        this.context = context;
        this.parameters = parameters;
    }

    /** A statement with an empty context and without parameters. */
    public static SqlStatement of(String sql) {
        return new SqlStatement(sql, Map.of(), List.of());
    }

    /** With one more context entry, by Druid's name; the value is anything that JSON holds. */
    public SqlStatement context(String key, Object value) {
        return context(Map.of(key, value));
    }

    /** With more context entries. */
    public SqlStatement context(Map<String, ?> entries) {
        Map<String, Object> all = new LinkedHashMap<>(context);
        all.putAll(entries);
        return new SqlStatement(sql, all, parameters);
    }

    /** With the id that the task or query gets; a task's own id is {@code "query-"} and this one. */
    public SqlStatement id(String sqlQueryId) {
        return context(QUERY_ID, sqlQueryId);
    }

    /** With these values for its {@code ?}, in order, instead of earlier ones; see {@link SqlParameter#of}. */
    public SqlStatement parameters(Object... values) {
        return new SqlStatement(sql, context, Arrays.stream(values).map(SqlParameter::of).toList());
    }

    /** The text. */
    public String sql() {
        return sql;
    }

    SqlStatement explained() {
        boolean already = sql.stripLeading().regionMatches(true, 0, "EXPLAIN", 0, "EXPLAIN".length());
        return already ? this : new SqlStatement("EXPLAIN PLAN FOR " + sql, context, parameters);
    }

    /** The caller's id; null when there is none. */
    String queryId() {
        Object id = context.get(QUERY_ID);
        return id == null ? null : id.toString();
    }

    String contextJson() {
        return Json.text(context);
    }

    List<Parameter> parameterMessages() {
        List<Parameter> messages = new ArrayList<>(parameters.size());
        parameters.forEach(parameter -> messages.add(parameter.toMessage()));
        return messages;
    }
}
