// Package trilith is a client of a Trilith server: it submits SQL statements as tasks, follows them to their end, and
// reads rows as Arrow record batches.
//
// One Client holds one connection, which carries the gRPC services and Arrow Flight, and is safe for use by any
// number of goroutines. Every call takes a context; one without a deadline gets the client's own (see WithTimeout and
// WithStreamTimeout). Calls fail with a *Error, or with a *TaskFailedError when the call went well and the task did not.
package trilith
