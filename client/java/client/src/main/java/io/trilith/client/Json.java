package io.trilith.client;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.LinkedHashMap;
import java.util.Map;

/** The JSON texts inside messages. */
final class Json {
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static final TypeReference<LinkedHashMap<String, Object>> OBJECT = new TypeReference<>() {};

    private Json() {}

    /** Throws {@link IllegalArgumentException} for a value that JSON cannot hold. */
    static String text(Object value) {
        try {
            return MAPPER.writeValueAsString(value);
        } catch (JsonProcessingException unsuitable) {
            throw new IllegalArgumentException("not a JSON value: " + unsuitable.getOriginalMessage(), unsuitable);
        }
    }

    /** The fields of an object in their order; none when the text is no object, so that an error is never lost. */
    static Map<String, Object> objectOrEmpty(String text) {
        try {
            Map<String, Object> fields = MAPPER.readValue(text, OBJECT);
            return fields == null ? Map.of() : java.util.Collections.unmodifiableMap(fields);
        } catch (JsonProcessingException unreadable) {
            return Map.of();
        }
    }
}
