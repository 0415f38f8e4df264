package agent

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/idpool/idpool/agent/userdb"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

const (
	// DefaultData is where an agent keeps what it must remember.
	DefaultData = "/var/lib/idpool"
	// DefaultSocket is where it answers.
	DefaultSocket = "/run/idpool/agent.sock"

	// DefaultUserDB is where systemd looks for names.
	DefaultUserDB = "/run/systemd/userdb/io.idpool"

	userDBAuto, userDBOff = "auto", "off"

	// maxSocketPath is the first length, in bytes, that is refused: the kernel
	// takes 107, and some clients' languages less.
	maxSocketPath = 104

	minScan = 100 * time.Millisecond
	maxScan = time.Hour
	// maxGroups bounds the groups that may ask.
	maxGroups = 32
	// maxAttempt bounds one request to etcd where the lease's life allows more.
	maxAttempt = 2 * time.Second
)

// Config says who the agent is, where etcd is and who may ask. [Default] gives
// one that lacks only the way to etcd.
type Config struct {
	// Node is the node's name in the cluster: 1 to 63 of a-z A-Z 0-9 . _ -. One
	// name, one agent. The host's name by default.
	Node string

	// Endpoints are etcd's addresses: http://HOST:PORT, https://HOST:PORT or
	// unix:///PATH, secure or plain, not both. Either they or Embedded.
	Endpoints []string

	// Embedded runs an etcd server of one member inside of the agent, its data in
	// the directory "etcd" below Data: for one machine, a tour or tests.
	Embedded bool

	// EmbeddedListen are further addresses of the embedded server for other
	// agents, http://IP:PORT or https://IP:PORT, separated by commas; port 0 takes
	// a free one. Whoever reaches them owns every pool, so without TLS only the
	// loopback addresses are taken. Only with Embedded.
	EmbeddedListen string

	// Data is the agent's own directory: the secret that makes it this node, how
	// far it has seen etcd, the embedded server's data. It belongs to one agent at
	// a time, and must survive a restart; lost, the node's name is refused until
	// an operator fences it.
	Data string

	// Socket is where the agent answers, a path of less than 104 bytes. Its
	// directory is made if missing.
	Socket string

	// Listen is HOST:PORT where the agent answers over TCP too, for callers with a
	// certificate: TLS 1.3, both sides. Empty: on the socket alone. Without a HOST on
	// all addresses; port 0 takes a free one, which the status tells.
	Listen string

	// ListenTLS are the files for Listen; all three, or none.
	ListenTLS TLSFiles

	// TLS are the files for https endpoints; with Embedded, the server's own for
	// https listeners.
	TLS cluster.TLSConfig

	// Root is the prefix of all keys in etcd; agents with another one are another
	// cluster.
	Root string

	// LeaseTTL is how long after its last renewal the node's presence and locks
	// stand in etcd: whole seconds, 2 s to 1 h. Short ones notice a dead agent
	// earlier and cost more renewals.
	LeaseTTL time.Duration

	// ScanEvery is how often the node looks for idle, orphaned and foreign uids
	// when nothing tells it to, 100 ms to 1 h.
	ScanEvery time.Duration

	// Role is "node", or "gateway" for an agent that serves the interface and
	// grants no uid.
	Role string

	// AcceptPIDNamespace is an operator's word that the node is a container: what
	// runs outside of the agent's pid namespace is not this node's affair.
	AcceptPIDNamespace bool

	// Groups are requesters, by name or number: they may read, ask for ids, and end
	// what they hold. Root, and the user that the agent runs as, may do everything.
	// If one group alone is configured, whatever its role, the socket is its, mode
	// 0660; with several anybody may connect and those that are in none are refused.
	Groups []string

	// OperatorGroups may do everything, as root may.
	OperatorGroups []string

	// ObserverGroups may read and change nothing. Who is in groups of several roles
	// has the highest.
	ObserverGroups []string

	// LogLevel is the least level that is logged: debug, info, warn or error.
	LogLevel string

	// UserDB is the socket on which granted uids have names for systemd's NSS module,
	// a path of less than 104 bytes; "off" or "": none. "auto", the default, is
	// [DefaultUserDB] if its directory is there and Socket is [DefaultSocket]: one
	// agent of a machine names its uids. See docs/names.md.
	UserDB string

	// UserDBDropIn is a directory for records of the uids that are granted on this
	// node, as files; "": none.
	UserDBDropIn string

	// UserDBPrefix begins every name: 1 to 16 of a-z 0-9 _ -.
	UserDBPrefix string

	// Version is shown to others. It is no flag.
	Version string

	// Seam, if set, is where tests break what the agent does. It is no flag; see the
	// build tag idpool_fault of poolagent.
	Seam seam.Seam

	// Settings says where each value came from, for the status. It is no flag.
	Settings []api.Setting

	// Level, if set, is the log's level, which can change while the agent runs. It is
	// no flag.
	Level *zap.AtomicLevel

	// Listener, if set, is the socket, opened by a service manager that keeps it
	// across restarts of the agent; its address must be Socket. It is no flag.
	Listener net.Listener

	// ProcRoot is where procfs is; "" is /proc. For tests; it is no flag.
	ProcRoot string
}

// Default returns a configuration that lacks only endpoints.
func Default() Config {
	host, _ := os.Hostname()
	c := cluster.DefaultConfig()
	return Config{
		Node: host, Data: DefaultData, Socket: DefaultSocket, Root: c.Root,
		LeaseTTL: c.LeaseTTL, ScanEvery: 10 * time.Second, Role: leases.RoleNode, LogLevel: "info", Version: "devel",
		UserDB: userDBAuto, UserDBPrefix: userdb.DefaultPrefix,
	}
}

// Fault is a setting that cannot work, and why: a [problem.CodeInvalid].
type Fault struct {
	// Setting is the flag's name.
	Setting string
	Err     error
}

// Validate reports every field that cannot work, alone or beside another, as one
// [problem.CodeInvalid]: the first in its detail, the others as notes. It reads
// no files.
func (c Config) Validate() error {
	var all []error
	for _, f := range c.Faults() {
		all = append(all, f.Err)
	}
	return problem.Gather(all)
}

// Faults is [Config.Validate], setting by setting.
func (c Config) Faults() []Fault {
	var all []Fault
	bad := func(setting, format string, args ...any) {
		all = append(all, Fault{setting, problem.New(problem.CodeInvalid, format, args...)})
	}
	if err := cluster.ValidName(c.Node); err != nil {
		bad("node", "node: %v", err)
	}
	if setting, err := c.validateEtcd(); err != nil {
		all = append(all, Fault{setting, err})
	}
	if !filepath.IsAbs(c.Data) {
		bad("data", "data directory %q is no absolute path", c.Data)
	}
	switch {
	case !filepath.IsAbs(c.Socket):
		bad("socket", "socket %q is no absolute path", c.Socket)
	case len(c.Socket) >= maxSocketPath:
		bad("socket", "socket path %s has %d bytes: a socket's address takes less than %d; name a shorter one", c.Socket, len(c.Socket), maxSocketPath)
	case filepath.Clean(c.Socket) == filepath.Clean(c.Data):
		bad("socket", "socket and data directory are both %s", c.Socket)
	}
	if setting, err := c.validateListen(); err != nil {
		all = append(all, Fault{setting, err})
	}
	if c.ScanEvery < minScan || c.ScanEvery > maxScan {
		bad("scan-every", "scan-every is %v: use %v to %v", c.ScanEvery, minScan, maxScan)
	}
	if c.Role != leases.RoleNode && c.Role != leases.RoleGateway {
		bad("role", "role %q is neither %s nor %s", c.Role, leases.RoleNode, leases.RoleGateway)
	}
	if n := len(c.Groups) + len(c.OperatorGroups) + len(c.ObserverGroups); n > maxGroups {
		bad("group", "%d groups: at most %d may be named", n, maxGroups)
	}
	if _, err := zapcore.ParseLevel(c.LogLevel); err != nil {
		bad("log-level", "log-level %q: use debug, info, warn or error", c.LogLevel)
	}
	if setting, err := c.validateNames(); err != nil {
		all = append(all, Fault{setting, err})
	}
	return all
}

// validateListen: TCP with certificates on both sides, or not at all; setting is
// where to look first.
func (c Config) validateListen() (setting string, err error) {
	f := c.ListenTLS
	if c.Listen == "" {
		if f != (TLSFiles{}) {
			return "listen", problem.New(problem.CodeInvalid, "tls-cert, tls-key or client-ca is set without listen: say where, or drop them").
				Advise("listen", "poolagent --listen HOST:PORT …")
		}
		return "", nil
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || strings.ContainsAny(host, "/ ") || (n == 0 && port != "0") {
		return "listen", problem.New(problem.CodeInvalid, "listen %q is no HOST:PORT", c.Listen)
	}
	if f.Cert == "" || f.Key == "" || f.ClientCA == "" {
		return "listen", problem.New(problem.CodeInvalid, "listen %s lacks certificates: over TCP the agent answers only with TLS on both sides", c.Listen).
			Advise("with them", "poolagent --listen %s --tls-cert FILE --tls-key FILE --client-ca FILE", c.Listen).
			Advise("this machine alone", "drop --listen: the socket needs none")
	}
	return "", nil
}

// validateNames checks userdb and its kin; setting is where to look first.
func (c Config) validateNames() (setting string, err error) {
	switch path := c.UserDB; {
	case path == "", path == userDBOff, path == userDBAuto:
	case !filepath.IsAbs(path):
		return "userdb", problem.New(problem.CodeInvalid, "userdb %q: use an absolute path, %s or %s", path, userDBAuto, userDBOff)
	case len(path) >= maxSocketPath:
		return "userdb", problem.New(problem.CodeInvalid, "userdb path %s has %d bytes: a socket's address takes less than %d; name a shorter one", path, len(path), maxSocketPath)
	case filepath.Clean(path) == filepath.Clean(c.Socket):
		return "userdb", problem.New(problem.CodeInvalid, "userdb and socket are both %s", path)
	}
	if c.UserDBDropIn != "" && !filepath.IsAbs(c.UserDBDropIn) {
		return "userdb-dropin", problem.New(problem.CodeInvalid, "userdb-dropin %q is no absolute path", c.UserDBDropIn)
	}
	if c.UserDBPrefix != "" && !userdb.ValidPrefix(c.UserDBPrefix) {
		return "userdb-prefix", problem.New(problem.CodeInvalid, "userdb-prefix %q: use 1 to 16 of a-z 0-9 _ -, the first a letter or _", c.UserDBPrefix)
	}
	return "", nil
}

// validateEtcd checks the way to etcd; setting is where to look first.
func (c Config) validateEtcd() (setting string, err error) {
	switch {
	case c.Embedded && len(c.Endpoints) > 0:
		return "endpoints", problem.New(problem.CodeInvalid, "endpoints and embedded are both set: use an etcd that exists, or the embedded one")
	case !c.Embedded && len(c.Endpoints) == 0:
		return "endpoints", problem.New(problem.CodeInvalid, "it is not said where etcd is").
			Advise("an etcd that exists", "poolagent --endpoints http://HOST:2379,…").
			Advise("one machine alone", "poolagent --embedded")
	case !c.Embedded && c.EmbeddedListen != "":
		return "embedded-listen", problem.New(problem.CodeInvalid, "embedded-listen is set without embedded: set both or neither")
	case !c.Embedded:
		return c.validateCluster(c.Endpoints, c.TLS)
	}
	if err := c.embed().Validate(); err != nil {
		return "embedded-listen", err
	}
	if c.TLS == (cluster.TLSConfig{}) {
		for l := range strings.SplitSeq(c.EmbeddedListen, ",") {
			if l = strings.TrimSpace(l); l != "" && !loopback(l) {
				return "embedded-listen", problem.New(problem.CodeInvalid, "embedded-listen %s is open to other machines without TLS: whoever reaches it owns every pool", l).
					Advise("with TLS", "--embedded-listen https://IP:PORT --etcd-cert FILE --etcd-key FILE --etcd-ca FILE").
					Advise("this machine alone", "--embedded-listen http://127.0.0.1:2379")
			}
		}
	}
	return c.validateCluster([]string{"unix:///embedded"}, cluster.TLSConfig{})
}

// validateCluster names the first setting whose default would do.
func (c Config) validateCluster(endpoints []string, files cluster.TLSConfig) (setting string, err error) {
	err = c.cluster(endpoints, files).Validate()
	if err == nil {
		return "", nil
	}
	for _, try := range []struct {
		setting string
		mend    func(*Config)
	}{
		{"root", func(c *Config) { c.Root = Default().Root }},
		{"lease-ttl", func(c *Config) { c.LeaseTTL = Default().LeaseTTL }},
	} {
		mended := c
		try.mend(&mended)
		if other := mended.cluster(endpoints, files).Validate(); other == nil || other.Error() != err.Error() {
			return try.setting, err
		}
	}
	return "endpoints", err
}

// loopback tells whether a listener's address is this machine's alone.
func loopback(listener string) bool {
	_, rest, _ := strings.Cut(listener, "://")
	return strings.HasPrefix(rest, "127.") || strings.HasPrefix(rest, "[::1]")
}

// cluster is the client's configuration; an attempt is a third of the lease's
// life at most, so that a renewal can be tried three times.
func (c Config) cluster(endpoints []string, files cluster.TLSConfig) cluster.Config {
	out := cluster.DefaultConfig()
	out.Endpoints, out.TLS, out.Root, out.LeaseTTL, out.Seam = endpoints, files, c.Root, c.LeaseTTL, c.Seam
	out.Attempt = max(time.Millisecond, min(maxAttempt, (c.LeaseTTL/3).Truncate(time.Millisecond)))
	return out
}

func (c Config) embed() embed.Config {
	return embed.Config{Dir: c.Data, ListenClient: c.EmbeddedListen, TLS: c.TLS}
}
