package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"regexp"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/tlsfile"
)

// TLSFiles are PEM files of the agent's own door on TCP. They are read again when
// they change.
type TLSFiles struct {
	// Cert is the agent's certificate, with what lies between it and its authority.
	Cert string
	// Key is its private key.
	Key string
	// ClientCA are the authorities whose certificates callers show.
	ClientCA string
}

// roleUnits are the organizational units of a subject that name a role.
var roleUnits = map[string]role{"idpool-observer": observer, "idpool-requester": requester, "idpool-operator": operator}

// commonName is what a caller's certificate may be called: the name stands in
// claims, keys and messages.
var commonName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// loadCredentials reads the files; what cannot be used is [problem.CodeInvalid].
func loadCredentials(files TLSFiles, log *zap.Logger) (*credentials, error) {
	source, err := tlsfile.Open("listen on TCP", tlsfile.Files{Cert: files.Cert, Key: files.Key, CA: files.ClientCA}, log)
	if err != nil {
		return nil, err
	}
	return &credentials{source}, nil
}

// credentials are those of the agent's own door on TCP.
type credentials struct{ *tlsfile.Source }

// config makes every handshake look at the files. No session is resumed: that
// would pass over an authority that was taken out.
func (c *credentials) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			pair, roots := c.Now()
			return &tls.Config{
				MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*pair}, ClientCAs: roots,
				ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true, NextProtos: []string{"http/1.1"},
			}, nil
		},
	}
}

// caller is whom the certificate of a connection names. It is verified for every
// request, since a connection may outlive the certificate, or its authority.
func (c *credentials) caller(state *tls.ConnectionState) (caller, error) {
	if len(state.PeerCertificates) == 0 {
		return caller{}, errors.New("no certificate")
	}
	leaf := state.PeerCertificates[0]
	_, roots := c.Now()
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: time.Now(), KeyUsages: usages}); err != nil {
		return caller{}, err
	}
	return callerOf(leaf)
}

// callerOf reads a certificate's subject: the common name is the caller's, the
// organizational units name its role, of several the highest.
func callerOf(leaf *x509.Certificate) (caller, error) {
	name := leaf.Subject.CommonName
	if !commonName.MatchString(name) {
		return caller{}, problem.New(problem.CodeForbidden, "your certificate's common name %.80q cannot name a caller: use 1 to 64 of A-Z a-z 0-9 . _ @ -", name)
	}
	highest := anybody
	for _, unit := range leaf.Subject.OrganizationalUnit {
		highest = max(highest, roleUnits[unit])
	}
	who := newCaller(peer{}, "cert:"+name, highest)
	who.remote = true
	return who, nil
}

// certified puts the caller that a connection's certificate names in the place of
// the kernel's word.
func (s *server) certified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			who, err := s.creds.caller(r.TLS)
			if err == nil && who.role == anybody {
				err = problem.New(problem.CodeForbidden, "your certificate %s names no role", who.name).
					Note("its subject needs OU=idpool-observer, OU=idpool-requester or OU=idpool-operator")
			}
			p := peer{cert: &who, err: err}
			r = r.WithContext(context.WithValue(r.Context(), peerKey{}, p))
		}
		next.ServeHTTP(w, r)
	})
}

// openPort listens on TCP, for callers with a certificate alone.
func openPort(address string, creds *credentials) (net.Listener, error) {
	l, err := tls.Listen("tcp", address, creds.config())
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "listen on TCP")
	}
	return l, nil
}
