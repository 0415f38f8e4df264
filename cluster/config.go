package cluster

import (
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

const (
	// maxLeaseTTL keeps a typing error from holding locks for days.
	maxLeaseTTL = time.Hour
	// maxSocketPath is what the kernel takes in a socket address, less a margin.
	maxSocketPath = 100
)

// TLSConfig names the files of mutual TLS. All are read once, at [Open].
type TLSConfig struct {
	// CAFile holds the authorities that may sign the servers' certificates; the
	// system's if empty.
	CAFile string
	// CertFile and KeyFile are our own certificate; its common name is our etcd user.
	CertFile, KeyFile string
	// ServerName replaces the endpoint's host in the check of the server's certificate.
	ServerName string
}

// Config says where etcd is and how long to wait for it.
type Config struct {
	// Endpoints are http://HOST:PORT, https://HOST:PORT or unix:///PATH. Secure
	// and plain endpoints do not mix.
	Endpoints []string
	// Root is the prefix of all keys.
	Root string
	TLS  TLSConfig
	// Attempt bounds one request, Budget all repetitions of one operation.
	Attempt, Budget time.Duration
	// LeaseTTL is the life of a session without renewal: whole seconds, 2 s to 1 h.
	LeaseTTL time.Duration
	// Audit, if set, is asked about every new connection for transactions, before
	// the first byte of it: whether the etcd that it leads to may be written to. See
	// [Sight].
	Audit func(Sight) error
	// Seam, if set, is where tests break requests to etcd: each passes it, on whichever
	// connection, as "etcd:METHOD"; a stream when it is opened.
	Seam seam.Seam
}

// DefaultConfig returns a configuration that lacks only its endpoints.
func DefaultConfig() Config {
	return Config{Root: DefaultRoot, Attempt: 2 * time.Second, Budget: 15 * time.Second, LeaseTTL: 20 * time.Second}
}

// Validate reports the first field that cannot work, alone or beside another,
// as a [problem.CodeInvalid] that says what would. It reads no files.
func (c Config) Validate() error {
	if _, err := NewKeys(c.Root); err != nil {
		return err
	}
	if err := c.validateTimes(); err != nil {
		return err
	}
	return c.validateEndpoints()
}

func (c Config) validateTimes() error {
	switch {
	case c.Attempt <= 0:
		return problem.New(problem.CodeInvalid, "attempt is %v: use a positive duration, 2s by default", c.Attempt)
	case c.Budget <= c.Attempt:
		return problem.New(problem.CodeInvalid, "budget %v leaves no room for a second attempt of %v: make it longer than attempt", c.Budget, c.Attempt)
	case c.LeaseTTL < 2*time.Second || c.LeaseTTL > maxLeaseTTL || c.LeaseTTL%time.Second != 0:
		return problem.New(problem.CodeInvalid, "lease TTL is %v: use whole seconds from 2s to %v", c.LeaseTTL, maxLeaseTTL)
	case 3*c.Attempt > c.LeaseTTL:
		return problem.New(problem.CodeInvalid, "lease TTL %v is too short for three renewals of %v each: use an attempt of at most %v or a TTL of at least %v",
			c.LeaseTTL, c.Attempt, (c.LeaseTTL / 3).Truncate(time.Millisecond), roundUp(3*c.Attempt, time.Second))
	}
	return nil
}

func roundUp(d, unit time.Duration) time.Duration { return (d + unit - 1) / unit * unit }

func (c Config) validateEndpoints() error {
	if len(c.Endpoints) == 0 {
		return problem.New(problem.CodeInvalid, "endpoints are missing: name at least one, such as http://127.0.0.1:2379")
	}
	secure := 0
	for _, e := range c.Endpoints {
		scheme, err := validateEndpoint(e)
		if err != nil {
			return err
		}
		if scheme == "https" {
			secure++
		}
	}
	switch {
	case secure != 0 && secure != len(c.Endpoints):
		return problem.New(problem.CodeInvalid, "endpoints %s mix https with others: use https for all of them", strings.Join(c.Endpoints, ","))
	case secure == 0 && c.TLS != TLSConfig{}:
		return problem.New(problem.CodeInvalid, "TLS files are set but no endpoint is https: use https endpoints or drop the files")
	case (c.TLS.CertFile == "") != (c.TLS.KeyFile == ""):
		return problem.New(problem.CodeInvalid, "TLS certificate and key go together: set both files or neither")
	}
	return nil
}

func validateEndpoint(endpoint string) (scheme string, err error) {
	bad := func(why string) (string, error) {
		return "", problem.New(problem.CodeInvalid, "endpoint %q %s: use http://HOST:PORT, https://HOST:PORT or unix:///PATH", endpoint, why)
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return bad("is no URL")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return bad("has a user, query or fragment")
	}
	switch u.Scheme {
	case "unix":
		switch {
		case u.Host != "" || len(u.Path) < 2:
			return bad("has no absolute path")
		case len(u.Path) >= maxSocketPath:
			return bad("has a path of 100 bytes or more, longer than a socket may have")
		}
	case "http", "https":
		if u.Path != "" && u.Path != "/" {
			return bad("has a path")
		}
		host, port, err := net.SplitHostPort(u.Host)
		if err != nil || host == "" || port == "" || port == "0" {
			return bad("lacks a host or port")
		}
	default:
		return bad("has another scheme")
	}
	return u.Scheme, nil
}
