package uidpool

import (
	"fmt"
	"path/filepath"
	"sync"

	"github.com/idpool/idpool/problem"
)

// Process is a task of this node as the kernel showed it, with the four user
// ids that any one of makes a uid "in use".
type Process struct {
	PID  int `json:"pid"`
	PPID int `json:"ppid"`
	// TID is the one thread that is meant, where its ids are not those of the
	// process; 0 stands for the whole process.
	TID int `json:"tid,omitempty"`
	// State is the kernel's letter and word, such as "S (sleeping)" or
	// "Z (zombie)". A zombie still uses its uid.
	State string `json:"state"`
	// Command is the kernel's name of the task, at most 15 bytes of what the
	// program calls itself. Programs choose it: it is a hint to a reader, not
	// evidence, and its line breaks come escaped.
	Command string `json:"command"`
	// UIDs are the real, effective, saved and filesystem uid.
	UIDs [4]uint32 `json:"uids"`
}

// String names the process in a message: "pid 812 `postgres` (Z (zombie), child of 1)".
func (p Process) String() string {
	what := fmt.Sprintf("pid %d", p.PID)
	if p.TID != 0 {
		what = fmt.Sprintf("thread %d of pid %d", p.TID, p.PID)
	}
	return fmt.Sprintf("%s `%s` (%s, child of %d)", what, p.Command, p.State, p.PPID)
}

// ReaderOptions configures a [Reader].
type ReaderOptions struct {
	// Root is where the node's procfs is mounted; "/proc" if empty.
	Root string
	// AcceptPIDNamespace is an operator's word that the node is a container:
	// what runs outside of this process's pid namespace is not this node's
	// affair. It waives that one rule of [Reader.View] and no other.
	AcceptPIDNamespace bool
}

// Reader answers from a procfs which uids are in use on this node. Root and
// AcceptPIDNamespace are constant after [NewReader]; every method is safe for
// concurrent use, and each call opens and closes what it reads.
type Reader struct {
	Root               string
	AcceptPIDNamespace bool

	// scratch holds the buffers of scans that are over.
	scratch sync.Pool
}

// NewReader returns a reader of the procfs at o.Root. It does not look at it
// yet: a node that cannot prove anything shall be able to start and say so,
// see [Reader.View]. The error is [problem.ErrInvalid] for a relative Root and
// [problem.ErrNoProof] on systems other than Linux.
func NewReader(o ReaderOptions) (*Reader, error) {
	if o.Root == "" {
		o.Root = defaultRoot
	}
	if !filepath.IsAbs(o.Root) {
		return nil, problem.New(problem.CodeInvalid, "procfs %q is not an absolute path", o.Root)
	}
	if err := supported(); err != nil {
		return nil, err
	}
	return &Reader{Root: filepath.Clean(o.Root), AcceptPIDNamespace: o.AcceptPIDNamespace}, nil
}

const defaultRoot = "/proc"

// theReader serves the functions of the package that take no reader.
var theReader = sync.OnceValues(func() (*Reader, error) { return NewReader(ReaderOptions{}) })
