package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/idpool/idpool/problem"
)

const (
	ipcPrivate = "private"
	ipcHost    = "host"

	// maxKeepFD is the highest number of an open file that a command may keep.
	maxKeepFD = 1023
)

// command is what to run, as whom and in which surroundings.
type command struct {
	uid    uint32
	groups []uint32
	argv   []string
	// env is the whole environment; before [cleanEnv], what was asked for.
	env        []string
	dir        string
	keepFDs    []int
	privateTmp bool
	hostIPC    bool
	ownCgroup  bool
	newPrivs   bool
}

// command checks the flags; nothing is done yet.
func (o *execOptions) command(args []string) (command, error) {
	cmd := command{privateTmp: o.privateTmp, hostIPC: o.ipc == ipcHost, ownCgroup: o.cgroup, newPrivs: !o.noNewPrivs, dir: "/"}
	var err error
	if cmd.groups, err = groupIDs(o.groups); err != nil {
		return cmd, err
	}
	if cmd.env, err = envOf(o.env); err != nil {
		return cmd, err
	}
	if cmd.keepFDs, err = inheritedFDs(o.keepFDs); err != nil {
		return cmd, err
	}
	switch {
	case o.chdir == "":
		cmd.argv, err = absolute(args)
	default:
		cmd.argv = args // relative to --chdir, as with env(1)
		if cmd.dir, err = filepath.Abs(o.chdir); err != nil {
			err = fmt.Errorf("find %s: %w", o.chdir, err)
		}
	}
	return cmd, err
}

// envOf reads --env: NAME=VALUE, or NAME for what ours has.
func envOf(given []string) ([]string, error) {
	var env []string
	for _, pair := range given {
		name, value, ok := strings.Cut(pair, "=")
		switch {
		case name == "" || strings.ContainsRune(pair, 0):
			return nil, usage("--env %q is neither NAME=VALUE nor NAME", pair)
		case strings.HasPrefix(name, "IDPOOL_"):
			return nil, usage("--env %s: names that begin with IDPOOL_ are set by poolctl", name)
		case !ok:
			if value, ok = os.LookupEnv(name); !ok {
				return nil, usage("--env %s: there is no such variable to pass on", name).Advise("with a value", "--env %s=VALUE", name)
			}
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

// cleanEnv is the whole environment of a command; what was asked for replaces
// what it has anyway. The grant's token is not in it: whoever has it may end the
// grant.
func cleanEnv(uid uint32, pool string, more []string) []string {
	name := uidText(uid)
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/",
		"SHELL=/bin/sh",
		"USER=" + name,
		"LOGNAME=" + name,
		"IDPOOL_UID=" + name,
		"IDPOOL_POOL=" + pool,
	}
	if term, ok := os.LookupEnv("TERM"); ok {
		env = append(env, "TERM="+term)
	}
	for _, pair := range more {
		name, _, _ := strings.Cut(pair, "=")
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		env = append(env, pair)
	}
	return env
}

// absolute makes a relative path of a command mean the caller's directory,
// since the command starts in /.
func absolute(argv []string) ([]string, error) {
	if !strings.Contains(argv[0], "/") || filepath.IsAbs(argv[0]) {
		return argv, nil
	}
	path, err := filepath.Abs(argv[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", argv[0], err)
	}
	argv = slices.Clone(argv)
	argv[0] = path
	return argv, nil
}

// groupIDs are the numbers of groups given by name or number, root's not among them.
func groupIDs(names []string) ([]uint32, error) {
	var ids []uint32
	for _, name := range names {
		text := name
		if _, err := strconv.ParseUint(name, 10, 32); err != nil {
			g, err := user.LookupGroup(name)
			if err != nil {
				return nil, usage("--groups: there is no group %q on this machine", name)
			}
			text = g.Gid
		}
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil || id == 4294967295 {
			return nil, usage("--groups: %q is no group id", name)
		}
		if id == 0 {
			return nil, problem.New(problem.CodeForbidden, "--groups: group 0 is root's and goes to nobody")
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}
