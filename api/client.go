package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/idpool/idpool/problem"
)

const (
	// DefaultSocket is where an agent listens unless told otherwise.
	DefaultSocket = "/run/idpool/agent.sock"
	// EnvAgent names the environment variable that says where the agent is.
	EnvAgent = "IDPOOL_AGENT"
	// DefaultTimeout bounds one call, on top of the time it asks to wait.
	DefaultTimeout = time.Minute
	// DefaultWatchInterval is how often a watched grant is looked at.
	DefaultWatchInterval = time.Second
)

// Options say where the agent is and how to talk to it. The zero value talks
// to the agent of this machine.
type Options struct {
	// Agent is unix:///PATH, a bare path, or https://HOST:PORT. Empty means the
	// environment variable IDPOOL_AGENT, and if that is empty too,
	// unix:///run/idpool/agent.sock.
	Agent string

	// Files are the certificate and authorities for an https agent, which asks for a
	// client certificate. They are ignored for a socket.
	Files Files

	// TLS replaces what would be made of Files and the environment.
	TLS *tls.Config

	// HTTPClient replaces the client made from Agent and TLS, for tests and
	// for programs that trace their calls. Agent still gives the address.
	HTTPClient *http.Client

	// Timeout bounds each call, on top of a context's deadline and of the time
	// that a request asks the agent to wait for a free uid. 0 means a minute;
	// negative means that contexts alone bound calls.
	Timeout time.Duration

	// Retry is how long a call is sent again that did nothing because the agent or
	// etcd did not answer, or whose answer was lost and that is harmless to repeat
	// (reads, requests with a key, releases): so that a restart of the agent is not
	// noticed. 0: not at all.
	Retry time.Duration

	// WatchInterval is the pause between two looks at a watched grant (see
	// [LockedUID.Lost]). 0 means a second.
	WatchInterval time.Duration

	// UserAgent is sent with each call, for the agent's log.
	UserAgent string
}

// Client talks to one agent. Make it with [New]; it is safe for concurrent use
// and keeps connections open between calls.
type Client struct {
	address   address
	http      *http.Client
	timeout   time.Duration
	retry     time.Duration
	interval  time.Duration
	userAgent string
	closed    chan struct{}
	closeOnce sync.Once
}

// New makes a client. It neither connects nor fails: an unusable Options.Agent,
// or file of a certificate, is told as ErrInvalid by every call.
func New(o Options) *Client {
	c := &Client{
		address:   parseAddress(o.Agent),
		http:      o.HTTPClient,
		timeout:   o.Timeout,
		retry:     o.Retry,
		interval:  o.WatchInterval,
		userAgent: o.UserAgent,
		closed:    make(chan struct{}),
	}
	if c.timeout == 0 {
		c.timeout = DefaultTimeout
	}
	if c.interval <= 0 {
		c.interval = DefaultWatchInterval
	}
	if c.userAgent == "" {
		c.userAgent = "idpool-api"
	}
	if c.http == nil {
		config, err := c.address.secured(o.TLS, o.Files)
		c.address.err = err
		c.http = &http.Client{
			Transport: newTransport(c.address, config),
			// An agent never redirects; following one would send tokens elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return c
}

// Agent is the address in use, as a URL or a socket's path.
func (c *Client) Agent() string { return c.address.String() }

// Close ends the watching that [LockedUID.Lost] began and closes idle
// connections. Grants stay as they are. Twice is a no-op.
func (c *Client) Close() {
	c.closeOnce.Do(func() { close(c.closed) })
	c.http.CloseIdleConnections()
}

// address is where an agent is: a socket's path, or a base URL, or why neither.
type address struct {
	socket string
	base   string
	err    *problem.Error
}

func (a address) String() string {
	if a.socket != "" {
		return a.socket
	}
	return a.base
}

func parseAddress(agent string) address {
	if agent == "" {
		agent = os.Getenv(EnvAgent)
	}
	if agent == "" {
		agent = "unix://" + DefaultSocket
	}
	switch {
	case strings.HasPrefix(agent, "unix:"):
		path := strings.TrimPrefix(strings.TrimPrefix(agent, "unix:"), "//")
		if !filepath.IsAbs(path) {
			return badAddress(agent, "the path of a socket begins with /: unix:///PATH")
		}
		return address{socket: path}
	case strings.HasPrefix(agent, "https://"):
		u, err := url.Parse(agent)
		if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return badAddress(agent, "it is not of the form https://HOST:PORT")
		}
		return address{base: strings.TrimSuffix(agent, "/")}
	case strings.Contains(agent, "://"):
		return badAddress(agent, "an agent answers on a local socket or over https")
	default:
		return address{socket: agent}
	}
}

func badAddress(agent, why string) address {
	e := problem.New(problem.CodeInvalid, "agent address %q cannot be used: %s; nothing was done", agent, why).
		Advise("this machine's agent", "poolctl --agent unix://%s …", DefaultSocket).
		Advise("another's", "poolctl --agent https://HOST:PORT …")
	return address{base: agent, err: e}
}

func newTransport(a address, config *tls.Config) *http.Transport {
	var d net.Dialer
	t := &http.Transport{
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		Proxy:                  http.ProxyFromEnvironment,
	}
	if a.socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", a.socket)
		}
	}
	return t
}

// url is the address of a path of the agent, whose segments are escaped already.
func (a address) url(path string, query url.Values) string {
	base := a.base
	if a.socket != "" {
		base = "http://idpool-agent"
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return base + path
}
