package io.trilith.client;

/** The call, query or stream was stopped before its end. */
public class CanceledException extends TrilithException {
    private static final long serialVersionUID = 1L;

    CanceledException(ErrorDetails details, Throwable cause) {
        super(details, cause);
    }
}
