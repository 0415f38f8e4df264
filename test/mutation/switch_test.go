package mutation

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// undoing is the environment variable that says which guard a test binary lacks.
const undoing = "IDPOOL_UNDO"

// Each file is compiled once, with all of its mutations: a function that has some
// begins with a branch for each, which is the function as it is without the guard.
// Which one is taken is said at the start of the binary. To compile the product anew
// for every mutation takes ten times as long.

// switched returns the files of the table with every mutation in them, by path from
// the root, and for each of their packages a file that reads the switch.
func switched() (map[string][]byte, error) {
	files := map[string][]mutation{}
	for _, m := range table() {
		files[m.file] = append(files[m.file], m)
	}
	all := map[string][]byte{}
	var errs []error
	for _, file := range slices.Sorted(maps.Keys(files)) {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return nil, err
		}
		var branches []branch
		for _, m := range files[file] {
			b, err := m.branch(text)
			branches, errs = append(branches, b), append(errs, err)
		}
		slices.SortStableFunc(branches, func(x, y branch) int { return y.at - x.at })
		for _, b := range branches {
			text = slices.Insert(text, b.at, []byte(b.text)...)
		}
		all[file] = text
		dir := path.Dir(file)
		all[dir+"/undoing.go"] = fmt.Appendf(nil, "package %s\n\nimport \"os\"\n\nvar undoing = os.Getenv(%q)\n", path.Base(dir), undoing)
	}
	return all, errors.Join(errs...)
}

// branch is what goes to the beginning of a function, by its place in the file.
type branch struct {
	at   int
	text string
}

// branch makes the function without its guard a branch of the function.
func (m mutation) branch(text []byte) (branch, error) {
	at := bytes.Index(text, []byte(m.old))
	if n := bytes.Count(text, []byte(m.old)); n != 1 {
		return branch{}, fmt.Errorf("%s: the text to replace stands in %s %d times, want once: the guard has changed, and the table must follow\n%s", m.name, m.file, n, m.old)
	}
	was, err := functionAt(text, at)
	if err != nil {
		return branch{}, fmt.Errorf("%s: %s: %w", m.name, m.file, err)
	}
	without := slices.Concat(text[:at], []byte(m.new), text[at+len(m.old):])
	now, err := functionAt(without, at)
	if err != nil {
		return branch{}, fmt.Errorf("%s: %s without the guard: %w", m.name, m.file, err)
	}
	body := string(without[now.body:now.end])
	if was.results == "" {
		body = "func() {" + body + "}(); return"
	} else {
		body = "return func() " + was.results + " {" + body + "}()"
	}
	return branch{was.body, fmt.Sprintf("\nif undoing == %q { %s }\n", m.name, body)}, nil
}

// function is where a function's body is, without its braces, and what it returns.
type function struct {
	body, end int
	results   string
}

func functionAt(text []byte, at int) (function, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "", text, parser.SkipObjectResolution)
	if err != nil {
		return function{}, err
	}
	offset := func(p token.Pos) int { return fset.Position(p).Offset }
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || offset(fn.Body.Lbrace) >= at || offset(fn.Body.Rbrace) < at {
			continue
		}
		found := function{body: offset(fn.Body.Lbrace) + 1, end: offset(fn.Body.Rbrace)}
		if r := fn.Type.Results; r != nil {
			found.results = strings.TrimSpace(string(text[offset(r.Pos()):offset(r.End())]))
		}
		return found, nil
	}
	return function{}, errors.New("the text to replace is in no function")
}
