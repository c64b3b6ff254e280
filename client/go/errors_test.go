package trilith_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	trilith "github.com/trilith-db/trilith/client/go"
	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// endless takes far longer than any test waits.
const endless = `SELECT COUNT(*) AS pairs FROM wikipedia AS a CROSS JOIN wikipedia AS b CROSS JOIN wikipedia AS c
	WHERE a.added + b.deleted + c.added = -1`

// failure checks the kind of an error, and returns it.
func failure(t *testing.T, err, kind error) *trilith.Error {
	t.Helper()
	var failed *trilith.Error
	if !errors.As(err, &failed) {
		t.Fatalf("no *trilith.Error but %v", err)
	}
	if !errors.Is(err, kind) {
		t.Errorf("not %q but %v (%s)", kind, err, failed.Code)
	}
	return failed
}

func TestWrongSQLHasPlace(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	statement := trilith.Statement{SQL: "SELECT channel\nFROM wikipedia\nWHERE nonsense = 1"}
	_, submitted := client.Submit(ctx, statement)
	_, queried := client.Query(ctx, statement)
	for _, err := range []error{submitted, queried} {
		failed := failure(t, err, trilith.ErrInvalidInput)
		if failed.Context["line"] != "3" || failed.Context["column"] != "7" || failed.Context["sourceType"] != "sql" {
			t.Errorf("context %v of %v", failed.Context, err)
		}
		if failed.Code != codes.InvalidArgument || failed.ErrorCode != "invalidInput" ||
			failed.Category != "INVALID_INPUT" || failed.Persona != "USER" {
			t.Errorf("error %+v", failed)
		}
		if errors.Is(err, trilith.ErrNotFound) || errors.Is(err, trilith.ErrTaskFailed) {
			t.Errorf("%v is of more than one kind", err)
		}
	}
}

func TestUnknownNamesAreNotFound(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	_, task := client.Task(ctx, "query-none")
	_, report := client.Report(ctx, "query-none")
	_, cancel := client.Cancel(ctx, "query-none")
	_, wait := client.Wait(ctx, "query-none")
	_, results := client.Results(ctx, "query-none")
	_, schema := client.Schema(ctx, "none")
	query := client.CancelQuery(ctx, "none")
	calls := map[string]error{
		"Task": task, "Report": report, "Cancel": cancel, "Wait": wait, "Results": results, "Schema": schema,
		"CancelQuery": query,
	}
	for name, err := range calls {
		if failed := failure(t, err, trilith.ErrNotFound); failed.ErrorCode != "notFound" {
			t.Errorf("%s: %+v", name, failed)
		}
	}
}

func TestFailedTaskHasFault(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	extern := func(lines string) string {
		return `INSERT INTO failing SELECT TIME_PARSE("t") AS __time, x
			FROM TABLE(EXTERN('{"type":"inline","data":"` + lines + `"}', '{"type":"json"}'))
			EXTEND (t VARCHAR, x BIGINT) PARTITIONED BY DAY`
	}
	cases := []struct {
		lines, code string
		field       string
		value       any
	}{
		{`{\"t\":\"no time\",\"x\":1}`, "InsertTimeNull", "", nil},
		{`{\"t\":\"2024-01-01\",`, "CannotParseExternalData", "errorMessage", nil},
		{`{\"t\":\"2024-01-01\",\"x\":1}\n{\n{\n{`, "TooManyWarnings", "maxWarnings", json.Number("1")},
	}
	for _, c := range cases {
		t.Run(c.code, func(t *testing.T) {
			allowed := 0
			if c.code == "TooManyWarnings" {
				allowed = 1
			}
			statement := trilith.Statement{SQL: extern(c.lines), Context: map[string]any{"maxParseExceptions": allowed}}
			task, err := client.Run(patient(t), statement)
			var failed *trilith.TaskFailedError
			if !errors.As(err, &failed) || !errors.Is(err, trilith.ErrTaskFailed) {
				t.Fatalf("error %v", err)
			}
			if failed.ErrorCode != c.code || failed.TaskID != task.GetTaskId() || failed.Message == "" ||
				failed.Task.GetState() != taskv1.State_STATE_FAILED {
				t.Errorf("error %+v", failed)
			}
			if value := failed.Fields[c.field]; c.value != nil && value != c.value {
				t.Errorf("%s is %v in %v", c.field, value, failed.Fields)
			}
			var base *trilith.Error
			if !errors.As(err, &base) || base.ErrorCode != c.code {
				t.Errorf("as *trilith.Error it is %+v", base)
			}
		})
	}
}

func TestExplainIsNoTask(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	_, err := client.Submit(patient(t), trilith.Statement{SQL: "EXPLAIN PLAN FOR SELECT 1"})
	if failed := failure(t, err, trilith.ErrInvalidInput); !strings.Contains(failed.Message, "use Explain") {
		t.Error(err)
	}
}

func TestCancelRunningTask(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	taskID, err := client.Submit(ctx, trilith.Statement{SQL: endless})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Wait(ctx, taskID, trilith.OnProgress(func(update *trilith.Update) {
		if len(update.Report.Stages()) == 0 || update.Ended() {
			return
		}
		if _, err := client.Cancel(ctx, taskID); err != nil {
			t.Error(err)
		}
	}))
	var failed *trilith.TaskFailedError
	if !errors.As(err, &failed) || failed.ErrorCode != "Canceled" || failed.TaskID != taskID {
		t.Fatalf("error %v", err)
	}
	if state, err := client.Cancel(ctx, taskID); err != nil || state != taskv1.State_STATE_FAILED {
		t.Errorf("canceled again: %v, error %v", state, err)
	}
}

func TestWaitTimesOut(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	taskID, err := client.Submit(ctx, trilith.Statement{SQL: endless})
	if err != nil {
		t.Fatal(err)
	}
	short := func(options ...trilith.WaitOption) {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err := client.Wait(ctx, taskID, options...)
		failure(t, err, trilith.ErrTimeout)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is not the error of the context", err)
		}
	}
	short()
	if task, err := client.Task(ctx, taskID); err != nil || task.GetState() == taskv1.State_STATE_FAILED {
		t.Errorf("the task did not go on: %v, error %v", task.GetState(), err)
	}
	short(trilith.CancelOnTimeout())
	_, err = client.Wait(ctx, taskID)
	var failed *trilith.TaskFailedError
	if !errors.As(err, &failed) || failed.ErrorCode != "Canceled" {
		t.Errorf("error %v", err)
	}
}

func TestCanceledContext(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx, cancel := context.WithCancel(patient(t))
	rows, err := client.Query(ctx, trilith.Statement{SQL: endless})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	cancel()
	if rows.Next() {
		t.Fatal("a row after the end")
	}
	failure(t, rows.Err(), trilith.ErrCanceled)
	if !errors.Is(rows.Err(), context.Canceled) {
		t.Errorf("%v is not the error of the context", rows.Err())
	}
	_, err = client.Task(ctx, "query-none")
	failure(t, err, trilith.ErrCanceled)
}

func TestMalformedAddresses(t *testing.T) {
	for _, address := range []string{"", "host", "http://host", "ftp://host:1", "http://host:1/path", "http://a b:1", ":8889"} {
		if client, err := trilith.Connect(address); err == nil {
			_ = client.Close()
			t.Errorf("%q was taken", address)
		} else {
			failure(t, err, trilith.ErrInvalidInput)
		}
	}
	_, err := trilith.Connect("host:1", trilith.WithServerName("other"))
	failure(t, err, trilith.ErrInvalidInput)
	_, err = trilith.Connect("https://host:1", trilith.WithRootCA([]byte("no PEM")))
	failure(t, err, trilith.ErrInvalidInput)
}
