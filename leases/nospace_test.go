package leases

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// fullWorld is an etcd of its own, that a test runs out of space, and a node.
func fullWorld(t *testing.T) (*world, *clustertest.Cluster, *agent) {
	etcd := clustertest.Start(t)
	w := worldAt(t, etcd.Endpoints())
	n := w.node("n1")
	n.pool("p", "100-109")
	return w, etcd, n
}

// TestNoSpaceApplied: etcd applies the first write that goes beyond its quota and
// answers that it has no space. What it applied is told as done, and nothing twice.
func TestNoSpaceApplied(t *testing.T) {
	t.Parallel()
	w, etcd, n := fullWorld(t)
	real := n.batch.send
	once := sync.OnceFunc(func() { etcd.NoSpace(t) })
	n.batch.send = func(ctx context.Context, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error) {
		resp, err := real(ctx, cmps, then, els)
		if err == nil {
			once()
			err = &cluster.OutcomeError{Outcome: cluster.Unknown, Op: "commit", Err: rpctypes.ErrNoSpace}
		}
		return resp, err
	}
	g, err := n.ask(n.m.born("r"), withKey("k"))
	if err != nil {
		t.Fatalf("a grant that etcd has applied: %v", err)
	}
	w.mustBe(g.ref(), Locked)
	if !n.journal.knows("grants/" + strings.SplitN(w.keys.Grant("tenant", recordName("k", "")), "grants/", 2)[1]) {
		t.Error("it is told, and not in the journal")
	}
	if _, err := n.ask(n.m.born("s")); !errors.Is(err, problem.ErrUnavailable) || errors.Is(err, problem.ErrOutcomeUnknown) {
		t.Errorf("a grant that etcd has refused: %v", err)
	}
	if claims := w.stored(w.keys.Root() + "claims/"); len(claims) != 1 {
		t.Errorf("claims: %v", claims)
	}
}

// TestNoSpaceRelease: without space a release deletes what it frees, beside others that
// are refused; its key never answers again, its id may be another's at once, and its
// record is mended when there is space.
func TestNoSpaceRelease(t *testing.T) {
	t.Parallel()
	w, etcd, n := fullWorld(t)
	g := n.get(n.m.born("r"), withKey("k"))
	other := n.get(n.m.born("o"), withKey("other"))
	n.m.die("r")
	etcd.NoSpace(t)
	var both sync.WaitGroup
	both.Go(func() {
		if err := n.tryRelease(g); err != nil {
			t.Errorf("release: %v", err)
		}
	})
	both.Go(func() {
		if _, err := n.ask(n.m.born("s")); !errors.Is(err, problem.ErrUnavailable) {
			t.Errorf("a request beside it: %v", err)
		}
	})
	both.Wait()
	w.mustBe(g.ref(), Free)
	if err := n.Session().Trouble(); !errors.Is(err, errNoSpace) {
		t.Errorf("trouble: %v", err)
	}
	n.m.start(other.ref().ID) // somebody runs: it cannot be freed, and quarantine takes space
	if err := n.tryRelease(other); !errors.Is(err, problem.ErrUnavailable) {
		t.Errorf("release of what runs: %v", err)
	}
	w.mustBe(other.ref(), Locked)
	if err := n.tryRelease(g); err != nil {
		t.Errorf("release again: %v", err)
	}

	etcd.EndNoSpace(t)
	again, err := n.ask(n.m.born("t"), withKey("k"))
	if !errors.Is(err, problem.ErrKeyEnded) {
		t.Errorf("the key again: %v, %v", again, err)
	}
	exact := g.ref()
	taken, err := n.ask(n.m.born("u"), func(r *GrantRequest) { r.Wants[0].Exact = &exact.ID })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.ask(n.m.born("v"), withKey("k")); !errors.Is(err, problem.ErrKeyEnded) {
		t.Errorf("the key, while its id is another's: %v", err)
	}
	if err := n.tryRelease(g); err != nil {
		t.Errorf("release again: %v", err)
	}
	w.mustBe(taken.ref(), Locked)
	until(t, "the reaper mends the record", func() bool {
		rounds(n)
		n.sync()
		torn := false
		n.mirror.read(func(v *view) { torn = len(v.torn) > 0 })
		return !torn
	})
	n.mirror.read(func(v *view) {
		if r := v.records[w.keys.Grant("tenant", recordName("k", ""))].Val; r == nil || !r.Ended {
			t.Errorf("record: %+v", r)
		}
	})
	if n.Session().Trouble() != nil {
		t.Errorf("trouble is over: %v", n.Session().Trouble())
	}
}

// tryRelease is release for the requesters of this node, with its error.
func (a *agent) tryRelease(g *Grant) error {
	ctx, cancel := context.WithTimeout(a.w.ctx(), limit)
	defer cancel()
	_, _, err := a.Release(ctx, Release{Refs: g.refs(), Token: g.Token, By: "c"})
	return err
}

// TestASilentMember: one member that takes connections and says nothing keeps neither
// the audit nor a new session from hearing the others.
func TestASilentMember(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	silent, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	w := worldAt(t, append([]string{"unix://" + path}, shared.Endpoints()...))
	n := w.node("n1")
	n.pool("p", "100-109")
	n.get(n.m.born("r"))
	if err := n.session.audit.check(w.ctx()); err != nil {
		t.Errorf("audit: %v", err)
	}
}
