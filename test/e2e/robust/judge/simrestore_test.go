package judge

import (
	"bytes"
	"maps"
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// backup is what a snapshot of the reference's etcd holds.
type backup struct {
	w   *world
	rev int64
}

func (s *sim) backup() backup { return backup{s.w.clone(), s.rev} }

// restore stops etcd and starts it with what a backup holds, raised by so many
// revisions. It returns the world that is lost.
func (s *sim) restore(b backup, bump int64) (lost *world) {
	s.now += step10
	s.run.Cuts = append(s.run.Cuts, record.Cut{Snapshot: b.rev, Begins: b.rev + bump, Stopped: s.now})
	s.now += step10
	s.era++
	lost, s.w, s.rev = s.w, b.w.clone(), b.rev+bump
	return lost
}

// freeze is what the node does that notices, and adopt what the operator does: an
// epoch more, and every node that is fenced.
func (s *sim) freeze() { s.write(put("meta", meta{s.epoch, uint64(s.era), "recovering"})) }

func (s *sim) adopt(fence ...string) {
	s.epoch = "e" + string(rune('1'+s.era))
	out := []record.Change{put("meta", meta{s.epoch, uint64(s.era) + 1, "recovering"}), put("members", s.rev)}
	for _, name := range fence {
		n := *s.w.nodes[name]
		n.State, n.FencedBoot = "fenced", n.Boot
		out = append(out, put("nodes/"+name, n))
		if s.w.alive[name] != nil {
			out = append(out, gone("alive/"+name))
		}
	}
	s.write(out...)
}

// says lists what makes of the restored world the one that was lost.
func (s *sim) says(lost *world) []record.Change {
	was, is := lost.stored(), s.w.stored()
	var out []record.Change
	for _, key := range slices.Sorted(maps.Keys(was)) {
		if !bytes.Equal(was[key].Value, is[key].Value) {
			out = append(out, was[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(is)) {
		if was[key].Value == nil {
			out = append(out, gone(key))
		}
	}
	return out
}

// stored is what nodes assert, as it stands in etcd.
func (w *world) stored() map[string]record.Change {
	all := map[string]record.Change{}
	add := func(c record.Change) { all[c.Key] = c }
	for id, a := range w.claims {
		add(put(claimKey(id), a))
	}
	for id, l := range w.locks {
		add(record.Change{Key: lockKey(id), Value: []byte(l.token), Lease: l.lease})
	}
	for key, r := range w.grants {
		add(put(key, r))
	}
	for name, v := range w.services {
		add(put("services/"+name, v))
	}
	return all
}

// resume ends the recovery, and the nodes report anew.
func (s *sim) resume() {
	s.write(put("meta", meta{s.epoch, uint64(s.era) + 1, "normal"}))
	for _, name := range []string{"n1", "n2"} {
		if s.w.alive[name] != nil {
			s.prove(name)
		}
	}
}

// recover is a restore that all nodes speak after, but for what bad leaves out.
func (s *sim) recover(b backup, bump int64, bad bool, leaves ...string) {
	lost := s.restore(b, bump)
	s.freeze()
	s.adopt()
	out := s.says(lost)
	for _, key := range leaves {
		if bad {
			out = without(out, key)
		}
	}
	if len(out) > 0 {
		s.write(out...)
	}
	s.resume()
}
