package judge

import (
	"strings"
	"testing"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

var restoreRows = []row{
	{"a grant of after the snapshot is lost", P8, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		s.recover(b, 0, bad, claimKey(a.IDs[0]))
		if !bad {
			s.release(&a)
			s.settle()
		}
	}},
	{"the same, revisions raised", P8, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		s.recover(b, 1_000_000, bad, claimKey(a.IDs[0]))
	}},
	{"the id of a lost grant is another's, while its process runs", P1, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		s.start(&a, a.IDs[0], "n1")
		s.recover(b, 0, bad, claimKey(a.IDs[0]))
		o := *s.request("c2", "n2", "", 1)
		s.start(&o, o.IDs[0], "n2")
	}},
	{"granted before anybody noticed", P8, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		if !bad {
			s.recover(b, 0, false)
			s.request("c2", "n2", "", 1)
			return
		}
		lost := s.restore(b, 0)
		s.request("c2", "n2", "", 1)
		s.freeze()
		s.adopt()
		s.write(s.says(lost)...)
		s.resume()
	}},
	{"granted while nodes still speak", P8, func(s *sim, bad bool) {
		b := s.backup()
		lost := s.restore(b, 0)
		s.freeze()
		s.adopt()
		if bad {
			s.request("c2", "n2", "", 1)
		}
		s.write(append(s.says(lost), put("recovery/n1", 1))...)
		s.resume()
	}},
	{"a service while nodes still speak", P8, func(s *sim, bad bool) {
		b := s.backup()
		s.restore(b, 0)
		s.freeze()
		s.adopt()
		if bad {
			s.create("c2", "web")
		}
		s.resume()
	}},
	{"granting resumes without an adoption", P8, func(s *sim, bad bool) {
		b := s.backup()
		lost := s.restore(b, 0)
		s.freeze()
		if !bad {
			s.adopt()
		}
		s.write(append(s.says(lost), put("recovery/n1", 1))...)
		if bad {
			s.write(put("meta", meta{s.epoch, 1, "normal"}))
			return
		}
		s.resume()
	}},
	{"an epoch that was there before", P8, func(s *sim, bad bool) {
		s.recover(s.backup(), 0, false)
		s.restore(s.backup(), 0)
		n := uint64(3)
		if bad {
			n = 2
		}
		s.write(put("meta", meta{"e9", n, "recovering"}))
		s.write(put("meta", meta{"e9", n, "normal"}))
	}},
	{"held by another than before", P8, func(s *sim, bad bool) {
		first := *s.request("c1", "n1", "", 1)
		b := s.backup()
		s.release(&first)
		s.settle()
		second := *s.request("c2", "n2", "", 1)
		s.confirm(&second)
		s.recover(b, 0, bad, claimKey(second.IDs[0]), lockKey(second.IDs[0]))
	}},
	{"a lock of another grant when granting resumes", P1, func(s *sim, bad bool) {
		first := *s.request("c1", "n1", "", 1)
		b := s.backup() // its lock comes back, and is nobody's fault
		s.release(&first)
		s.settle()
		second := *s.request("c2", "n2", "", 1)
		s.confirm(&second)
		lost := s.restore(b, 0)
		s.freeze()
		s.adopt()
		said := without(s.says(lost), lockKey(second.IDs[0]))
		if bad {
			said = append(said, record.Change{Key: lockKey(second.IDs[0]), Value: []byte("other"), Lease: s.w.alive["n1"].lease})
		}
		s.write(said...)
		s.resume()
		s.confirm(&second)
	}},
	{"released, and held again", P5, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		b := s.backup()
		s.release(&a)
		s.settle()
		s.recover(b, 0, bad, claimKey(a.IDs[0]))
	}},
	{"released on a node that is fenced in the adoption", P5, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		b := s.backup()
		s.release(&a)
		lost := s.restore(b, 0)
		s.freeze()
		out := without(s.says(lost), claimKey(a.IDs[0]))
		if bad {
			s.adopt()
		} else {
			s.expire("n1")
			s.adopt("n1")
		}
		if len(out) > 0 {
			s.write(out...)
		}
		s.resume()
	}},
	{"a grant of a node that is fenced in the adoption", P8, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		s.restore(b, 0)
		s.freeze()
		s.expire("n1")
		if bad {
			s.adopt()
		} else {
			s.adopt("n1")
		}
		s.resume()
	}},
	{"half a group is back", P3, func(s *sim, bad bool) {
		b := s.backup()
		s.granted(false, "")
		s.recover(b, 0, bad, recordOfK)
	}},
	{"a service that ended is back", P5, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		b := s.backup()
		s.finish(&a, record.DeleteService)
		lost := s.restore(b, 0)
		s.freeze()
		s.adopt()
		if out := s.says(lost); !bad {
			s.write(out...)
		}
		s.resume()
	}},
	{"put back by a node that was fenced in the adoption", P1, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.create("c1", "web")
		lost := s.restore(b, 0)
		s.freeze()
		s.expire("n1")
		if bad {
			s.adopt()
		} else {
			s.adopt("n1")
		}
		out := s.says(lost)
		s.resume()
		s.write(out...)
		s.finish(&a, record.DeleteService)
		s.settle()
	}},
	{"put back, and over since granting resumed", P5, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.create("c1", "web")
		o := *s.create("c1", "net")
		s.finish(&o, record.DeleteService)
		lost := s.restore(b, 0)
		s.freeze()
		s.expire("n1")
		s.adopt("n1")
		said := s.says(lost)
		s.write(said...)
		s.resume()
		s.finish(&a, record.DeleteService)
		s.settle()
		var late []record.Change
		for _, ch := range said { // what it knows as quarantined it may say
			if ch.Key == claimKey(o.IDs[1]) || bad && ch.Key == claimKey(a.IDs[1]) {
				late = append(late, ch)
			}
		}
		s.write(late...)
	}},
	{"a report of before the restore", P2, func(s *sim, bad bool) {
		_, id := s.quarantine()
		b := s.backup()
		s.prove("n1")
		s.prove("n2")
		old := []record.Change{s.proof("n1", "boot1"), s.proof("n2", "boot1")}
		s.restore(b, 0)
		s.freeze()
		s.adopt()
		s.write(put("meta", meta{s.epoch, uint64(s.era) + 1, "normal"}))
		s.write(old[0])
		s.write(old[1])
		if !bad {
			s.prove("n1")
			s.prove("n2")
		}
		s.drop(id)
	}},
	{"a key is answered with another grant after a restore", P4, func(s *sim, bad bool) {
		b := s.backup()
		a := *s.request("c1", "n1", "k", 1)
		s.release(&a)
		s.settle()
		s.recover(b, 0, bad, recordOfK, claimKey(a.IDs[0]))
		if bad {
			s.request("c1", "n1", "k", 1)
		}
	}},
	{"a change of a history that never was", History, func(s *sim, bad bool) {
		s.recover(s.backup(), 0, false)
		if bad {
			s.run.Changes[len(s.run.Changes)-1].Era = 2
		}
	}},
}

// TestOwnRevisions: a violation names the revision that etcd had, and which of its
// histories that was.
func TestOwnRevisions(t *testing.T) {
	s := newSim()
	b := s.backup()
	for range 5 {
		s.prove("n1")
	}
	s.recover(b, 0, false)
	rev := s.write(put("meta", meta{"e1", 1, "normal"}))
	v := NoLimits().Judge(s.end())
	for _, b := range v.Violations {
		if b.Promise == P8 && b.Era == 1 && b.Revision == rev && strings.Contains(b.String(), "after restore 1") {
			return
		}
	}
	t.Errorf("want a violation at revision %d after restore 1, got %v", rev, v.Violations)
}

// TestVacuousRestores: a restore that nothing was granted before proves nothing, nor
// does one that nobody adopted.
func TestVacuousRestores(t *testing.T) {
	l := NoLimits()
	l.AfterSnapshot, l.Carried = 2, 1
	run := func(grants int, adopted bool) *record.Run {
		s := newSim()
		b := s.backup()
		for range grants {
			s.request("c1", "n1", "", 1)
		}
		if adopted {
			s.recover(b, 0, false)
		} else {
			s.restore(b, 0)
		}
		return s.end()
	}
	if err := l.Judge(run(2, true)).Err(); err != nil {
		t.Error(err)
	}
	mustReject(t, l.Judge(run(1, true)), Vacuous)
	mustReject(t, l.Judge(run(2, false)), Vacuous)
}
