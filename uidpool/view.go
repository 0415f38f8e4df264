package uidpool

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"github.com/idpool/idpool/problem"
)

// viewFacts is what [Reader.View] finds out; judgeView decides.
type viewFacts struct {
	root string
	// procfs: statfs says that root is one.
	procfs bool
	// self is where root/self leads, own our pid, nsPIDs our pids from root's
	// pid namespace down to our own (nil on a kernel without namespaces).
	self, own string
	nsPIDs    []string
	// initialPID and initialUser say that our namespaces are the machine's.
	initialPID, initialUser bool
	// options are root's superblock options, "" where they do not matter: all
	// is seen with seesAll, and the files that subset=pid hides are there.
	options  string
	seesAll  bool
	complete bool
	// groups are ours, for the option gid=.
	groups []int
	// initListed: process 1 can be read below root.
	initListed bool
}

// judgeView returns nil when a scan below f.root sees every task of the node.
func judgeView(f viewFacts, acceptPIDNamespace bool) error {
	switch {
	case !f.procfs:
		return noView(f.root+" is not a procfs",
			"mount -t proc proc %s, or name the right folder", f.root)
	case !f.initialUser:
		return noView("this process runs in a user namespace of its own, where uids are shifted and the kernel answers for the wrong ones",
			"run the agent in the machine's user namespace (containers: a privileged one)")
	case !f.initialPID && !acceptPIDNamespace:
		return noView("this process runs in a pid namespace of its own and does not see the machine's processes",
			"run the agent in the machine's pid namespace (docker: --pid=host), or, if this container is the node, pass --accept-pid-namespace")
	case f.self != f.own || len(f.nsPIDs) > 1:
		return noView(fmt.Sprintf("%s belongs to another pid namespace (it calls this process %q, which is %s)", f.root, f.self, f.own),
			"mount -t proc proc %s in the agent's own pid namespace", f.root)
	}
	if why := hiddenBy(f); why != "" {
		return noView(why,
			"remount %s with gid= of the agent (hidepid=1 or 2) or with hidepid=0, or AmbientCapabilities=CAP_SYS_PTRACE", f.root)
	}
	switch {
	case !f.complete:
		return noView(f.root+" is mounted with subset=pid, or its files are covered by others: the last pid cannot be read",
			"remount %s without subset=pid", f.root)
	case !f.initListed:
		return noView("process 1 cannot be read below "+f.root,
			"look for a security module or a mount that hides processes")
	}
	return nil
}

// noView is the refusal in the form that operators get it.
func noView(why, fix string, args ...any) error {
	return problem.New(problem.CodeNoProof, "cannot prove any uid unused: %s", why).
		Note("effect: released uids wait for this node's proof; grants on this node are refused").
		Note("fix: "+fix, args...).
		Advise("check with", "poolctl uid probe UID")
}

// hiddenBy names the hidepid that hides processes from us, "" if none does.
// The kernel shows names since 5.8, numbers before.
func hiddenBy(f viewFacts) string {
	if f.seesAll {
		return ""
	}
	hidepid, gid := "", 0
	for option := range strings.SplitSeq(f.options, ",") {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "hidepid":
			hidepid = value
		case "gid":
			gid = -1
			if n, ok := parseDecimal([]byte(value), math.MaxUint32); ok {
				gid = int(n)
			}
		}
	}
	switch hidepid {
	case "", "0", "off":
		return ""
	case "1", "noaccess", "2", "invisible":
		for _, g := range f.groups {
			if g == gid {
				return ""
			}
		}
	}
	return fmt.Sprintf("%s is mounted with hidepid=%s and this process lacks CAP_SYS_PTRACE", f.root, hidepid)
}

// procOptions finds the superblock options of the procfs whose device is dev
// ("0:21") in the text of mountinfo. All its mounts share them.
func procOptions(mountinfo []byte, dev string) (string, error) {
	for line := range bytes.Lines(mountinfo) {
		before, after, found := bytes.Cut(bytes.TrimSpace(line), []byte(" - "))
		fields, rest := bytes.Fields(before), bytes.Fields(after)
		if !found || len(fields) < 6 || len(rest) < 2 {
			return "", fmt.Errorf("mountinfo line %.200q cannot be parsed", line)
		}
		if string(fields[2]) != dev || string(rest[0]) != "proc" {
			continue
		}
		// The source may be empty or hold spaces; the options come last.
		return string(rest[len(rest)-1]), nil
	}
	return "", fmt.Errorf("mountinfo does not list the procfs with device %s", dev)
}

// statusLine returns the value of one line of a status file, "" if absent.
func statusLine(text []byte, key string) string {
	for line := range bytes.Lines(text) {
		if name, value, found := bytes.Cut(line, []byte(":")); found && string(name) == key {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}
