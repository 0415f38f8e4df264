package uidpool

import (
	"errors"
	"strings"
	"testing"

	"github.com/idpool/idpool/problem"
)

const mountinfoText = `22 27 0:21 / /proc rw,relatime - proc proc rw
43 27 0:39 / /srv/p\040q rw,relatime shared:7 master:2 - proc proc rw,gid=4,hidepid=invisible
44 27 0:40 / /sub rw - proc none rw,subset=pid
45 27 0:41 / /old rw - proc  rw,hidepid=2
27 0 254:0 / / rw,relatime - ext4 /dev/vda rw
`

func TestProcOptions(t *testing.T) {
	for dev, want := range map[string]string{"0:21": "rw", "0:39": "rw,gid=4,hidepid=invisible", "0:40": "rw,subset=pid", "0:41": "rw,hidepid=2"} {
		if got, err := procOptions([]byte(mountinfoText), dev); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", dev, got, err, want)
		}
	}
	for _, dev := range []string{"0:2", "254:0", ""} {
		if got, err := procOptions([]byte(mountinfoText), dev); err == nil {
			t.Errorf("%q: %q", dev, got)
		}
	}
	if got, err := procOptions([]byte("22 27 0:21 / /proc\n"), "0:21"); err == nil {
		t.Errorf("torn line: %q", got)
	}
}

func FuzzProcOptions(f *testing.F) {
	f.Add([]byte(mountinfoText), "0:39")
	f.Fuzz(func(t *testing.T, text []byte, dev string) {
		if options, err := procOptions(text, dev); err == nil && !strings.Contains(string(text), options) {
			t.Errorf("%q", options)
		}
	})
}

func goodView() viewFacts {
	return viewFacts{root: "/proc", procfs: true, self: "77", own: "77", nsPIDs: []string{"77"},
		initialPID: true, initialUser: true, complete: true, initListed: true, options: "rw", groups: []int{4, 0}}
}

func TestJudgeView(t *testing.T) {
	rows := []struct {
		name   string
		change func(*viewFacts)
		accept bool
		// want is part of the reason, "" for a good view.
		want string
	}{
		{name: "good", change: func(*viewFacts) {}},
		{name: "no procfs", change: func(f *viewFacts) { f.procfs = false }, want: "is not a procfs"},
		{name: "user namespace", change: func(f *viewFacts) { f.initialUser = false }, want: "user namespace of its own"},
		{name: "user namespace accepted", change: func(f *viewFacts) { f.initialUser = false }, accept: true, want: "user namespace of its own"},
		{name: "pid namespace", change: func(f *viewFacts) { f.initialPID = false }, want: "pid namespace of its own"},
		{name: "pid namespace accepted", change: func(f *viewFacts) { f.initialPID = false }, accept: true},
		{name: "another's procfs", change: func(f *viewFacts) { f.self = "1234" }, accept: true, want: "belongs to another pid namespace"},
		{name: "another's procfs, same number", change: func(f *viewFacts) { f.nsPIDs = []string{"77", "77"} }, accept: true, want: "belongs to another pid namespace"},
		{name: "kernel without namespaces", change: func(f *viewFacts) { f.nsPIDs = nil }},
		{name: "hidepid 0", change: func(f *viewFacts) { f.options = "rw,hidepid=0" }},
		{name: "hidepid off", change: func(f *viewFacts) { f.options = "rw,hidepid=off" }},
		{name: "hidepid 1", change: func(f *viewFacts) { f.options = "rw,hidepid=1,gid=9" }, want: "hidepid=1"},
		{name: "hidepid 2", change: func(f *viewFacts) { f.options = "rw,hidepid=2,gid=9" }, want: "hidepid=2"},
		{name: "hidepid noaccess", change: func(f *viewFacts) { f.options = "rw,gid=9,hidepid=noaccess" }, want: "hidepid=noaccess"},
		{name: "hidepid invisible", change: func(f *viewFacts) { f.options = "gid=9,hidepid=invisible" }, want: "hidepid=invisible"},
		{name: "hidepid, our group", change: func(f *viewFacts) { f.options = "gid=4,hidepid=2" }},
		{name: "hidepid, root's group", change: func(f *viewFacts) { f.options = "hidepid=2" }},
		{name: "hidepid, torn group", change: func(f *viewFacts) { f.options = "hidepid=2,gid=x" }, want: "hidepid=2"},
		{name: "hidepid 4, our group", change: func(f *viewFacts) { f.options = "gid=4,hidepid=4" }, want: "hidepid=4"},
		{name: "hidepid ptraceable", change: func(f *viewFacts) { f.options = "gid=4,hidepid=ptraceable" }, want: "hidepid=ptraceable"},
		{name: "hidepid of the future", change: func(f *viewFacts) { f.options = "gid=4,hidepid=7" }, want: "hidepid=7"},
		{name: "hidepid with CAP_SYS_PTRACE", change: func(f *viewFacts) { f.options, f.seesAll = "hidepid=4", true }},
		{name: "subset=pid", change: func(f *viewFacts) { f.complete = false }, want: "subset=pid"},
		{name: "no process 1", change: func(f *viewFacts) { f.initListed = false }, want: "process 1"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			f := goodView()
			row.change(&f)
			err := judgeView(f, row.accept)
			if row.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var refusal *problem.Error
			if !errors.Is(err, problem.ErrNoProof) || !errors.As(err, &refusal) {
				t.Fatalf("%v; want a refusal", err)
			}
			text := refusal.Text()
			for _, part := range []string{row.want, "cannot prove any uid unused", "\n  effect: ", "\n  fix: ", "poolctl uid probe"} {
				if !strings.Contains(text, part) {
					t.Errorf("%q lacks %q", text, part)
				}
			}
			if strings.Contains(text, "%!") {
				t.Errorf("%q is badly formatted", text)
			}
		})
	}
}
