package vlan

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// full is a record with everything in it.
func full() *Service {
	s := record(Deallocating, at("fabric", "", 100), at("outside", StepReleasing, 0), at("o2", StepUnknown))
	s.Selection = Selection{VID: vid(0), Offset: offset(-5), Parity: "odd", Exclude: idset.New(4, 5, 6)}
	s.Hold = &Hold{Node: "n1", Boot: "b1", Requester: leases.Requester{ID: "r", Hold: leases.HoldTTL, Deadline: 5}}
	s.Then, s.Delete, s.HoldIDs, s.Holder, s.Epoch = Failed, true, true, "job", "e"
	s.because(ReasonFailed, "no")
	s.CreatedAt, s.Since = time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC()
	return s
}

func TestRecordReadsBack(t *testing.T) {
	s := full()
	data := s.encode()
	back, err := decode("edge-7", data)
	if err != nil {
		t.Fatal(err)
	}
	again := back.clone()
	again.V, again.Write = s.V, s.Write
	if x, y := string(mustJSON(t, s)), string(mustJSON(t, again)); x != y {
		t.Errorf("\n%s\nreads back as\n%s", x, y)
	}
	if v, ok := back.VID("outside"); !ok || v != 0 {
		t.Errorf("0 is a value: %d, %v", v, ok)
	}
	if _, ok := back.VID("o2"); ok || back.Values()["o2"] != nil {
		t.Error("what is not got has no value")
	}
	if string(s.encode()) == string(data) {
		t.Error("two writes with equal bytes")
	}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRecordIsStrict(t *testing.T) {
	long := strings.Repeat("x", maxText+1)
	for name, edit := range map[string]func(*Service){
		"another name":           func(s *Service) { s.Name = "edge-8" },
		"no state":               func(s *Service) { s.State = "" },
		"gone":                   func(s *Service) { s.State, s.Then = Gone, "" },
		"an unknown state":       func(s *Service) { s.State = "sleeping" },
		"nothing follows":        func(s *Service) { s.Then = "" },
		"the wrong follows":      func(s *Service) { s.Then = Up },
		"something follows up":   func(s *Service) { s.State = Up },
		"no token":               func(s *Service) { s.Token = "" },
		"no caller":              func(s *Service) { s.Caller = "" },
		"a caller too long":      func(s *Service) { s.Caller = long },
		"a reason too long":      func(s *Service) { s.Reason = long },
		"no policy":              func(s *Service) { s.OnPartial = "" },
		"no hold time":           func(s *Service) { s.ConfirmWithin = 0 },
		"a negative hold time":   func(s *Service) { s.ConfirmWithin = -time.Hour },
		"no attributes":          func(s *Service) { s.Attributes = nil },
		"too many attributes":    func(s *Service) { s.Attributes = make([]Attribute, 33) },
		"an attribute twice":     func(s *Service) { s.Attributes[1].Name = s.Attributes[0].Name },
		"an attribute's path":    func(s *Service) { s.Attributes[1].Name = "a/b" },
		"an inventory's path":    func(s *Service) { s.Attributes[1].Inventory = "a/b" },
		"no key":                 func(s *Service) { s.Attributes[1].Key = "" },
		"an unknown step":        func(s *Service) { s.Attributes[1].Step = "dancing" },
		"a step in etcd":         func(s *Service) { s.Attributes[0].Step = StepWanted },
		"VLAN 0 of etcd":         func(s *Service) { s.Attributes[0].VID = vid(0) },
		"VLAN 4095 of etcd":      func(s *Service) { s.Attributes[0].VID = vid(4095) },
		"a VLAN without token":   func(s *Service) { s.Attributes[0].Token = "" },
		"a hold of nobody":       func(s *Service) { s.Hold.Node = "" },
		"an offset too far":      func(s *Service) { s.Offset = offset(5000) },
		"parity of another name": func(s *Service) { s.Parity = "prime" },
	} {
		s := full()
		edit(s)
		if _, err := decode("edge-7", s.encode()); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	for _, text := range []string{"", "null", "{}", `{"v":2}`, `{"v":1}`, `{"v":1,"name":"edge-7"} x`, `[1]`} {
		if _, err := decode("edge-7", []byte(text)); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

// FuzzDecode: whatever stands in etcd, a record that is read can be worked on,
// and writes back as one that is read.
func FuzzDecode(f *testing.F) {
	f.Add(full().encode())
	f.Add(record(Allocating, at("o1", StepWanted)).encode())
	f.Add([]byte(`{"v":1,"name":"edge-7"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode("edge-7", data)
		if err != nil {
			return
		}
		x := situation{
			node: "n1", boot: "b1", mine: "me", elected: true, over: func(leases.Requester) bool { return true },
			peer: func(string) peer { return peer{} }, keeper: func(string) (string, time.Duration) { return "n1", 0 },
		}
		_ = next(s, x)
		_, _ = s.Values(), s.Refusal()
		p := place{node: "n1", boot: "b1", now: time.Unix(5, 0).UTC()}
		for _, change := range []func(*Service){
			func(s *Service) { s.again(p) },
			func(s *Service) { s.stop(p) },
			func(s *Service) { s.remove(true, "x", p) },
			func(s *Service) { s.gotten(p) },
			func(s *Service) { s.finish(p) },
		} {
			c := s.clone()
			change(c)
			if c.State == Gone {
				continue
			}
			if _, err := decode("edge-7", c.encode()); err != nil && c.State != Deallocating {
				t.Errorf("%s became %s, which cannot be read: %v", s.State, c.State, err)
			}
		}
	})
}

// TestRefusalText is message 9 of the messages page.
func TestRefusalText(t *testing.T) {
	until := time.Date(2026, 1, 2, 14, 31, 0, 0, time.Local)
	cause := problem.New(problem.CodeExhausted, "inventory fabric-b is exhausted: 0 of 100 VLANs free at revision 5")
	cause.Counts = map[string]uint64{"free": 0, "used": 97, "quarantined": 3, "outside": 8}
	s := record(Allocating, at("e", ""), at("f", ""))
	s.Attributes[0].Name, s.Attributes[1].Name = "north_vlan_id", "south_vlan_id"
	s.Attributes[1].Inventory = "fabric-b"
	ends := s.reject("south_vlan_id", "exhausted", refusalText("south_vlan_id", "fabric-b", cause, &until), place{now: time.Unix(5, 0)})
	if len(ends) != 0 || s.State != Rejected {
		t.Fatalf("%+v", s)
	}
	err := s.Refusal()
	var e *problem.Error
	if !errors.Is(err, problem.ErrExhausted) || !errors.As(err, &e) || e.Attribute != "south_vlan_id" {
		t.Fatalf("%+v", err)
	}
	want := `service edge-7 rejected: south_vlan_id could not be allocated: inventory fabric-b has 0 of 100 VLANs free (97 used, 3 cooling down until ` + problem.Clock(until) + `)
  nothing is held: north and south are granted together or not at all
  retry later:  poolctl vlan service retry edge-7
  widen:        poolctl vlan inventory set fabric-b --add RANGES`
	if e.Text() != want {
		t.Errorf("got\n%s\nwant\n%s", e.Text(), want)
	}
	if text := refusalText("a", "b", errors.New("torn"), nil); text != "a could not be allocated: torn" {
		t.Error(text)
	}
	s.OnPartial = OnPartialKeep
	s.Attributes[0].VID = vid(0)
	if !errors.As(s.Refusal(), &e) || !strings.Contains(e.Notes[0], "held: north_vlan_id 0") {
		t.Errorf("%+v", e)
	}
	if enumerate([]string{"a", "b", "c"}) != "a, b and c" || enumerate(nil) != "" {
		t.Error(enumerate([]string{"a", "b", "c"}))
	}
}

// TestCompensate gives VLANs of etcd back together, and waits for files.
func TestCompensate(t *testing.T) {
	p := place{node: "n1", boot: "b1", now: time.Unix(5, 0)}
	s := record(Allocated, at("e", "", 100), at("f", "", 101))
	if ends := s.compensate(Failed, p); len(ends) != 2 || s.State != Failed || s.Then != "" || s.Attributes[0].VID != nil {
		t.Errorf("of etcd: %v, %+v", ends, s)
	}
	s = record(Allocating, at("e", "", 100), at("o1", "", 0), at("o2", StepWanted), at("o3", StepAllocating))
	ends := s.compensate(Rejected, p)
	if len(ends) != 1 || s.State != Deallocating || s.Then != Rejected || s.Attributes[1].VID == nil || s.Attributes[2].Step != "" || s.Attributes[3].Step != StepAllocating {
		t.Errorf("mixed: %v, %+v", ends, s)
	}
	s.Attributes[1].clear()
	if s.finish(p) {
		t.Error("finished with an intent open")
	}
	s.Attributes[3].clear()
	s.Delete = true
	if !s.finish(p) || s.State != Gone {
		t.Errorf("deleted meanwhile: %+v", s)
	}
}
