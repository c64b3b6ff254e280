package trilith

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	datasourcev1 "github.com/trilith-db/trilith/client/go/gen/trilith/datasource/v1"
	queryv1 "github.com/trilith-db/trilith/client/go/gen/trilith/query/v1"
	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// Largest answer that is taken, in bytes: rows may be wide.
const messageBytesMax = 1 << 30

// Client is a connection to a server. Close it when it is no longer used.
type Client struct {
	connection    *grpc.ClientConn
	timeout       time.Duration
	streamTimeout time.Duration

	tasks       taskv1.TaskServiceClient
	queries     queryv1.QueryServiceClient
	datasources datasourcev1.DatasourceServiceClient
	flight      flight.FlightServiceClient
}

// Connect makes a client of the server at "host:port", "http://host:port" (both without encryption) or
// "https://host:port". It dials when the first call is made; a server that is not there shows then.
//
// Errors: ErrInvalidInput for a malformed address, or TLS options for an address without TLS.
func Connect(address string, options ...Option) (*Client, error) {
	settings := settings{timeout: 30 * time.Second, streamTimeout: time.Hour}
	for _, option := range options {
		option(&settings)
	}
	target, encrypted, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	transport, err := settings.transport(encrypted)
	if err != nil {
		return nil, err
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("trilith-go"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                20 * time.Second,
			Timeout:             10 * time.Second,
			PermitWithoutStream: true,
		}),
		// A server that restarts is found again soon: calls wait for it no longer than their deadline.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
	}
	if settings.token != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(bearer(settings.token)))
	}
	connection, err := grpc.NewClient(target, append(dial, settings.dial...)...)
	if err != nil {
		return nil, invalidInput("server address [%s]: %v", address, err)
	}
	return &Client{
		connection:    connection,
		timeout:       settings.timeout,
		streamTimeout: settings.streamTimeout,
		tasks:         taskv1.NewTaskServiceClient(connection),
		queries:       queryv1.NewQueryServiceClient(connection),
		datasources:   datasourcev1.NewDatasourceServiceClient(connection),
		flight:        flight.NewClientFromConn(connection, nil),
	}, nil
}

// Close ends the connection; calls and streams that still run fail with ErrCanceled.
func (c *Client) Close() error {
	return c.connection.Close()
}

// Option changes how Connect makes a client.
type Option func(*settings)

type settings struct {
	token         string
	rootsPEM      []byte
	serverName    string
	timeout       time.Duration
	streamTimeout time.Duration
	dial          []grpc.DialOption
}

// WithToken sends "authorization: Bearer <token>" with every call. Use it with https: over http the token can be read.
func WithToken(token string) Option {
	return func(s *settings) { s.token = token }
}

// WithRootCA trusts the certificates of a PEM text instead of the system's. For https only.
func WithRootCA(pem []byte) Option {
	return func(s *settings) { s.rootsPEM = pem }
}

// WithServerName is the name that the server's certificate must have, when it is not the host of the address. For
// https only.
func WithServerName(name string) Option {
	return func(s *settings) { s.serverName = name }
}

// WithTimeout bounds a call (with its retries) whose context has no deadline. Default 30 s.
func WithTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.timeout = timeout }
}

// WithStreamTimeout bounds the reading of the rows of one query whose context has no deadline. Default 1 h.
func WithStreamTimeout(timeout time.Duration) Option {
	return func(s *settings) { s.streamTimeout = timeout }
}

// WithDialOptions adds options of gRPC's own: interceptors, statistics, tracing.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

func (s *settings) transport(encrypted bool) (credentials.TransportCredentials, error) {
	if !encrypted {
		if s.rootsPEM != nil || s.serverName != "" {
			return nil, invalidInput("TLS options need an https:// address")
		}
		return insecure.NewCredentials(), nil
	}
	config := &tls.Config{ServerName: s.serverName, MinVersion: tls.VersionTLS12}
	if s.rootsPEM != nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(s.rootsPEM) {
			return nil, invalidInput("the root CA is no PEM text with a certificate")
		}
	}
	return credentials.NewTLS(config), nil
}

// parseAddress returns the target to dial, and whether it speaks TLS.
func parseAddress(address string) (target string, encrypted bool, err error) {
	malformed := func(why string) error {
		return invalidInput("server address [%s]: %s", address, why)
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	location, err := url.Parse(address)
	var problem *url.Error
	switch {
	case errors.As(err, &problem):
		return "", false, malformed(problem.Err.Error())
	case location.Scheme != "http" && location.Scheme != "https":
		return "", false, malformed("the scheme must be http or https")
	case location.Hostname() == "":
		return "", false, malformed("it has no host")
	case strings.Trim(location.Path, "/") != "" || location.RawQuery != "" || location.User != nil:
		return "", false, malformed("nothing may stand beside host and port")
	}
	encrypted = location.Scheme == "https"
	port := location.Port()
	switch {
	case port == "" && encrypted:
		port = "443"
	case port == "":
		return "", false, malformed("it has no port")
	}
	return "dns:///" + net.JoinHostPort(location.Hostname(), port), encrypted, nil
}

// bearer sends a token with every call.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": fmt.Sprintf("Bearer %s", string(token))}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }
