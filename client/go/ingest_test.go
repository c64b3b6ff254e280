package trilith_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"

	trilith "github.com/trilith-db/trilith/client/go"
	datasourcev1 "github.com/trilith-db/trilith/client/go/gen/trilith/datasource/v1"
	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

func TestIngestAndQuery(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	rows, err := client.Query(ctx, trilith.Statement{SQL: "SELECT channel, COUNT(*) AS edits FROM wikipedia GROUP BY 1"})
	if err != nil {
		t.Fatal(err)
	}
	if rows.QueryID() == "" || len(rows.Columns()) != 2 || rows.Columns()[1].GetSqlType() != "BIGINT" {
		t.Errorf("query %q with columns %v", rows.QueryID(), rows.Columns())
	}
	if names := rows.Schema().String(); rows.Schema().Field(0).Name != "channel" || rows.Schema().NumFields() != 2 {
		t.Errorf("schema %s", names)
	}
	counts := map[string]int64{}
	for rows.Next() {
		batch := rows.RecordBatch()
		for row := range int(batch.NumRows()) {
			counts[text(t, batch.Column(0), row)] = batch.Column(1).(*array.Int64).Value(row)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if want := channels(); !maps.Equal(counts, want) {
		t.Errorf("edits by channel are %v, not %v", counts, want)
	}
}

func TestProgressTellsOfStages(t *testing.T) {
	sharedServer(t)
	last := shared.updates[len(shared.updates)-1]
	if !last.Ended() || last.Task.GetState() != taskv1.State_STATE_SUCCESS {
		t.Errorf("the last update is %v", last.Task.GetState())
	}
	stages := last.Report.Stages()
	if len(stages) < 2 || stages[len(stages)-1].Processor != "segmentGenerator" {
		t.Errorf("stages %+v", stages)
	}
	for _, stage := range stages {
		if stage.Phase != "FINISHED" || stage.Workers == 0 {
			t.Errorf("stage %+v", stage)
		}
	}
	running := slices.ContainsFunc(shared.updates, func(update *trilith.Update) bool { return !update.Ended() })
	if !running {
		t.Errorf("no update before the end, of %d", len(shared.updates))
	}
}

func TestReportCountsRows(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	report, err := client.Report(patient(t), shared.taskID)
	if err != nil {
		t.Fatal(err)
	}
	want := int64(len(edits()))
	if report.RowsRead() != want || report.RowsWritten() != want || report.RowsPushed() != want {
		t.Errorf("read %d, written %d, pushed %d, not %d", report.RowsRead(), report.RowsWritten(), report.RowsPushed(), want)
	}
	if first := report.Stages()[0]; first.RowsRead != want || first.RowsWritten != want {
		t.Errorf("stage 0 is %+v", first)
	}
	if len(report.Warnings()) != 0 {
		t.Errorf("warnings %v", report.Warnings())
	}
}

func TestLists(t *testing.T) {
	client := connect(t, "http://"+sharedServer(t).GRPC)
	ctx := patient(t)
	datasources, err := client.Datasources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(datasources, func(d *datasourcev1.Datasource) bool { return d.GetName() == "wikipedia" })
	if at < 0 || datasources[at].GetRowCount() != uint64(len(edits())) {
		t.Errorf("datasources %v", datasources)
	}

	columns, err := client.Schema(ctx, "wikipedia")
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, column := range columns {
		types[column.GetName()] = column.GetType()
	}
	want := map[string]string{
		"__time": "LONG", "channel": "STRING", "page": "STRING", "user": "STRING", "added": "LONG", "deleted": "LONG",
	}
	if !maps.Equal(types, want) {
		t.Errorf("columns %v", types)
	}

	segments, err := client.Segments(ctx, "wikipedia")
	if err != nil {
		t.Fatal(err)
	}
	var rows uint64
	for _, segment := range segments {
		rows += segment.GetRowCount()
	}
	if rows != uint64(len(edits())) {
		t.Errorf("%d rows in %d segments", rows, len(segments))
	}

	workers, err := client.Workers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(workers) != 1 || workers[0].GetSlotCount() != 2 {
		t.Errorf("workers %v", workers)
	}

	task, err := client.Task(ctx, shared.taskID)
	if err != nil {
		t.Fatal(err)
	}
	if task.GetDatasource() != "wikipedia" || task.GetStatementType() != taskv1.StatementType_STATEMENT_TYPE_REPLACE {
		t.Errorf("task %v", task)
	}
	locks, err := client.Locks(ctx, "wikipedia")
	if err != nil || len(locks) != 0 {
		t.Errorf("locks %v, error %v", locks, err)
	}
}

func TestTasksFollowsPagesAndFilters(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	ctx := patient(t)
	var ids []string
	for _, id := range []string{"paging-a", "paging-b", "paging-c"} {
		task, err := client.Run(ctx, trilith.Statement{
			SQL: "INSERT INTO paging SELECT TIMESTAMP '2024-01-01' AS __time, 1 AS x PARTITIONED BY DAY", ID: id,
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append([]string{task.GetTaskId()}, ids...)
	}
	list := func(filter trilith.TaskFilter) (found []string) {
		tasks, err := client.Tasks(ctx, filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			found = append(found, task.GetTaskId())
		}
		return found
	}
	if found := list(trilith.TaskFilter{Datasource: "paging"}); !slices.Equal(found, ids) {
		t.Errorf("all are %v, not %v", found, ids)
	}
	if found := list(trilith.TaskFilter{Datasource: "paging", Limit: 2}); !slices.Equal(found, ids[:2]) {
		t.Errorf("the newest two are %v, not %v", found, ids[:2])
	}
	failed := []taskv1.State{taskv1.State_STATE_FAILED}
	if found := list(trilith.TaskFilter{Datasource: "paging", States: failed}); len(found) != 0 {
		t.Errorf("failed are %v", found)
	}
}

func TestInferSignature(t *testing.T) {
	client := connect(t, sharedServer(t).GRPC)
	columns, err := client.InferSignature(patient(t),
		map[string]any{"type": "inline", "data": `{"name":"a","count":1}` + "\n" + `{"name":"b","count":2}`},
		map[string]any{"type": "json"})
	if err != nil {
		t.Fatal(err)
	}
	if len(columns) != 2 || columns[0].GetName() != "name" || columns[0].GetType() != "STRING" ||
		columns[1].GetName() != "count" || columns[1].GetType() != "LONG" {
		t.Errorf("columns %v", columns)
	}
}
