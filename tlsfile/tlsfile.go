// Package tlsfile reads the PEM files of TLS again when they change, so that
// certificates, keys and authorities are renewed without a restart.
//
// It promises that what is handed out is always a certificate with its own key, and
// whole authorities: files that cannot be used, or are caught half-way through their
// renewal, leave what stood in them before, and that is told. It does not watch:
// [Source.Now] looks at the files, which a handshake can afford.
//
// A Source is safe for concurrent use. Errors carry the codes of package problem.
package tlsfile

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/problem"
)

// Files are PEM files; an empty path stands for no file.
type Files struct {
	// Cert is our certificate, with what lies between it and its authority, and Key
	// its private key.
	Cert, Key string
	// CA are the authorities of those we talk to.
	CA string
}

// Source is what the files hold.
type Source struct {
	files Files
	what  string
	log   *zap.Logger

	mu    sync.Mutex // guards the fields below
	taken bool
	raw   [3][]byte
	pair  tls.Certificate
	roots *x509.CertPool
	// failed is why the files as they are now cannot be used, nil if they can.
	failed error
}

// Open reads the files; what cannot be used is a [problem.CodeInvalid]. what says in
// messages whose files they are, as "listen on TCP" does. A nil log logs nothing.
func Open(what string, files Files, log *zap.Logger) (*Source, error) {
	if log == nil {
		log = zap.NewNop()
	}
	s := &Source{files: files, what: what, log: log}
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// read takes the files in, if they are others than before; s.mu is the caller's.
func (s *Source) read() error {
	var raw [3][]byte
	for i, path := range []string{s.files.Cert, s.files.Key, s.files.CA} {
		if path == "" {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return problem.Wrap(problem.CodeInvalid, err, "%s", s.what)
		}
		raw[i] = data
	}
	if s.taken && bytes.Equal(raw[0], s.raw[0]) && bytes.Equal(raw[1], s.raw[1]) && bytes.Equal(raw[2], s.raw[2]) {
		return nil
	}
	pair, roots := tls.Certificate{}, (*x509.CertPool)(nil)
	if s.files.Cert != "" {
		var err error
		if pair, err = tls.X509KeyPair(raw[0], raw[1]); err != nil {
			return problem.Wrap(problem.CodeInvalid, err, "%s: certificate %s with key %s", s.what, s.files.Cert, s.files.Key)
		}
	}
	if s.files.CA != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(raw[2]) {
			return problem.New(problem.CodeInvalid, "%s: %s holds no PEM certificate of an authority", s.what, s.files.CA)
		}
	}
	s.taken, s.raw, s.pair, s.roots = true, raw, pair, roots
	return nil
}

// Now is what stands in the files, or stood in them where that cannot be used, so
// that a renewal caught half-way locks nobody out. The certificate is nil, or the
// authorities are, where no file was named.
func (s *Source) Now() (*tls.Certificate, *x509.CertPool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	if s.files.Cert == "" {
		return nil, s.roots
	}
	pair := s.pair
	return &pair, s.roots
}

// look reads the files and tells what is new about them; s.mu is the caller's.
func (s *Source) look() {
	err := s.read()
	switch {
	case err == nil && s.failed != nil:
		s.log.Info("certificates can be used again", zap.String("use", s.what))
	case err != nil && (s.failed == nil || s.failed.Error() != err.Error()):
		s.log.Warn("certificates changed and cannot be used, the ones before stay", zap.Error(err))
	}
	s.failed = err
}

// Ends is when our certificate ends; zero where there is none.
func (s *Source) Ends() time.Time {
	_, ends := s.life()
	return ends
}

func (s *Source) life() (begins, ends time.Time) {
	if cert, _ := s.Now(); cert != nil {
		return cert.Leaf.NotBefore, cert.Leaf.NotAfter
	}
	return
}

// Trouble says why others will refuse our certificate at a time, and is nil if they
// have no reason to: it ended, or has not begun. It names the file and the time, and
// says so where the file has changed and cannot be used. It is a
// [problem.CodeUnavailable], since a new file mends it.
func (s *Source) Trouble(at time.Time) error {
	begins, ends := s.life()
	var p *problem.Error
	switch {
	case ends.IsZero():
		return nil
	case at.After(ends):
		p = problem.New(problem.CodeUnavailable, "%s: certificate %s ended %s", s.what, s.files.Cert, ends.UTC().Format(time.RFC3339))
	case at.Before(begins):
		p = problem.New(problem.CodeUnavailable, "%s: certificate %s begins %s only, by this machine's clock", s.what, s.files.Cert, begins.UTC().Format(time.RFC3339))
	default:
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return p.Note("the files have changed and cannot be used: %v", s.failed)
	}
	return p.Note("put a new one in its place, with its key: they are read again by themselves")
}

// Ending says that our certificate ends soon: a fifth of its life is left, and no
// more than 30 days. It is "" before that, and where there is none.
func (s *Source) Ending(at time.Time) string {
	begins, ends := s.life()
	left := ends.Sub(at)
	if ends.IsZero() || left > 30*24*time.Hour || left > ends.Sub(begins)/5 {
		return ""
	}
	verb := "ends"
	if left < 0 {
		verb = "ended"
	}
	return s.what + ": certificate " + s.files.Cert + " " + verb + " " + ends.UTC().Format(time.RFC3339)
}
