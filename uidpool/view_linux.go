package uidpool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

const (
	procMagic = 0x9fa0
	// The machine's first namespaces have fixed inode numbers.
	initialPIDNS  = 4026531836
	initialUserNS = 4026531837
	capSysPtrace  = 19
)

// View says whether this process is placed so that a scan sees every task of
// the node: nil, or a refusal ([problem.ErrNoProof]) that says why, the effect
// and the fix. It is part of every [Reader.Scan]. Root must be a procfs of our
// own pid namespace; pid and user namespace the machine's (AcceptPIDNamespace
// waives the former); nothing hidden by hidepid or subset=pid; process 1 seen.
func (r *Reader) View() error {
	facts, err := r.look()
	if err != nil {
		return problem.Wrap(problem.CodeNoProof, err, "cannot prove any uid unused: check the view of %s", r.root())
	}
	return judgeView(facts, r.AcceptPIDNamespace)
}

func (r *Reader) root() string {
	if r.Root == "" {
		return defaultRoot
	}
	return r.Root
}

// look gathers the facts; it stops early where the rest would mislead.
func (r *Reader) look() (viewFacts, error) {
	root := r.root()
	f := viewFacts{root: root, own: strconv.Itoa(os.Getpid())}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return f, &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	if f.procfs = fs.Type == procMagic; !f.procfs {
		return f, nil
	}
	if err := f.readSelf(); err != nil {
		return f, err
	}
	if f.self != f.own {
		return f, nil
	}
	var err error
	if f.seesAll, err = hasPtrace(); err != nil {
		return f, err
	}
	last, err := openLastPID(root)
	if f.complete = err == nil; f.complete {
		last.close()
	}
	if !f.seesAll {
		if f.options, err = readProcOptions(root); err != nil {
			return f, err
		}
		if f.groups, err = ownGroups(); err != nil {
			return f, err
		}
	}
	status, err := os.ReadFile(filepath.Join(root, "1", "status"))
	if err == nil {
		st, err := parseStatus(status)
		f.initListed = err == nil && st.pid == 1
	}
	return f, nil
}

// readSelf finds out where we are and whether root agrees. The links below
// our own /proc/self are read only where root is ours.
func (f *viewFacts) readSelf() error {
	self, err := os.Readlink(filepath.Join(f.root, "self"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f.self = self
	// The pid namespace's link is asked of the machine's usual /proc too: root
	// may be of a namespace that does not contain us.
	dir := filepath.Join(f.root, "self")
	if f.self != f.own {
		dir = filepath.Join(defaultRoot, "self")
	}
	pidNS, err := namespaceInode(filepath.Join(dir, "ns", "pid"), "pid")
	if err != nil && f.self != f.own {
		// Neither procfs knows us, so neither is of our pid namespace.
		f.initialUser = true
		return nil
	}
	if err != nil {
		return err
	}
	userNS, err := namespaceInode(filepath.Join(dir, "ns", "user"), "user")
	if err != nil {
		return err
	}
	f.initialPID, f.initialUser = pidNS == initialPIDNS, userNS == initialUserNS
	if f.self == f.own {
		status, err := os.ReadFile(filepath.Join(dir, "status"))
		if err != nil {
			return err
		}
		f.nsPIDs = strings.Fields(statusLine(status, "NSpid"))
	}
	return nil
}

// namespaceInode reads a link like "pid:[4026531836]".
func namespaceInode(path, kind string) (uint64, error) {
	link, err := os.Readlink(path)
	if err != nil {
		return 0, err
	}
	number, found := strings.CutPrefix(link, kind+":[")
	number, closed := strings.CutSuffix(number, "]")
	inode, ok := parseDecimal([]byte(number), 1<<63)
	if !found || !closed || !ok {
		return 0, fmt.Errorf("link %s is %q, not %s:[NUMBER]", path, link, kind)
	}
	return inode, nil
}

// inInitialUserNS is set once it is known: a program with threads cannot change
// its user namespace.
var inInitialUserNS atomic.Bool

// userNamespaceOK is nil where a uid means to the kernel what it means to us.
func userNamespaceOK() error {
	if inInitialUserNS.Load() {
		return nil
	}
	inode, err := namespaceInode("/proc/self/ns/user", "user")
	if err != nil {
		return problem.Wrap(problem.CodeNoProof, err, "cannot prove any uid unused: read this process's user namespace")
	}
	if inode != initialUserNS {
		return judgeView(viewFacts{root: defaultRoot, procfs: true}, true)
	}
	inInitialUserNS.Store(true)
	return nil
}

// hasPtrace says whether the calling thread may see every process.
func hasPtrace() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read own capabilities: %w", err)
	}
	return data[0].Effective&(1<<capSysPtrace) != 0, nil
}

func ownGroups() ([]int, error) {
	groups, err := unix.Getgroups()
	if err != nil {
		return nil, fmt.Errorf("read own groups: %w", err)
	}
	return append(groups, unix.Getegid()), nil
}

func readProcOptions(root string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: root, Err: err}
	}
	text, err := os.ReadFile(filepath.Join(root, "self", "mountinfo"))
	if err != nil {
		return "", err
	}
	dev := uint64(st.Dev)
	return procOptions(text, fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)))
}
