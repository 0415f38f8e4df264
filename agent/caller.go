package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"strings"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// peer is who is at the other end of a connection: by the kernel's word when it
// connected, or by the certificate that it has the key of.
type peer struct {
	uid, gid uint32
	pid      int
	groups   []uint32
	// process is that pid's, by a pidfd; unidentified says why it is not known.
	process      uidpool.ProcessRef
	unidentified error
	// cert is the caller that a certificate names; nil on the socket.
	cert *caller
	// err says why nobody told; such a peer is nobody.
	err error
}

// caller is who asks, and what it may do here.
type caller struct {
	peer
	// name is how claims and messages call it.
	name string
	role role
	// operator: it has that role, and may do to anybody's grants what it may to its own.
	operator bool
	// remote: it came over TCP, with a certificate.
	remote bool
}

func newCaller(p peer, name string, r role) caller {
	return caller{peer: p, name: name, role: r, operator: r == operator}
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

// admit tells who calls, or refuses: root and the agent's own user are operators,
// members of the groups have the highest of these groups' roles, and a
// certificate says its role itself.
func (g gate) admit(ctx context.Context) (caller, error) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok || p.err != nil {
		var refusal *problem.Error
		if errors.As(p.err, &refusal) {
			return caller{}, refusal
		}
		return caller{}, problem.New(problem.CodeForbidden, "it cannot be told who you are (%v)", p.err)
	}
	if p.cert != nil {
		return *p.cert, nil
	}
	name := fmt.Sprintf("unix:%d", p.uid)
	if p.uid == 0 || p.uid == g.own {
		return newCaller(p, name, operator), nil
	}
	if r := g.roleOf(p); r > anybody {
		return newCaller(p, name, r), nil
	}
	return newCaller(p, name, anybody), g.refusal(p)
}

// roleOf is the highest role of the groups that the peer is in.
func (g gate) roleOf(p peer) role {
	if len(g.groups) == 0 {
		return anybody
	}
	highest := anybody
	for _, gid := range append(append([]uint32{p.gid}, p.groups...), groupsOf(p.uid)...) {
		for _, x := range g.groups {
			if x.gid == gid {
				highest = max(highest, x.role)
			}
		}
	}
	return highest
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

// must refuses a caller with less than a role.
func (c caller) must(least role, what string) error {
	if c.role >= least {
		return nil
	}
	e := problem.New(problem.CodeForbidden, "%s: that takes the role %s, and %s is %s", what, least, c.name, c.role)
	if c.remote {
		return e.Advise("a certificate of that role", "see docs/security.md")
	}
	return e.Advise("as root", "sudo poolctl …")
}

// mustOperate refuses what only operators do.
func (c caller) mustOperate(what string) error { return c.must(operator, what) }

// mustBeLocal refuses what names a process of this machine for who is elsewhere.
func (c caller) mustBeLocal(what string) error {
	if !c.remote {
		return nil
	}
	return problem.New(problem.CodeInvalid, "%s: you came over TCP, and a process is this machine's own affair", what).
		Note("hold by time instead, and renew it: hold kind ttl").
		Advise("on that machine", "poolctl --agent unix:///PATH …")
}
