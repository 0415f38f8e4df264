package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/credentials"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/tlsfile"
)

// open reads the files; nil where no endpoint is secure.
func (t TLSConfig) open(endpoints []string, log *zap.Logger) (*tlsfile.Source, error) {
	if !strings.HasPrefix(endpoints[0], "https:") {
		return nil, nil
	}
	return tlsfile.Open("TLS to etcd", tlsfile.Files{Cert: t.CertFile, Key: t.KeyFile, CA: t.CAFile}, log)
}

// handshakes are grpc's TLS with files that are looked at for every connection. A
// connection that stands is not cycled when they change: etcd asks for a certificate
// once a connection, and whom a name may be is its roles' affair, which it looks up
// for each request.
type handshakes struct {
	files *tlsfile.Source
	// serverName, if set, is what a server's certificate must name.
	serverName string
	refusals   *refusals
}

// config is that of one handshake.
func (h *handshakes) config() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	pair, roots := h.files.Now()
	if c.RootCAs = roots; pair != nil {
		// Whatever authorities the server names: one that does not trust ours says so
		// then, where an empty certificate would only be said to be missing.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return c
}

// ClientHandshake implements [credentials.TransportCredentials].
func (h *handshakes) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	name := authority
	if h.serverName != "" {
		name = h.serverName // grpc's TLS takes the name from here, not from its configuration
	}
	inner, info, err := credentials.NewTLS(h.config()).ClientHandshake(ctx, name, conn)
	if err != nil {
		h.refusals.note(authority, err)
		return nil, nil, err
	}
	return &heardConn{Conn: inner, heard: func(err error) { h.refusals.note(authority, err) }}, info, nil
}

// ServerHandshake implements [credentials.TransportCredentials]; nobody serves here.
func (h *handshakes) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	panic("bug: a client's credentials serve nobody")
}

// Info implements [credentials.TransportCredentials].
func (h *handshakes) Info() credentials.ProtocolInfo {
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: h.serverName}).Info()
}

// Clone implements [credentials.TransportCredentials].
func (h *handshakes) Clone() credentials.TransportCredentials {
	clone := *h
	return &clone
}

// OverrideServerName implements [credentials.TransportCredentials].
func (h *handshakes) OverrideServerName(name string) error {
	h.serverName = name
	return nil
}

// heardConn tells of the first that is heard on a connection: in TLS 1.3 a server
// refuses our certificate after our side of the handshake has ended well.
type heardConn struct {
	net.Conn
	once  sync.Once
	heard func(error)
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 || err != nil {
		c.once.Do(func() { c.heard(err) })
	}
	return n, err
}

// refusals are why handshakes failed lately, by server. Grpc keeps that to itself
// while a call waits, which then only knows that it waited too long.
type refusals struct {
	mu sync.Mutex // guards the field below
	by map[string]error
}

// note remembers a refusal; nil forgets one. What is no word about certificates, such
// as a reset connection, changes nothing.
func (r *refusals) note(server string, err error) {
	var verification *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	var op *net.OpError
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		delete(r.by, server)
	case errors.As(err, &verification), errors.As(err, &plain), errors.As(err, &op) && op.Op == "remote error":
		r.by[server] = err
	}
}

// first is one of the refusals, nil if there is none.
func (r *refusals) first() (server string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, server := range slices.Sorted(maps.Keys(r.by)) {
		return server, r.by[server]
	}
	return "", nil
}

// Certificate is our certificate for etcd: when it ends (zero where there is none),
// and a warning once that is soon, else "". It is read again now.
func (c *Client) Certificate() (ends time.Time, warning string) {
	if c.files == nil {
		return time.Time{}, ""
	}
	return c.files.Ends(), c.files.Ending(time.Now())
}

// Trouble says why etcd and we do not let each other in, as far as TLS is the reason:
// our certificate ended, which it names with its end, or the last handshake with a
// server failed. It is a [problem.CodeUnavailable], or nil. Connections that stand go
// on in spite of it.
func (c *Client) Trouble() error {
	if c.files == nil {
		return nil
	}
	if err := c.files.Trouble(time.Now()); err != nil {
		return err
	}
	server, err := c.refusals.first()
	var verification *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &verification):
		return problem.Wrap(problem.CodeUnavailable, verification.Err, "TLS to etcd: the certificate that %s shows is not trusted", server)
	case errors.As(err, &op) && c.cfg.TLS.CertFile == "":
		return problem.Wrap(problem.CodeUnavailable, op.Err, "TLS to etcd: %s wants a certificate of ours, and none is configured", server)
	case errors.As(err, &op):
		return problem.Wrap(problem.CodeUnavailable, op.Err, "TLS to etcd: %s refuses our certificate %s", server, c.cfg.TLS.CertFile)
	}
	return problem.Wrap(problem.CodeUnavailable, err, "TLS to etcd: %s", server)
}

// unavailable is an error of an etcd that did not answer, with what is wrong with
// certificates first, if anything is.
func (c *Client) unavailable(err error, format string, args ...any) error {
	if trouble := c.Trouble(); trouble != nil {
		return problem.Wrap(problem.CodeUnavailable, err, "%s; "+format, append([]any{trouble}, args...)...)
	}
	return problem.Wrap(problem.CodeUnavailable, err, format, args...)
}
