package uidpool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/idpool/idpool/leases"
)

// manyIDs is the size of a block from which paths by number are not looked for.
const manyIDs = 64

// readResidue looks at what tells of all uids at once. root is "" but in tests.
func readResidue(root string) *Residue {
	r := newResidue()
	read := func(path string, use func(text string)) {
		text, err := os.ReadFile(root + path)
		switch {
		case err == nil:
			use(string(text))
		case !notThere(err):
			r.Doubt = append(r.Doubt, "cannot tell: "+err.Error())
		}
	}
	read("/proc/key-users", r.readKeyUsers)
	for _, kind := range []string{"shm", "sem", "msg"} {
		read("/proc/sysvipc/"+kind, func(text string) { r.readSysV(kind, text) })
	}
	for path, at := range map[string]int{"/etc/passwd": 2, "/etc/group": 2, "/etc/subuid": 0, "/etc/subgid": 0} {
		read(path, func(text string) { r.readNames(path, text, at) })
	}
	for _, dir := range []string{"/dev/shm", "/dev/mqueue"} {
		r.owned(root, dir, func(uid UID, path string, e fs.FileInfo) {
			if !e.IsDir() {
				r.Shared[uid] = append(r.Shared[uid], path)
			}
		})
	}
	for _, dir := range []string{"/var/spool/cron", "/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/var/spool/at"} {
		r.owned(root, dir, func(UID, string, fs.FileInfo) {})
	}
	return r
}

// notThere tells an absent file, and one that an agent which is not root may not
// see: it proves what it can.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)
}

// owned finds the entries of a directory that are not root's.
func (r *Residue) owned(root, dir string, also func(UID, string, fs.FileInfo)) {
	entries, err := os.ReadDir(root + dir)
	if err != nil && !notThere(err) {
		r.Doubt = append(r.Doubt, "cannot tell: "+err.Error())
	}
	for _, e := range entries {
		info, err := e.Info() // of the entry itself: a link is its maker's
		if err != nil {
			continue // gone since
		}
		if uid, ok := ownerOf(info); ok && uid != 0 {
			path := filepath.Join(root+dir, e.Name())
			r.add(uid, "%s", path)
			also(uid, path, info)
		}
	}
}

// files looks for what is found by a uid's number.
func (r *Residue) files(root string, l leases.Leftover) string {
	for i := range min(l.Count, manyIDs) {
		name := UID(l.ID + i).String()
		for _, path := range []string{"/run/user/" + name, "/var/lib/systemd/linger/" + name, "/tmp/krb5cc_" + name} {
			if _, err := os.Lstat(root + path); err == nil {
				return root + path
			} else if !notThere(err) {
				return "cannot tell: " + err.Error()
			}
		}
	}
	return ""
}
