package io.trilith.client;

import io.trilith.task.v1.Parameter;
import java.math.BigDecimal;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.util.Collection;

/**
 * A value for one {@code ?} of a statement.
 *
 * @param type SQL type: {@code "VARCHAR"}, {@code "BIGINT"}, {@code "DOUBLE"}, {@code "BOOLEAN"}, {@code "TIMESTAMP"},
 *     {@code "DATE"}, {@code "ARRAY"}
 * @param valueJson the value as JSON text
 */
public record SqlParameter(String type, String valueJson) {
    /**
     * The parameter that a Java value stands for: a text, a number, a boolean, null, an {@link Instant}, a {@link
     * LocalDateTime} (read in the statement's {@code sqlTimeZone}), a {@link LocalDate}, or a collection of texts, numbers
     * and booleans. Throws {@link IllegalArgumentException} for anything else, and for NaN and infinity.
     */
    public static SqlParameter of(Object value) {
        if (value == null) {
            return typed("NULL", null);
        } else if (value instanceof SqlParameter parameter) {
            return parameter;
        } else if (value instanceof CharSequence) {
            return typed("VARCHAR", value.toString());
        } else if (value instanceof Boolean) {
            return typed("BOOLEAN", value);
        } else if (value instanceof Long || value instanceof Integer || value instanceof Short || value instanceof Byte) {
            return typed("BIGINT", value);
        } else if (value instanceof Double || value instanceof Float) {
            if (!Double.isFinite(((Number) value).doubleValue())) {
                throw new IllegalArgumentException("a parameter cannot be " + value);
            }
            return typed("DOUBLE", value);
        } else if (value instanceof BigDecimal) {
            return typed("DECIMAL", value);
        } else if (value instanceof Instant instant) {
            return typed("TIMESTAMP", instant.toEpochMilli());
        } else if (value instanceof LocalDateTime) {
            return typed("TIMESTAMP", value.toString());
        } else if (value instanceof LocalDate) {
            return typed("DATE", value.toString());
        } else if (value instanceof Collection<?>) {
            return typed("ARRAY", value);
        }
        throw new IllegalArgumentException("a parameter cannot be a " + value.getClass().getName());
    }

    private static SqlParameter typed(String type, Object value) {
        return new SqlParameter(type, Json.text(value));
    }

    Parameter toMessage() {
        return Parameter.newBuilder().setType(type).setValueJson(valueJson).build();
    }
}
