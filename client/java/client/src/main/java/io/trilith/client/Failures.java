package io.trilith.client;

import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.function.Supplier;
import org.apache.arrow.flight.CallStatus;
import org.apache.arrow.flight.FlightRuntimeException;

/** Turns what gRPC and Flight throw into what this client throws. */
final class Failures {
    private static final String STATUS_DETAILS = "grpc-status-details-bin";
    private static final Metadata.Key<byte[]> STATUS_DETAILS_KEY =
            Metadata.Key.of(STATUS_DETAILS, Metadata.BINARY_BYTE_MARSHALLER);

    private Failures() {}

    /** Makes a call; throws {@link TrilithException} for what gRPC or Flight throw. */
    static <T> T translated(Supplier<T> call) {
        try {
            return call.get();
        } catch (StatusRuntimeException failure) {
            throw of(failure);
        } catch (FlightRuntimeException failure) {
            throw of(failure);
        }
    }

    static TrilithException of(StatusRuntimeException failure) {
        Metadata trailers = failure.getTrailers();
        Status status = failure.getStatus();
        byte[] details = trailers == null ? null : trailers.get(STATUS_DETAILS_KEY);
        return ErrorDetails.of(status.getCode(), message(status), details).exception(failure);
    }

    static TrilithException of(FlightRuntimeException failure) {
        CallStatus status = failure.status();
        byte[] details = status.metadata() != null && status.metadata().containsKey(STATUS_DETAILS)
                ? status.metadata().getByte(STATUS_DETAILS)
                : null;
        return ErrorDetails.of(code(status), status.description(), details).exception(failure);
    }

    /** The description; for a failed connection with the reason, which gRPC keeps in the cause. */
    private static String message(Status status) {
        Throwable cause = status.getCause();
        if (cause == null || cause.getMessage() == null) {
            return status.getDescription();
        }
        return status.getDescription() + ": " + cause.getMessage();
    }

    /** Flight knows fewer codes than gRPC; what it merges, the category of the error still tells apart. */
    private static Status.Code code(CallStatus status) {
        return switch (status.code()) {
            case OK -> Status.Code.OK;
            case INVALID_ARGUMENT -> Status.Code.INVALID_ARGUMENT;
            case TIMED_OUT -> Status.Code.DEADLINE_EXCEEDED;
            case NOT_FOUND -> Status.Code.NOT_FOUND;
            case ALREADY_EXISTS -> Status.Code.ALREADY_EXISTS;
            case CANCELLED -> Status.Code.CANCELLED;
            case UNAUTHENTICATED -> Status.Code.UNAUTHENTICATED;
            case UNAUTHORIZED -> Status.Code.PERMISSION_DENIED;
            case UNIMPLEMENTED -> Status.Code.UNIMPLEMENTED;
            case UNAVAILABLE -> Status.Code.UNAVAILABLE;
            case RESOURCE_EXHAUSTED -> Status.Code.RESOURCE_EXHAUSTED;
            case INTERNAL -> Status.Code.INTERNAL;
            case UNKNOWN -> Status.Code.UNKNOWN;
        };
    }
}
