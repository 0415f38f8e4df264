package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// worldly are the calls that reach out of the process, by package: what changes a
// file, starts a process or connects to etcd.
var worldly = map[string][]string{
	"os": {
		"WriteFile", "Rename", "OpenFile", "Create", "CreateTemp", "Mkdir", "MkdirAll", "MkdirTemp", "Remove", "RemoveAll", "Symlink", "Link", "Chmod", "Chown",
		"Lchown", "Truncate", "StartProcess",
	},
	"ioutil":   {"WriteFile", "TempFile", "TempDir"},
	"exec":     {"Command", "CommandContext"},
	"syscall":  {"Exec", "ForkExec", "StartProcess", "Open", "Rename", "Unlink", "Mkdir"},
	"unix":     {"Exec", "Open", "Openat", "Rename", "Renameat", "Unlink", "Mkdir"},
	"net":      {"Listen", "ListenUnix", "ListenTCP"},
	"clientv3": {"New", "NewFromURL", "NewFromURLs", "NewCtxClient"},
	"grpc":     {"NewClient", "Dial", "DialContext"},
}

// beside are the functions that may do so outside of a step of the seam, and why.
var beside = map[string]string{
	"cluster.(Client).connect": "its connections carry the seam's interceptors",
	"cluster.(Client).probe":   "its connection carries the seam's interceptors",
	"vlan.openLock":            "is a step itself, of tryLock",
	"agent.admit":              "is a step itself, of listenAt",
}

// TestTheSeamIsEverywhere: what these packages do to the world is a step of the seam,
// so that a walk comes to it. Package seam does it, and whoever calls Do.
func TestTheSeamIsEverywhere(t *testing.T) {
	found := 0
	for _, name := range []string{"cluster", "leases", "uidpool", "vlan", "agent", "agent/userdb"} {
		files, err := filepath.Glob("../../" + name + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(name, err)
		}
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || beside[name+"."+nameOf(fn)] != "" {
					continue
				}
				steps(fn, func(call *ast.CallExpr, inside bool) {
					if !reachesOut(call) {
						return
					}
					found++
					if !inside && !readsOnly(call) {
						t.Errorf("%s: this must be a step of the seam: call it in Do, or through package seam", set.Position(call.Pos()))
					}
				})
			}
		}
	}
	if found < 8 {
		t.Errorf("found %d calls only: vacuous", found)
	}
}

func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	of := fn.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	return "(" + of.(*ast.Ident).Name + ")." + fn.Name.Name
}

// steps visits each call of a function, and tells whether it is made in a function
// that is handed to a Do.
func steps(fn *ast.FuncDecl, visit func(call *ast.CallExpr, inside bool)) {
	if fn.Body == nil {
		return
	}
	var walk func(n ast.Node, inside bool)
	walk = func(n ast.Node, inside bool) {
		ast.Inspect(n, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			visit(call, inside)
			step := inside
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Do" && len(call.Args) == 2 {
				step = true
			}
			walk(call.Fun, inside)
			for _, arg := range call.Args {
				walk(arg, step)
			}
			return false
		})
	}
	walk(fn.Body, false)
}

func reachesOut(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	if pkg, ok := sel.X.(*ast.Ident); ok && slices.Contains(worldly[pkg.Name], sel.Sel.Name) {
		return true
	}
	switch sel.Sel.Name { // not an engine's Sync, which has a context, nor a duration's Truncate
	case "Sync":
		return len(call.Args) == 0
	case "Truncate":
		_, number := call.Args[0].(*ast.BasicLit)
		return number
	}
	return sel.Sel.Name == "WriteAt"
}

// readsOnly tells whether a file is opened for reading.
func readsOnly(call *ast.CallExpr) bool {
	if !slices.Contains([]string{"OpenFile", "Open", "Openat"}, call.Fun.(*ast.SelectorExpr).Sel.Name) {
		return false
	}
	writes := false
	for _, arg := range call.Args {
		ast.Inspect(arg, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				writes = writes || slices.Contains([]string{"O_WRONLY", "O_RDWR", "O_CREATE", "O_CREAT", "O_TRUNC", "O_APPEND"}, id.Name)
			}
			return true
		})
	}
	return !writes
}
