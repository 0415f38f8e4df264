package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
)

// platform is what a program is built for.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "_" + p.arch }

var (
	linux  = []platform{{"linux", "amd64"}, {"linux", "arm64"}}
	darwin = []platform{{"darwin", "amd64"}, {"darwin", "arm64"}}
)

// programs are those of a platform: the agent is Linux's alone.
func (p platform) programs() []string {
	if p.os == "linux" {
		return []string{"poolagent", "poolctl"}
	}
	return []string{"poolctl"}
}

// builder builds each thing once, below its working directory.
type builder struct {
	source
	work string
}

// binaries is the directory with the programs of a platform, static and without
// anything of this machine in them.
func (b *builder) binaries(ctx context.Context, p platform) (string, error) {
	dir := filepath.Join(b.work, p.String())
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	args := []string{
		"build", "-trimpath", "-buildvcs=false", "-o", dir + ".new" + string(filepath.Separator),
		"-ldflags", fmt.Sprintf("-s -w -buildid= -X github.com/idpool/idpool/api.release=%s -X github.com/idpool/idpool/api.commit=%s", b.version, b.commit),
	}
	for _, program := range p.programs() {
		args = append(args, "./cmd/"+program)
	}
	if err := os.Mkdir(dir+".new", 0o755); err != nil {
		return "", err
	}
	_, err := b.command(ctx, []string{"CGO_ENABLED=0", "GOFLAGS=", "GOOS=" + p.os, "GOARCH=" + p.arch, "GOAMD64=v1", "GOARM64=v8.0"}, "go", args...)
	if err != nil {
		return "", err
	}
	return dir, os.Rename(dir+".new", dir)
}

// generated is the directory with what the programs themselves write: man/*.1 and
// *.8, and completions/PROGRAM.SHELL.
func (b *builder) generated(ctx context.Context) (string, error) {
	dir := filepath.Join(b.work, "generated")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	here := platform{runtime.GOOS, runtime.GOARCH}
	if here.os != "linux" {
		return "", fmt.Errorf("the agent writes its manual itself, and runs on Linux: make packages there, not on %s", here.os)
	}
	bin, err := b.binaries(ctx, here)
	if err != nil {
		return "", err
	}
	man, completions := filepath.Join(dir, "man"), filepath.Join(dir, "completions")
	for _, d := range []string{man, completions} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	for _, program := range linux[0].programs() {
		path := filepath.Join(bin, program)
		if _, err := b.command(ctx, nil, path, "man", man); err != nil {
			return "", err
		}
		for _, shell := range []string{"bash", "zsh", "fish"} {
			script, err := b.command(ctx, nil, path, "completion", shell)
			if err != nil {
				return "", err
			}
			if err := os.WriteFile(filepath.Join(completions, program+"."+shell), script, 0o644); err != nil {
				return "", err
			}
		}
	}
	return dir, nil
}

// command runs a command in the checkout. Of the environment it gets what Go needs
// and nothing that could show in what it writes.
func (b *builder) command(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.root
	for _, keep := range []string{"PATH", "HOME", "TMPDIR", "GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOTOOLCHAIN", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE"} {
		if v, ok := os.LookupEnv(keep); ok {
			cmd.Env = append(cmd.Env, keep+"="+v)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C", "SOURCE_DATE_EPOCH="+strconv.FormatInt(b.date.Unix(), 10))
	cmd.Env = append(cmd.Env, env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %v: %w: %s", name, args, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}
