package io.trilith.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status;
import java.io.Serializable;
import java.time.Duration;
import java.util.Map;

/** What is known of a failure. {@code retryAfter} may be null. */
record ErrorDetails(
        Status.Code code,
        String errorCode,
        String category,
        String persona,
        String message,
        Map<String, Object> context,
        Duration retryAfter)
        implements Serializable {
    private static final String DOMAIN = "trilith";
    private static final long serialVersionUID = 1L;

    /** Of a status that says nothing but its code. */
    static ErrorDetails of(Status.Code code, String message) {
        String text = message == null || message.isEmpty() ? code.toString() : message;
        return new ErrorDetails(code, "general", categoryOf(code), "OPERATOR", text, Map.of(), null);
    }

    /** Of an error that this client found itself. */
    static ErrorDetails own(Status.Code code, String errorCode, String message) {
        return new ErrorDetails(code, errorCode, categoryOf(code), "USER", message, Map.of(), null);
    }

    /** With what {@code grpc-status-details-bin} holds; null or unreadable bytes add nothing. */
    static ErrorDetails of(Status.Code code, String message, byte[] statusDetails) {
        ErrorDetails details = of(code, message);
        if (statusDetails == null) {
            return details;
        }
        try {
            for (Any any : com.google.rpc.Status.parseFrom(statusDetails).getDetailsList()) {
                if (any.is(ErrorInfo.class)) {
                    details = details.with(any.unpack(ErrorInfo.class));
                } else if (any.is(RetryInfo.class)) {
                    details = details.with(any.unpack(RetryInfo.class));
                }
            }
        } catch (InvalidProtocolBufferException unreadable) {
            return details;
        }
        return details;
    }

    private ErrorDetails with(ErrorInfo info) {
        if (!info.getDomain().equals(DOMAIN)) {
            return this;
        }
        Map<String, String> metadata = info.getMetadataMap();
        String word = metadata.getOrDefault("category", category);
        return new ErrorDetails(
                code,
                metadata.getOrDefault("errorCode", errorCode),
                word,
                metadata.getOrDefault("persona", persona),
                message,
                Json.objectOrEmpty(metadata.getOrDefault("context", "{}")),
                retryAfter);
    }

    private ErrorDetails with(RetryInfo info) {
        Duration delay = Duration.ofSeconds(
                info.getRetryDelay().getSeconds(), info.getRetryDelay().getNanos());
        return new ErrorDetails(code, errorCode, category, persona, message, context, delay);
    }

    /** The exception that callers tell it by. */
    TrilithException exception(Throwable cause) {
        return switch (code) {
            case INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE, ALREADY_EXISTS ->
                new InvalidInputException(this, cause);
            case NOT_FOUND -> new NotFoundException(this, cause);
            case UNAUTHENTICATED, PERMISSION_DENIED -> new UnauthorizedException(this, cause);
            case UNAVAILABLE -> new UnavailableException(this, cause);
            case DEADLINE_EXCEEDED -> new CallTimeoutException(this, cause);
            case CANCELLED -> new CanceledException(this, cause);
            default -> new TrilithException(this, cause);
        };
    }

    private static String categoryOf(Status.Code code) {
        return switch (code) {
            case INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE -> "INVALID_INPUT";
            case UNAUTHENTICATED -> "UNAUTHORIZED";
            case PERMISSION_DENIED -> "FORBIDDEN";
            case NOT_FOUND -> "NOT_FOUND";
            case ABORTED, ALREADY_EXISTS -> "CONFLICT";
            case RESOURCE_EXHAUSTED -> "CAPACITY_EXCEEDED";
            case CANCELLED -> "CANCELED";
            case DEADLINE_EXCEEDED -> "TIMEOUT";
            case UNIMPLEMENTED -> "UNSUPPORTED";
            case UNAVAILABLE -> "SERVICE_UNAVAILABLE";
            case INTERNAL -> "RUNTIME_FAILURE";
            default -> "UNCATEGORIZED";
        };
    }
}
