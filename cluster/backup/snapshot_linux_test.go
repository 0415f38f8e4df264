package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/cluster/backup"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

func TestSaveOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	c := clustertest.Start(t)
	fill(t, c.Open(t))
	_, err := backup.Save(testContext(t), c.Config(), filepath.Join(dir, "s.db"), backup.Options{})
	if !errors.Is(err, problem.ErrUnavailable) || !strings.Contains(err.Error(), "s.db not written: no space left on device; nothing was kept") {
		t.Errorf("on a full disk: %v", err)
	}
	alone(t, dir)
}
