package io.trilith.client;

/** The token is missing or wrong, or does not allow this. */
public class UnauthorizedException extends TrilithException {
    private static final long serialVersionUID = 1L;

    UnauthorizedException(ErrorDetails details, Throwable cause) {
        super(details, cause);
    }
}
