package trilith

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 3 * time.Second
)

// pause waits between tries of a call to a server that cannot be reached.
type pause struct {
	next time.Duration
}

// wait sleeps for what the server asked for, or else for the next step, some of it at random so that clients do not
// come back together. False when the context ends before: nothing is left to try with.
func (p *pause) wait(ctx context.Context, asked time.Duration) bool {
	if p.next == 0 {
		p.next = backoffFirst
	}
	length := max(p.next/2+rand.N(p.next/2), asked)
	p.next = min(p.next*2, backoffMax)
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= length {
		return false
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// bounded gives a context without a deadline one.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// try makes a call, and again after UNAVAILABLE until its deadline; then it was UNAVAILABLE that it failed with, not
// the deadline that cut the last try short. The call hears which try it is, from 1.
func (c *Client) try(ctx context.Context, call func(ctx context.Context, attempt int) error) error {
	ctx, cancel := bounded(ctx, c.timeout)
	defer cancel()
	var pause pause
	var away *Error
	for attempt := 1; ; attempt++ {
		err := call(ctx, attempt)
		if err == nil {
			return nil
		}
		failed := typed(ctx, err)
		if away != nil && failed.Code == codes.DeadlineExceeded {
			return typed(ctx, away.cause)
		}
		away = failed
		if failed.Code != codes.Unavailable || !pause.wait(ctx, failed.RetryAfter) {
			return failed
		}
	}
}

// read makes a call that changes nothing, or nothing more when it is made twice.
func read[Q, A any](
	ctx context.Context, c *Client, method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q,
) (answer A, err error) {
	err = c.try(ctx, func(ctx context.Context, _ int) (err error) {
		answer, err = method(ctx, request)
		return err
	})
	return answer, err
}
