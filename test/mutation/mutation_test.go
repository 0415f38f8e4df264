package mutation

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/idpool/idpool/"
	root   = "../.."
)

// TestTable holds that the table has not rotted: every guard still is where it
// says, what takes its place compiles, and the tests named are there.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	check := newChecker(t)
	for _, m := range table() {
		if seen[m.name] {
			t.Errorf("two mutations are called %s", m.name)
		}
		seen[m.name] = true
		if m.rule == "" || m.without == "" || len(m.caught) == 0 {
			t.Errorf("%s does not say which rule it undoes, what is missing, or what catches it", m.name)
		}
		for _, c := range m.caught {
			if dir, test, ok := strings.Cut(c, "."); !ok || !slices.Contains(check.tests(t, dir), test) {
				t.Errorf("%s: there is no test %s", m.name, c)
			}
		}
	}
	files, err := switched()
	if err != nil {
		t.Fatal(err)
	}
	check.compile(t, files)
}

// notBuilt are rules of the protocol whose part does not exist: the reserve.
var notBuilt = []int{28, 29}

// TestEveryRule: each rule of the protocol, and each promise, has a guard to undo.
func TestEveryRule(t *testing.T) {
	held := map[string]bool{}
	for _, m := range table() {
		held[m.rule] = true
	}
	for rule := 1; rule <= 41; rule++ {
		if !held[strconv.Itoa(rule)] && !slices.Contains(notBuilt, rule) {
			t.Errorf("no mutation undoes rule %d", rule)
		}
	}
	for promise := 1; promise <= 8; promise++ {
		if !held["P"+strconv.Itoa(promise)] {
			t.Errorf("no mutation undoes promise P%d", promise)
		}
	}
}

// checker type-checks packages, by what the go command has compiled of all others.
type checker struct {
	fset     *token.FileSet
	importer types.Importer
	files    map[string]map[string]*ast.File // by folder and name
	named    map[string][]string             // tests by folder
}

func newChecker(t *testing.T) *checker {
	t.Helper()
	folders := map[string]bool{}
	for _, m := range table() {
		folders["./"+filepath.Dir(m.file)] = true
	}
	args := append([]string{"list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles"}, slices.Sorted(maps.Keys(folders))...)
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	c := &checker{fset: token.NewFileSet(), files: map[string]map[string]*ast.File{}, named: map[string][]string{}}
	exports := map[string]string{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Export, Dir string
			GoFiles                 []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		dir, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours || !folders["./"+dir] {
			continue
		}
		c.files[dir] = map[string]*ast.File{}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(c.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			c.files[dir][name] = f
		}
	}
	c.importer = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	return c
}

// compile type-checks the packages of files with these texts in their places.
func (c *checker) compile(t *testing.T, texts map[string][]byte) {
	for dir, files := range c.files {
		for file, text := range texts {
			if filepath.Dir(file) != dir {
				continue
			}
			f, err := parser.ParseFile(c.fset, file, text, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(file)] = f
		}
		config := types.Config{Importer: c.importer, Error: func(err error) {
			if e := (types.Error{}); errors.As(err, &e) {
				at := c.fset.Position(e.Pos)
				t.Errorf("%s: %v", lastBranch(texts[at.Filename], at.Offset), err)
			}
		}}
		_, _ = config.Check(module+dir, c.fset, slices.Collect(maps.Values(files)), nil)
	}
}

var branchName = regexp.MustCompile(`if undoing == "([a-z0-9-]+)"`)

// lastBranch names the mutation that a place of a switched file belongs to.
func lastBranch(text []byte, at int) string {
	all := branchName.FindAllSubmatch(text[:min(at, len(text))], -1)
	if len(all) == 0 {
		return "?"
	}
	return string(all[len(all)-1][1])
}

var testName = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// tests lists the tests of a folder.
func (c *checker) tests(t *testing.T, dir string) []string {
	if names, ok := c.named[dir]; ok {
		return names
	}
	var names []string
	files, _ := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
	}
	c.named[dir] = names
	return names
}
