package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/idpool/idpool/problem"
)

const (
	dialKeepAliveTime    = 10 * time.Second
	dialKeepAliveTimeout = 3 * time.Second
)

// Client is idpool's connection to one etcd cluster. Safe for concurrent use.
type Client struct {
	cfg       Config
	keys      Keys
	log       *zap.Logger
	txn       *clientv3.Client
	renew     *clientv3.Client
	watch     *clientv3.Client
	clusterID uint64
	base      clientv3.Config
	// page is how many keys one request of a list asks for.
	page int64

	closeOnce sync.Once
	closeErr  error

	mu sync.RWMutex // guards the fields below
	// follows are the streams that a progress request goes to.
	follows map[*followStream]struct{}
	// streams counts them, for names.
	streams uint64
}

// Open connects and asks every endpoint for its status, for at most three
// attempts' time. One answer is enough. It returns [problem.CodeInvalid] for a
// configuration that cannot work or a server older than 3.6.14, and
// [problem.CodeUnavailable], naming the endpoints, if none answers. A nil log
// logs nothing. The context bounds Open alone.
func Open(ctx context.Context, cfg Config, log *zap.Logger) (*Client, error) {
	c, err := Over(cfg, nil, log)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := cfg.TLS.load(cfg.Endpoints)
	if err != nil {
		return nil, err
	}
	// Grpc's own waits between connects grow to two minutes, which would outlast
	// the outage by as much.
	reconnect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
		MinConnectTimeout: cfg.Attempt,
	}
	c.base = clientv3.Config{
		DialOptions:          append(atSeam(cfg.Seam), grpc.WithConnectParams(reconnect)),
		Endpoints:            cfg.Endpoints,
		DialTimeout:          cfg.Attempt,
		DialKeepAliveTime:    dialKeepAliveTime,
		DialKeepAliveTimeout: dialKeepAliveTimeout,
		TLS:                  tlsConfig,
		Logger:               c.log.Named("etcd").WithOptions(zap.IncreaseLevel(zap.WarnLevel)),
	}
	if err := c.connect(c.base); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.checkServers(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Over returns a client over one connection that exists already, for
// transactions, leases and watches alike, and asks no server anything. Close ends
// it. A nil log logs nothing.
func Over(cfg Config, conn *clientv3.Client, log *zap.Logger) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	keys, err := NewKeys(cfg.Root)
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, keys: keys, log: log, txn: conn, renew: conn, watch: conn, page: followPage, follows: map[*followStream]struct{}{}}, nil
}

func (c *Client) connect(base clientv3.Config) (err error) {
	txn := base
	// One request an attempt: the library's repetition of a mutation would hide
	// an unknown outcome behind a later, harmless error.
	txn.MaxUnaryRetries = 1
	if c.cfg.Audit != nil {
		txn.DialOptions = append(slices.Clone(base.DialOptions), grpc.WithContextDialer(c.dialAudited))
	}
	watch := base
	watch.DialOptions = append(slices.Clone(base.DialOptions), grpc.WithChainStreamInterceptor(interceptStream))
	for _, one := range []struct {
		into **clientv3.Client
		cfg  clientv3.Config
	}{{&c.txn, txn}, {&c.renew, base}, {&c.watch, watch}} {
		if *one.into, err = clientv3.New(one.cfg); err != nil {
			return problem.Wrap(problem.CodeInvalid, err, "etcd client for %v", base.Endpoints)
		}
	}
	return nil
}

// Close ends all three connections; calls under way return. Close it after
// whatever uses it has ended. A second call does nothing.
func (c *Client) Close() error {
	c.closeOnce.Do(func() {
		for _, one := range []*clientv3.Client{c.watch, c.renew, c.txn} {
			if one == nil {
				continue
			}
			if err := one.Close(); err != nil && !errors.Is(err, context.Canceled) {
				c.closeErr = errors.Join(c.closeErr, err)
			}
		}
	})
	return c.closeErr
}

// Config returns the configuration the client was opened with.
func (c *Client) Config() Config { return c.cfg }

// Keys returns the builder and parser of keys below the configured root.
func (c *Client) Keys() Keys { return c.keys }

// Txn is the connection for reads and transactions. It repeats nothing by itself.
func (c *Client) Txn() *clientv3.Client { return c.txn }

// Renew is the connection for leases.
func (c *Client) Renew() *clientv3.Client { return c.renew }

// Watch is the connection for watches and the lists they start from.
func (c *Client) Watch() *clientv3.Client { return c.watch }

// ClusterID is etcd's id of the cluster, as the first member told it at Open.
func (c *Client) ClusterID() uint64 { return c.clusterID }

// Commit sends one transaction once, under Config.Attempt and ctx. A response
// says by Succeeded whether the compares held. The error is an [*OutcomeError].
func (c *Client) Commit(ctx context.Context, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error) {
	return c.commit(ctx, c.txn, cmps, then, els)
}

func (c *Client) commit(ctx context.Context, over *clientv3.Client, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error) {
	if ctx.Err() != nil {
		return nil, &OutcomeError{Outcome: NotDone, Op: "commit", Err: context.Cause(ctx)}
	}
	attempt, cancel := context.WithTimeout(leaderContext(ctx), c.cfg.Attempt)
	defer cancel()
	resp, err := over.Txn(attempt).If(cmps...).Then(then...).Else(els...).Commit()
	if err != nil {
		return nil, &OutcomeError{Outcome: Classify(err), Op: "commit", Err: cause(ctx, err)}
	}
	return resp, nil
}

// Read runs get operations as one linearizable transaction, all at one
// revision: that of the response's header. It is repeated with jittered waits
// within Config.Budget. The error is a [problem.CodeUnavailable], or a
// [problem.CodeForbidden] where etcd denies it, [problem.CodeInternal] for what
// no repetition mends.
func (c *Client) Read(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	return c.read(ctx, c.txn, ops...)
}

func (c *Client) read(ctx context.Context, over *clientv3.Client, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	for _, op := range ops {
		if !op.IsGet() {
			panic("bug: Read of an operation that is no get")
		}
	}
	budget, cancel := context.WithTimeout(ctx, c.cfg.Budget)
	defer cancel()
	var wait Backoff
	for {
		resp, err := c.readOnce(budget, over, ops)
		if err == nil {
			return resp, nil
		}
		switch {
		case IsPermissionDenied(err):
			return nil, problem.Wrap(problem.CodeForbidden, err, "read from etcd")
		case permanent(err):
			return nil, problem.Wrap(problem.CodeInternal, err, "read from etcd")
		}
		if wait.Wait(budget) != nil {
			return nil, problem.Wrap(problem.CodeUnavailable, cause(ctx, err), "read from etcd at %v", c.cfg.Endpoints)
		}
	}
}

func (c *Client) readOnce(ctx context.Context, over *clientv3.Client, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	attempt, cancel := context.WithTimeout(leaderContext(ctx), c.cfg.Attempt)
	defer cancel()
	return over.Txn(attempt).Then(ops...).Commit()
}

// leaderContext makes a member without a leader refuse at once.
func leaderContext(ctx context.Context) context.Context { return clientv3.WithRequireLeader(ctx) }
