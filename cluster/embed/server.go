package embed

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/idpool/idpool/problem"
)

const (
	// quota is what etcd's data may grow to, about ten times a million claims.
	quota          = 2 << 30
	compaction     = "30m"
	progress       = 2 * time.Second
	fastProgress   = 200 * time.Millisecond
	fastTickMs     = 10
	fastElectionMs = 100
)

// Server is a running embedded etcd.
type Server struct {
	dir       *dir
	etcd      *embed.Etcd
	endpoints []string
	stopping  context.CancelCauseFunc
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
	done      chan struct{}

	mu  sync.Mutex // guards err
	err error
}

// Start runs a server and returns when it serves. The context bounds the start
// alone. Errors: [problem.CodeInvalid] for a configuration that cannot work,
// [problem.CodeHeld] for a directory in use, [problem.CodeUnavailable] where
// the server did not become ready. A nil log logs nothing; etcd's own log goes
// there from warnings on. The server runs until Close.
func Start(ctx context.Context, cfg Config, log *zap.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	d, err := openDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s, err := start(ctx, cfg, d, log)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return s, nil
}

func start(ctx context.Context, cfg Config, d *dir, log *zap.Logger) (*Server, error) {
	token, err := d.token(cfg.Token)
	if err != nil {
		return nil, err
	}
	socket, err := d.socket()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: d, closing: make(chan struct{}), done: make(chan struct{})}
	running, stopping := context.WithCancelCause(context.WithoutCancel(ctx))
	s.stopping = stopping
	conf, err := etcdConfig(cfg, filepath.Join(d.path, dataName), token, socket, log)
	if err != nil {
		return nil, err
	}
	conf.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(endStreams(running))}
	if s.etcd, err = embed.StartEtcd(conf); err != nil {
		return nil, problem.Wrap(problem.CodeUnavailable, err, "embedded etcd: start in %s", d.path)
	}
	if err := s.waitReady(ctx); err != nil {
		stopping(errStopping)
		// Close alone waits for ever for a server that is not ready.
		s.etcd.Server.HardStop()
		s.etcd.Close()
		return nil, err
	}
	s.endpoints = endpoints(s.etcd, conf.ListenClientUrls)
	// Ends with Close, or by itself when the server ends.
	go s.observe()
	return s, nil
}

// waitReady waits for all that can happen to a starting server: a server that
// was told to stop never becomes ready.
func (s *Server) waitReady(ctx context.Context) error {
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case <-s.etcd.Server.StopNotify():
		return problem.New(problem.CodeUnavailable, "embedded etcd: it stopped while starting, in %s: its log says why", s.dir.path)
	case err := <-s.etcd.Err():
		return problem.Wrap(problem.CodeUnavailable, orStopped(err), "embedded etcd: start in %s", s.dir.path)
	case <-ctx.Done():
		return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "embedded etcd: not ready in time, in %s", s.dir.path)
	}
}

func (s *Server) observe() {
	defer close(s.done)
	var err error
	select {
	case <-s.closing:
		return
	case e := <-s.etcd.Err():
		err = orStopped(e)
	case <-s.etcd.Server.StopNotify():
		err = errStopped
	}
	select {
	case <-s.closing:
		return
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = problem.Wrap(problem.CodeUnavailable, err, "embedded etcd in %s", s.dir.path)
}

var (
	errStopped  = errors.New("the server stopped by itself")
	errStopping = errors.New("embedded etcd is stopping")
)

func orStopped(err error) error {
	if err == nil {
		return errStopped
	}
	return err
}

// Endpoints are the addresses clients on this machine can use: the Unix socket
// first, if there is one, then the TCP listeners with the ports they really have.
func (s *Server) Endpoints() []string { return append([]string(nil), s.endpoints...) }

// Done is closed when the server has ended, by Close or by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says why the server ended by itself; nil while it runs and after Close.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close stops the server, waits for it and frees the directory. Streams of
// clients, watches too, are ended first. A second call waits for the first and
// returns the same.
func (s *Server) Close() error {
	s.end(func() {})
	return s.closeErr
}

// Kill is Close without handing over leadership, as when the machine fails,
// though what was written stays written.
func (s *Server) Kill() error {
	s.end(s.etcd.Server.HardStop)
	return s.closeErr
}

func (s *Server) end(first func()) {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.stopping(errStopping)
		first()
		s.etcd.Close()
		<-s.done
		s.closeErr = s.dir.close()
	})
}

// Etcd is the server itself, for what only operators and tests do.
func (s *Server) Etcd() *embed.Etcd { return s.etcd }

// endStreams ends watches and renewals when the server stops: etcd waits seconds
// for them to end by themselves. The code tells clients to come back.
func endStreams(running context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if running.Err() != nil {
			return status.Error(codes.Unavailable, errStopping.Error())
		}
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(running, cancel)()
		err := handle(srv, &endableStream{ServerStream: stream, until: func() context.Context { return ctx }})
		if running.Err() != nil {
			return status.Error(codes.Unavailable, errStopping.Error())
		}
		return err
	}
}

type endableStream struct {
	grpc.ServerStream
	until func() context.Context
}

// Context ends with the stream, or earlier with the server.
func (s *endableStream) Context() context.Context { return s.until() }

func etcdConfig(cfg Config, data, token, socket string, log *zap.Logger) (*embed.Config, error) {
	c := embed.NewConfig()
	c.Name, c.Dir, c.InitialClusterToken = cfg.name(), data, token
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log.Named("etcd").WithOptions(zap.IncreaseLevel(zap.WarnLevel)))
	c.EnableGRPCGateway = false
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compaction
	c.QuotaBackendBytes = quota
	c.WatchProgressNotifyInterval = progress
	if cfg.Fast {
		c.TickMs, c.ElectionMs, c.UnsafeNoFsync = fastTickMs, fastElectionMs, true
		c.WatchProgressNotifyInterval = fastProgress
	}
	if cfg.Fast && cfg.ListenPeer != "" {
		// Members in one busy process would else elect all the time.
		c.TickMs, c.ElectionMs = 2*fastTickMs, 4*fastElectionMs
	}
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	for _, l := range cfg.listeners() {
		u, err := parseListener(l)
		if err != nil {
			return nil, err
		}
		c.ListenClientUrls = append(c.ListenClientUrls, *u)
	}
	if cfg.NoSocket {
		c.ListenClientUrls = c.ListenClientUrls[1:]
	}
	c.AdvertiseClientUrls = c.ListenClientUrls
	c.ClientTLSInfo = transport.TLSInfo{
		CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile,
		TrustedCAFile: cfg.TLS.CAFile, ClientCertAuth: cfg.TLS.CAFile != "",
	}
	if err := peers(c, cfg); err != nil {
		return nil, err
	}
	return c, nil
}

// lonePeer is the peer address a cluster of one tells itself; nothing listens.
const lonePeer = "http://127.0.0.1:2380"

func peers(c *embed.Config, cfg Config) error {
	members, own := cfg.Members, cfg.ListenPeer
	if own == "" {
		own = lonePeer
		members = map[string]string{cfg.name(): own}
	}
	u, err := parseListener(own)
	if err != nil {
		return err
	}
	c.AdvertisePeerUrls = []url.URL{*u}
	c.ListenPeerUrls = nil
	if cfg.ListenPeer != "" {
		c.ListenPeerUrls = c.AdvertisePeerUrls
	}
	if cfg.PeerTLS.CAFile != "" {
		// By name: a client's certificate has the same authority.
		c.PeerTLSInfo = transport.TLSInfo{
			CertFile: cfg.PeerTLS.CertFile, KeyFile: cfg.PeerTLS.KeyFile,
			TrustedCAFile: cfg.PeerTLS.CAFile, ClientCertAuth: true, AllowedCNs: slices.Sorted(maps.Keys(members)),
		}
	}
	var list []string
	for name, peer := range members {
		list = append(list, name+"="+peer)
	}
	c.InitialCluster = strings.Join(list, ",")
	return nil
}

// endpoints takes the listeners' addresses, which have the real ports.
func endpoints(e *embed.Etcd, urls []url.URL) []string {
	var out []string
	for _, u := range urls {
		if u.Scheme == "unix" {
			out = append(out, u.Scheme+"://"+u.Path)
			continue
		}
		for _, l := range e.Clients {
			if addr, ok := l.Addr().(*net.TCPAddr); ok && sameListener(u, addr) {
				out = append(out, u.Scheme+"://"+reachable(addr))
			}
		}
	}
	return out
}

func sameListener(u url.URL, addr *net.TCPAddr) bool {
	ip := net.ParseIP(u.Hostname())
	if u.Port() != "0" && u.Port() != strconv.Itoa(addr.Port) {
		return false
	}
	return ip.Equal(addr.IP) || ip.IsUnspecified() && addr.IP.IsUnspecified()
}

// reachable replaces "all addresses" by the loopback one.
func reachable(addr *net.TCPAddr) string {
	if !addr.IP.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(addr.Port))
}
