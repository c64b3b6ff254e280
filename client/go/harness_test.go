package trilith_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	trilith "github.com/trilith-db/trilith/client/go"
)

// Longest that one test may wait for anything: a debug build on a busy machine is slow.
const patience = 2 * time.Minute

// server is a process of the real server.
type server struct {
	GRPC string `json:"grpc"`
	HTTP string `json:"http"`

	process   *exec.Cmd
	directory string
}

// repository is the root of the clone.
func repository() string {
	root, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return root
}

func data() string { return filepath.Join(repository(), "tests", "data") }

func binary() string {
	if path := os.Getenv("TRILITH_BIN"); path != "" {
		return path
	}
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(repository(), "target")
	}
	return filepath.Join(target, "debug", "trilith")
}

// launch starts a server on a directory. An address of "127.0.0.1:0" picks a free port.
func launch(directory, grpcAddress string) (*server, error) {
	s := &server{directory: directory}
	s.process = exec.Command(binary(), "server",
		"--data-dir", filepath.Join(directory, "data"),
		"--http-address", "127.0.0.1:0", "--grpc-address", grpcAddress,
		"--allow-local", data(), "--worker-slots", "2",
		"--durable-storage", "file://"+filepath.Join(directory, "durable"))
	log, err := os.Create(filepath.Join(directory, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.process.Stderr = log
	output, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.process.Start(); err != nil {
		return nil, fmt.Errorf("%w (set TRILITH_BIN, or build with cargo build)", err)
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil {
		s.stop()
		text, _ := os.ReadFile(filepath.Join(directory, "server.log"))
		return nil, fmt.Errorf("the server did not start: %w\n%s", err, text)
	}
	return s, nil
}

func (s *server) stop() {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	_ = s.process.Wait()
}

func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
}

// startServer starts a server of the test's own.
func startServer(t *testing.T) *server {
	t.Helper()
	s, err := launch(t.TempDir(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

// shared is a server with the table "wikipedia", for tests that do not harm it.
var shared struct {
	once   sync.Once
	server *server
	// Of the ingestion.
	taskID  string
	updates []*trilith.Update
	err     error
}

func sharedServer(t *testing.T) *server {
	t.Helper()
	shared.once.Do(func() { shared.err = prepare() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

func prepare() error {
	directory, err := os.MkdirTemp("", "trilith-go-")
	if err != nil {
		return err
	}
	if shared.server, err = launch(directory, "127.0.0.1:0"); err != nil {
		return err
	}
	client, err := trilith.Connect(shared.server.GRPC)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	task, err := client.Run(ctx, ingestion("wikipedia"), trilith.OnProgress(func(update *trilith.Update) {
		shared.updates = append(shared.updates, update)
	}))
	shared.taskID = task.GetTaskId()
	return err
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.stop()
		_ = os.RemoveAll(shared.server.directory)
	}
	os.Exit(code)
}

func connect(t *testing.T, address string, options ...trilith.Option) *trilith.Client {
	t.Helper()
	client, err := trilith.Connect(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ingestion replaces a datasource with the bundled edits.
func ingestion(datasource string) trilith.Statement {
	source := fmt.Sprintf(`{"type":"local","baseDir":%q,"filter":"wikipedia-edits.json.gz"}`, data())
	return trilith.Statement{
		SQL: `REPLACE INTO "` + datasource + `" OVERWRITE ALL
			SELECT TIME_PARSE("time") AS __time, channel, page, "user", added, deleted
			FROM TABLE(EXTERN('` + strings.ReplaceAll(source, "'", "''") + `', '{"type":"json"}'))
			EXTEND ("time" VARCHAR, channel VARCHAR, page VARCHAR, "user" VARCHAR, added BIGINT, deleted BIGINT)
			PARTITIONED BY DAY CLUSTERED BY channel`,
		Context: map[string]any{"maxNumTasks": 2},
	}
}

// edit is a record of the bundled edits.
type edit struct {
	Time    string `json:"time"`
	Channel string `json:"channel"`
	Page    string `json:"page"`
	User    string `json:"user"`
	Added   int64  `json:"added"`
	Deleted int64  `json:"deleted"`
}

// edits reads the bundled edits without any help of the server.
var edits = sync.OnceValue(func() []edit {
	file, err := os.Open(filepath.Join(data(), "wikipedia-edits.json.gz"))
	if err != nil {
		panic(err)
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		panic(err)
	}
	var records []edit
	decoder := json.NewDecoder(plain)
	for decoder.More() {
		var record edit
		if err := decoder.Decode(&record); err != nil {
			panic(err)
		}
		records = append(records, record)
	}
	return records
})

// channels counts edits by channel.
func channels() map[string]int64 {
	counts := map[string]int64{}
	for _, record := range edits() {
		counts[record.Channel]++
	}
	return counts
}
