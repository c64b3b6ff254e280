package trilith

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// Kinds of errors, for errors.Is.
var (
	// ErrInvalidInput: the statement, a parameter or a setting is wrong; the same call fails again.
	ErrInvalidInput = errors.New("invalid input")
	// ErrUnauthorized: the token is missing or wrong.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrForbidden: the caller may not do this.
	ErrForbidden = errors.New("forbidden")
	// ErrNotFound: there is no such task, query or datasource.
	ErrNotFound = errors.New("not found")
	// ErrConflict: something else is in the way.
	ErrConflict = errors.New("conflict")
	// ErrCapacity: the server has too much to do; try again after Error.RetryAfter.
	ErrCapacity = errors.New("capacity exceeded")
	// ErrCanceled: somebody stopped the query, or the context was canceled.
	ErrCanceled = errors.New("canceled")
	// ErrTimeout: the deadline passed, here or at the server.
	ErrTimeout = errors.New("timeout")
	// ErrUnsupported: the server does not do this.
	ErrUnsupported = errors.New("unsupported")
	// ErrUnavailable: the server could not be reached until the deadline.
	ErrUnavailable = errors.New("unavailable")
	// ErrInternal: a failure inside the server, or an answer that cannot be read.
	ErrInternal = errors.New("internal")
	// ErrTaskFailed: the call went well, the task did not; the error is a *TaskFailedError.
	ErrTaskFailed = errors.New("task failed")
)

// kinds by gRPC code, with the category of a status that carries nothing but its code.
var kinds = map[codes.Code]struct {
	kind     error
	category string
}{
	codes.InvalidArgument:    {ErrInvalidInput, "INVALID_INPUT"},
	codes.FailedPrecondition: {ErrInvalidInput, "INVALID_INPUT"},
	codes.OutOfRange:         {ErrInvalidInput, "INVALID_INPUT"},
	codes.Unauthenticated:    {ErrUnauthorized, "UNAUTHORIZED"},
	codes.PermissionDenied:   {ErrForbidden, "FORBIDDEN"},
	codes.NotFound:           {ErrNotFound, "NOT_FOUND"},
	codes.Aborted:            {ErrConflict, "CONFLICT"},
	codes.AlreadyExists:      {ErrConflict, "CONFLICT"},
	codes.ResourceExhausted:  {ErrCapacity, "CAPACITY_EXCEEDED"},
	codes.Canceled:           {ErrCanceled, "CANCELED"},
	codes.DeadlineExceeded:   {ErrTimeout, "TIMEOUT"},
	codes.Unimplemented:      {ErrUnsupported, "UNSUPPORTED"},
	codes.Unavailable:        {ErrUnavailable, "SERVICE_UNAVAILABLE"},
	codes.Internal:           {ErrInternal, "RUNTIME_FAILURE"},
	codes.DataLoss:           {ErrInternal, "UNCATEGORIZED"},
	codes.Unknown:            {ErrInternal, "UNCATEGORIZED"},
}

// Error is why a call failed. errors.Is tells its kind: errors.Is(err, trilith.ErrNotFound).
type Error struct {
	// Code is the gRPC code; OK in the fault of a TaskFailedError.
	Code codes.Code
	// ErrorCode is Druid's: "invalidInput", "notFound", "entryAlreadyExists", …; "general" when the server did not
	// send one.
	ErrorCode string
	// Category in Druid's words: "INVALID_INPUT", "SERVICE_UNAVAILABLE", …
	Category string
	// Persona says who can do something about it: "USER", "ADMIN", "OPERATOR" or "DEVELOPER".
	Persona string
	// Message is for people.
	Message string
	// Context has details: "line" and "column" of wrong SQL (from 1), "taskId", … Values are strings. May be nil.
	Context map[string]any
	// RetryAfter is how long the server asks to wait before the next try; 0 when it says nothing.
	RetryAfter time.Duration

	cause error
}

// Error returns the error code and the message.
func (e *Error) Error() string {
	return e.ErrorCode + ": " + e.Message
}

// Is makes errors.Is compare with the kinds above.
func (e *Error) Is(target error) bool {
	return kinds[e.Code].kind == target
}

// Unwrap returns what the call failed with, and the error of the context if it had ended.
func (e *Error) Unwrap() error {
	return e.cause
}

// TaskFailedError is the end of a task that failed, was stopped by somebody, or could not be planned.
type TaskFailedError struct {
	// TaskID is the id of the task, "query-…".
	TaskID string
	// ErrorCode is Druid's fault code: "InsertTimeNull", "Canceled", …
	ErrorCode string
	// Message is for people.
	Message string
	// Fields are the fault's own, such as "maxWarnings". Numbers are json.Number.
	Fields map[string]any
	// Task is the task as it ended.
	Task *taskv1.Task
}

// Error names the task, the fault code and the message.
func (e *TaskFailedError) Error() string {
	return fmt.Sprintf("task %s failed: %s: %s", e.TaskID, e.ErrorCode, e.Message)
}

// Is makes errors.Is(err, ErrTaskFailed) true.
func (e *TaskFailedError) Is(target error) bool {
	return target == ErrTaskFailed
}

// Unwrap returns the fault as an *Error, so that one errors.As serves all errors of this package.
func (e *TaskFailedError) Unwrap() error {
	return &Error{
		Code:      codes.OK,
		ErrorCode: e.ErrorCode,
		Category:  "UNCATEGORIZED",
		Persona:   "USER",
		Message:   e.Message,
		Context:   e.Fields,
	}
}

// taskFailed is the error of a task that ended with a fault.
func taskFailed(task *taskv1.Task) *TaskFailedError {
	failed := &TaskFailedError{
		TaskID:    task.GetTaskId(),
		ErrorCode: task.GetFault().GetErrorCode(),
		Message:   task.GetFault().GetErrorMessage(),
		Fields:    decodeObject(task.GetFault().GetFieldsJson()),
		Task:      task,
	}
	if task.GetFault() == nil {
		failed.ErrorCode, failed.Message = "UnknownError", task.GetErrorMessage()
	}
	return failed
}

func decodeObject(text string) map[string]any {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	var object map[string]any
	if decoder.Decode(&object) != nil {
		return nil
	}
	return object
}

func invalidInput(format string, arguments ...any) *Error {
	return &Error{
		Code:      codes.InvalidArgument,
		ErrorCode: "invalidInput",
		Category:  "INVALID_INPUT",
		Persona:   "USER",
		Message:   fmt.Sprintf(format, arguments...),
	}
}

// typed turns what gRPC, Flight or Arrow failed with into an *Error. ctx is the context of the call.
func typed(ctx context.Context, err error) *Error {
	var ready *Error
	if errors.As(err, &ready) {
		return ready
	}
	failed := &Error{Code: codes.Internal, ErrorCode: "general", Persona: "OPERATOR", Message: err.Error(), cause: err}
	var carrier interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &carrier):
		failed.read(carrier.GRPCStatus())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		failed.read(status.FromContextError(err))
	}
	if ended := ctx.Err(); ended != nil {
		failed.cause = errors.Join(err, ended)
		// gRPC says CANCELED of both when a stream is closed because its context ended.
		if failed.Code == codes.Canceled && errors.Is(ended, context.DeadlineExceeded) {
			failed.Code, failed.Message = codes.DeadlineExceeded, ended.Error()
		}
	}
	if failed.Category == "" {
		failed.Category = kinds[failed.Code].category
	}
	return failed
}

// read takes over what a status says.
func (e *Error) read(status *status.Status) {
	e.Code, e.Message = status.Code(), status.Message()
	for _, detail := range status.Details() {
		switch detail := detail.(type) {
		case *errdetails.RetryInfo:
			e.RetryAfter = detail.GetRetryDelay().AsDuration()
		case *errdetails.ErrorInfo:
			if detail.GetDomain() != "trilith" {
				continue
			}
			fields := detail.GetMetadata()
			if code := fields["errorCode"]; code != "" {
				e.ErrorCode = code
			}
			if persona := fields["persona"]; persona != "" {
				e.Persona = persona
			}
			e.Category = fields["category"]
			e.Context = decodeObject(fields["context"])
		}
	}
}
