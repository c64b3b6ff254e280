package trilith_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	trilith "github.com/trilith-db/trilith/client/go"
)

// text reads a cell of a column of texts.
func text(t *testing.T, column arrow.Array, row int) string {
	t.Helper()
	texts, ok := column.(interface{ Value(int) string })
	if !ok {
		t.Fatalf("a column of %s has no texts", column.DataType())
	}
	return texts.Value(row)
}

// table reads all rows.
func table(t *testing.T, rows *trilith.Rows, err error) arrow.Table {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	read, err := rows.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(read.Release)
	return read
}

func TestParameters(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	instant := time.Date(2015, 9, 12, 0, 46, 58, 771e6, time.UTC)
	statement := trilith.Statement{
		SQL: `SELECT CAST(? AS BIGINT) + 1 AS a, CONCAT(?, '!') AS b, CAST(? AS DOUBLE) / 2 AS c, TIMESTAMP_TO_MILLIS(?) AS d,
			CASE WHEN ? THEN 'yes' ELSE 'no' END AS e, COALESCE(?, 'none') AS f, ARRAY_LENGTH(?) AS g, ? AS h`,
		Parameters: []any{
			int64(1) << 60, "it's", 1.5, instant, true, nil, []string{"x", "y"}, trilith.Parameter{Type: "BIGINT", Value: "7"},
		},
	}
	rows, err := client.Query(patient(t), statement)
	read := table(t, rows, err)
	records := array.NewTableReader(read, 0)
	defer records.Release()
	if !records.Next() {
		t.Fatal("no row")
	}
	row, err := records.RecordBatch().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(row)))
	decoder.UseNumber()
	if err := decoder.Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": json.Number("1152921504606846977"), "b": "it's!", "c": json.Number("0.75"), "d": json.Number("1442018818771"),
		"e": "yes", "f": "none", "g": json.Number("2"), "h": json.Number("7"),
	}
	for name, value := range want {
		if got[0][name] != value {
			t.Errorf("%s is %v, not %v", name, got[0][name], value)
		}
	}
}

func TestUntypedParameterIsRefused(t *testing.T) {
	client := connect(t, "127.0.0.1:1")
	_, err := client.Query(patient(t), trilith.Statement{SQL: "SELECT ?", Parameters: []any{struct{}{}}})
	if err == nil || !strings.Contains(err.Error(), "parameter 1") {
		t.Errorf("error %v", err)
	}
}

func TestResultsOfTask(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	task, err := client.Run(ctx, trilith.Statement{
		SQL:        "SELECT page, added FROM wikipedia WHERE channel = ? ORDER BY added DESC, page LIMIT 5",
		Parameters: []any{"#en.wikipedia"},
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := client.Results(ctx, task.GetTaskId())
	read := table(t, rows, err)
	report, err := client.Report(ctx, task.GetTaskId())
	if err != nil {
		t.Fatal(err)
	}
	if read.NumRows() != 5 || report.RowsWritten() != 5 {
		t.Errorf("%d rows, the report has %d", read.NumRows(), report.RowsWritten())
	}
	var largest int64
	for _, record := range edits() {
		if record.Channel == "#en.wikipedia" {
			largest = max(largest, record.Added)
		}
	}
	if first := read.Column(1).Data().Chunk(0).(*array.Int64).Value(0); first != largest {
		t.Errorf("the largest edit is %d, not %d", first, largest)
	}
}

func TestResultsInPages(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	task, err := client.Run(ctx, trilith.Statement{
		SQL:     "SELECT added FROM wikipedia ORDER BY added, page",
		Context: map[string]any{"selectDestination": "durableStorage", "rowsPerPage": 10000},
	})
	if err != nil {
		t.Fatal(err)
	}
	report, err := client.Report(ctx, task.GetTaskId())
	if err != nil {
		t.Fatal(err)
	}
	if pages := report.GetResults().GetPages(); len(pages) < 2 {
		t.Fatalf("%d pages", len(pages))
	}
	rows, err := client.Results(ctx, task.GetTaskId())
	if err != nil {
		t.Fatal(err)
	}
	var count, sum, previous, want int64
	previous = -1
	for rows.Next() {
		column := rows.RecordBatch().Column(0).(*array.Int64)
		for row := range column.Len() {
			if value := column.Value(row); value < previous {
				t.Fatalf("row %d: %d after %d", count, value, previous)
			}
			previous = column.Value(row)
			sum += previous
			count++
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, record := range edits() {
		want += record.Added
	}
	if count != int64(len(edits())) || sum != want {
		t.Errorf("%d rows with the sum %d, not %d and %d", count, sum, len(edits()), want)
	}
}

func TestEmptyResultHasSchema(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	rows, err := client.Query(patient(t), trilith.Statement{SQL: "SELECT page, added FROM wikipedia WHERE channel = 'none'"})
	read := table(t, rows, err)
	if read.NumRows() != 0 || read.NumCols() != 2 || read.Schema().Field(1).Name != "added" {
		t.Errorf("%d rows, schema %s", read.NumRows(), read.Schema())
	}
}

func TestExplain(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	before, err := client.Tasks(ctx, trilith.TaskFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, front := range []string{"", "EXPLAIN PLAN FOR ", "\n explain plan for "} {
		statement := ingestion("explained")
		statement.SQL = front + statement.SQL
		explanation, err := client.Explain(ctx, statement)
		if err != nil {
			t.Fatal(err)
		}
		var attributes struct {
			StatementType    string `json:"statementType"`
			TargetDataSource string `json:"targetDataSource"`
		}
		if err := json.Unmarshal([]byte(explanation.GetAttributesJson()), &attributes); err != nil {
			t.Fatal(err)
		}
		if attributes.StatementType != "REPLACE" || attributes.TargetDataSource != "explained" {
			t.Errorf("%q: attributes %+v", front, attributes)
		}
	}
	after, err := client.Tasks(ctx, trilith.TaskFilter{})
	if err != nil || len(after) != len(before) {
		t.Errorf("%d tasks, then %d, error %v", len(before), len(after), err)
	}
}
