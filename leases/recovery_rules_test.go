package leases

import (
	"testing"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

const (
	epochOne   = "11111111-1111-4111-8111-111111111111"
	epochTwo   = "22222222-2222-4222-8222-222222222222"
	epochThree = "33333333-3333-4333-8333-333333333333"
	epochOther = "99999999-9999-4999-8999-999999999999"
)

// TestWeighSight walks the rows of what a node says to an etcd that it meets.
func TestWeighSight(t *testing.T) {
	t.Parallel()
	mem := memory{Epoch: epochTwo, Past: epochOne, Cluster: 7, Index: 100, Revision: 90}
	meta := func(change func(*cluster.Meta)) []byte {
		m := cluster.Meta{V: 1, Epoch: epochTwo, Number: 2, State: cluster.StateNormal}
		change(&m)
		return cluster.Encode(m)
	}
	same := meta(func(*cluster.Meta) {})
	for name, tt := range map[string]struct {
		mem  memory
		s    cluster.Sight
		want sighting
	}{
		"as it was":             {mem, cluster.Sight{ClusterID: 7, Index: 100, Revision: 90, Meta: same}, inStep},
		"further":               {mem, cluster.Sight{ClusterID: 7, Index: 200, Revision: 190, Meta: same}, inStep},
		"revision back":         {mem, cluster.Sight{ClusterID: 7, Index: 200, Revision: 89, Meta: same}, travelled},
		"index back":            {mem, cluster.Sight{ClusterID: 7, Index: 99, Revision: 95, Meta: same}, travelled},
		"another cluster id":    {mem, cluster.Sight{ClusterID: 8, Index: 200, Revision: 190, Meta: same}, travelled},
		"revision bumped":       {mem, cluster.Sight{ClusterID: 7, Index: 101, Revision: 1_000_000, Meta: same}, travelled},
		"as the lead allows":    {mem, cluster.Sight{ClusterID: 7, Index: 101, Revision: 111, Meta: meta(func(m *cluster.Meta) { m.Lead = 10 })}, inStep},
		"an epoch that is over": {mem, cluster.Sight{ClusterID: 7, Index: 200, Revision: 190, Meta: meta(func(m *cluster.Meta) { m.Epoch, m.Number = epochOne, 1 })}, travelled},
		"adopted": {mem, cluster.Sight{ClusterID: 8, Index: 5, Revision: 60, Meta: meta(func(m *cluster.Meta) {
			m.Epoch, m.Lead, m.Previous = epochThree, 55, []cluster.Epoch{{Epoch: epochTwo, Number: 2}}
		})}, adopted},
		"adopted from before": {mem, cluster.Sight{ClusterID: 8, Index: 5, Revision: 60, Meta: meta(func(m *cluster.Meta) {
			m.Epoch, m.Lead, m.Previous = epochThree, 55, []cluster.Epoch{{Epoch: epochOne, Number: 1}}
		})}, adopted},
		"adopted, restored anew": {mem, cluster.Sight{ClusterID: 8, Index: 5, Revision: 90, Meta: meta(func(m *cluster.Meta) {
			m.Epoch, m.Lead, m.Previous = epochThree, 55, []cluster.Epoch{{Epoch: epochTwo, Number: 2}}
		})}, travelled},
		"somebody else's":    {mem, cluster.Sight{ClusterID: 8, Index: 200, Revision: 190, Meta: meta(func(m *cluster.Meta) { m.Epoch = epochOther })}, stranger},
		"nothing there":      {mem, cluster.Sight{ClusterID: 8, Index: 200, Revision: 190}, stranger},
		"new, nothing there": {memory{}, cluster.Sight{ClusterID: 8, Index: 5, Revision: 900}, inStep},
		"new":                {memory{}, cluster.Sight{ClusterID: 8, Index: 101, Revision: 100, Meta: same}, inStep},
		"new, restored":      {memory{}, cluster.Sight{ClusterID: 8, Index: 5, Revision: 100, Meta: same}, travelled},
		"meta unreadable":    {mem, cluster.Sight{ClusterID: 7, Index: 100, Revision: 90, Meta: []byte("{")}, inStep},
	} {
		if got, why := weighSight(tt.mem, tt.s); got != tt.want {
			t.Errorf("%s: %d (%s), want %d", name, got, why, tt.want)
		}
	}
}

// TestRule walks the table of a recovery.
func TestRule(t *testing.T) {
	t.Parallel()
	meta := cluster.Meta{Epoch: epochTwo, Number: 2, Base: 50, Previous: []cluster.Epoch{{Epoch: epochOne, Number: 1}}}
	live := func(rev int64, v string) jentry {
		return jentry{Key: "k", Value: []byte(v), Rev: rev, Epoch: epochOne, Number: 1}
	}
	gone := func(rev int64) jentry { return jentry{Key: "k", Rev: rev, Epoch: epochOne, Number: 1} }
	parted := func(e jentry) jentry { e.Epoch = epochOther; return e }
	marked := func(rev int64) *Mark { return &Mark{In: epochTwo, Number: 1, Epoch: epochOne, Rev: rev, Node: "n9"} }
	raw := func(s string) []byte { return []byte(s) }
	for name, tt := range map[string]struct {
		e    jentry
		at   standing
		want ruling
	}{
		"lost":                               {live(60, "a"), standing{}, assert},
		"gone before the snapshot":           {live(40, "a"), standing{}, yield},
		"as it was":                          {live(40, "a"), standing{raw: raw("a"), modRev: 40}, yield},
		"snapshot is older":                  {live(60, "a"), standing{raw: raw("b"), modRev: 40}, assert},
		"snapshot is newer":                  {live(30, "a"), standing{raw: raw("b"), modRev: 40}, yield},
		"same revision, other bytes":         {live(40, "a"), standing{raw: raw("b"), modRev: 40}, dispute},
		"deleted since":                      {gone(60), standing{raw: raw("b"), modRev: 40}, assert},
		"deleted before":                     {gone(30), standing{raw: raw("b"), modRev: 40}, yield},
		"deleted, and not there":             {gone(60), standing{}, assert}, // the mark alone: an older word must not come back
		"deleted long ago":                   {gone(30), standing{}, yield},
		"asserted by an older word":          {live(80, "a"), standing{raw: raw("b"), modRev: 900, mark: marked(70)}, assert},
		"asserted by a newer word":           {live(60, "a"), standing{raw: raw("b"), modRev: 900, mark: marked(70)}, yield},
		"asserted by the same":               {live(70, "a"), standing{raw: raw("a"), modRev: 900, mark: marked(70)}, yield},
		"asserted otherwise":                 {live(70, "a"), standing{raw: raw("b"), modRev: 900, mark: marked(70)}, dispute},
		"a newer deletion grows the mark":    {gone(90), standing{mark: marked(70)}, assert},
		"an older word after a deletion":     {live(80, "a"), standing{mark: marked(90)}, yield},
		"a foreign use gives way":            {live(60, "a"), standing{raw: raw("f"), modRev: 900, mark: &Mark{In: epochTwo}}, assert},
		"a history that parted":              {parted(live(60, "a")), standing{raw: raw("b"), modRev: 40}, dispute},
		"a history that parted, nothing":     {parted(live(60, "a")), standing{}, assert},
		"resolved for us":                    {live(40, "a"), standing{raw: raw("b"), modRev: 40, mark: &Mark{In: epochTwo, Number: 1, Rev: 40, Resolved: "n1"}}, assert},
		"resolved for us, and done":          {live(40, "a"), standing{raw: raw("a"), modRev: 90, mark: &Mark{In: epochTwo, Number: 1, Rev: 40, Resolved: "n1"}}, yield},
		"resolved for another":               {live(80, "a"), standing{raw: raw("b"), modRev: 40, mark: &Mark{In: epochTwo, Number: 1, Rev: 40, Resolved: "n2"}}, yield},
		"an epoch that the snapshot has not": {jentry{Key: "k", Value: raw("a"), Rev: 3, Epoch: epochThree, Number: 2}, standing{raw: raw("b"), modRev: 40}, assert},
		"an epoch that is older than it":     {jentry{Key: "k", Value: raw("a"), Rev: 300, Epoch: epochThree, Number: 0}, standing{raw: raw("b"), modRev: 40}, yield},
	} {
		if got := rule(tt.e, tt.at, meta, "n1"); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// TestRuleOfWhoSpeaksLate: a VLAN that is missing was over where somebody who spoke in
// time had seen as much, and is put back where nobody had.
func TestRuleOfWhoSpeaksLate(t *testing.T) {
	t.Parallel()
	s := &asserting{late: true, meta: cluster.Meta{Epoch: epochThree, Number: 3, Base: 50, Through: 70, Previous: []cluster.Epoch{{Epoch: epochTwo, Number: 2}}}}
	vlan := func(rev int64, number uint64) jentry {
		return jentry{Key: "claims/vlan/fabric-a/0000000100", Value: []byte("x"), Rev: rev, Epoch: epochTwo, Number: number}
	}
	for name, tt := range map[string]struct {
		e    jentry
		want ruling
	}{
		"the snapshot had it":   {vlan(40, 2), yield},
		"others had seen it":    {vlan(70, 2), yield},
		"nobody else knew it":   {vlan(71, 2), assert},
		"an epoch before":       {vlan(500, 1), yield},
		"it was over here, too": {jentry{Key: "claims/vlan/fabric-a/0000000100", Rev: 90, Epoch: epochTwo, Number: 2, Gone: 1}, yield},
	} {
		if _, got := s.ruleLate(tt.e, standing{}); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

func FuzzDecodeRecoveryRecords(f *testing.F) {
	f.Add(cluster.Encode(Mark{V: 1, In: epochTwo, Number: 1, Rev: 4, Node: "n1"}))
	f.Add([]byte(`{"v":1,"of":"n1","epoch":"e","boot":"b","at":"2026-12-01T00:00:00Z","revision":4}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := decodeMark(data); err == nil && (m.In == "" || m.Rev < 0) {
			t.Errorf("%+v", m)
		}
		if r, err := decodeRecovery("n1", data); err == nil && (r.Epoch == "" || r.Boot == "" || len(r.Conflicts) > maxConflicts) {
			t.Errorf("%+v", r)
		}
	})
}

// TestAuditIsOvertaken: what others write while a member is looked at is no sign that it
// went back.
func TestAuditIsOvertaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home, err := OpenHome(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	epoch := "0f7c1e2a-4b5d-4c6e-8f90-a1b2c3d4e5f6"
	if err := home.change(func(m *memory) { m.Epoch, m.Revision, m.Index = epoch, 128, 130 }); err != nil {
		t.Fatal(err)
	}
	j := openJournal(t, dir)
	ask := Auditor(home, j)
	judge := ask()
	e := entryAt(1, 129, "a")
	e.Epoch = epoch
	if err := j.note([]jentry{e}); err != nil {
		t.Fatal(err)
	}
	seen := cluster.Sight{Index: 165, Revision: 128, Meta: cluster.Encode(cluster.Meta{V: cluster.MetaFormat, Epoch: epoch, Number: 1, State: cluster.StateNormal})}
	if err := judge(seen); err != nil {
		t.Errorf("a look that began before the write: %v", err)
	}
	mustErr(t, ask()(seen), problem.ErrFrozen)
}
