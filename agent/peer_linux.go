package agent

import (
	"errors"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/uidpool"
)

// maxPeerGroups bounds the supplementary groups that are read; the kernel's own
// bound is 65536.
const maxPeerGroups = 1024

// peerOf asks the kernel who connected.
func peerOf(c net.Conn) peer {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return peer{err: errors.New("no local connection")}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{err: err}
	}
	var p peer
	err = raw.Control(func(fd uintptr) {
		cred, e := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if e != nil {
			p.err = e
			return
		}
		p.uid, p.gid, p.pid = cred.Uid, cred.Gid, int(cred.Pid)
		p.groups = peerGroups(fd)
		p.process, p.unidentified = uidpool.IdentifyPeer(int(fd), p.pid)
	})
	if err != nil {
		p.err = err
	}
	return p
}

// peerGroups are the supplementary groups the process had when it connected;
// none where the kernel does not tell.
func peerGroups(fd uintptr) []uint32 {
	var list [maxPeerGroups]uint32
	size := uint32(unsafe.Sizeof(list))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&list)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	return append([]uint32(nil), list[:size/4]...)
}
