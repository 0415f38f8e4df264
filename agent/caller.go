package agent

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// peer is who is at the other end of a connection, by the kernel's word when it
// connected.
type peer struct {
	uid, gid uint32
	pid      int
	groups   []uint32
	// process is that pid's, by a pidfd; unidentified says why it is not known.
	process      uidpool.ProcessRef
	unidentified error
	// err says why the kernel did not tell; such a peer is nobody.
	err error
}

// caller is who asks, and what it may do here.
type caller struct {
	peer
	// name is how claims and messages call it.
	name string
	// operator: root, or the user that the agent runs as.
	operator bool
}

type peerKey struct{}

// withPeer is the server's ConnContext.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOf(c))
}

// gate decides who may ask.
type gate struct {
	// own is the uid that the agent runs as.
	own    uint32
	groups []group
}

// admit tells who calls, or refuses: root, the agent's own user and members of
// the groups may ask.
func (g gate) admit(ctx context.Context) (caller, error) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok || p.err != nil {
		return caller{}, problem.New(problem.CodeForbidden, "the kernel does not say who you are (%v)", p.err)
	}
	c := caller{peer: p, name: fmt.Sprintf("unix:%d", p.uid), operator: p.uid == 0 || p.uid == g.own}
	if c.operator || g.member(p) {
		return c, nil
	}
	return caller{}, g.refusal(p)
}

func (g gate) member(p peer) bool {
	if len(g.groups) == 0 {
		return false
	}
	has := func(gid uint32) bool {
		return slices.ContainsFunc(g.groups, func(x group) bool { return x.gid == gid })
	}
	if has(p.gid) || slices.ContainsFunc(p.groups, has) {
		return true
	}
	return slices.ContainsFunc(groupsOf(p.uid), has)
}

// groupsOf are the groups that the host's account files give a uid: those that it
// would have after its next login.
func groupsOf(uid uint32) []uint32 {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var all []uint32
	for _, id := range ids {
		if gid, err := strconv.ParseUint(id, 10, 32); err == nil {
			all = append(all, uint32(gid))
		}
	}
	return all
}

func (g gate) refusal(p peer) error {
	if len(g.groups) == 0 {
		return problem.New(problem.CodeForbidden, "your uid %d is not root, and this agent serves no group", p.uid).
			Advise("serve one", "poolagent --group idpool …")
	}
	var names []string
	for _, x := range g.groups {
		names = append(names, x.name)
	}
	word := "group "
	if len(names) > 1 {
		word = "groups "
	}
	return problem.New(problem.CodeForbidden, "your uid %d is neither root nor in %s%s", p.uid, word, strings.Join(names, ", ")).
		Advise("join it", "usermod -aG %s USER   (then log in again)", names[0])
}

// mustOperate refuses what only operators do.
func (c caller) mustOperate(what string) error {
	if c.operator {
		return nil
	}
	return problem.New(problem.CodeForbidden, "%s: only root may, and your uid is %d", what, c.uid).
		Advise("as root", "sudo poolctl …")
}
