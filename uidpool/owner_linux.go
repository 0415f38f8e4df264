package uidpool

import (
	"io/fs"
	"syscall"
)

// ownerOf is a file's owner.
func ownerOf(info fs.FileInfo) (UID, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return UID(st.Uid), true
}
