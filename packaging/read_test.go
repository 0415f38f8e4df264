package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/blakesmith/ar"
	"github.com/sassoftware/go-rpmutils"
)

// packed is a file of a package.
type packed struct {
	mode         int64 // with a directory's bit as tar has it: permissions only
	dir          bool
	owner, group string
	config       bool
	text         []byte // of a .deb
}

// pkg is what a package says and has.
type pkg struct {
	name, version, arch string
	files               map[string]packed
	scripts             map[string]string
}

// readDeb reads a .deb as dpkg does: an ar with two tars.
func readDeb(t *testing.T, path string) pkg {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := pkg{files: map[string]packed{}, scripts: map[string]string{}}
	for r := ar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(h.Name, "control.tar"):
			for name, f := range untar(t, h.Name, r) {
				p.scripts[name] = string(f.text)
			}
		case strings.HasPrefix(h.Name, "data.tar"):
			p.files = untar(t, h.Name, r)
		}
	}
	for line := range strings.Lines(p.scripts["control"]) {
		switch key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key {
		case "Package":
			p.name = value
		case "Version":
			p.version = value
		case "Architecture":
			p.arch = value
		}
	}
	for _, name := range strings.Fields(p.scripts["conffiles"]) {
		f := p.files[name]
		f.config = true
		p.files[name] = f
	}
	return p
}

// untar reads an archive; names become absolute.
func untar(t *testing.T, name string, r io.Reader) map[string]packed {
	t.Helper()
	control := strings.HasPrefix(name, "control")
	all := map[string]packed{}
	for a := tar.NewReader(gunzip(t, r)); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := io.ReadAll(a)
		if err != nil {
			t.Fatal(err)
		}
		at := filepath.Join("/", h.Name)
		if control {
			at = filepath.Base(at)
		}
		all[at] = packed{mode: h.Mode & 0o7777, dir: h.Typeflag == tar.TypeDir, owner: h.Uname, group: h.Gname, text: text}
	}
}

// What rpm's header says of files and scripts.
const (
	rpmConfig    = 1 << 0
	rpmNoReplace = 1 << 4
	rpmDirectory = 0o040000
	rpmPostIn    = 1024
	rpmPreUn     = 1025
	rpmPostUn    = 1026
)

func readRPM(t *testing.T, path string) pkg {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := rpmutils.ReadRpm(f)
	if err != nil {
		t.Fatal(err)
	}
	nevra, err := r.Header.GetNEVRA()
	if err != nil {
		t.Fatal(err)
	}
	p := pkg{name: nevra.Name, version: nevra.Version, arch: nevra.Arch, files: map[string]packed{}, scripts: map[string]string{}}
	infos, err := r.Header.GetFiles()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		p.files[i.Name()] = packed{
			mode: int64(i.Mode() & 0o7777), dir: i.Mode()&0o170000 == rpmDirectory, owner: i.UserName(), group: i.GroupName(),
			config: i.Flags()&(rpmConfig|rpmNoReplace) == rpmConfig|rpmNoReplace,
		}
	}
	for name, tag := range map[string]int{"postinst": rpmPostIn, "prerm": rpmPreUn, "postrm": rpmPostUn} {
		if p.scripts[name], err = r.Header.GetString(tag); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return p
}
