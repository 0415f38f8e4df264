package e2e

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// link is the network between an agent and etcd: a socket that leads to another, and
// that can be cut.
type link struct {
	path string
	to   string

	mu    sync.Mutex // guards the fields below
	cut   bool
	conns map[net.Conn]struct{}
}

// newLink leads to an endpoint of the world's etcd until the test ends.
func (w *world) newLink(name string) *link {
	w.t.Helper()
	l := &link{path: filepath.Join(w.dir, name), to: strings.TrimPrefix(w.etcd.Endpoints()[0], "unix://"), conns: map[net.Conn]struct{}{}}
	in, err := net.Listen("unix", l.path)
	if err != nil {
		w.t.Fatal(err)
	}
	var all sync.WaitGroup
	w.t.Cleanup(func() {
		_ = in.Close()
		l.Cut()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			all.Go(func() { l.carry(c) })
		}
	})
	return l
}

func (l *link) endpoint() string { return "unix://" + l.path }

// carry is one connection, both ways, until one side or the link ends it.
func (l *link) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("unix", l.to)
	if err != nil {
		return
	}
	defer out.Close()
	l.mu.Lock()
	if l.cut {
		l.mu.Unlock()
		return
	}
	l.conns[in], l.conns[out] = struct{}{}, struct{}{}
	l.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = in.Close()
			_ = out.Close()
		})
	}
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, in)
	delete(l.conns, out)
}

// Cut ends all connections and lets none begin.
func (l *link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		_ = c.Close()
	}
}

// Mend lets connections begin again.
func (l *link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// TestCompactedDuringPartition: an agent that was cut off while others worked and
// etcd's history was compacted knows all of it when it is back.
func TestCompactedDuringPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	way := w.newLink("way")
	n1.endpoints = []string{way.endpoint()}
	for _, n := range []*node{n1, n2} {
		n.start()
		n.ready()
	}
	n1.must("uid", "pool", "set", "p", apart(3, 3))
	n1.must("uid", "request", "--pool", "p", "--key", "a", "--hold", "ttl=1h")
	job := n1.occupies("p")
	way.Cut()
	n1.saysReady(503)
	n2.must("uid", "request", "--pool", "p", "--key", "b", "--hold", "ttl=1h")
	n2.must("uid", "pool", "set", "q", apart(4, 10))
	n1.refused(5, []string{"uid", "request", "--pool", "p"}, "nothing was done")
	w.etcd.Compact(t)
	way.Mend()
	n1.saysReady(200)
	n1.refused(4, []string{"uid", "request", "--pool", "p"}, "exhausted", "0 of 3")
	n1.must("uid", "request", "--pool", "q")
	job.goesOn()
	for _, n := range []*node{n1, n2} {
		if found, err := n.client.Check(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("check on %s: %+v, %v", n.name, found, err)
		}
	}
}
