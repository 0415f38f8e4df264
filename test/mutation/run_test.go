package mutation

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// patience bounds the tests of one package without one guard.
	patience = 120 * time.Second
	// parallel is how many guards are undone at a time: their tests wait more than
	// they compute.
	parallel = 2
)

// TestMutations undoes guards and runs the tests that must notice.
func TestMutations(t *testing.T) {
	what := os.Getenv("IDPOOL_MUTATION")
	if what == "" {
		t.Skip("a mutation run takes many minutes: make mutation, or IDPOOL_MUTATION=all, rest or NAME,NAME")
	}
	_, _, rows := readPage(t)
	var chosen []mutation
	for _, m := range table() {
		if what == "all" || (what == "rest" && rows[m.name] == "") || slices.Contains(strings.Split(what, ","), m.name) {
			chosen = append(chosen, m)
		}
	}
	switch {
	case len(chosen) > 0:
	case what == "rest":
		t.Skip("none is left")
	default:
		t.Fatalf("there is no mutation %s", what)
	}
	bins := build(t, chosen)
	sound(t, bins, chosen)
	slots := make(chan struct{}, parallel)
	for _, m := range chosen {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			writeRow(t, m, undo(t, bins, m))
		})
	}
}

// build compiles the tests of every package that is to catch something, with all
// mutations in them.
func build(t *testing.T, chosen []mutation) map[string]string {
	t.Helper()
	files, err := switched()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	for file, text := range files {
		there, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		replace[there] = filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(replace[there], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay := filepath.Join(dir, "overlay.json")
	text, _ := json.Marshal(map[string]any{"Replace": replace})
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		t.Fatal(err)
	}
	bins := map[string]string{}
	for pkg := range byPackage(catchers(chosen)) {
		bins[pkg] = filepath.Join(dir, strings.ReplaceAll(pkg, "/", "-")+".test")
		cmd := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", bins[pkg], "./"+pkg)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s does not compile: %v\n%s", pkg, err, out)
		}
	}
	return bins
}

// failure is a test that turned red, and the first line that it said.
type failure struct{ test, line string }

// undo runs the tests that must catch a mutation, and holds that each does, by an
// assertion of its own.
func undo(t *testing.T, bins map[string]string, m mutation) []failure {
	t.Helper()
	var all []failure
	for pkg, tests := range byPackage(m.caught) {
		out, err := run(bins[pkg], pkg, tests, m.name)
		found := failures(out)
		for _, name := range tests {
			i := slices.IndexFunc(found, func(f failure) bool { return f.test == name })
			switch {
			case err == nil || i < 0:
				t.Errorf("%s survives: %s.%s is green without %s (%v)\n%s", m.name, pkg, name, m.without, err, out)
			case found[i].line == "":
				t.Errorf("%s: %s.%s is red, but by no assertion:\n%s", m.name, pkg, name, out)
			default:
				all = append(all, failure{pkg + "." + name, found[i].line})
			}
		}
	}
	return all
}

// sound holds that the tests are green as long as nothing is undone.
func sound(t *testing.T, bins map[string]string, chosen []mutation) {
	t.Helper()
	for pkg, tests := range byPackage(catchers(chosen)) {
		if out, err := run(bins[pkg], pkg, tests, ""); err != nil {
			t.Fatalf("%s is not green although nothing is undone: %v\n%s", pkg, err, out)
		}
	}
}

// catchers are all tests that are to catch something, each once.
func catchers(chosen []mutation) []string {
	var all []string
	for _, m := range chosen {
		all = append(all, m.caught...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// byPackage sorts "package.Test" by package.
func byPackage(names []string) map[string][]string {
	tests := map[string][]string{}
	for _, c := range names {
		pkg, test, _ := strings.Cut(c, ".")
		tests[pkg] = append(tests[pkg], test)
	}
	return tests
}

// run runs tests of a package without a guard.
func run(bin, pkg string, tests []string, without string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-test.count=1", "-test.parallel=8", "-test.timeout="+patience.String(), "-test.run=^("+strings.Join(tests, "|")+")$")
	cmd.Dir, cmd.Env = filepath.Join(root, pkg), append(os.Environ(), undoing+"="+without)
	out, err := cmd.CombinedOutput()
	if err == nil && strings.Contains(string(out), "no tests to run") {
		err = fmt.Errorf("none of %v was run", tests)
	}
	return string(out), err
}

var (
	red  = regexp.MustCompile(`^--- FAIL: (\w+)`)
	said = regexp.MustCompile(`^\s+\w+_test\.go:\d+: (.+)`)
)

// failures reads which tests turned red, and the first that each said.
func failures(out string) []failure {
	var all []failure
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := red.FindStringSubmatch(line); m != nil {
			all = append(all, failure{test: m[1]})
		} else if m := said.FindStringSubmatch(line); m != nil && len(all) > 0 && all[len(all)-1].line == "" {
			all[len(all)-1].line = m[1]
		}
	}
	return all
}
