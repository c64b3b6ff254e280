package trilith

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// How long an abandoned task may take to hear that it is to stop.
const cancelTimeout = 10 * time.Second

// Update is a task after a change.
type Update struct {
	// Task with its state.
	Task *taskv1.Task
	// Report as far as the task is. Never nil, but without stages until the statement was planned.
	Report *Report
}

// Ended is true of the last update.
func (u *Update) Ended() bool {
	state := u.Task.GetState()
	return state == taskv1.State_STATE_SUCCESS || state == taskv1.State_STATE_FAILED
}

// Watch follows a task: first as it is now, then after each change (at most five in a second), until it has ended, in
// whatever way, or the loop is left. The stream is opened again when the server goes away, until the deadline of ctx; without one,
// until the server was away for the client's timeout. An error comes last.
//
// Errors: ErrNotFound, ErrTimeout, ErrCanceled, ErrUnavailable.
func (c *Client) Watch(ctx context.Context, taskID string) iter.Seq2[*Update, error] {
	return func(yield func(*Update, error) bool) {
		var pause pause
		heard := time.Now()
		for {
			err := c.watchOnce(ctx, taskID, func(update *Update) bool {
				heard, pause.next = time.Now(), 0
				return yield(update, nil)
			})
			if err == nil {
				return
			}
			failed := typed(ctx, err)
			if failed.Code == codes.DeadlineExceeded && ctx.Err() == nil {
				continue // the stream was as old as one may become
			}
			_, limited := ctx.Deadline()
			if failed.Code != codes.Unavailable || (!limited && time.Since(heard) > c.timeout) ||
				!pause.wait(ctx, failed.RetryAfter) {
				yield(nil, failed)
				return
			}
		}
	}
}

// watchOnce reads one stream; nil when the task ended, or each had enough.
func (c *Client) watchOnce(ctx context.Context, taskID string, each func(*Update) bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.streamTimeout)
	defer cancel()
	stream, err := c.tasks.WatchTask(ctx, &taskv1.WatchTaskRequest{TaskId: taskID})
	for err == nil {
		var answer *taskv1.WatchTaskResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		report := answer.GetReport()
		if report == nil {
			report = &taskv1.TaskReport{TaskId: taskID}
		}
		update := &Update{Task: answer.GetTask(), Report: &Report{report}}
		if !each(update) || update.Ended() {
			return nil
		}
	}
	if errors.Is(err, io.EOF) {
		return status.Error(codes.Unavailable, "the server stopped telling of the task before it ended")
	}
	return err
}

// WaitOption changes how Wait and Run wait.
type WaitOption func(*waiting)

type waiting struct {
	progress     func(*Update)
	cancelOnDone bool
}

// OnProgress has a function called with each update, the last one included, by the goroutine that waits.
func OnProgress(progress func(*Update)) WaitOption {
	return func(w *waiting) { w.progress = progress }
}

// CancelOnTimeout stops the task when the context ends before the task does. Without it the task goes on.
func CancelOnTimeout() WaitOption {
	return func(w *waiting) { w.cancelOnDone = true }
}

// Wait waits until a task has ended well and returns it as it ended. The context bounds the waiting.
//
// Errors: *TaskFailedError when the task failed; else as of Watch.
func (c *Client) Wait(ctx context.Context, taskID string, options ...WaitOption) (*taskv1.Task, error) {
	var waiting waiting
	for _, option := range options {
		option(&waiting)
	}
	for update, err := range c.Watch(ctx, taskID) {
		if err != nil {
			if waiting.cancelOnDone && ctx.Err() != nil {
				c.abandon(ctx, taskID)
			}
			return nil, err
		}
		if waiting.progress != nil {
			waiting.progress(update)
		}
		switch update.Task.GetState() {
		case taskv1.State_STATE_SUCCESS:
			return update.Task, nil
		case taskv1.State_STATE_FAILED:
			return update.Task, taskFailed(update.Task)
		}
	}
	return nil, typed(ctx, errors.New("the server stopped telling of the task before it ended"))
}

// Run submits a statement and waits until its task has ended well.
//
// Errors: as of Submit and Wait.
func (c *Client) Run(ctx context.Context, statement Statement, options ...WaitOption) (*taskv1.Task, error) {
	taskID, err := c.Submit(ctx, statement)
	if err != nil {
		return nil, err
	}
	return c.Wait(ctx, taskID, options...)
}

// abandon stops a task whose caller waits no longer. The caller hears of its own timeout, whatever becomes of this.
func (c *Client) abandon(ctx context.Context, taskID string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	_, _ = c.Cancel(ctx, taskID)
}
