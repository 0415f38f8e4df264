package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Built once for all tests; the directory goes when they end.
var (
	work  string
	build = sync.OnceValues(func() (*builder, error) {
		src, err := findSource(context.Background(), "..", "v1.2.3")
		if err != nil {
			return nil, err
		}
		return &builder{source: src, work: work}, nil
	})
)

func TestMain(m *testing.M) {
	var err error
	if work, err = os.MkdirTemp("", "idpool-packaging"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(work)
	os.Exit(code)
}

var (
	madeMu sync.Mutex
	madeOf = map[string]string{} // paths of packages by platform and format
)

// made is the path of a package, which is made once.
func made(t *testing.T, p platform, format string) string {
	t.Helper()
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	madeMu.Lock()
	defer madeMu.Unlock()
	key := p.String() + "." + format
	if madeOf[key] == "" {
		if madeOf[key], err = b.pack(context.Background(), work, p, format); err != nil {
			t.Fatal(err)
		}
	}
	return madeOf[key]
}

func gunzip(t *testing.T, r io.Reader) io.Reader {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestContents: every package has every file, with its mode, as root's.
func TestContents(t *testing.T) {
	want := map[string]int64{
		"/usr/bin/poolagent": 0o755, "/usr/bin/poolctl": 0o755,
		"/usr/lib/systemd/system/poolagent.service": 0o644, "/usr/lib/systemd/system/poolagent.socket": 0o644,
		"/usr/lib/sysusers.d/idpool.conf": 0o644, "/etc/idpool": 0o755, "/etc/idpool/agent.yaml": 0o644,
		"/usr/share/bash-completion/completions/poolagent": 0o644, "/usr/share/bash-completion/completions/poolctl": 0o644,
		"/usr/share/fish/vendor_completions.d/poolagent.fish": 0o644, "/usr/share/fish/vendor_completions.d/poolctl.fish": 0o644,
		"/usr/share/man/man8/poolagent.8.gz": 0o644, "/usr/share/man/man1/poolctl.1.gz": 0o644,
		"/usr/share/man/man1/poolctl-uid-exec.1.gz": 0o644, "/usr/share/doc/idpool/install.md": 0o644,
		"/usr/share/doc/idpool/copyright": 0o644, "/usr/share/doc/idpool/LICENSE": 0o644,
	}
	for _, c := range []struct {
		platform     platform
		format, arch string
	}{{linux[0], "deb", "amd64"}, {linux[1], "deb", "arm64"}, {linux[0], "rpm", "x86_64"}, {linux[1], "rpm", "aarch64"}} {
		t.Run(c.arch+"."+c.format, func(t *testing.T) {
			read, zsh := readDeb, "/usr/share/zsh/vendor-completions/"
			if c.format == "rpm" {
				read, zsh = readRPM, "/usr/share/zsh/site-functions/"
			}
			p := read(t, made(t, c.platform, c.format))
			if p.name != "idpool" || !strings.HasPrefix(p.version, "1.2.3") || p.arch != c.arch {
				t.Errorf("it is %s %s for %s", p.name, p.version, p.arch)
			}
			for path, mode := range want {
				if f, ok := p.files[path]; !ok || f.mode != mode || f.dir != (path == "/etc/idpool") {
					t.Errorf("%s: there %v, mode %o, want %o", path, ok, f.mode, mode)
				}
			}
			for _, name := range []string{"_poolagent", "_poolctl"} {
				if _, ok := p.files[zsh+name]; !ok {
					t.Errorf("no %s%s", zsh, name)
				}
			}
			for path, f := range p.files {
				if f.owner != "root" || f.group != "root" || f.mode&0o022 != 0 || f.config != (path == "/etc/idpool/agent.yaml") {
					t.Errorf("%s: %s:%s %o, configuration %v", path, f.owner, f.group, f.mode, f.config)
				}
			}
			for _, name := range []string{"postinst", "prerm", "postrm"} {
				checkScript(t, name, p.scripts[name])
			}
		})
	}
}

// checkScript: a script of the package is one for sh.
func checkScript(t *testing.T, name, text string) {
	t.Helper()
	if !strings.Contains(text, "set -e\n") {
		t.Fatalf("%s is %q", name, text)
	}
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
}

// TestPrograms: both are static, for the package's machine, and the manual is one.
func TestPrograms(t *testing.T) {
	for on, machine := range map[platform]elf.Machine{linux[0]: elf.EM_X86_64, linux[1]: elf.EM_AARCH64} {
		p := readDeb(t, made(t, on, "deb"))
		for _, path := range []string{"/usr/bin/poolagent", "/usr/bin/poolctl"} {
			f, err := elf.NewFile(bytes.NewReader(p.files[path].text))
			if err != nil {
				t.Fatalf("%s %s: %v", on, path, err)
			}
			if libs, _ := f.ImportedLibraries(); f.Machine != machine || len(libs) > 0 || f.Section(".interp") != nil {
				t.Errorf("%s %s: for %v, links %v", on, path, f.Machine, libs)
			}
		}
		page, err := io.ReadAll(gunzip(t, bytes.NewReader(p.files["/usr/share/man/man8/poolagent.8.gz"].text)))
		if host, _ := os.Hostname(); err != nil || !bytes.Contains(page, []byte(`.TH "POOLAGENT" "8"`)) || bytes.Contains(page, []byte(`="`+host+`"`)) {
			t.Errorf("poolagent.8 (%v): %.300s", err, page)
		}
	}
}

// TestInstalledTree: what dpkg unpacks runs, and says what it is.
func TestInstalledTree(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil || runtime.GOOS != "linux" {
		t.Skip("no dpkg-deb here")
	}
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if out, err := exec.Command("dpkg-deb", "-x", made(t, platform{"linux", runtime.GOARCH}, "deb"), root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "1.2.3"
	if strings.HasSuffix(b.commit, "+dirty") {
		want += "+dirty"
	}
	want += " (commit " + b.commit + ", " + runtime.Version() + ", linux/" + runtime.GOARCH + ")\n"
	for _, args := range [][]string{{"poolctl", "version"}, {"poolagent", "--version"}} {
		out, err := exec.Command(filepath.Join(root, "usr/bin", args[0]), args[1]).CombinedOutput()
		if err != nil || string(out) != args[0]+" "+want {
			t.Errorf("%v: %v: %q, want %q", args, err, out, want)
		}
	}
	for _, script := range []string{"bash-completion/completions/poolctl", "bash-completion/completions/poolagent"} {
		if out, err := exec.Command("bash", "-n", filepath.Join(root, "usr/share", script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
		}
	}
}

// TestSameBytes: packed again, later, from the same programs, a package is the same.
func TestSameBytes(t *testing.T) {
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"deb", "rpm"} {
		first := made(t, linux[0], format)
		second, err := b.pack(t.Context(), t.TempDir(), linux[0], format)
		if err != nil {
			t.Fatal(err)
		}
		if sum(t, first) != sum(t, second) {
			t.Errorf("two different %s of the same", format)
		}
	}
	for range 2 {
		if err := b.archive(filepath.Join(work, "a.tar.gz"), "a", filepath.Join(work, "linux_amd64"), []string{"poolctl"}); err != nil {
			t.Fatal(err)
		}
	}
	path, err := checksums(work, []string{filepath.Join(work, "a.tar.gz")})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha256sum", "-c", filepath.Base(path))
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(text)
}

// TestPackageVersion: what git says becomes what dpkg and rpm order rightly.
func TestPackageVersion(t *testing.T) {
	date := time.Unix(1_700_000_000, 0).UTC()
	for _, c := range []struct{ in, commit, want string }{
		{"v1.2.3", "abc", "1.2.3"},
		{"1.2.3", "abc+dirty", "1.2.3+dirty"},
		{"v1.2.3-rc1", "abc", "1.2.3~rc1"},
		{"v1.2.3-5-gabcdef0", "abc", "1.2.3+5.gabcdef0"},
		{"v1.2.3-rc1-5-gabcdef0", "abc", "1.2.3~rc1+5.gabcdef0"},
		{"", "abcdef012345", "0.0.0~git20231114221320.abcdef012345"},
		{"latest", "abc", ""}, {"v", "abc", ""}, {"1.0 beta", "abc", ""}, {"v1.0/x", "abc", ""},
	} {
		got, err := packageVersion(c.in, c.commit, date)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q at %s: %q, %v; want %q", c.in, c.commit, got, err, c.want)
		}
	}
}

// TestRefusals: what cannot be packed is said before anything is built.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		args        []string
		epoch, part string
	}{
		{nil, "", "say packages or release"},
		{[]string{"deb"}, "", "say packages or release"},
		{[]string{"-root", os.TempDir(), "packages"}, "", "git checkout"},
		{[]string{"-version", "next", "packages"}, "", `version "next"`},
		{[]string{"packages"}, "yesterday", "SOURCE_DATE_EPOCH"},
	} {
		t.Setenv("SOURCE_DATE_EPOCH", c.epoch)
		err := run(t.Context(), append([]string{"-out", t.TempDir()}, c.args...), io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%v: %v, want %q", c.args, err, c.part)
		}
	}
}
