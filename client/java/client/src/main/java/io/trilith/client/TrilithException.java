package io.trilith.client;

import io.grpc.Status;
import java.time.Duration;
import java.util.Map;
import java.util.Optional;

/**
 * A call that failed. Subclasses tell the usual reasons apart; {@link #errorCode()} is Druid's word for it.
 *
 * <p>Everything but the gRPC code and the message comes from the server's {@code google.rpc.ErrorInfo}. When there is
 * none (the connection failed, say), the category follows from the code and the error code is {@code "general"}.
 */
public class TrilithException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** What the server says of the failure. */
    private final ErrorDetails details;

    TrilithException(ErrorDetails details, Throwable cause) {
        super(details.message(), cause);
        this.details = details;
    }

    /** Status code of the call. */
    public Status.Code code() {
        return details.code();
    }

    /** Druid's error code: {@code "invalidInput"}, {@code "notFound"}, a fault code such as {@code "InsertTimeNull"}. */
    public String errorCode() {
        return details.errorCode();
    }

    /** Kind of error: {@code "INVALID_INPUT"}, {@code "NOT_FOUND"}, {@code "SERVICE_UNAVAILABLE"}, … */
    public String category() {
        return details.category();
    }

    /** Who can do something about it: {@code "USER"}, {@code "ADMIN"}, {@code "OPERATOR"} or {@code "DEVELOPER"}. */
    public String persona() {
        return details.persona();
    }

    /**
     * Details by name, such as {@code "line"} and {@code "column"} (from 1) of wrong SQL. Values are texts as the
     * server sends them. May be empty.
     */
    public Map<String, Object> context() {
        return details.context();
    }

    /** How long the server asks callers to wait before they try again; empty when it says nothing. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(details.retryAfter());
    }
}
