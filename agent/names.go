package agent

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/agent/userdb"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// names gives granted uids names on this host, as configured, until ctx ends. An
// agent without names is one all the same: what keeps them away is a warning.
func (a *Agent) names(ctx context.Context) error {
	path := a.cfg.userDB()
	if path == "" && a.cfg.UserDBDropIn == "" {
		return nil
	}
	index := userdb.NewIndex(granted{a}, cmp.Or(a.cfg.UserDBPrefix, userdb.DefaultPrefix))
	var g errgroup.Group
	if path != "" {
		g.Go(func() error {
			if err := a.serveNames(ctx, index, path); err != nil {
				a.log.Warn("uids have no names on this host", zap.String("socket", path), zap.Error(err))
			}
			return nil
		})
	}
	if dir := a.cfg.UserDBDropIn; dir != "" {
		g.Go(func() error { return userdb.NewDropIn(index, dir, a.cfg.Node, a.cfg.Seam, a.log).Run(ctx) })
	}
	return g.Wait()
}

// userDB is the socket to serve names on, "" for none.
func (c Config) userDB() string {
	switch c.UserDB {
	case "", userDBOff:
		return ""
	case userDBAuto:
		if info, err := os.Stat(filepath.Dir(DefaultUserDB)); err != nil || !info.IsDir() || c.Socket != DefaultSocket {
			return ""
		}
		return DefaultUserDB
	}
	return c.UserDB
}

func (a *Agent) serveNames(ctx context.Context, index *userdb.Index, path string) error {
	l, lock, err := a.listenNames(ctx, path)
	if err != nil {
		return err
	}
	defer lock.release()
	return userdb.NewServer(index, filepath.Base(path), a.cfg.Version).Serve(ctx, l)
}

// listenNames takes a socket that every user may open, instead of a dead agent's.
// Its lock has a hidden name: clients of the directory try every other.
func (a *Agent) listenNames(ctx context.Context, path string) (net.Listener, *lockFile, error) {
	s, dir := a.cfg.Seam, filepath.Dir(path)
	if err := s.Do("file:userdb-dir:create", func() error { return os.MkdirAll(dir, 0o755) }); err != nil {
		return nil, nil, err
	}
	lock, err := takeLock(filepath.Join(dir, "."+filepath.Base(path)+".lock"), "socket "+path, s)
	if err != nil {
		return nil, nil, err
	}
	var l net.Listener
	if err = removeDead(ctx, path, s); err == nil {
		err = s.Do("file:userdb-socket:create", func() (err error) {
			l, err = net.Listen("unix", path)
			return err
		})
	}
	if err == nil {
		err = s.Do("file:userdb-socket:admit", func() error { return os.Chmod(path, 0o666) })
	}
	if err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		lock.release()
		return nil, nil, problem.Wrap(problem.CodeInvalid, err, "listen for names")
	}
	return l, lock, nil
}

// granted is what package userdb gives names to: the claims of the cluster's space
// and of this node's own, as the mirror has them.
type granted struct{ a *Agent }

func (g granted) Changes() <-chan struct{} {
	c, err := g.a.working()
	if err != nil {
		return nil
	}
	return c.engine.Mirror().Changes()
}

// over is a context that has ended: whoever gets it waits for nothing.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Grants reads the mirror as it is; nothing is waited for. Where both spaces have a
// uid, this node's own is meant.
func (g granted) Grants() []userdb.Grant {
	c, err := g.a.working()
	if err != nil {
		return nil
	}
	node, spaces := c.engine.Node(), c.engine.Spaces()
	var own, all []userdb.Grant
	c.engine.List(over, nil, 0, func(ref leases.Ref, claim *leases.Claim) bool {
		if !slices.Contains(spaces, ref.Space) || !named(claim) {
			return false
		}
		grant := userdb.Grant{
			UID: ref.ID, Count: claim.Count, Pool: claim.Pool, Holder: claim.Holder,
			Live: claim.State != leases.Quarantined, Here: claim.On(node) != nil,
		}
		if _, scoped := ref.Space.Node(); scoped {
			own = append(own, grant)
		} else {
			all = append(all, grant)
		}
		return false
	})
	return append(own, all...)
}

// named tells whether a claim is a grant, or was one until it was released. What an
// operator reserved, or was found in use without a grant, is nobody's.
func named(c *leases.Claim) bool {
	switch c.State {
	case leases.Locked, leases.Used, leases.Idle:
		return true
	case leases.Quarantined:
		return c.Caller != "" && c.ReasonCode != leases.ReasonForeign && c.ReasonCode != leases.ReasonUnreserve
	}
	return false
}
