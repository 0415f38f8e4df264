package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"go.uber.org/zap"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

const (
	lockName    = "agent.lock"
	machineName = "machine-id"
)

// lockFile is a file that one process has locked. The file stays when the lock
// goes: removing it would let two processes lock two files of one name.
type lockFile struct{ f *os.File }

// takeLock locks path; what names the thing it stands for.
func takeLock(path, what string, s seam.Seam) (*lockFile, error) {
	var f *os.File
	err := s.Do("file:lock:create", func() (err error) {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		return err
	})
	if err != nil {
		if f != nil {
			_ = f.Close()
		}
		return nil, problem.Wrap(problem.CodeInvalid, err, "lock the %s", what)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		by := lockedBy(f)
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, problem.New(problem.CodeHeld, "%s is in use by %s", what, by).
				Advise("a second agent here", "poolagent --node NAME --data DIR --socket PATH …")
		}
		return nil, problem.Wrap(problem.CodeInvalid, err, "lock the %s", what)
	}
	err = s.Do("file:lock:write", func() error {
		if err := f.Truncate(0); err != nil {
			return err
		}
		_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		return err
	})
	if err != nil {
		_ = f.Close()
		return nil, problem.Wrap(problem.CodeInvalid, err, "lock the %s", what)
	}
	return &lockFile{f}, nil
}

func lockedBy(f *os.File) string {
	buf := make([]byte, 20)
	n, _ := f.ReadAt(buf, 0)
	pid := strings.TrimSpace(string(buf[:n]))
	if _, err := strconv.Atoi(pid); err != nil {
		return "another process"
	}
	return "pid " + pid
}

func (l *lockFile) release() {
	if l != nil {
		_ = l.f.Close()
	}
}

// openData makes the data directory and locks it.
func openData(dir string, s seam.Seam) (*lockFile, error) {
	if err := s.Do("file:data:create", func() error { return os.MkdirAll(dir, 0o700) }); err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "make the data directory")
	}
	return takeLock(filepath.Join(dir, lockName), "data directory "+dir, s)
}

// machineID is the machine's own, or one that the data directory keeps where the
// machine has none: the directory then is what makes the machine itself.
func machineID(machine func() (string, error), dir string, s seam.Seam, log *zap.Logger) (string, error) {
	id, err := machine()
	if err == nil {
		return id, nil
	}
	path := filepath.Join(dir, machineName)
	text, readErr := os.ReadFile(path)
	switch {
	case readErr == nil:
		kept := strings.TrimSpace(string(text))
		if raw, err := hex.DecodeString(kept); err != nil || len(raw) != 16 {
			return "", problem.New(problem.CodeInvalid, "%s holds no machine id: restore it, or remove it once nothing of this node runs", path)
		}
		return kept, nil
	case !errors.Is(readErr, fs.ErrNotExist):
		return "", problem.Wrap(problem.CodeInvalid, readErr, "read the kept machine id")
	}
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails
	kept := hex.EncodeToString(raw)
	if err := s.Replace("machine-id", path, []byte(kept+"\n")); err != nil {
		return "", problem.Wrap(problem.CodeInvalid, err, "keep a machine id")
	}
	log.Warn("machine has no id of its own; one is kept in the data directory", zap.String("path", path), zap.Error(err))
	return kept, nil
}
