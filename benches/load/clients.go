package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	trilith "github.com/trilith-db/trilith/client/go"
)

const datasources = 8

// load is what all clients share: the server's address, and what they measured.
type load struct {
	address string
	control *trilith.Client
	// Rows of the table that is streamed.
	tableRows int64

	// From submission to the end of a task; of one read of the table; of GetTask.
	tasks, streams, probes latencies
	rows                   atomic.Int64
	// Errors that fail the run, and answers that asked to come back later.
	failures, refusals tally

	prober *prober
	first  string
}

// prepare fills the table that is streamed.
func prepare(server *server, data string) (*load, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return nil, err
	}
	l := &load{address: server.GRPC}
	if l.control, err = l.connect(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	source := fmt.Sprintf(`{"type":"local","baseDir":%q,"filter":"wikipedia-edits.json.gz"}`, data)
	task, err := l.control.Run(ctx, trilith.Statement{SQL: `REPLACE INTO wikipedia OVERWRITE ALL
		SELECT TIME_PARSE("time") AS __time, channel, page, "user", comment, added, deleted
		FROM TABLE(EXTERN('` + strings.ReplaceAll(source, "'", "''") + `', '{"type":"json"}'))
		EXTEND ("time" VARCHAR, channel VARCHAR, page VARCHAR, "user" VARCHAR, comment VARCHAR, added BIGINT, deleted BIGINT)
		PARTITIONED BY DAY CLUSTERED BY channel`})
	if err != nil {
		return nil, err
	}
	report, err := l.control.Report(ctx, task.GetTaskId())
	if err != nil {
		return nil, err
	}
	l.tableRows = report.RowsPushed()
	l.first = task.GetTaskId()
	return l, nil
}

func (l *load) close() { _ = l.control.Close() }

// connect makes a client that tells of errors that its tries hide.
func (l *load) connect() (*trilith.Client, error) {
	return trilith.Connect(l.address, trilith.WithDialOptions(grpc.WithStatsHandler(&observer{load: l})))
}

// run puts the load on for a time, then waits for what had begun.
func (l *load) run(length time.Duration, submitters, streamers int) error {
	ctx, cancel := context.WithTimeout(context.Background(), length+drainLimit)
	defer cancel()
	var err error
	if l.prober, err = startProber(l.address, length); err != nil {
		return err
	}
	defer l.prober.kill()
	l.prober.know(l.first)
	until := time.Now().Add(length)
	var group sync.WaitGroup
	for number := range submitters + streamers {
		client, err := l.connect()
		if err != nil {
			return err
		}
		work := l.submit
		if number >= submitters {
			work = l.stream
		}
		group.Go(func() {
			defer client.Close()
			for turn := 0; time.Now().Before(until); turn++ {
				if err := work(ctx, client, number, turn); err != nil {
					l.failed(ctx, err)
				}
			}
		})
	}
	found, err := l.prober.stop()
	group.Wait()
	for _, failure := range found.Failures {
		l.failures.add(failure)
	}
	l.probes.values = found.Latencies
	return err
}

// submit runs one small task to its end.
func (l *load) submit(ctx context.Context, client *trilith.Client, number, turn int) error {
	statement := trilith.Statement{
		SQL:        "SELECT channel, SUM(added) AS added FROM wikipedia WHERE deleted > ? GROUP BY 1",
		Parameters: []any{number},
	}
	if (number+turn)%2 == 0 {
		statement = trilith.Statement{SQL: fmt.Sprintf(`INSERT INTO "load_%d"
			SELECT TIME_PARSE(t) AS __time, client, turn
			FROM (VALUES ('2024-01-01T00:00:00Z', %[2]d, %[3]d), ('2024-01-01T01:00:00Z', %[2]d, %[3]d)) AS v (t, client, turn)
			PARTITIONED BY DAY`, number%datasources, number, turn)}
	}
	start := time.Now()
	taskID, err := client.Submit(ctx, statement)
	if err != nil {
		return err
	}
	l.prober.know(taskID)
	if _, err := client.Wait(ctx, taskID); err != nil {
		return err
	}
	l.tasks.add(time.Since(start))
	return nil
}

// stream reads the whole table once.
func (l *load) stream(ctx context.Context, client *trilith.Client, _, _ int) error {
	start := time.Now()
	rows, err := client.Query(ctx, trilith.Statement{SQL: "SELECT * FROM wikipedia"})
	if err != nil {
		return err
	}
	defer rows.Close()
	var count int64
	for rows.Next() {
		count += rows.RecordBatch().NumRows()
	}
	l.rows.Add(count)
	if err := rows.Err(); err != nil {
		return err
	}
	if count != l.tableRows {
		return fmt.Errorf("a stream had %d rows instead of %d", count, l.tableRows)
	}
	l.streams.add(time.Since(start))
	return nil
}

// failed counts an error, or does as the server says when it has too much to do.
func (l *load) failed(ctx context.Context, err error) {
	var failed *trilith.Error
	if errors.As(err, &failed) && failed.Code == codes.ResourceExhausted && failed.RetryAfter > 0 {
		l.refusals.add(failed.Message)
		// A little of it at random, so that not all come back at once.
		timer := time.NewTimer(failed.RetryAfter + rand.N(failed.RetryAfter/4+1))
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		return
	}
	var fault *trilith.TaskFailedError
	if errors.As(err, &fault) {
		l.failures.add("task failed: " + fault.ErrorCode + ": " + fault.Message)
		return
	}
	l.failures.add(err.Error())
}

func (l *load) print(length time.Duration) {
	seconds := length.Seconds()
	fmt.Printf("tasks      %d, %.0f in a second; %s\n", l.tasks.count(), float64(l.tasks.count())/seconds, &l.tasks)
	fmt.Printf("streams    %d, %.0f rows in a second; %s\n", l.streams.count(), float64(l.rows.Load())/seconds, &l.streams)
	fmt.Printf("GetTask    %d; %s\n", l.probes.count(), &l.probes)
	l.refusals.print("refused")
	l.failures.print("error")
}

// observer sees how each RPC ended, those too that the client tries again.
type observer struct {
	load *load
}

func (*observer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*observer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*observer) HandleConn(context.Context, stats.ConnStats)                       {}

func (o *observer) HandleRPC(_ context.Context, event stats.RPCStats) {
	if end, ended := event.(*stats.End); ended && status.Code(end.Error) == codes.Unavailable {
		o.load.failures.add(end.Error.Error() + " (tried again)")
	}
}
