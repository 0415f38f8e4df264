package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// factory has buffers for streams.
func factory() (*Factory, *bytes.Buffer, *bytes.Buffer) {
	var out, err bytes.Buffer
	return &Factory{Streams: Streams{In: strings.NewReader(""), Out: &out, Err: &err}}, &out, &err
}

func TestExitCodes(t *testing.T) {
	exhausted := problem.New(problem.CodeExhausted, "pool jobs is exhausted").Advise("or wait", "poolctl …")
	for _, row := range []struct {
		name   string
		err    error
		code   int
		stderr string
	}{
		{"ok", nil, 0, ""},
		{"refusal", runError{exhausted}, 4, "poolctl: pool jobs is exhausted\n  or wait:  poolctl …\n"},
		{"wrapped refusal", runError{fmt.Errorf("keep uid 5: %w", problem.New(problem.CodeLockLost, "it ended"))}, 3, "poolctl: keep uid 5: it ended\n"},
		{"sentinel", runError{problem.ErrForbidden}, 7, "poolctl: forbidden\n"},
		{"anything else", runError{errors.New("disk on fire")}, 1, "poolctl: disk on fire\n"},
		{"cobra's own", errors.New("unknown flag: --x"), 2, "poolctl: unknown flag: --x\n  see:  poolctl --help\n"},
		{"silent", runError{exitError{code: 3}}, 3, ""},
		{"own code", exitError{code: 125, err: exhausted}, 125, "poolctl: pool jobs is exhausted\n  or wait:  poolctl …\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f, out, stderr := factory()
			if code := f.report(&cobra.Command{Use: "poolctl"}, row.err); code != row.code {
				t.Errorf("code %d, want %d", code, row.code)
			}
			if diff := cmp.Diff(row.stderr, stderr.String()); diff != "" {
				t.Error(diff)
			}
			if out.Len() != 0 {
				t.Errorf("stdout got %q", out)
			}
		})
	}
}

func TestEveryCodeHasItsExitCode(t *testing.T) {
	for _, code := range problem.Codes() {
		f, _, _ := factory()
		if got := f.report(&cobra.Command{}, runError{problem.New(code, "x")}); got != code.ExitCode() || got == 0 {
			t.Errorf("%s: exit code %d", code, got)
		}
	}
}

func TestMessagesCannotDriveATerminal(t *testing.T) {
	f, out, stderr := factory()
	evil := "a\x1b]0;title\x07\nb\tc\u009b2J"
	f.report(&cobra.Command{}, runError{problem.New(problem.CodeHeld, "held by %s", evil)})
	if err := printList(f, uidSheet, []api.UID{{UID: 5, Holder: evil}}, nil); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), stderr.String()} {
		if strings.ContainsAny(text, "\x1b\x07\u009b") {
			t.Errorf("control characters in %q", text)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("a cell broke its line: %q", out)
	}
}

func TestFormats(t *testing.T) {
	items := []api.UID{{UID: 70012, GID: 70012, Count: 1, Pool: "jobs", State: "used", Nodes: []string{"n1", "n2"}, Holder: "me", Caller: "unix:0", InPool: true},
		{UID: 70016, Count: 16, Pool: "123", State: "locked", Caller: "unix:7"}}
	for _, row := range []struct {
		format string
		quiet  bool
		want   string
	}{
		{"table", false, "UID          POOL           STATE   NODES  HOLDER  KEY  SINCE\n70012        jobs           used    n1,n2  me      -    -\n70016-70031  123 (outside)  locked  -      unix:7  -    -\n"},
		{"name", false, "uid/70012\nuid/70016\n"},
		{"json", true, "70012\n70016\n"},
	} {
		f, out, _ := factory()
		if err := f.format.Set(row.format); err != nil {
			t.Fatal(err)
		}
		f.quiet = row.quiet
		if err := printList(f, uidSheet, items, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row.want, out.String()); diff != "" {
			t.Errorf("%s: %s", row.format, diff)
		}
	}
	f, out, _ := factory()
	f.format = formatYAML
	if err := printList(f, uidSheet, items, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"items:\n  - uid: 70012\n    gid: 70012\n", "nodes:\n      - n1\n", `pool: "123"`, `reason: ""`, "waits_for: null"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("yaml lacks %q:\n%s", want, out)
		}
	}
	f, out, _ = factory()
	f.format = formatJSON
	if err := printList[api.UID](f, uidSheet, nil, nil); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"items\": []\n}\n"; out.String() != want {
		t.Errorf("no items are %q", out)
	}
}

func TestReleaseByNumber(t *testing.T) {
	const me = "unix:1000"
	for _, row := range []struct {
		name string
		uid  api.UID
		over bool
		code problem.Code
	}{
		{"my own, locked", api.UID{State: "locked", Caller: me, Token: "t"}, false, ""},
		{"my own, used", api.UID{State: "used", Caller: me, Token: "t"}, false, ""},
		{"nobody's", api.UID{State: "free"}, true, ""},
		{"released already", api.UID{State: "quarantined"}, true, ""},
		{"another's", api.UID{State: "used", Caller: "unix:7"}, false, problem.CodeHeld},
		{"another's, idle", api.UID{State: "idle", Caller: "unix:7"}, false, problem.CodeHeld},
		{"operator, used", api.UID{State: "used", Caller: "unix:7", Token: "t"}, false, ""},
		{"operator, being handed to another", api.UID{State: "locked", Caller: "unix:7", Token: "t"}, false, problem.CodeHeld},
		{"reserved", api.UID{State: "reserved", Token: "t"}, false, problem.CodeHeld},
	} {
		over, err := mayReleaseByNumber(row.uid, me)
		if over != row.over || problem.CodeOf(err) != row.code {
			t.Errorf("%s: over %v, %v", row.name, over, err)
		}
	}
}

func TestHolds(t *testing.T) {
	for text, want := range map[string]api.Hold{
		"ttl=5m":  {Kind: "ttl", TTL: "5m"},
		"ttl=24h": {Kind: "ttl", TTL: "24h"},
		"pid=812": {Kind: "pid", PID: 812},
	} {
		if got, err := parseHold(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5m", "ttl", "ttl=", "ttl=999ms", "ttl=24h1s", "pid=", "pid=-1", "pid=x", "pid=99999999999", "conn=1"} {
		if _, err := parseHold(text); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestPoolChanges holds what "uid pool set" sends for what was typed.
func TestPoolChanges(t *testing.T) {
	text := func(s string) *string { return &s }
	for _, row := range []struct {
		name string
		o    poolSetOptions
		want api.PoolPatch
	}{
		{"ranges", poolSetOptions{ranges: text("70010-70019, 70000-70009,70005")}, api.PoolPatch{Ranges: text("70000-70019")}},
		{"empty ranges turn it off", poolSetOptions{ranges: text("")}, api.PoolPatch{Ranges: text("")}},
		{"all three", poolSetOptions{ranges: text("70000"), add: "70005", remove: "70007-70009"},
			api.PoolPatch{Add: "70005", Remove: "70007-70009", Ranges: text("70000")}},
		{"separator", poolSetOptions{ranges: text("70000;70002"), separator: ";"}, api.PoolPatch{Ranges: text("70000,70002")}},
		{"exclude mends", poolSetOptions{ranges: text("65000-66000"), exclude: "65534-65535", excluded: true},
			api.PoolPatch{Ranges: text("65000-66000"), Exclude: text("65534-65535")}},
		{"exclude nothing any more", poolSetOptions{excluded: true}, api.PoolPatch{Exclude: text("")}},
		{"policy alone", poolSetOptions{policy: api.PoolPolicy{Reclaim: "never"}}, api.PoolPatch{PoolPolicy: api.PoolPolicy{Reclaim: "never"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.o.separator == "" {
				row.o.separator = ","
			}
			got, _, err := row.o.patch()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, o := range map[string]poolSetOptions{
		"nothing":         {},
		"never granted":   {ranges: text("65000-66000")},
		"never added":     {add: "0"},
		"upside down":     {ranges: text("9-7")},
		"exclude garbage": {ranges: text("70000"), exclude: "x", excluded: true},
	} {
		o.separator = ","
		if _, _, err := o.patch(); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExclusionMustMendEverything(t *testing.T) {
	ranges := []idset.Range{{Lower: 65000, Higher: 66000}}
	if err := checkWithout(ranges, []idset.Range{{Lower: 65534, Higher: 65534}}); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("65535 is left: %v", err)
	}
	if err := checkWithout(ranges, []idset.Range{{Lower: 65534, Higher: 65535}}); err != nil {
		t.Error(err)
	}
}

func TestChangesOfAWatch(t *testing.T) {
	a, b, c := api.UID{UID: 1, State: "used"}, api.UID{UID: 2, State: "locked"}, api.UID{UID: 3, State: "used"}
	b2 := b
	b2.State = "used"
	got := changes([]api.UID{a, b, c}, []api.UID{a, b2, {UID: 4, State: "locked"}})
	want := []api.UID{b2, {UID: 4, State: "locked"}, {UID: 3, State: "free"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := changes([]api.UID{a}, []api.UID{a}); got != nil {
		t.Errorf("nothing changed, got %v", got)
	}
}

func TestEnvironmentHasNoToken(t *testing.T) {
	t.Setenv("SECRET", "hunter2")
	t.Setenv("TERM", "vt100")
	env := strings.Join(cleanEnv(70012, "jobs", nil), "\n")
	for _, want := range []string{"IDPOOL_UID=70012", "USER=70012", "TERM=vt100", "HOME=/"} {
		if !strings.Contains(env, want) {
			t.Errorf("no %s in %s", want, env)
		}
	}
	if strings.Contains(env, "hunter2") || strings.Contains(strings.ToLower(env), "token") {
		t.Errorf("more than it should have: %s", env)
	}
}

func TestRelativeCommandsAreTheCallers(t *testing.T) {
	got, err := absolute([]string{"./job", "./x"})
	if err != nil || !strings.HasPrefix(got[0], "/") || !strings.HasSuffix(got[0], "/poolctl/job") || got[1] != "./x" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, same := range []string{"job", "/bin/job"} {
		if got, _ := absolute([]string{same}); got[0] != same {
			t.Errorf("%s became %s", same, got[0])
		}
	}
}

// TestCommandsOfTheContract fails when a command or flag that scripts rely on is gone.
func TestCommandsOfTheContract(t *testing.T) {
	f, _, _ := factory()
	root := newRootCmd(f)
	for path, flags := range map[string]string{
		"uid pool set":     "add remove exclude separator scope order proof cooldown reclaim scan-age block low-water dry-run",
		"uid pool show":    "",
		"uid pool list":    "",
		"uid pool delete":  "",
		"uid pool check":   "separator",
		"uid pool suggest": "count",
		"uid probe":        "",
		"uid request":      "pool from uid count key holder hold wait",
		"uid confirm":      "keep token key",
		"uid unlock":       "keep token key",
		"uid renew":        "ttl token key",
		"uid release":      "key pid token",
		"uid join":         "key hold",
		"uid adopt":        "pool holder key",
		"uid reserve":      "reason",
		"uid unreserve":    "",
		"uid exec":         "pool key holder groups join detach on-lost",
		"uid list":         "state node pool holder key watch",
		"uid show":         "",
		"node list":        "",
		"node show":        "",
		"node leave":       "",
		"node fence":       "reason dry-run",
		"node unfence":     "",
		"node remove":      "",
		"status":           "",
		"version":          "",

		"vlan inventory set":    "add remove exclude file on settle order cooldown low-water dry-run",
		"vlan inventory show":   "",
		"vlan inventory list":   "",
		"vlan inventory import": "dry-run to-ranges",
		"vlan inventory export": "keyed",
		"vlan inventory delete": "",
		"vlan list":             "state holder key service watch",
		"vlan show":             "",
		"vlan allocate":         "vid key holder parity exclude from wait",
		"vlan release":          "key token",
		"vlan service create":   "north south attribute vid same offset parity exclude confirm-within hold on-partial holder dry-run",
		"vlan service begin":    "token",
		"vlan service confirm":  "token",
		"vlan service fail":     "reason token",
		"vlan service retry":    "token",
		"vlan service extend":   "token",
		"vlan service patch":    "attribute drop vid same offset parity exclude token",
		"vlan service delete":   "hold wait token",
		"vlan service removed":  "attribute token",
		"vlan service list":     "state inventory holder watch",
		"vlan service show":     "watch",
		"allocation create":     "holder",
		"allocation show":       "",
		"allocation list":       "",
		"allocation delete":     "",
		"check":                 "",
	} {
		cmd, rest, err := root.Find(strings.Fields(path))
		if err != nil || len(rest) > 0 {
			t.Errorf("%s: not there (%v)", path, err)
			continue
		}
		for _, name := range strings.Fields(flags) {
			if cmd.Flags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", path, name)
			}
		}
	}
}

func TestExtraCommandsAreAdded(t *testing.T) {
	before := extraCommands
	t.Cleanup(func() { extraCommands = before })
	ran := false
	extraCommands = append(extraCommands, func(f *Factory) *cobra.Command {
		return &cobra.Command{Use: "extra", RunE: runs(func(context.Context, []string) error {
			ran = f != nil
			return nil
		})}
	})
	var out bytes.Buffer
	if code := run(t.Context(), []string{"extra"}, Streams{Out: &out, Err: &out}); code != 0 || !ran {
		t.Errorf("code %d, ran %v: %s", code, ran, &out)
	}
}
