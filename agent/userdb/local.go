package userdb

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxLocal bounds what is read of a file.
const maxLocal = 16 << 20

// local are the names and numbers that this host's own files have.
type local struct {
	names map[string]bool
	ids   map[uint32]bool
}

// stamp tells a file from its next version.
type stamp struct {
	size int64
	time time.Time
}

func stampsOf(files []string) [2]stamp {
	var all [2]stamp
	for i, path := range files {
		if info, err := os.Stat(path); err == nil && i < len(all) {
			all[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return all
}

// readLocal reads files of the form NAME:…:NUMBER:…, such as /etc/passwd and
// /etc/group. One that is missing has no names; lines that are none are left out.
func readLocal(files []string) (local, error) {
	l := local{map[string]bool{}, map[uint32]bool{}}
	for _, path := range files {
		f, err := os.Open(path)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return l, err
		}
		err = l.read(f)
		_ = f.Close()
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l local) read(r io.Reader) error {
	lines := bufio.NewScanner(io.LimitReader(r, maxLocal))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		l.names[name] = true
		if fields := strings.SplitN(rest, ":", 3); len(fields) > 1 {
			if n, err := strconv.ParseUint(fields[1], 10, 32); err == nil {
				l.ids[uint32(n)] = true
			}
		}
	}
	return lines.Err()
}
