package agent

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// probeTimeout bounds the question to whoever answers on our socket's path.
const probeTimeout = 2 * time.Second

// door is the agent's listening socket and the lock beside it.
type door struct {
	net.Listener
	lock *lockFile
}

// Close ends the listener, which removes the socket, and lets the lock go.
func (d *door) Close() error {
	err := d.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return err
}

// openDoor listens on a Unix socket, instead of what a dead agent left there. A
// live one is [problem.ErrHeld], with its answer. A given listener is taken as it is,
// with the mode that its owner gave it, and stays when the door is closed.
func openDoor(ctx context.Context, path string, given net.Listener, groups []group, s seam.Seam) (*door, error) {
	if len(path) >= maxSocketPath {
		return nil, problem.New(problem.CodeInvalid, "socket path %s has %d bytes: a socket's address takes less than %d", path, len(path), maxSocketPath)
	}
	if err := s.Do("file:socket-dir:create", func() error { return os.MkdirAll(filepath.Dir(path), 0o755) }); err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "make the socket's directory")
	}
	lock, err := takeLock(path+".lock", "socket "+path, s)
	if err != nil {
		return nil, withAnswer(ctx, err, path)
	}
	if given != nil {
		return &door{given, lock}, nil
	}
	l, err := listenAt(ctx, path, groups, s)
	if err != nil {
		lock.release()
		return nil, err
	}
	return &door{l, lock}, nil
}

func listenAt(ctx context.Context, path string, groups []group, s seam.Seam) (net.Listener, error) {
	if err := clearWay(ctx, path, s); err != nil {
		return nil, err
	}
	var l net.Listener
	err := s.Do("file:socket:create", func() (err error) {
		l, err = net.Listen("unix", path)
		return err
	})
	if err != nil {
		if l != nil {
			_ = l.Close()
		}
		return nil, problem.Wrap(problem.CodeInvalid, err, "listen on the socket")
	}
	if err := s.Do("file:socket:admit", func() error { return admit(path, groups) }); err != nil {
		_ = l.Close()
		return nil, problem.Wrap(problem.CodeInvalid, err, "set who may open the socket")
	}
	return l, nil
}

// admit sets who may connect. Who may ask is decided by credentials, request by
// request; the mode only keeps most of the others away.
func admit(path string, groups []group) error {
	mode := fs.FileMode(0o660)
	several := slices.ContainsFunc(groups, func(x group) bool { return x.gid != groups[0].gid })
	switch {
	case several:
		mode = 0o666 // a file has one group
	case len(groups) > 0:
		if err := os.Chown(path, -1, int(groups[0].gid)); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// clearWay removes a socket that nobody answers on. A live one is refused with its
// agent's answer.
func clearWay(ctx context.Context, path string, s seam.Seam) error {
	return withAnswer(ctx, removeDead(ctx, path, s), path)
}

func removeDead(ctx context.Context, path string, s seam.Seam) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return problem.Wrap(problem.CodeInvalid, err, "look at the socket")
	case info.Mode().Type() != fs.ModeSocket:
		return problem.New(problem.CodeInvalid, "socket %s is there already and is no socket (%s)", path, info.Mode()).
			Advise("another place", "poolagent --socket PATH …")
	}
	conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close()
		return problem.New(problem.CodeHeld, "socket %s is in use", path)
	}
	if err := s.Remove("socket", path); err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "remove the socket of a dead agent")
	}
	return nil
}

// withAnswer adds to a refusal what the agent on a socket says of itself.
func withAnswer(ctx context.Context, err error, path string) error {
	var refusal *problem.Error
	if !errors.As(err, &refusal) || refusal.Code != problem.CodeHeld {
		return err
	}
	c := api.New(api.Options{Agent: "unix://" + path, Timeout: probeTimeout, UserAgent: "poolagent"})
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return refusal.Note("it answers: %s", err)
	}
	return refusal.Note("there answers the agent of node %s (%s, pid %d, version %s)", st.Node, st.State, st.PID, st.Version)
}

// group is a Unix group that may ask, and what.
type group struct {
	name string
	gid  uint32
	role role
}

// groups are those of all roles, by setting.
func (c Config) groups() map[string][]string {
	return map[string][]string{"operator-group": c.OperatorGroups, "group": c.Groups, "observer-group": c.ObserverGroups}
}

// findGroups resolves the groups of all roles.
func findGroups(c Config) ([]group, error) {
	var all []group
	for _, one := range []struct {
		names []string
		role  role
	}{{c.OperatorGroups, operator}, {c.Groups, requester}, {c.ObserverGroups, observer}} {
		found, err := resolveGroups(one.names, one.role)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// resolveGroups resolves names and numbers.
func resolveGroups(names []string, r role) ([]group, error) {
	var all []group
	for _, name := range names {
		if gid, err := strconv.ParseUint(name, 10, 32); err == nil {
			all = append(all, group{name, uint32(gid), r})
			continue
		}
		g, err := user.LookupGroup(name)
		if err != nil {
			return nil, problem.New(problem.CodeInvalid, "group %q is not known on this host", name).
				Advise("make it", "groupadd --system %s", name)
		}
		gid, err := strconv.ParseUint(g.Gid, 10, 32)
		if err != nil {
			return nil, problem.Wrap(problem.CodeInvalid, err, "group %s", name)
		}
		all = append(all, group{name, uint32(gid), r})
	}
	return all, nil
}
