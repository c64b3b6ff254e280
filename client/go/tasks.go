package trilith

import (
	"context"
	"errors"
	"strings"

	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// Largest page of a list that is asked for.
const pageSize = 1000

// Submit stores an INSERT, REPLACE or SELECT as a task and returns its id before it runs. It may be tried again after
// UNAVAILABLE, and runs once nevertheless.
//
// Errors: ErrInvalidInput, with "line" and "column" in its context for wrong SQL, and with the error code
// "entryAlreadyExists" when there is a task with this id.
func (c *Client) Submit(ctx context.Context, statement Statement) (string, error) {
	answer, err := c.submit(ctx, statement)
	if err != nil {
		return "", err
	}
	if answer.GetExplanation() != nil {
		return "", invalidInput("EXPLAIN PLAN FOR makes no task; use Explain")
	}
	return answer.GetTaskId(), nil
}

// Explain tells how a statement would run as a task. "EXPLAIN PLAN FOR" may stand in front of it or not.
//
// Errors: as of Submit.
func (c *Client) Explain(ctx context.Context, statement Statement) (*taskv1.Explanation, error) {
	words := strings.Fields(statement.SQL)
	if len(words) == 0 || !strings.EqualFold(words[0], "EXPLAIN") {
		statement.SQL = "EXPLAIN PLAN FOR\n" + statement.SQL
	}
	answer, err := c.submit(ctx, statement)
	if err != nil {
		return nil, err
	}
	if answer.GetExplanation() == nil {
		return nil, typed(ctx, errors.New("the server sent no explanation"))
	}
	return answer.GetExplanation(), nil
}

func (c *Client) submit(ctx context.Context, statement Statement) (answer *taskv1.SubmitTaskResponse, err error) {
	encoded, err := statement.encode()
	if err != nil {
		return nil, err
	}
	request := &taskv1.SubmitTaskRequest{
		Sql:         statement.SQL,
		ContextJson: encoded.contextJSON,
		Parameters:  encoded.parameters,
	}
	err = c.try(ctx, func(ctx context.Context, attempt int) (err error) {
		answer, err = c.tasks.SubmitTask(ctx, request)
		// An earlier try had arrived, and only its answer was lost.
		if attempt > 1 && err != nil && typed(ctx, err).ErrorCode == "entryAlreadyExists" {
			answer, err = &taskv1.SubmitTaskResponse{TaskId: "query-" + encoded.id}, nil
		}
		return err
	})
	return answer, err
}

// Task returns one task. Errors: ErrNotFound.
func (c *Client) Task(ctx context.Context, taskID string) (*taskv1.Task, error) {
	answer, err := read(ctx, c, c.tasks.GetTask, &taskv1.GetTaskRequest{TaskId: taskID})
	return answer.GetTask(), err
}

// TaskFilter says which tasks a list has.
type TaskFilter struct {
	// States: only tasks in these. Default: all.
	States []taskv1.State
	// Datasource: only tasks that write to it. Default: all.
	Datasource string
	// Limit is the largest number of tasks. Default: all.
	Limit int
}

// Tasks lists tasks, newest first. Each page is a call of its own; the deadline is that of all together.
func (c *Client) Tasks(ctx context.Context, filter TaskFilter) ([]*taskv1.Task, error) {
	ctx, cancel := bounded(ctx, c.timeout)
	defer cancel()
	var tasks []*taskv1.Task
	request := &taskv1.ListTasksRequest{States: filter.States, Datasource: filter.Datasource}
	for {
		request.PageSize = pageSize
		if filter.Limit > 0 {
			request.PageSize = uint32(min(pageSize, filter.Limit-len(tasks)))
		}
		page, err := read(ctx, c, c.tasks.ListTasks, request)
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, page.GetTasks()...)
		request.PageToken = page.GetNextPageToken()
		if request.PageToken == "" || (filter.Limit > 0 && len(tasks) >= filter.Limit) {
			return tasks, nil
		}
	}
}

// Cancel asks a task to stop and returns its state after the call. A task that has ended stays as it is.
//
// Errors: ErrNotFound.
func (c *Client) Cancel(ctx context.Context, taskID string) (taskv1.State, error) {
	answer, err := read(ctx, c, c.tasks.CancelTask, &taskv1.CancelTaskRequest{TaskId: taskID})
	return answer.GetState(), err
}

// Report returns the live report of a running task, or the stored one of a finished task. Errors: ErrNotFound.
func (c *Client) Report(ctx context.Context, taskID string) (*Report, error) {
	answer, err := read(ctx, c, c.tasks.GetTaskReport, &taskv1.GetTaskReportRequest{TaskId: taskID})
	if err != nil {
		return nil, err
	}
	return &Report{answer.GetReport()}, nil
}

// Locks lists the locks that tasks hold on a datasource now; of all datasources when its name is empty.
func (c *Client) Locks(ctx context.Context, datasource string) ([]*taskv1.Lock, error) {
	answer, err := read(ctx, c, c.tasks.ListLocks, &taskv1.ListLocksRequest{Datasource: datasource})
	return answer.GetLocks(), err
}

// Workers lists the processes that run work of tasks.
func (c *Client) Workers(ctx context.Context) ([]*taskv1.WorkerProcess, error) {
	answer, err := read(ctx, c, c.tasks.ListWorkers, &taskv1.ListWorkersRequest{})
	return answer.GetWorkers(), err
}
