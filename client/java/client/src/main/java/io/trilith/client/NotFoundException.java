package io.trilith.client;

/** There is no such task, query, datasource or result. */
public class NotFoundException extends TrilithException {
    private static final long serialVersionUID = 1L;

    NotFoundException(ErrorDetails details, Throwable cause) {
        super(details, cause);
    }
}
