package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"

	"github.com/idpool/idpool/problem"
)

// Environment variables that name the files of a client that calls an agent over
// https, where [Options] names none.
const (
	// EnvCert names the file of the client's certificate.
	EnvCert = "IDPOOL_CERT"
	// EnvCertKey names the file of its private key.
	EnvCertKey = "IDPOOL_CERT_KEY"
	// EnvCA names the file of the authorities of the agent's certificate.
	EnvCA = "IDPOOL_CA"
)

// Files are PEM files for an https agent. Empty fields are taken from the
// environment: IDPOOL_CERT, IDPOOL_CERT_KEY and IDPOOL_CA.
type Files struct {
	// Cert is the client's certificate, Key its private key. They are read for each
	// connection, so that a program outlives its certificate.
	Cert, Key string
	// CA are the authorities of the agent's certificate; without it those of the
	// system.
	CA string
}

func (f Files) completed() Files {
	for _, one := range []struct {
		field *string
		env   string
	}{{&f.Cert, EnvCert}, {&f.Key, EnvCertKey}, {&f.CA, EnvCA}} {
		if *one.field == "" {
			*one.field = os.Getenv(one.env)
		}
	}
	return f
}

// config makes the files a configuration of TLS; what cannot be used is ErrInvalid.
func (f Files) config() (*tls.Config, error) {
	f = f.completed()
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if (f.Cert == "") != (f.Key == "") {
		return nil, problem.New(problem.CodeInvalid, "a client certificate and its key go together: certificate %q, key %q; nothing was done", f.Cert, f.Key)
	}
	if f.Cert != "" {
		pair := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &pair, problem.Wrap(problem.CodeInvalid, err, "client certificate %s with key %s", f.Cert, f.Key)
		}
		if _, err := pair(); err != nil {
			return nil, err
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair() }
	}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, problem.Wrap(problem.CodeInvalid, err, "authorities of the agent's certificate")
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, problem.New(problem.CodeInvalid, "%s holds no PEM certificate of an authority; nothing was done", f.CA)
		}
	}
	return config, nil
}

// secured is the configuration for the address, or why there is none: of the
// files, unless the program brings its own.
func (a address) secured(own *tls.Config, f Files) (*tls.Config, *problem.Error) {
	if own != nil || !strings.HasPrefix(a.base, "https://") || a.err != nil {
		return own, a.err
	}
	config, err := f.config()
	var refusal *problem.Error
	if err != nil && !errors.As(err, &refusal) {
		refusal = problem.New(problem.CodeInvalid, "%v", err)
	}
	return config, refusal
}
