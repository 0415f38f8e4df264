package uidpool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// oneEntry has room for one directory entry with a pid's name (a header of
	// 19 bytes, the digits, a NUL, rounded up to 8) and never for two.
	oneEntry = 40
	// manyEntries is the room for a listing whose entries are read later.
	manyEntries = 32 << 10
	// statusRoom is more than a status file needs unless the task has hundreds
	// of groups; maxStatus is more than the kernel can write.
	statusRoom = 4 << 10
	maxStatus  = 4 << 20
)

// dirEntries reads a directory with getdents64. With a buffer of oneEntry the
// kernel is asked for each entry alone, so that nothing it says is old.
type dirEntries struct {
	fd   int
	buf  []byte
	rest []byte
}

// next returns the next entry's name and the position behind it; a nil name at
// the end. The name is valid until the next call.
func (d *dirEntries) next() (name []byte, pos int64, err error) {
	if len(d.rest) == 0 {
		n, err := d.fill()
		if n == 0 || err != nil {
			return nil, 0, err
		}
		d.rest = d.buf[:n]
	}
	// struct linux_dirent64: inode 8, position 8, length 2, type 1, name.
	const header = 19
	if len(d.rest) < header {
		return nil, 0, fmt.Errorf("directory entry of %d bytes", len(d.rest))
	}
	size := int(binary.NativeEndian.Uint16(d.rest[16:]))
	if size <= header || size > len(d.rest) {
		return nil, 0, fmt.Errorf("directory entry of %d bytes says it has %d", len(d.rest), size)
	}
	pos = int64(binary.NativeEndian.Uint64(d.rest[8:]))
	name = d.rest[header:size]
	d.rest = d.rest[size:]
	for i, c := range name {
		if c == 0 {
			return name[:i], pos, nil
		}
	}
	return nil, 0, fmt.Errorf("directory entry %q has no end", name)
}

func (d *dirEntries) fill() (int, error) {
	for {
		n, err := unix.Getdents(d.fd, d.buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EINVAL) && len(d.buf) < manyEntries:
			// The next name does not fit; no pid's name is that long.
			d.buf = make([]byte, 2*len(d.buf))
		default:
			return n, err
		}
	}
}

// alone drops the entries that came along with the last one, if a long name
// made the buffer grow: they are asked for again in their turn.
func (d *dirEntries) alone(pos int64) error {
	if len(d.rest) == 0 {
		return nil
	}
	return d.seek(pos)
}

// seek goes to a position that next returned, or to 0.
func (d *dirEntries) seek(pos int64) error {
	d.rest = nil
	_, err := unix.Seek(d.fd, pos, unix.SEEK_SET)
	return err
}

// vanished says that the task is gone, which is neither use nor doubt.
func vanished(errno error) bool {
	return errno == unix.ENOENT || errno == unix.ESRCH
}

// fileReader reads small files below a directory, without allocating.
type fileReader struct {
	path []byte
	buf  []byte
}

// read returns the text of dir/id/name. The
// text is valid until the next call. It ends at the end of the file, or where
// enough is content: most files take one read.
func (f *fileReader) read(dir, id int, name string, enough func([]byte) bool) ([]byte, error) {
	f.path = strconv.AppendInt(f.path[:0], int64(id), 10)
	f.path = append(f.path, '/')
	f.path = append(f.path, name...)
	f.path = append(f.path, 0)
	fd, err := openat(dir, f.path, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if f.buf == nil {
		f.buf = make([]byte, statusRoom)
	}
	size := 0
	for {
		if size == len(f.buf) {
			if size >= maxStatus {
				return nil, fmt.Errorf("%s of task %d is longer than %d bytes", name, id, maxStatus)
			}
			f.buf = append(f.buf, make([]byte, size)...)
		}
		n, err := unix.Read(fd, f.buf[size:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		size += n
		if n == 0 || enough(f.buf[:size]) {
			return f.buf[:size], nil
		}
	}
}

// openat is unix.Openat for a path that ends in NUL, so that a scan need not
// make a string for every task.
func openat(dir int, path []byte, flags int) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir),
			uintptr(unsafe.Pointer(&path[0])), uintptr(flags), 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, syscall.Errno(errno)
		}
	}
}

// lastPID is the file that tells the last pid given out in our namespace.
type lastPID struct {
	fd int
	// loadavg tells the number of tasks as well; with partial it counts more
	// of them than we can see.
	loadavg, partial bool
}

// openLastPID opens loadavg below root, or ns_last_pid where loadavg is covered
// by a file of another file system: containers do that, and its last pid would
// be of another namespace.
func openLastPID(root string) (lastPID, error) {
	var first error
	for _, name := range []string{"loadavg", "sys/kernel/ns_last_pid"} {
		path := filepath.Join(root, name)
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		var fs unix.Statfs_t
		if err == nil {
			if err = unix.Fstatfs(fd, &fs); err == nil && fs.Type != procMagic {
				err = errors.New("it is no file of a procfs")
			}
			if err == nil {
				return lastPID{fd: fd, loadavg: name == "loadavg"}, nil
			}
			unix.Close(fd)
		}
		if first == nil {
			first = &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
	return lastPID{fd: -1}, first
}

func (l lastPID) close() { unix.Close(l.fd) }

func (l lastPID) read() (load, error) {
	var buf [128]byte
	n, err := unix.Pread(l.fd, buf[:], 0)
	if err != nil {
		return load{}, fmt.Errorf("read the last pid: %w", err)
	}
	if l.loadavg {
		return parseLoadavg(buf[:n])
	}
	return parseLastPID(buf[:n])
}
