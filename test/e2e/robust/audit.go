package robust

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// Sample is what a cluster takes at a moment of the soak: numbers by name, such as
// "claims quarantined", "etcd leases" or "agent n1 descriptors".
type Sample struct {
	At     time.Duration    `json:"at"` // since the cluster's start
	Counts map[string]int64 `json:"counts"`
}

// audit samples a running cluster.
type audit struct {
	dir     string // of the rig: names its processes
	every   time.Duration
	samples []Sample
	logf    func(string, ...any)
}

// run samples until ctx ends.
func (a *audit) run(ctx context.Context, r *rig.Rig) error {
	db, err := r.Client(ctx)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer func() { _ = db.Close() }()
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		// As an etcd in service does: its history must not look like a leak.
		_, _ = r.Compact(ctx)
		s := Sample{At: r.Now(), Counts: map[string]int64{}}
		if err := stored(ctx, db, s.Counts); err != nil {
			continue // etcd is disturbed right now
		}
		for name, n := range processes(a.dir) {
			s.Counts[name] = n
		}
		a.samples = append(a.samples, s)
		a.logf("audit: %v", s.Counts)
	}
}

// stored counts what stands in etcd.
func stored(ctx context.Context, db *cluster.Client, counts map[string]int64) error {
	keys := db.Keys()
	resp, err := db.Read(ctx, clientv3.OpGet(keys.Root(), clientv3.WithPrefix()))
	if err != nil {
		return err
	}
	for _, state := range []string{"locked", "used", "idle", "quarantined", "reserved"} {
		counts["claims "+state] = 0
	}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		key := string(kv.Key)
		switch {
		case strings.HasPrefix(key, keys.ClaimsPrefix()):
			var c struct{ State string }
			if json.Unmarshal(kv.Value, &c) == nil {
				counts["claims "+c.State]++
			}
		case strings.HasPrefix(key, keys.LocksPrefix()):
			counts["locks"]++
		case strings.HasPrefix(key, keys.ServicesPrefix()):
			counts["services"]++
		case strings.HasPrefix(key, keys.GrantsPrefix()):
			counts["grant records"]++
		}
	}
	within, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	leases, err := db.Txn().Leases(within)
	if err != nil {
		return err
	}
	counts["etcd leases"] = int64(len(leases.Leases))
	for i, endpoint := range db.Config().Endpoints {
		st, err := db.Txn().Status(within, endpoint)
		if err != nil {
			return err
		}
		counts[fmt.Sprintf("etcd m%d KB in use", i+1)] = st.DbSizeInUse >> 10
	}
	return nil
}

// processes measures the agents and members of a rig: memory that is resident,
// threads and open descriptors from outside, and what an agent says of its goroutines.
func processes(dir string) map[string]int64 {
	counts := map[string]int64{}
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(raw, []byte(dir+"/")) {
			continue
		}
		args := strings.Split(string(raw), "\x00")
		kind := map[string]string{"poolagent": "agent", "etcd": "member"}[filepath.Base(args[0])]
		at := slices.IndexFunc(args, func(s string) bool { return s == "--node" || s == "--name" })
		if kind == "" || at < 0 || at+1 >= len(args) {
			continue
		}
		who := kind + " " + args[at+1]
		proc := filepath.Dir(path)
		if fds, err := os.ReadDir(filepath.Join(proc, "fd")); err == nil {
			counts[who+" descriptors"] = int64(len(fds))
		}
		if text, err := os.ReadFile(rig.GoroutinesFile(dir, args[at+1])); err == nil && kind == "agent" {
			if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
				counts[who+" goroutines"] = n
			}
		}
		status, _ := os.ReadFile(filepath.Join(proc, "status"))
		for text := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(text, ":")
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			switch name {
			case "VmRSS":
				counts[who+" KB resident"] = n
			case "Threads":
				counts[who+" threads"] = n
			}
		}
	}
	return counts
}

// Trend is one number over the soak: its least values in the middle third and in
// the last third of the samples. What leaks cannot come down again.
type Trend struct {
	Name           string `json:"name"`
	Middle, Last   int64
	Highest, Final int64
	// Grows tells that the least of the last third is above all that noise explains:
	// a quarter and Slack more than that of the middle.
	Grows bool
	Slack int64
}

// slack is how much a number may grow without being a leak, beside a quarter.
func slack(name string) int64 {
	switch {
	case strings.HasSuffix(name, "KB resident"):
		return 8 << 10
	case strings.HasSuffix(name, "KB in use"):
		return 4 << 10
	case name == "grant records":
		return 1 << 40 // kept for a day after their end, on purpose
	}
	return 6
}

// Trends judges samples; nothing is said of fewer than nine.
func Trends(samples []Sample) []Trend {
	if len(samples) < 9 {
		return nil
	}
	names := map[string]bool{}
	for _, s := range samples {
		for name := range s.Counts {
			names[name] = true
		}
	}
	third := len(samples) / 3
	var all []Trend
	for _, name := range slices.Sorted(maps.Keys(names)) {
		t := Trend{Name: name, Middle: least(samples[third:2*third], name), Last: least(samples[2*third:], name), Slack: slack(name)}
		for _, s := range samples {
			t.Highest = max(t.Highest, s.Counts[name])
		}
		t.Final = samples[len(samples)-1].Counts[name]
		t.Grows = t.Last > t.Middle+t.Middle/4+t.Slack
		all = append(all, t)
	}
	return all
}

// least is the lowest value of a number in samples that have it; 0 if none has.
func least(samples []Sample, name string) int64 {
	low, found := int64(0), false
	for _, s := range samples {
		if n, ok := s.Counts[name]; ok && (!found || n < low) {
			low, found = n, true
		}
	}
	return low
}
