package rules

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/idpool/idpool"

type pkg struct {
	ImportPath string
	Name       string
	Doc        string
	Dir        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Dir,Imports,Deps,GoFiles", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 8 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

// below says which packages of the house each may import: arrows point down. A
// package that is missing here must be added on purpose.
var below = map[string][]string{
	"problem":                  {},
	"seam":                     {},
	"seam/fault":               {"seam", "problem"},
	"idset":                    {"problem"},
	"cluster":                  {"seam", "idset", "problem"},
	"cluster/embed":            {"cluster", "problem"},
	"cluster/clustertest":      {"cluster", "cluster/embed", "problem"},
	"leases":                   {"seam", "cluster", "idset", "problem"},
	"uidpool":                  {"leases", "idset", "problem"},
	"vlan":                     {"seam", "leases", "cluster", "idset", "problem"},
	"api":                      {"problem"},
	"api/idpooltest":           {"agent", "api", "cluster/clustertest"},
	"agent/metrics":            {"leases", "problem"},
	"agent/userdb":             {"seam"},
	"agent":                    {"agent/metrics", "agent/userdb", "seam", "api", "uidpool", "vlan", "leases", "cluster", "cluster/embed", "idset", "problem"},
	"cmd/internal/manual":      {},
	"cmd/poolagent":            {"cmd/internal/manual", "seam", "seam/fault", "agent", "api", "cluster", "problem"},
	"cmd/poolctl":              {"cmd/internal/manual", "agent", "api", "uidpool", "vlan", "idset", "problem", "cluster/embed", "cluster", "leases"},
	"test/rules":               {},
	"test/e2e":                 {},
	"test/e2e/robust":          {"test/e2e/robust/record", "test/e2e/robust/rig", "test/e2e/robust/fault", "test/e2e/robust/judge", "api", "cluster", "leases", "idset", "problem"},
	"test/e2e/robust/campaign": {"test/e2e/robust", "test/e2e/robust/record", "test/e2e/robust/judge", "test/e2e/robust/rig", "problem"},
	"test/e2e/robust/record":   {},
	"test/e2e/robust/judge":    {"test/e2e/robust/record", "leases", "cluster", "idset", "problem"},
	"test/e2e/robust/rig":      {"api", "cluster", "problem"},
	"test/e2e/robust/resident": {"test/e2e/robust/rig", "api", "problem"},
	"test/e2e/robust/fault":    {"test/e2e/robust/rig", "test/e2e/robust/record", "api", "cluster", "problem"},
	"test/mutation":            {},
	"test/bench":               {"api", "agent", "uidpool", "leases", "cluster", "cluster/clustertest", "idset", "problem"},
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		allowed, ok := below[name]
		if !ok {
			t.Errorf("package %s has no place in the house: add it to the table, with what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			rest, ours := strings.CutPrefix(imp, module+"/")
			if ours && !slices.Contains(allowed, rest) {
				t.Errorf("%s imports %s: arrows point down (DESIGN section 4)", name, rest)
			}
			if strings.HasPrefix(imp, "go.etcd.io/") && !strings.HasPrefix(name, "cluster") && name != "leases" && !strings.HasPrefix(name, "test/") {
				t.Errorf("%s imports %s: only cluster, leases and tests do", name, imp)
			}
		}
	}
}

// TestProgramsLinkNoEtcd: what programs link must not pull etcd in.
func TestProgramsLinkNoEtcd(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath != module+"/api" && p.ImportPath != module+"/idset" {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "go.etcd.io/") || strings.HasPrefix(dep, "google.golang.org/grpc") {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Name == "main" {
			if p.Doc == "" {
				t.Errorf("command %s has no doc comment", p.ImportPath)
			}
			continue
		}
		if !strings.HasPrefix(p.Doc, "Package "+p.Name+" ") {
			t.Errorf("package %s: its doc begins with %.40q, want \"Package %s …\"", p.ImportPath, p.Doc, p.Name)
		}
	}
}

// sources walks every tracked kind of text file of the repository.
func sources(t *testing.T, visit func(path string, text []byte)) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "bin" || d.Name() == "build" {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".go", ".md", ".yml", ".sh", ".txtar"}, filepath.Ext(path)) {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		rel, _ := filepath.Rel(root, path)
		visit(rel, text)
		return nil
	})
	if err != nil || n < 20 {
		t.Fatalf("walked %d files: %v", n, err)
	}
}

var (
	unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	sleeping   = regexp.MustCompile(`\btime\.Sl` + `eep\(`)
)

func TestNothingUnfinished(t *testing.T) {
	sources(t, func(path string, text []byte) {
		if m := unfinished.Find(text); m != nil {
			t.Errorf("%s says %s: finish it, or say it in the notes of the change", path, m)
		}
	})
}

func TestTestsWaitOnConditions(t *testing.T) {
	sources(t, func(path string, text []byte) {
		if strings.HasSuffix(path, "_test.go") && sleeping.Match(text) {
			t.Errorf("%s sleeps: wait for the condition", path)
		}
	})
}
