package vlan

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

const (
	// A flock cannot be waited for and given up, so it is asked for again and
	// again, after pauses that grow.
	firstLockPause = time.Millisecond
	lastLockPause  = 50 * time.Millisecond
)

// lockPath is the lock file of a pool file. It stays when the lock goes: removing
// it would let two processes lock two files of one name.
func lockPath(path string) string { return path + ".lock" }

// lock waits for the lock until ctx ends. The caller must call unlock.
func (f *FileInventory) lock(ctx context.Context) (unlock func(), err error) {
	if ctx.Err() != nil {
		return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "inventory %s not asked", f.name)
	}
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx),
			"inventory %s: pool file %s is busy with other requests of this process; nothing was done", f.name, f.path)
	}
	file, err := f.flock(ctx)
	if err != nil {
		<-f.turn
		return nil, err
	}
	return func() {
		_ = f.seam.Do("file:pool-lock:clear", func() error { return file.Truncate(0) })
		_ = file.Close()
		<-f.turn
	}, nil
}

func (f *FileInventory) flock(ctx context.Context) (*os.File, error) {
	for pause := firstLockPause; ; pause = min(2*pause, lastLockPause) {
		file, holder, err := f.tryLock()
		if err != nil || file != nil {
			return file, err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx),
				"inventory %s: pool file %s is locked by %s; nothing was done", f.name, f.path, holder).(*problem.Error).
				Advise("who has the lock", "fuser -v %s", shellQuote(lockPath(f.path)))
		}
	}
}

// tryLock returns the locked file, or who has the lock.
func (f *FileInventory) tryLock() (file *os.File, holder string, err error) {
	path, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return nil, "", f.missing(err)
	}
	if err = f.seam.Do("file:pool-lock:create", func() (err error) {
		file, err = openLock(path)
		return err
	}); err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, "", f.failed(err, "it cannot be locked")
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		holder = lockHolder(file)
		_ = file.Close()
		return nil, holder, nil
	}
	if err != nil {
		_ = file.Close()
		return nil, "", f.failed(err, "it cannot be locked")
	}
	// Somebody may have removed the lock file, or moved the link, meanwhile.
	if again, err := filepath.EvalSymlinks(f.path); err != nil || again != path || !isAt(file, lockPath(path)) {
		_ = file.Close()
		return nil, "somebody who moves it", nil
	}
	// Who holds it is for messages alone: a full disk must not stop a release.
	host, _ := os.Hostname()
	_ = f.seam.Do("file:pool-lock:write", func() error {
		_ = file.Truncate(0)
		_, err := fmt.Fprintf(file, "%d %s %s\n", os.Getpid(), filepath.Base(os.Args[0]), host)
		return err
	})
	return file, "", nil
}

// openLock opens the lock file. A new one can be used by whoever can write the
// pool file and by nobody else.
func openLock(path string) (*os.File, error) {
	const flags = os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	file, err := os.OpenFile(lockPath(path), flags|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return os.OpenFile(lockPath(path), flags|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil {
		writers := info.Mode().Perm() & 0o222
		_ = ownLike(file, info)
		_ = file.Chmod(0o600 | writers | writers<<1)
	}
	return file, nil
}

// isAt reports whether the path is that file.
func isAt(file *os.File, path string) bool {
	mine, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

// lockHolder reads who wrote the lock file: "PID PROGRAM HOST". Anybody may have.
func lockHolder(file *os.File) string {
	buf := make([]byte, 128)
	n, _ := file.ReadAt(buf, 0)
	words := strings.Fields(string(buf[:n]))
	if len(words) != 3 {
		return "another process"
	}
	pid, err := strconv.ParseUint(words[0], 10, 31)
	if err != nil {
		return "another process"
	}
	return fmt.Sprintf("pid %d (%s on %s)", pid, printable(words[1]), printable(words[2]))
}

// printable quotes a text unless it can be shown as it is.
func printable(text string) string {
	if q := strconv.Quote(text); q != `"`+text+`"` {
		return q
	}
	return text
}
