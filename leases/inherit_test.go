package leases

import "testing"

// TestLocksAreHandedOver: an agent stops and starts again in one boot. The locks of
// what is still being handed over never go: they stand under the old session's lease
// until they stand under the new one's, and then the old lease ends.
func TestLocksAreHandedOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(a *agent)
	}{
		{"stopped", func(a *agent) { a.cancel(); <-a.done }},
		{"killed", func(a *agent) { a.crash() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m, home := newMachine("n1"), t.TempDir()
			a := w.spawn("n1", home, m, c.name == "stopped")
			a.pool("p", "1000-1009")
			kept, lapsed := a.get(m.born("kept"), exact(1000)), a.get(m.born("lapsed"), exact(1001))
			old := a.guardNow().lease
			began := w.created(w.keys.Lock("uid", 1000))
			c.end(a)
			if lease, held, err := w.lock(kept.ref()); err != nil || !held || lease != int64(old) {
				t.Fatalf("after the end: lease %x of %x, %v, %v", lease, old, held, err)
			}
			m.die("lapsed")
			b := w.spawn("n1", home, m, true)
			until(t, "the old lease has ended", func() bool {
				left, err := w.client.Txn().TimeToLive(w.ctx(), old)
				return err == nil && left.TTL < 0
			})
			lease, held, err := w.lock(kept.ref())
			if err != nil || !held || lease != int64(b.guardNow().lease) {
				t.Errorf("at last: lease %x of %x, %v, %v", lease, b.guardNow().lease, held, err)
			}
			w.mustBe(kept.ref(), Locked)
			until(t, "what nobody waits for goes", func() bool {
				_, held, err := w.lock(lapsed.ref())
				return err == nil && !held
			})
			if now := w.created(w.keys.Lock("uid", 1000)); now != began {
				t.Errorf("the lock was gone in between: created at revision %d, now %d", began, now)
			}
		})
	}
}

// created is the create revision of a key, 0 if it is not there.
func (w *world) created(key string) int64 {
	w.t.Helper()
	resp, err := w.client.Txn().Get(w.ctx(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return 0
	}
	return resp.Kvs[0].CreateRevision
}
