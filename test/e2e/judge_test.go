package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// entry is one write of a claim, as etcd's history has it; Token is "" where the
// claim was deleted.
type entry struct {
	Key, Token, State string
	Nodes             []string
	Revision          int64
}

// history is every write below claims/ from the first revision on (the tests'
// etcd compacts nothing).
func (w *world) history() []entry {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	prefix := w.db.Keys().ClaimsPrefix()
	now, err := w.db.Read(ctx, clientv3.OpGet(w.db.Keys().Meta()))
	if err != nil {
		w.t.Fatal(err)
	}
	until := now.Header.Revision
	var all []entry
	// A mark written after until tells that the watch has shown everything before.
	mark := w.db.Keys().Root() + "claims/uid/4000000000"
	if _, err := w.db.Txn().Put(ctx, mark, "mark"); err != nil {
		w.t.Fatal(err)
	}
	defer func() { _, _ = w.db.Txn().Delete(context.Background(), mark) }()
	for resp := range w.db.Watch().Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := resp.Err(); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range resp.Events {
			if string(e.Kv.Key) == mark {
				if e.Kv.ModRevision > until {
					return all
				}
				continue
			}
			one := entry{Key: strings.TrimPrefix(string(e.Kv.Key), prefix), Revision: e.Kv.ModRevision}
			if e.Type == clientv3.EventTypePut {
				var c struct {
					Token, State string
					Nodes        []struct{ Node string }
				}
				if err := json.Unmarshal(e.Kv.Value, &c); err != nil || c.Token == "" {
					w.t.Fatalf("claim %s at revision %d cannot be read: %s", one.Key, one.Revision, e.Kv.Value)
				}
				one.Token, one.State = c.Token, c.State
				for _, n := range c.Nodes {
					one.Nodes = append(one.Nodes, n.Node)
				}
			}
			all = append(all, one)
		}
	}
	w.t.Fatal("the history ended before its mark")
	return nil
}

// judge checks P1 and the life of every id over a history: a claim never changes
// its token but by being freed first, or adopted; only a quarantined claim, or one
// whose holder released it, is freed; and nothing comes back to life.
func judge(all []entry) error {
	last := map[string]entry{}
	for _, e := range all {
		before, had := last[e.Key]
		live := had && before.Token != ""
		switch {
		case e.Token == "" && live && before.State == "reserved":
			return fmt.Errorf("%s was freed at revision %d although it was reserved", e.Key, e.Revision)
		case e.Token != "" && !live && !(strings.HasPrefix(e.Key, "vlan/") && e.State == "used") && e.State != "locked" && e.State != "quarantined" && e.State != "reserved":
			return fmt.Errorf("%s began as %s at revision %d", e.Key, e.State, e.Revision)
		case e.Token != "" && live && e.Token != before.Token:
			return fmt.Errorf("%s went from one grant to another at revision %d without being free between (%s, then %s)", e.Key, e.Revision, before.State, e.State)
		case e.Token != "" && live && before.State == "quarantined" && e.State == "locked":
			return fmt.Errorf("%s came back to life at revision %d", e.Key, e.Revision)
		}
		last[e.Key] = e
	}
	return nil
}

// TestJudge: the judge rejects what it must, or nothing it says is worth much.
func TestJudge(t *testing.T) {
	good := []entry{
		{"uid/1", "a", "locked", nil, 1}, {"uid/1", "a", "used", nil, 2}, {"uid/1", "a", "quarantined", nil, 3},
		{"uid/1", "", "", nil, 4}, {"uid/1", "b", "locked", nil, 5}, {"vlan/f/1", "a", "used", nil, 6},
	}
	if err := judge(good); err != nil {
		t.Errorf("a good history is rejected: %v", err)
	}
	for name, bad := range map[string][]entry{
		"two holders":     {{"uid/1", "a", "locked", nil, 1}, {"uid/1", "b", "locked", nil, 2}},
		"stolen":          {{"uid/1", "a", "used", nil, 1}, {"uid/1", "b", "used", nil, 2}},
		"back to life":    {{"uid/1", "a", "locked", nil, 1}, {"uid/1", "a", "quarantined", nil, 2}, {"uid/1", "a", "locked", nil, 3}},
		"begins as used":  {{"uid/1", "a", "used", nil, 1}},
		"VLAN stolen":     {{"vlan/f/1", "a", "used", nil, 1}, {"vlan/f/1", "b", "used", nil, 2}},
		"reserved, freed": {{"uid/1", "a", "reserved", nil, 1}, {"uid/1", "", "", nil, 2}},
	} {
		if judge(bad) == nil {
			t.Errorf("the judge accepts a bad history: %s", name)
		}
	}
}
