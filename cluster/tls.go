package cluster

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
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
}

// config is that of one handshake.
func (h *handshakes) config() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: h.serverName}
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
	return credentials.NewTLS(h.config()).ClientHandshake(ctx, authority, conn)
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

// Certificate is our certificate for etcd: when it ends (zero where there is none),
// and a warning once that is soon, else "". It is read again now.
func (c *Client) Certificate() (ends time.Time, warning string) {
	if c.files == nil {
		return time.Time{}, ""
	}
	return c.files.Ends(), c.files.Ending(time.Now())
}

// Trouble says why etcd will not let us in anew, as far as that can be told from our
// own certificate, which it names with its end: a [problem.CodeUnavailable], or nil.
// Connections that stand go on in spite of it.
func (c *Client) Trouble() error {
	if c.files == nil {
		return nil
	}
	return c.files.Trouble(time.Now())
}

// unavailable is an error of an etcd that did not answer, with what is wrong with
// our own certificate, if that is the reason.
func (c *Client) unavailable(err error, format string, args ...any) error {
	if trouble := c.Trouble(); trouble != nil {
		// The certificate first: what etcd says of it is the lesser half.
		return problem.Wrap(problem.CodeUnavailable, err, "%s; "+format, append([]any{trouble}, args...)...)
	}
	return problem.Wrap(problem.CodeUnavailable, err, format, args...)
}
