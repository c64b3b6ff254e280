package io.trilith.client;

/** The time allowed for a call, for waiting or for reading rows is over. A task that was waited for goes on. */
public class CallTimeoutException extends TrilithException {
    private static final long serialVersionUID = 1L;

    CallTimeoutException(ErrorDetails details, Throwable cause) {
        super(details, cause);
    }
}
