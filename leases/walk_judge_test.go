package leases

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// change is one write below claims/ or grants/; value nil is a deletion.
type written struct {
	key   string
	value []byte
	rev   int64
}

// judge goes through all that was ever written: no claim goes from one grant to
// another without being free between (P1, P5), what was quarantined is not handed over
// again, and a group's claims are written together (P3).
func (w *world) judge() {
	w.t.Helper()
	root := w.keys.Root()
	end := root + "end"
	if _, err := w.client.Txn().Put(w.ctx(), end, "end"); err != nil {
		w.t.Fatal(err)
	}
	var all []written
	for resp := range w.client.Watch().Watch(w.ctx(), root, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := resp.Err(); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range resp.Events {
			key := strings.TrimPrefix(string(e.Kv.Key), root)
			if key == "end" {
				if len(all) == 0 {
					w.t.Error("the history is empty")
				}
				if err := judge(all); err != nil {
					w.t.Error(err)
				}
				return
			}
			one := written{key: key, rev: e.Kv.ModRevision}
			if e.Type == clientv3.EventTypePut {
				one.value = e.Kv.Value
			}
			all = append(all, one)
		}
	}
	w.t.Error("the history has no end")
}

func judge(all []written) error {
	claims := map[string]*Claim{}
	began := map[string]int64{} // tokens
	groups := map[int64][]*Record{}
	born := map[int64]map[string]string{} // by revision: claims and their tokens
	for _, e := range all {
		switch part, rest, _ := strings.Cut(e.key, "/"); {
		case part == "grants" && e.value != nil:
			var r Record
			if err := json.Unmarshal(e.value, &r); err != nil {
				return fmt.Errorf("record %s at revision %d: %w", e.key, e.rev, err)
			}
			if !r.Ended && began["record "+r.Token] == 0 {
				began["record "+r.Token] = e.rev
				groups[e.rev] = append(groups[e.rev], &r)
			}
		case part == "claims":
			var c *Claim
			if e.value != nil {
				c = &Claim{}
				if err := json.Unmarshal(e.value, c); err != nil {
					return fmt.Errorf("claim %s at revision %d: %w", e.key, e.rev, err)
				}
			}
			if err := follows(claims[rest], c); err != nil {
				return fmt.Errorf("claim %s at revision %d: %w", rest, e.rev, err)
			}
			if claims[rest] == nil && c != nil {
				if at, ok := began[c.Token]; ok && at != e.rev {
					return fmt.Errorf("claim %s of a grant that began at revision %d was written at %d", rest, at, e.rev)
				}
				began[c.Token] = e.rev
				if born[e.rev] == nil {
					born[e.rev] = map[string]string{}
				}
				born[e.rev][rest] = c.Token
			}
			claims[rest] = c
		}
	}
	for rev, records := range groups {
		for _, r := range records {
			for _, ref := range r.IDs {
				if born[rev][fmt.Sprintf("%s/%010d", ref.Space, ref.ID)] != r.Token {
					return fmt.Errorf("the grant %v of revision %d has no claim on %s (%v)", r.IDs, rev, ref, born[rev])
				}
			}
		}
	}
	return nil
}

// follows tells whether a claim may become another; nil is a free id.
func follows(before, after *Claim) error {
	switch {
	case before == nil && after == nil, after == nil && before.State != Reserved:
	case after == nil:
		return fmt.Errorf("was freed although it was reserved")
	case before == nil:
		if !slices.Contains([]State{Locked, Quarantined, Reserved, Used}, after.State) {
			return fmt.Errorf("began as %s", after.State)
		}
	case before.Token != after.Token && (before.ReasonCode != ReasonForeign || after.State != Used):
		return fmt.Errorf("went from one grant to another (%s, %s)", before.State, after.State)
	case before.State == Quarantined && after.State == Locked:
		return fmt.Errorf("came back to life")
	}
	return nil
}
