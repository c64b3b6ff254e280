package io.trilith.client;

/** The statement or another argument is wrong, or its id is taken ({@code entryAlreadyExists}). */
public class InvalidInputException extends TrilithException {
    private static final long serialVersionUID = 1L;

    InvalidInputException(ErrorDetails details, Throwable cause) {
        super(details, cause);
    }
}
