package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// modulePath is this module's; Build runs in it.
const modulePath = "github.com/idpool/idpool"

// Binaries builds what a rig needs into the module's build/robust-bin, for tests of
// several packages, and returns the directory. See [Build].
func Binaries(ctx context.Context) (dir string, err error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), "build", "robust-bin")
	return dir, Build(ctx, dir)
}

// Build builds etcd, poolagent, poolctl and resident into dir, an absolute path,
// which is made if missing; what is there already and is not out of date stays. It
// waits for another Build into dir. The working directory must be in the module.
// The wall clock of etcd and of the agent can be moved; nothing of their code is
// changed for it. The first time all of both is compiled, which takes minutes.
func Build(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find the Go tree: %w", err)
	}
	scratch, err := os.MkdirTemp("", "rig-overlay")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	moved, err := overlay(strings.TrimSpace(string(goroot)), scratch)
	if err != nil {
		return err
	}
	for _, one := range []struct {
		name, pkg string
		flags     []string
	}{
		{"resident", modulePath + "/test/e2e/robust/resident", nil},
		{"poolctl", modulePath + "/cmd/poolctl", nil},
		{"poolagent", modulePath + "/cmd/poolagent", []string{"-tags", "idpool_fault", "-overlay", moved}},
		{"etcd", "go.etcd.io/etcd/server/v3", []string{"-overlay", moved}},
	} {
		args := append([]string{"build", "-o", filepath.Join(dir, one.name)}, one.flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, one.pkg)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", one.name, err, out)
		}
	}
	return nil
}
