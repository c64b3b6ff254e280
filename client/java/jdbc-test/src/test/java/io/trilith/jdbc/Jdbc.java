package io.trilith.jdbc;

import java.sql.Array;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.List;

/** What the tests do with java.sql. */
final class Jdbc {
    private Jdbc() {}

    /** A plaintext URL whose times are UTC, with {@code name=value} after these. */
    static String url(String address, String... parameters) {
        StringBuilder url = new StringBuilder("jdbc:arrow-flight-sql://" + address + "?useEncryption=false&timezone=UTC");
        for (String parameter : parameters) {
            url.append('&').append(parameter);
        }
        return url.toString();
    }

    static Connection connect(String address, String... parameters) throws SQLException {
        return DriverManager.getConnection(url(address, parameters));
    }

    /** All rows of a query. */
    static List<List<Object>> rows(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement();
                ResultSet result = statement.executeQuery(sql)) {
            return rows(result);
        }
    }

    /** All rows that are left: times as LocalDateTime in UTC, arrays as lists. */
    static List<List<Object>> rows(ResultSet result) throws SQLException {
        ResultSetMetaData columns = result.getMetaData();
        List<List<Object>> rows = new ArrayList<>();
        while (result.next()) {
            List<Object> row = new ArrayList<>();
            for (int column = 1; column <= columns.getColumnCount(); column++) {
                row.add(cell(result, column, columns.getColumnType(column)));
            }
            rows.add(row);
        }
        return rows;
    }

    private static Object cell(ResultSet result, int column, int type) throws SQLException {
        if (type == Types.TIMESTAMP || type == Types.TIMESTAMP_WITH_TIMEZONE) {
            // Versions 18.3 and older of the driver do not agree on what getObject is.
            return result.getTimestamp(column) == null ? null : result.getTimestamp(column).toLocalDateTime();
        }
        return result.getObject(column) instanceof Array array ? list(array) : result.getObject(column);
    }

    /** Items of an array; the driver leaves texts in a class of its own. */
    static List<Object> list(Array array) throws SQLException {
        List<Object> items = new ArrayList<>();
        for (Object item : (Object[]) array.getArray()) {
            items.add(item == null || item instanceof Number ? item : item.toString());
        }
        return items;
    }

    /** The column of all rows that are left. */
    static List<String> texts(ResultSet result, String column) throws SQLException {
        List<String> texts = new ArrayList<>();
        try (result) {
            while (result.next()) {
                texts.add(result.getString(column));
            }
        }
        return texts;
    }

    /** What a failure and its causes say, one after the other. */
    static String messages(Throwable failure) {
        StringBuilder messages = new StringBuilder();
        for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
            messages.append(cause.getMessage()).append('\n');
        }
        return messages.toString();
    }
}
