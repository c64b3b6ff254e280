package trilith_test

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	trilith "github.com/trilith-db/trilith/client/go"
)

const million = 1_000_000

var pairs = trilith.Statement{
	SQL: "SELECT a.page, b.user, a.added FROM wikipedia AS a JOIN wikipedia AS b ON a.channel = b.channel LIMIT 1000000",
}

// live is the memory that is still in use, in bytes.
func live() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// bytesOf is the memory of a batch, in bytes.
func bytesOf(batch arrow.RecordBatch) (size int) {
	for _, column := range batch.Columns() {
		for _, buffer := range column.Data().Buffers() {
			if buffer != nil {
				size += buffer.Len()
			}
		}
	}
	return size
}

func TestLargeResultStreams(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	rows, err := client.Query(patient(t), pairs)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	before := live()
	var count, batches, total int
	var most uint64
	for rows.Next() {
		count += int(rows.RecordBatch().NumRows())
		total += bytesOf(rows.RecordBatch())
		if batches++; batches%20 == 0 {
			most = max(most, live())
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if count != million {
		t.Errorf("%d rows", count)
	}
	grown := int(most) - int(before)
	if most == 0 || grown > total/4 {
		t.Errorf("the client held up to %d bytes more, of %d", grown, total)
	}
}

// ends waits until no query has an id.
func ends(t *testing.T, client *trilith.Client, queryID string) {
	t.Helper()
	ctx := patient(t)
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := client.CancelQuery(ctx, queryID)
		if errors.Is(err, trilith.ErrNotFound) {
			return
		}
		if err != nil {
			t.Fatalf("the query %s did not end: %v", queryID, err)
		}
		<-poll.C
	}
}

func TestCloseStopsQuery(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	rows, err := client.Query(patient(t), pairs)
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	rows.Close()
	if rows.Next() || rows.Err() != nil {
		t.Errorf("after Close there is %v, error %v", rows.RecordBatch(), rows.Err())
	}
	rows.Close()
	ends(t, client, rows.QueryID())
}

func TestCancelQuery(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	rows, err := client.Query(ctx, trilith.Statement{SQL: endless, ID: "canceled-by-name"})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if rows.QueryID() != "canceled-by-name" {
		t.Errorf("id %q", rows.QueryID())
	}
	if err := client.CancelQuery(ctx, "canceled-by-name"); err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
	}
	if failed := failure(t, rows.Err(), trilith.ErrCanceled); failed.ErrorCode != "Canceled" {
		t.Errorf("error %+v", failed)
	}
}
