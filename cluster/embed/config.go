package embed

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Config says what to run.
type Config struct {
	// Dir is where the server keeps everything, in its subdirectory "etcd". It is
	// made if missing.
	Dir string
	// ListenClient are further addresses for clients, separated by commas:
	// http://IP:PORT or https://IP:PORT, so that other agents can join. Port 0
	// takes a free one. The Unix socket is always there.
	ListenClient string
	// NoSocket leaves the Unix socket away, where clients show no certificate: for
	// tests, of an etcd that knows its clients by theirs.
	NoSocket bool
	// TLS is the server's certificate for https listeners; with a CAFile, clients
	// must show a certificate that it signed. ServerName is not used.
	TLS cluster.TLSConfig
	// Name is the member's name, "idpool" if empty.
	Name string
	// Token is the cluster's token at first boot; if empty, a random one is made
	// and kept beside the data. Members of one cluster need the same.
	Token string
	// ListenPeer is this member's http://IP:PORT or https://IP:PORT for other members:
	// for tests. If empty the server is a cluster of one and opens no peer port.
	ListenPeer string
	// PeerTLS is the certificate for an https ListenPeer, on both sides of it. Members
	// must show one that CAFile signed and whose common name is in Members.
	PeerTLS cluster.TLSConfig
	// Members maps the name of every first member, this one too, to its
	// ListenPeer. Needed with ListenPeer.
	Members map[string]string
	// Fast is for tests: short ticks, and no fsync, so that a power failure loses
	// data.
	Fast bool
}

const defaultName = "idpool"

func invalid(format string, args ...any) error {
	return problem.New(problem.CodeInvalid, "embedded etcd: "+format, args...)
}

// Validate reports the first field that cannot work as a
// [problem.CodeInvalid]. It reads no files.
func (c Config) Validate() error {
	if c.Dir == "" {
		return invalid("dir is missing: name a directory for its data")
	}
	if c.Name != "" {
		if err := cluster.ValidName(c.Name); err != nil {
			return invalid("member %v", err)
		}
		if c.Name == "default" {
			return invalid("member name %q is etcd's own: choose another", c.Name)
		}
	}
	secure, err := c.validateListeners()
	if err != nil {
		return err
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return invalid("TLS certificate and key go together: set both files or neither")
	}
	if secure && c.TLS.CertFile == "" {
		return invalid("listener %q is https: it needs a certificate and key", c.ListenClient)
	}
	if !secure && c.TLS != (cluster.TLSConfig{}) {
		return invalid("TLS files are set but no listener is https: use https listeners or drop the files")
	}
	if c.NoSocket && c.ListenClient == "" {
		return invalid("there is neither a socket nor a listener: name one")
	}
	return c.validatePeers()
}

func (c Config) validateListeners() (secure bool, err error) {
	for _, l := range c.listeners() {
		u, err := parseListener(l)
		if err != nil {
			return false, err
		}
		secure = secure || u.Scheme == "https"
	}
	return secure, nil
}

func (c Config) validatePeers() error {
	if c.ListenPeer == "" {
		if len(c.Members) > 0 {
			return invalid("members are set but no peer listener: set both or neither")
		}
		return nil
	}
	u, err := parseListener(c.ListenPeer)
	if err != nil {
		return err
	}
	if full := c.PeerTLS.CAFile != "" && c.PeerTLS.CertFile != "" && c.PeerTLS.KeyFile != ""; (u.Scheme == "https") != full {
		return invalid("peer listener %q: https goes with a certificate, its key and authorities, and http with none", c.ListenPeer)
	}
	if c.Members[c.name()] != c.ListenPeer {
		return invalid("members lack this one: add %s at %s", c.name(), c.ListenPeer)
	}
	if c.Token == "" {
		return invalid("token is missing: the members of one cluster need the same")
	}
	return nil
}

func (c Config) name() string {
	if c.Name == "" {
		return defaultName
	}
	return c.Name
}

func (c Config) listeners() []string {
	return slices.DeleteFunc(strings.Split(c.ListenClient, ","), func(s string) bool { return strings.TrimSpace(s) == "" })
}

func parseListener(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" {
		return nil, invalid("listener %q: use http://IP:PORT or https://IP:PORT", text)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || port == "" || net.ParseIP(host) == nil {
		return nil, invalid("listener %q: use an IP address and a port", text)
	}
	u.Path = ""
	return u, nil
}
