package trilith_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	trilith "github.com/trilith-db/trilith/client/go"
)

// authority makes a CA of the test's own, and a certificate for the host "trilith.test".
func authority(t *testing.T) (rootPEM []byte, host tls.Certificate) {
	t.Helper()
	issue := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, signer = template, key
		}
		certificate, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return certificate, key
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, rootKey := issue(root, nil, nil)
	leafDER, leafKey := issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "trilith.test"}, DNSNames: []string{"trilith.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, root, rootKey)
	rootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})
	return rootPEM, tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
}

// terminate accepts TLS and hands the plain bytes on to an address.
func terminate(t *testing.T, certificate tls.Certificate, address string) string {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			outer, err := listener.Accept()
			if err != nil {
				return
			}
			inner, err := net.Dial("tcp", address)
			if err != nil {
				_ = outer.Close()
				return
			}
			go func() { _, _ = io.Copy(inner, outer); _ = inner.Close() }()
			go func() { _, _ = io.Copy(outer, inner); _ = outer.Close() }()
		}
	}()
	return listener.Addr().String()
}

func TestTLS(t *testing.T) {
	root, certificate := authority(t)
	address := "https://" + terminate(t, certificate, sharedServer(t).GRPC)
	client := connect(t, address, trilith.WithRootCA(root), trilith.WithServerName("trilith.test"), trilith.WithToken("secret"))
	rows, err := client.Query(patient(t), trilith.Statement{SQL: "SELECT page FROM wikipedia"})
	if read := table(t, rows, err); read.NumRows() != int64(len(edits())) {
		t.Errorf("%d rows", read.NumRows())
	}

	// Neither an unknown CA nor another name is taken.
	short := trilith.WithTimeout(2 * time.Second)
	for _, options := range [][]trilith.Option{
		{short, trilith.WithServerName("trilith.test")},
		{short, trilith.WithRootCA(root)},
	} {
		_, err := connect(t, address, options...).Workers(t.Context())
		if failed := failure(t, err, trilith.ErrUnavailable); !strings.Contains(failed.Message, "x509: ") {
			t.Errorf("error %v", failed)
		}
	}
}

func TestTokenGoesWithEveryCall(t *testing.T) {
	root, certificate := authority(t)
	encrypted := startStub(t, answerEveryCall, grpc.Creds(credentials.NewServerTLSFromCert(&certificate)))
	plain := startStub(t, answerEveryCall)
	everyCall(patient(t), connect(t, "https://"+encrypted.address,
		trilith.WithRootCA(root), trilith.WithServerName("trilith.test"), trilith.WithToken("secret")))
	everyCall(patient(t), connect(t, plain.address, trilith.WithToken("secret")))
	for _, stub := range []*stub{encrypted, plain} {
		if len(stub.authorizations) != 6 {
			t.Errorf("methods %v", stub.authorizations)
		}
		for method, sent := range stub.authorizations {
			for _, authorization := range sent {
				if authorization != "Bearer secret" {
					t.Errorf("%s came with %q", method, authorization)
				}
			}
		}
	}
}
