package io.trilith.client;

import io.grpc.Deadline;
import io.trilith.task.v1.ResultColumn;
import java.util.ArrayDeque;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.Queue;
import java.util.concurrent.TimeUnit;
import org.apache.arrow.flight.CallOptions;
import org.apache.arrow.flight.FlightStream;
import org.apache.arrow.flight.Ticket;
import org.apache.arrow.vector.VectorSchemaRoot;
import org.apache.arrow.vector.types.pojo.Schema;
import org.apache.arrow.vector.util.VectorSchemaRootAppender;

/**
 * Rows as Arrow batches, read as they come: a batch is fetched when it is asked for, and only a few wait ahead. A batch
 * belongs to the result and holds until the next one is asked for. Close it always; closing it before its end stops the
 * query. For one thread at a time.
 */
public final class QueryResult implements Iterable<VectorSchemaRoot>, AutoCloseable {
    private final Connection connection;
    private final String id;
    private final List<ResultColumn> columns;
    private final Schema schema;
    private final Queue<Ticket> tickets;
    private final Deadline deadline;
    private final Runnable close = this::close;
    private FlightStream stream;
    private boolean closed;

    /** {@code schema} null: the first ticket is used at once, because it does not hold for long, and tells the schema. */
    QueryResult(Connection connection, String id, List<ResultColumn> columns, Schema schema, List<Ticket> tickets) {
        this.connection = connection;
        this.id = id;
        this.columns = columns;
        this.tickets = new ArrayDeque<>(tickets);
        this.deadline = connection.streamDeadline();
        connection.opened(close);
        this.schema = schema == null ? schemaOfFirst() : schema;
    }

    private Schema schemaOfFirst() {
        stream = open(tickets.remove());
        try {
            return Failures.translated(stream::getSchema);
        } catch (TrilithException failure) {
            close();
            throw failure;
        }
    }

    /** Id of the query, for {@link TrilithClient#cancelQuery}; of the task when the rows are those of a task. */
    public String id() {
        return id;
    }

    /** Columns with Druid's and SQL's types, in the order of the SELECT list. */
    public List<ResultColumn> columns() {
        return columns;
    }

    /** Arrow types of the columns; known before the first batch. */
    public Schema schema() {
        return schema;
    }

    /**
     * The next batch; null after the last one. Throws {@link TrilithException} when the query fails, {@link
     * CanceledException} when it was stopped, {@link CallTimeoutException} when reading takes too long.
     */
    public VectorSchemaRoot next() {
        if (closed) {
            throw new IllegalStateException("the result is closed");
        }
        return Failures.translated(() -> {
            while (true) {
                if (stream == null) {
                    Ticket ticket = tickets.poll();
                    if (ticket == null) {
                        return null;
                    }
                    stream = open(ticket);
                }
                if (stream.next()) {
                    return stream.getRoot();
                }
                closeStream();
            }
        });
    }

    /** The batches that were not read yet. Each is valid until the next is asked for. */
    @Override
    public Iterator<VectorSchemaRoot> iterator() {
        return new Batches();
    }

    /** All rows that were not read yet as one table, which the caller closes before the client. */
    public VectorSchemaRoot readAll() {
        VectorSchemaRoot table = VectorSchemaRoot.create(schema, connection.allocator());
        try {
            table.allocateNew();
            for (VectorSchemaRoot batch : this) {
                VectorSchemaRootAppender.append(false, table, batch);
            }
            return table;
        } catch (RuntimeException failure) {
            table.close();
            throw failure;
        }
    }

    /** Stops the query if it is not at its end, and frees the batch. May be called again. */
    @Override
    public void close() {
        if (!closed) {
            closed = true;
            connection.closed(close);
            closeStream();
        }
    }

    private void closeStream() {
        FlightStream last = stream;
        stream = null;
        if (last == null) {
            return;
        }
        try {
            last.close();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        } catch (Exception canceled) {
            // The stream ends with the error that stopping it makes; its buffers are free.
            return;
        }
    }

    private FlightStream open(Ticket ticket) {
        long nanos = Math.max(deadline.timeRemaining(TimeUnit.NANOSECONDS), 1);
        return connection.flight().getStream(ticket, CallOptions.timeout(nanos, TimeUnit.NANOSECONDS));
    }

    /** Reads one batch ahead only when it is asked whether there is one. */
    private final class Batches implements Iterator<VectorSchemaRoot> {
        private VectorSchemaRoot ahead;

        @Override
        public boolean hasNext() {
            if (ahead == null) {
                ahead = QueryResult.this.next();
            }
            return ahead != null;
        }

        @Override
        public VectorSchemaRoot next() {
            if (!hasNext()) {
                throw new NoSuchElementException("no more rows");
            }
            VectorSchemaRoot batch = ahead;
            ahead = null;
            return batch;
        }
    }
}
