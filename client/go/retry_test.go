package trilith_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	trilith "github.com/trilith-db/trilith/client/go"
)

// mutedProxy forwards to a server; while it is muted nothing comes back.
type mutedProxy struct {
	address string

	mutex       sync.Mutex
	muted       bool
	connections []net.Conn
}

func startProxy(t *testing.T, target string) *mutedProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &mutedProxy{address: listener.Addr().String()}
	t.Cleanup(func() { _ = listener.Close(); p.drop() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", target)
			if err != nil {
				_ = near.Close()
				return
			}
			p.mutex.Lock()
			p.connections = append(p.connections, near, far)
			p.mutex.Unlock()
			go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
			go func() { _, _ = io.Copy(p.unlessMuted(near), far); _ = near.Close() }()
		}
	}()
	return p
}

type writer func([]byte) (int, error)

func (w writer) Write(bytes []byte) (int, error) { return w(bytes) }

func (p *mutedProxy) unlessMuted(to io.Writer) io.Writer {
	return writer(func(bytes []byte) (int, error) {
		p.mutex.Lock()
		muted := p.muted
		p.mutex.Unlock()
		if muted {
			return len(bytes), nil
		}
		return to.Write(bytes)
	})
}

func (p *mutedProxy) mute() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.muted = true
}

// drop ends all connections; new ones are not muted.
func (p *mutedProxy) drop() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.muted = false
	for _, connection := range p.connections {
		_ = connection.Close()
	}
	p.connections = nil
}

// arrives waits until the server has a task.
func arrives(ctx context.Context, client *trilith.Client, taskID string) error {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		_, err := client.Task(ctx, taskID)
		if !errors.Is(err, trilith.ErrNotFound) {
			return err
		}
		<-poll.C
	}
}

func onlyTask(t *testing.T, client *trilith.Client, datasource, taskID string) {
	t.Helper()
	tasks, err := client.Tasks(patient(t), trilith.TaskFilter{Datasource: datasource})
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) != 1 || tasks[0].GetTaskId() != taskID {
		t.Errorf("tasks %v", tasks)
	}
}

func insert(datasource, id string) trilith.Statement {
	return trilith.Statement{
		SQL: `INSERT INTO "` + datasource + `" SELECT TIMESTAMP '2024-01-01' AS __time, 1 AS x PARTITIONED BY DAY`,
		ID:  id,
	}
}

func TestSameIDTwice(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	if _, err := client.Run(ctx, insert("twice", "twice")); err != nil {
		t.Fatal(err)
	}
	byContext := insert("twice", "")
	byContext.Context = map[string]any{"sqlQueryId": "twice"}
	for _, statement := range []trilith.Statement{insert("twice", "twice"), byContext} {
		_, err := client.Submit(ctx, statement)
		if failed := failure(t, err, trilith.ErrInvalidInput); failed.ErrorCode != "entryAlreadyExists" {
			t.Errorf("error %+v", failed)
		}
	}
	onlyTask(t, client, "twice", "query-twice")
}

func TestLostAnswerRunsOnce(t *testing.T) {
	server := sharedServer(t)
	direct := connect(t, server.GRPC)
	proxy := startProxy(t, server.GRPC)
	client := connect(t, proxy.address)
	ctx := patient(t)
	if _, err := client.Workers(ctx); err != nil {
		t.Fatal(err)
	}
	proxy.mute()
	arrived := make(chan error, 1)
	go func() {
		arrived <- arrives(ctx, direct, "query-lost-answer")
		proxy.drop()
	}()
	taskID, err := client.Submit(ctx, insert("lost_answer", "lost-answer"))
	if err != nil || taskID != "query-lost-answer" {
		t.Errorf("task %q, error %v", taskID, err)
	}
	if err := <-arrived; err != nil {
		t.Fatal(err)
	}
	if _, err := client.Wait(ctx, taskID); err != nil {
		t.Error(err)
	}
	onlyTask(t, direct, "lost_answer", taskID)
}

func TestWaitSurvivesLostConnection(t *testing.T) {
	proxy := startProxy(t, sharedServer(t).GRPC)
	client := connect(t, proxy.address)
	ctx := patient(t)
	statement := ingestion("lost_connection")
	dropped := false
	_, err := client.Run(ctx, statement, trilith.OnProgress(func(*trilith.Update) {
		if !dropped {
			dropped = true
			proxy.drop()
		}
	}))
	if err != nil || !dropped {
		t.Errorf("error %v", err)
	}
}

func TestServerRestarts(t *testing.T) {
	directory := t.TempDir()
	first, err := launch(directory, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := connect(t, first.GRPC)
	ctx := patient(t)
	if _, err := client.Run(ctx, insert("before", "before")); err != nil {
		first.kill()
		t.Fatal(err)
	}
	first.kill()

	_, err = connect(t, first.GRPC, trilith.WithTimeout(200*time.Millisecond)).Workers(t.Context())
	failure(t, err, trilith.ErrUnavailable)

	type answer struct {
		taskID string
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		taskID, err := client.Submit(ctx, insert("after", "after"))
		answers <- answer{taskID, err}
	}()
	second, err := launch(directory, first.GRPC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.stop)
	got := <-answers
	if got.err != nil || got.taskID != "query-after" {
		t.Fatalf("task %q, error %v", got.taskID, got.err)
	}
	if _, err := client.Wait(ctx, got.taskID); err != nil {
		t.Error(err)
	}
	onlyTask(t, client, "before", "query-before")
	onlyTask(t, client, "after", "query-after")
}
