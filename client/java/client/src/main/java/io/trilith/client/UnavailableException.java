package io.trilith.client;

/** The server cannot be reached, or cannot take the call now. Submitting again is safe: see {@link TrilithClient#submit}. */
public class UnavailableException extends TrilithException {
    private static final long serialVersionUID = 1L;

    UnavailableException(ErrorDetails details, Throwable cause) {
        super(details, cause);
    }
}
