package trilith_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	trilith "github.com/trilith-db/trilith/client/go"
	queryv1 "github.com/trilith-db/trilith/client/go/gen/trilith/query/v1"
	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// stub answers any call as told, and remembers what came.
type stub struct {
	address string
	answer  func(method string, call int) (proto.Message, error)

	mutex sync.Mutex
	// By full method name, in the order of the calls.
	authorizations map[string][]string
	hadDeadline    map[string]bool
}

func startStub(t *testing.T, answer func(method string, call int) (proto.Message, error), options ...grpc.ServerOption) *stub {
	t.Helper()
	s := &stub{answer: answer, authorizations: map[string][]string{}, hadDeadline: map[string]bool{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	server := grpc.NewServer(append(options, grpc.UnknownServiceHandler(s.handle))...)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return s
}

func (s *stub) handle(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	headers, _ := metadata.FromIncomingContext(stream.Context())
	_, hasDeadline := stream.Context().Deadline()
	authorization := append(headers.Get("authorization"), "")[0]
	s.mutex.Lock()
	s.authorizations[method] = append(s.authorizations[method], authorization)
	call := len(s.authorizations[method])
	s.hadDeadline[method] = hasDeadline
	s.mutex.Unlock()
	answer, err := s.answer(method, call)
	if err != nil {
		return err
	}
	return stream.SendMsg(answer)
}

func (s *stub) calls(method string) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return len(s.authorizations[method])
}

func detailed(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) error {
	t.Helper()
	withDetails, err := status.New(code, "the message").WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return withDetails.Err()
}

func TestEachCodeHasItsKind(t *testing.T) {
	kinds := map[codes.Code]error{
		codes.InvalidArgument: trilith.ErrInvalidInput, codes.Unauthenticated: trilith.ErrUnauthorized,
		codes.PermissionDenied: trilith.ErrForbidden, codes.NotFound: trilith.ErrNotFound,
		codes.Aborted: trilith.ErrConflict, codes.ResourceExhausted: trilith.ErrCapacity,
		codes.Canceled: trilith.ErrCanceled, codes.DeadlineExceeded: trilith.ErrTimeout,
		codes.Unimplemented: trilith.ErrUnsupported, codes.Internal: trilith.ErrInternal, codes.Unknown: trilith.ErrInternal,
	}
	for code, kind := range kinds {
		stub := startStub(t, func(string, int) (proto.Message, error) { return nil, status.Error(code, "the message") })
		_, err := connect(t, stub.address).Workers(patient(t))
		failed := failure(t, err, kind)
		if failed.Code != code || failed.Message != "the message" || failed.ErrorCode != "general" || failed.Category == "" {
			t.Errorf("%s: %+v", code, failed)
		}
		if calls := stub.calls("/trilith.task.v1.TaskService/ListWorkers"); calls != 1 {
			t.Errorf("%s was tried %d times", code, calls)
		}
	}
}

func TestErrorDetails(t *testing.T) {
	failing := detailed(t, codes.ResourceExhausted,
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
		&errdetails.ErrorInfo{Domain: "other", Metadata: map[string]string{"errorCode": "wrong"}},
		&errdetails.ErrorInfo{Domain: "trilith", Metadata: map[string]string{
			"errorCode": "tooMuch", "category": "CAPACITY_EXCEEDED", "persona": "ADMIN", "context": `{"taskId":"query-1"}`,
		}})
	stub := startStub(t, func(string, int) (proto.Message, error) { return nil, failing })
	client := connect(t, stub.address)
	_, unary := client.Submit(patient(t), trilith.Statement{SQL: "SELECT 1"})
	_, streaming := client.Wait(patient(t), "query-1")
	_, flights := client.Results(patient(t), "query-1")
	for _, err := range []error{unary, streaming, flights} {
		failed := failure(t, err, trilith.ErrCapacity)
		if failed.RetryAfter != 1500*time.Millisecond || failed.ErrorCode != "tooMuch" || failed.Persona != "ADMIN" ||
			failed.Category != "CAPACITY_EXCEEDED" || failed.Context["taskId"] != "query-1" {
			t.Errorf("error %+v", failed)
		}
	}
}

func TestUnavailableIsTriedAgain(t *testing.T) {
	asked := 300 * time.Millisecond
	failing := detailed(t, codes.Unavailable, &errdetails.RetryInfo{RetryDelay: durationpb.New(asked)})
	stub := startStub(t, func(_ string, call int) (proto.Message, error) {
		if call == 1 {
			return nil, failing
		}
		return &taskv1.SubmitTaskResponse{TaskId: "query-1"}, nil
	})
	start := time.Now()
	taskID, err := connect(t, stub.address).Submit(patient(t), trilith.Statement{SQL: "SELECT 1", ID: "1"})
	if err != nil || taskID != "query-1" || stub.calls("/trilith.task.v1.TaskService/SubmitTask") != 2 {
		t.Errorf("task %q after %d calls, error %v", taskID, stub.calls("/trilith.task.v1.TaskService/SubmitTask"), err)
	}
	if waited := time.Since(start); waited < asked {
		t.Errorf("tried again after %s; the server asked for %s", waited, asked)
	}
}

func TestUnavailableEndsWithDeadline(t *testing.T) {
	client := connect(t, "127.0.0.1:1", trilith.WithTimeout(400*time.Millisecond))
	start := time.Now()
	_, submit := client.Submit(t.Context(), trilith.Statement{SQL: "SELECT 1"})
	_, query := client.Query(t.Context(), trilith.Statement{SQL: "SELECT 1"})
	_, wait := client.Wait(t.Context(), "query-1")
	for _, err := range []error{submit, query, wait} {
		failure(t, err, trilith.ErrUnavailable)
	}
	if elapsed := time.Since(start); elapsed > 20*time.Second {
		t.Errorf("gave up after %s", elapsed)
	}
}

// everyCall makes one call of each way to the server, and fails on none that the stub answers.
func everyCall(ctx context.Context, client *trilith.Client) {
	_, _ = client.Task(ctx, "query-1")
	_, _ = client.Wait(ctx, "query-1")
	_, _ = client.Datasources(ctx)
	_, _ = client.Query(ctx, trilith.Statement{SQL: "SELECT 1"})
	_, _ = client.Results(ctx, "query-1")
}

func answerEveryCall(method string, _ int) (proto.Message, error) {
	switch method {
	case "/trilith.query.v1.QueryService/RunQuery":
		return &queryv1.RunQueryResponse{Ticket: []byte("ticket")}, nil
	case "/arrow.flight.protocol.FlightService/GetFlightInfo":
		return &flight.FlightInfo{Endpoint: []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: []byte("ticket")}}}}, nil
	default:
		return nil, status.Error(codes.NotFound, "the message")
	}
}

func TestEveryCallHasDeadline(t *testing.T) {
	stub := startStub(t, answerEveryCall)
	everyCall(t.Context(), connect(t, stub.address))
	stub.mutex.Lock()
	defer stub.mutex.Unlock()
	if len(stub.hadDeadline) != 6 {
		t.Errorf("methods %v", stub.hadDeadline)
	}
	for method, had := range stub.hadDeadline {
		if !had {
			t.Errorf("%s had no deadline", method)
		}
	}
}

func TestDialOptionsSeeEveryCall(t *testing.T) {
	stub := startStub(t, answerEveryCall)
	var unary, streams int
	client := connect(t, stub.address, trilith.WithDialOptions(
		grpc.WithUnaryInterceptor(func(
			ctx context.Context, method string, request, reply any, connection *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
		) error {
			unary++
			return invoke(ctx, method, request, reply, connection, options...)
		}),
		grpc.WithStreamInterceptor(func(
			ctx context.Context, what *grpc.StreamDesc, connection *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			streams++
			return open(ctx, what, connection, method, options...)
		})))
	everyCall(patient(t), client)
	if unary != 4 || streams != 3 {
		t.Errorf("%d unary calls and %d streams", unary, streams)
	}
}
