package trilith

import (
	"context"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"

	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// Rows streams the rows of a statement as Arrow record batches. It is an array.RecordReader, for one goroutine; cancel
// the context to end the reading from another one.
type Rows struct {
	client *Client
	// Of all streams; cancel ends the one that is open.
	ctx        context.Context
	cancel     context.CancelFunc
	references atomic.Int64

	queryID string
	columns []*taskv1.ResultColumn
	// Of the pages that were not opened yet.
	tickets [][]byte
	schema  *arrow.Schema
	// Nil when there is nothing more to read.
	reader *flight.Reader
	err    error
}

var _ array.RecordReader = (*Rows)(nil)

func (c *Client) newRows(ctx context.Context) *Rows {
	rows := &Rows{client: c}
	rows.ctx, rows.cancel = bounded(ctx, c.streamTimeout)
	rows.references.Store(1)
	return rows
}

// QueryID is the id for CancelQuery. Empty for the results of a task.
func (r *Rows) QueryID() string { return r.queryID }

// Columns has Druid's types of the columns of a query, in the order of the schema. Nil for the results of a task:
// its report has them.
func (r *Rows) Columns() []*taskv1.ResultColumn { return r.columns }

// Schema is the Arrow schema, known before the first batch.
func (r *Rows) Schema() *arrow.Schema { return r.schema }

// Next reads the next batch; false at the end of the rows, after an error, and after Close.
func (r *Rows) Next() bool {
	for r.reader != nil {
		if r.reader.Next() {
			return true
		}
		if err := r.reader.Err(); err != nil {
			r.err = typed(r.ctx, err)
		}
		r.reader.Release()
		r.reader = nil
		if r.err == nil && len(r.tickets) > 0 {
			r.err = r.openNext(r.ctx)
		}
	}
	r.cancel()
	return false
}

// RecordBatch is the current batch. It is valid until the next call of Next, or longer with Retain.
func (r *Rows) RecordBatch() arrow.RecordBatch {
	if r.reader == nil {
		return nil
	}
	return r.reader.RecordBatch()
}

// Record is RecordBatch.
//
// Deprecated: array.RecordReader still asks for it.
func (r *Rows) Record() arrow.RecordBatch { return r.RecordBatch() }

// Err says why Next returned false: nil at the end of the rows or after Close, else an *Error.
func (r *Rows) Err() error { return r.err }

// Close ends the reading; a query that still runs is stopped. It may be called more than once.
func (r *Rows) Close() {
	r.cancel()
	r.tickets = nil
	if r.reader != nil {
		r.reader.Release()
		r.reader = nil
	}
}

// Retain adds an owner; each calls Release.
func (r *Rows) Retain() { r.references.Add(1) }

// Release takes an owner away; the last one closes.
func (r *Rows) Release() {
	if r.references.Add(-1) == 0 {
		r.Close()
	}
}

// ReadAll reads what is left into a table, and closes. The table takes as much memory as the rows do; release it.
func (r *Rows) ReadAll() (arrow.Table, error) {
	defer r.Close()
	var batches []arrow.RecordBatch
	defer func() {
		for _, batch := range batches {
			batch.Release()
		}
	}()
	for r.Next() {
		batch := r.RecordBatch()
		batch.Retain()
		batches = append(batches, batch)
	}
	if r.err != nil {
		return nil, r.err
	}
	return array.NewTableFromRecords(r.schema, batches), nil
}

// openNext opens the next page; nothing of it was read, so it may be tried again.
func (r *Rows) openNext(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.client.timeout)
	defer cancel()
	err := r.client.try(ctx, func(ctx context.Context, _ int) error {
		return r.open(ctx, r.tickets[0])
	})
	if err == nil {
		r.tickets = r.tickets[1:]
	}
	return err
}

// open starts reading the rows of a ticket, up to their schema, before ctx ends. What comes later ends with r.ctx.
func (r *Rows) open(ctx context.Context, ticket []byte) error {
	stop := context.AfterFunc(ctx, r.cancel)
	defer stop()
	stream, err := r.client.flight.DoGet(r.ctx, &flight.Ticket{Ticket: ticket})
	if err != nil {
		return err
	}
	reader, err := flight.NewRecordReader(stream)
	if err != nil {
		return err
	}
	if !stop() {
		reader.Release()
		return ctx.Err()
	}
	r.reader, r.schema = reader, reader.Schema()
	return nil
}
