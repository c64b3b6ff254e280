package trilith

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"

	queryv1 "github.com/trilith-db/trilith/client/go/gen/trilith/query/v1"
)

// Query runs a SELECT at once, without a task, and returns its rows as they are computed. Close the rows: that stops
// the query. The context bounds the reading as well.
//
// A server that cannot be reached is tried again until the first rows are under way; each try has a new id, unless
// the statement brings its own. Errors: ErrInvalidInput, with "line" and "column" in its context for wrong SQL;
// ErrUnavailable; what goes wrong later is told by Rows.Err.
func (c *Client) Query(ctx context.Context, statement Statement) (*Rows, error) {
	rows := c.newRows(ctx)
	err := c.try(ctx, func(ctx context.Context, _ int) error {
		encoded, err := statement.encode()
		if err != nil {
			return err
		}
		answer, err := c.queries.RunQuery(ctx, &queryv1.RunQueryRequest{
			Sql:         statement.SQL,
			ContextJson: encoded.contextJSON,
			Parameters:  encoded.parameters,
		})
		if err != nil {
			return err
		}
		rows.queryID, rows.columns = answer.GetQueryId(), answer.GetColumns()
		return rows.open(ctx, answer.GetTicket())
	})
	if err != nil {
		rows.Close()
		return nil, err
	}
	return rows, nil
}

// Results returns the rows of a SELECT task that ended well; those of a result in several pages come in order.
//
// Errors: ErrNotFound for an unknown task, ErrInvalidInput for one that has no rows.
func (c *Client) Results(ctx context.Context, taskID string) (*Rows, error) {
	descriptor := &flight.FlightDescriptor{Type: flight.DescriptorPATH, Path: []string{taskID}}
	info, err := read(ctx, c, c.flight.GetFlightInfo, descriptor)
	if err != nil {
		return nil, err
	}
	rows := c.newRows(ctx)
	for _, endpoint := range info.GetEndpoint() {
		rows.tickets = append(rows.tickets, endpoint.GetTicket().GetTicket())
	}
	if len(rows.tickets) == 0 {
		rows.schema, err = flight.DeserializeSchema(info.GetSchema(), memory.DefaultAllocator)
		if err != nil {
			err = typed(ctx, err)
		}
	} else {
		err = rows.openNext(ctx)
	}
	if err != nil {
		rows.Close()
		return nil, err
	}
	return rows, nil
}

// CancelQuery stops a query that runs, by Rows.QueryID or the ID of its statement. Whoever reads its rows gets
// ErrCanceled. Errors: ErrNotFound when no such query runs.
func (c *Client) CancelQuery(ctx context.Context, queryID string) error {
	_, err := read(ctx, c, c.queries.CancelQuery, &queryv1.CancelQueryRequest{QueryId: queryID})
	return err
}
