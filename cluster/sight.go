package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/idpool/idpool/problem"
)

// Sight is how far one etcd member is, for whoever judges whether it has gone back
// in time. Index was read after Revision: of a history that was never restored it
// is at least Revision - 1.
type Sight struct {
	Endpoint  string
	ClusterID uint64
	// Index is the raft index that is applied, Revision the store's.
	Index    uint64
	Revision int64
	// Meta are the bytes of the meta record, nil where there is none.
	Meta []byte
}

// Lead is how far the revision is ahead of the raft index, 0 if it is behind.
func (s Sight) Lead() int64 { return max(0, s.Revision-int64(s.Index)) }

// Look asks etcd how far it is: meta by a linearizable read, then every endpoint's
// status. It returns one sight an endpoint that has come at least as far as the
// read; none, without an error, while all of them lag. It does not use the
// connection for transactions, and so works where [Config.Audit] refuses that. One
// round trip an endpoint and one more. Errors as [Client.Read].
func (c *Client) Look(ctx context.Context) ([]Sight, error) {
	resp, err := c.read(ctx, c.renew, clientv3.OpGet(c.keys.Meta()))
	if err != nil {
		return nil, err
	}
	var meta []byte
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		meta = append([]byte{}, kvs[0].Value...) // not nil where it stands empty
	}
	var sights []Sight
	var errs error
	for _, ep := range c.cfg.Endpoints {
		attempt, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
		st, err := c.renew.Status(attempt, ep)
		cancel()
		switch {
		case err != nil:
			errs = errors.Join(errs, err)
		case st.Header.Revision >= resp.Header.Revision:
			sights = append(sights, Sight{ep, resp.Header.ClusterId, st.RaftAppliedIndex, resp.Header.Revision, meta})
		default:
			errs = nil // it answers, and lags
		}
	}
	if len(sights) == 0 && errs != nil {
		return nil, problem.Wrap(problem.CodeUnavailable, cause(ctx, errs), "ask etcd at %v how far it is", c.cfg.Endpoints)
	}
	return sights, nil
}

// Lead is [Sight.Lead] of the member that is furthest.
func (c *Client) Lead(ctx context.Context) (int64, error) {
	var wait Backoff
	for {
		sights, err := c.Look(ctx)
		if err != nil {
			return 0, err
		}
		if len(sights) > 0 {
			lead := sights[0].Lead()
			for _, s := range sights[1:] {
				lead = min(lead, s.Lead())
			}
			return lead, nil
		}
		if err := wait.Wait(ctx); err != nil {
			return 0, problem.Wrap(problem.CodeUnavailable, err, "every member of etcd at %v lags", c.cfg.Endpoints)
		}
	}
}

// CommitAside is [Client.Commit] over a connection that is not audited: for the
// record that freezes a cluster, and what an operator writes.
func (c *Client) CommitAside(ctx context.Context, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error) {
	return c.commit(ctx, c.renew, cmps, then, els)
}

// ReadAside is [Client.Read] over that connection.
func (c *Client) ReadAside(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	return c.read(ctx, c.renew, ops...)
}

// dialAudited connects and then, before a byte is sent, asks the server that it
// reached how far it is. A member that lags is asked again until ctx ends.
func (c *Client) dialAudited(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := dialAddress(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := c.admit(ctx, addr, conn.RemoteAddr()); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("audit of etcd at %s: %w", addr, err)
	}
	return conn, nil
}

// dialAddress connects to an address as gRPC hands it to a dialer.
func dialAddress(ctx context.Context, addr string) (net.Conn, error) {
	network, to := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, to = "unix", strings.TrimPrefix(path, "//")
	}
	return (&net.Dialer{}).DialContext(ctx, network, to)
}

// admit asks Config.Audit about the server at a remote address, reached by a
// connection of its own.
func (c *Client) admit(ctx context.Context, addr string, remote net.Addr) error {
	probe, err := c.probe(addr, remote)
	if err != nil {
		return err
	}
	defer probe.Close()
	var wait Backoff
	for {
		s, err := c.sight(ctx, probe)
		if err == nil {
			if err = c.cfg.Audit(s); err == nil {
				return nil
			}
		}
		if wait.Wait(ctx) != nil {
			return err
		}
	}
}

// probe is a client of one server alone.
func (c *Client) probe(addr string, remote net.Addr) (*clientv3.Client, error) {
	cfg := c.base
	cfg.Endpoints = []string{c.endpointOf(addr)}
	cfg.DialOptions = append(slices.Clone(cfg.DialOptions), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, remote.Network(), remote.String())
	}))
	return clientv3.New(cfg)
}

// endpointOf is the endpoint that an address of gRPC's came from.
func (c *Client) endpointOf(addr string) string {
	bare := strings.TrimPrefix(strings.TrimPrefix(addr, "unix:"), "//")
	for _, ep := range c.cfg.Endpoints {
		if _, rest, _ := strings.Cut(ep, "://"); strings.TrimSuffix(rest, "/") == bare {
			return ep
		}
	}
	return c.cfg.Endpoints[0] // the scheme is the same for all
}

// sight reads how far one server itself is: the revision first.
func (c *Client) sight(ctx context.Context, probe *clientv3.Client) (Sight, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
	defer cancel()
	got, err := probe.Get(ctx, c.keys.Meta(), clientv3.WithSerializable())
	if err != nil {
		return Sight{}, err
	}
	st, err := probe.Status(ctx, probe.Endpoints()[0])
	if err != nil {
		return Sight{}, err
	}
	s := Sight{Endpoint: probe.Endpoints()[0], ClusterID: st.Header.ClusterId, Index: st.RaftAppliedIndex, Revision: got.Header.Revision}
	if len(got.Kvs) > 0 {
		s.Meta = append([]byte{}, got.Kvs[0].Value...)
	}
	return s, nil
}
