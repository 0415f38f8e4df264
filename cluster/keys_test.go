package cluster_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

func mustKeys(t testing.TB, root string) cluster.Keys {
	t.Helper()
	k, err := cluster.NewKeys(root)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysAreWhereTheTableSays(t *testing.T) {
	k := mustKeys(t, "/idpool/")
	for _, tt := range []struct {
		got, want string
		key       cluster.Key
	}{
		{k.Meta(), "meta", cluster.Key{Kind: cluster.KindMeta}},
		{k.Members(), "members", cluster.Key{Kind: cluster.KindMembers}},
		{k.Node("n1"), "nodes/n1", cluster.Key{Kind: cluster.KindNode, Name: "n1"}},
		{k.Alive("n1"), "alive/n1", cluster.Key{Kind: cluster.KindAlive, Name: "n1"}},
		{k.Proof("n1"), "proofs/n1", cluster.Key{Kind: cluster.KindProof, Name: "n1"}},
		{k.UIDPool("jobs"), "pools/uid/jobs", cluster.Key{Kind: cluster.KindUIDPool, Name: "jobs"}},
		{k.VLANInventory("fabric-a"), "pools/vlan/fabric-a", cluster.Key{Kind: cluster.KindVLANInventory, Name: "fabric-a"}},
		{k.PoolIndex(), "pools/index", cluster.Key{Kind: cluster.KindPoolIndex}},
		{k.UIDPool("index"), "pools/uid/index", cluster.Key{Kind: cluster.KindUIDPool, Name: "index"}},
		{k.Claim(cluster.SpaceUID, 70012), "claims/uid/0000070012", cluster.Key{Kind: cluster.KindClaim, Space: "uid", ID: 70012}},
		{k.Claim(cluster.NodeSpace("n1"), 0), "claims/uid@n1/0000000000", cluster.Key{Kind: cluster.KindClaim, Space: "uid@n1"}},
		{k.Lock(cluster.VLANSpace("a"), 4094), "locks/vlan/a/0000004094", cluster.Key{Kind: cluster.KindLock, Space: "vlan/a", ID: 4094}},
		{k.Claim(cluster.SpaceUID, math.MaxUint32), "claims/uid/4294967295", cluster.Key{Kind: cluster.KindClaim, Space: "uid", ID: math.MaxUint32}},
		{k.Grant("unix:1000", "a/b %"), "grants/unix:1000/a%2Fb%20%25", cluster.Key{Kind: cluster.KindGrant, Caller: "unix:1000", Name: "a/b %"}},
		{k.Grant("", "\xff"), "grants/%/%FF", cluster.Key{Kind: cluster.KindGrant, Name: "\xff"}},
		{k.ReaperLock(), "locks/reaper", cluster.Key{Kind: cluster.KindReaper}},
		{k.Service("edge-7"), "services/edge-7", cluster.Key{Kind: cluster.KindService, Name: "edge-7"}},
		{k.ServiceLock("edge-7"), "locks/service/edge-7", cluster.Key{Kind: cluster.KindServiceLock, Name: "edge-7"}},
		{k.Recovery("n1"), "recovery/n1", cluster.Key{Kind: cluster.KindRecovery, Name: "n1"}},
		{k.Recovered(k.Claim(cluster.SpaceUID, 7)), "recovered/claims/uid/0000000007", cluster.Key{Kind: cluster.KindRecovered, Name: "claims/uid/0000000007"}},
	} {
		if tt.got != "/idpool/"+tt.want {
			t.Errorf("built %q, want %q", tt.got, "/idpool/"+tt.want)
		}
		back, err := k.Parse(tt.got)
		if diff := cmp.Diff(tt.key, back); diff != "" || err != nil {
			t.Errorf("parse %q: %v\n%s", tt.got, err, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	k := mustKeys(t, "/idpool/")
	for _, bad := range []string{
		"", "/", "/idpool", "/idpool/", "/other/meta", "idpool/meta", "meta/", "metax", "nodes", "nodes/", "nodes/a/b",
		"nodes/-a", "pools/uid/", "pools/index/", "pools/other/a", "claims/uid/70012", "claims/uid/00000070012",
		"claims/uid/9999999999", "claims/uid/000007001x", "claims/uid/+000070012", "claims/uid@/0000070012",
		"claims/vlan/0000000001", "claims/vlan/a/b/0000000001", "claims/other/0000000001", "claims/0000000001",
		"locks/service/", "locks/service", "locks/reaper/", "grants/a", "grants/a/", "grants//a", "grants/a/b/c",
		"grants/a/%2f", "grants/a/%41", "grants/a/%4", "grants/a/b%", "grants/a/" + strings.Repeat("x", 257),
	} {
		key := bad
		if bad != "" && !strings.HasPrefix(bad, "/") {
			key = "/idpool/" + bad
		}
		got, err := k.Parse(key)
		if got.Kind != cluster.KindUnknown || !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("parse %q: %v, %v; want unknown and invalid", key, got, err)
		}
	}
	if got, err := (cluster.Keys{}).Parse("meta"); err == nil {
		t.Errorf("keys without a root parse %v", got)
	}
}

func TestGrantRoundTrip(t *testing.T) {
	k := mustKeys(t, "/a/b.c/")
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.SliceOfN(rapid.Byte(), 0, 256)
		want := cluster.Key{Kind: cluster.KindGrant, Caller: string(bytes.Draw(t, "caller")), Name: string(bytes.Draw(t, "name"))}
		key := k.Grant(want.Caller, want.Name)
		if strings.Count(strings.TrimPrefix(key, k.GrantsPrefix()), "/") != 1 || !strings.HasPrefix(key, k.GrantsOf(want.Caller)) {
			t.Fatalf("%q leaves its place", key)
		}
		if got, err := k.Parse(key); err != nil || got != want {
			t.Fatalf("%q parses to %+v (%v), want %+v", key, got, err, want)
		}
	})
}

func TestBuildersNeverLeaveTheirPlace(t *testing.T) {
	k := mustKeys(t, "/idpool/")
	for _, evil := range []string{"", "/", "../meta", "a/b", "%", "\x00"} {
		for prefix, key := range map[string]string{
			k.Nodes(): k.Node(evil), k.AlivePrefix(): k.Alive(evil), k.UIDPoolsPrefix(): k.UIDPool(evil), k.ServicesPrefix(): k.Service(evil),
		} {
			if tail, ok := strings.CutPrefix(key, prefix); !ok || tail == "" || strings.Contains(tail, "/") {
				t.Errorf("%q builds %q", evil, key)
			}
		}
	}
}

// rebuild inverts Parse, so that the fuzz test needs no second parser.
func rebuild(k cluster.Keys, p cluster.Key) string {
	switch p.Kind {
	case cluster.KindMeta:
		return k.Meta()
	case cluster.KindMembers:
		return k.Members()
	case cluster.KindNode:
		return k.Node(p.Name)
	case cluster.KindAlive:
		return k.Alive(p.Name)
	case cluster.KindProof:
		return k.Proof(p.Name)
	case cluster.KindUIDPool:
		return k.UIDPool(p.Name)
	case cluster.KindVLANInventory:
		return k.VLANInventory(p.Name)
	case cluster.KindPoolIndex:
		return k.PoolIndex()
	case cluster.KindClaim:
		return k.Claim(p.Space, p.ID)
	case cluster.KindLock:
		return k.Lock(p.Space, p.ID)
	case cluster.KindGrant:
		return k.Grant(p.Caller, p.Name)
	case cluster.KindReaper:
		return k.ReaperLock()
	case cluster.KindService:
		return k.Service(p.Name)
	case cluster.KindServiceLock:
		return k.ServiceLock(p.Name)
	case cluster.KindRecovery:
		return k.Recovery(p.Name)
	case cluster.KindRecovered:
		return k.Recovered(k.Root() + p.Name)
	}
	return ""
}

func FuzzParse(f *testing.F) {
	k := mustKeys(f, "/idpool/")
	for _, s := range []string{"meta", "nodes/a", "claims/vlan/a/0000000001", "grants/a/%2F", "grants/%/%", "locks/service/%00", "pools/uid/x", "recovered/claims/uid/0000000001", "recovered/meta"} {
		f.Add("/idpool/" + s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		p, err := k.Parse(key)
		if (err != nil) != (p.Kind == cluster.KindUnknown) {
			t.Fatalf("%q: %v with %v", key, p.Kind, err)
		}
		if err == nil && rebuild(k, p) != key {
			t.Fatalf("%q parses to %+v, which builds %q", key, p, rebuild(k, p))
		}
	})
}

func TestNewKeysRefuses(t *testing.T) {
	for _, bad := range []string{"", "/", "//", "idpool/", "/idpool", "/a//b/", "/a b/", "/-a/", "/a/../", "/" + strings.Repeat("x", 300) + "/"} {
		if _, err := cluster.NewKeys(bad); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("root %q: %v", bad, err)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "7": true, "N1.example-x_y": true, strings.Repeat("a", 63): true,
		"": false, ".": false, "..": false, "-a": false, "_a": false, "a/b": false, "a b": false, "ü": false, "a\n": false, strings.Repeat("a", 64): false,
	} {
		if err := cluster.ValidName(name); (err == nil) != want || err != nil && !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%q: %v, want valid %v", name, err, want)
		}
	}
	for space, want := range map[cluster.Space]bool{
		"uid": true, "uid@n": true, "vlan/a": true, "": false, "uid@": false, "uid@a/b": false, "vlan": false, "vlan/": false, "UID": false, "uidx": false,
	} {
		if err := space.Valid(); (err == nil) != want {
			t.Errorf("space %q: %v, want valid %v", space, err, want)
		}
	}
}

type record struct {
	V int    `json:"v"`
	A string `json:"a"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ name, data, want string }{
		{"newer", `{"v":7}`, "record of format 7, this version reads 1: upgrade"},
		{"older", `{"v":0}`, "record of format 0"},
		{"none", `{"a":"b"}`, "without a format"},
		{"null format", `{"v":null}`, "without a format"},
		{"null", `null`, "without a format"},
		{"no number", `{"v":"1"}`, "not JSON"},
		{"fraction", `{"v":1.5}`, "not JSON"},
		{"empty", ``, "not JSON"},
		{"garbage after it", `{"v":1} {}`, "not JSON"},
		{"cut", `{"v":1`, "not JSON"},
		{"another type", `{"v":1,"a":3}`, "format 1"},
		{"too large", `{"v":1,"a":"` + strings.Repeat("x", cluster.MaxRecord) + `"}`, "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r record
			if err := cluster.Decode([]byte(tt.data), 1, &r); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an invalid that says %q", err, tt.want)
			}
		})
	}
	var r record
	if err := cluster.Decode([]byte(`{"v":1,"a":"x","later":1}`), 1, &r); err != nil || r.A != "x" {
		t.Errorf("got %+v, %v", r, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"a":"x"}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var r record
		if err := cluster.Decode(data, 1, &r); err != nil {
			return
		}
		var again record
		if err := cluster.Decode(cluster.Encode(r), 1, &again); err != nil || again != r {
			t.Fatalf("%q: %+v came back as %+v (%v)", data, r, again, err)
		}
	})
}

func TestEncodePanicsOnABug(t *testing.T) {
	defer func() {
		if r, _ := recover().(string); !strings.HasPrefix(r, "bug:") {
			t.Errorf("panic %q", r)
		}
	}()
	cluster.Encode(func() {})
}
