package rbac

import (
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/problem"
)

// rootRole is etcd's own role that may do everything.
const rootRole = "root"

// Wish is who shall have which rights.
type Wish struct {
	// Root is the prefix of the cluster's keys.
	Root string
	// Users are names of certificates by kind: pki.Agent, pki.Observer, pki.Backup.
	Users map[pki.Kind][]string
}

// Kinds are those with rights in etcd, besides its administrator.
var Kinds = []pki.Kind{pki.Agent, pki.Observer, pki.Backup}

// Permission is one of a role's.
type Permission struct {
	Type clientv3.PermissionType
	// Key and End are a range as etcd has it; End is "" for one key.
	Key, End string
}

// word is the permission's kind as etcdctl takes it.
func (p Permission) word() string {
	if p.Type == clientv3.PermissionType(clientv3.PermRead) {
		return "read"
	}
	return "readwrite"
}

// State is what etcd has.
type State struct {
	// Enabled tells that authentication is on.
	Enabled bool
	Roles   map[string][]Permission
	// Users are their roles by name.
	Users map[string][]string
	// Nodes are those registered below the root.
	Nodes []string
}

// deed is a kind of step.
type deed int

const (
	addRole deed = iota
	grantPermission
	revokePermission
	addUser
	grantRole
	enableAuth
)

// Step is one change in etcd.
type Step struct {
	deed       deed
	user, role string
	permission Permission
}

// Command is the step as etcdctl takes it.
func (s Step) Command() string {
	p := s.permission
	switch s.deed {
	case addRole:
		return "etcdctl role add " + quote(s.role)
	case grantPermission:
		return "etcdctl role grant-permission --prefix " + quote(s.role) + " " + p.word() + " " + quote(p.Key)
	case revokePermission:
		out := "etcdctl role revoke-permission " + quote(s.role) + " " + quote(p.Key)
		if p.End != "" {
			out += " " + quote(p.End)
		}
		return out
	case addUser:
		return "etcdctl user add --no-password " + quote(s.user)
	case grantRole:
		return "etcdctl user grant-role " + quote(s.user) + " " + quote(s.role)
	}
	return "etcdctl auth enable"
}

// quote is a word as a shell reads it.
func quote(s string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("._-/:@", r) || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// RoleOf is the name of a kind's role. Clusters with a root of their own have roles
// of their own.
func RoleOf(kind pki.Kind, root string) string {
	switch {
	case kind == pki.Backup || kind == pki.Root:
		return rootRole
	case root == cluster.DefaultRoot:
		return "idpool-" + string(kind)
	}
	return "idpool-" + string(kind) + ":" + root
}

// permissionOf is the one permission of a kind's role.
func permissionOf(kind pki.Kind, root string) Permission {
	p := Permission{Type: clientv3.PermissionType(clientv3.PermRead), Key: root, End: clientv3.GetPrefixRangeEnd(root)}
	if kind == pki.Agent {
		p.Type = clientv3.PermissionType(clientv3.PermReadWrite)
	}
	return p
}

// Validate reports what can never be wished for, as a [problem.CodeInvalid].
func (w Wish) Validate() error {
	if _, err := cluster.NewKeys(w.Root); err != nil {
		return err
	}
	kinds := map[string]pki.Kind{}
	for _, k := range Kinds {
		for _, name := range w.Users[k] {
			if err := cluster.ValidName(name); err != nil {
				return problem.New(problem.CodeInvalid, "%s: %v", k, err)
			}
			if name == pki.RootName || name == probeUser {
				return problem.New(problem.CodeInvalid, "%s %s: that user is etcd's administrator, or this command's: use another name", k, name)
			}
			if before, again := kinds[name]; again {
				return problem.New(problem.CodeInvalid, "%s is named as %s and as %s: a user is one certificate's", name, before, k)
			}
			kinds[name] = k
		}
	}
	return nil
}

// Plan is what etcd lacks, in the order in which it can be done. Roles of the house
// get exactly their permission; users keep roles that are not of the house. A user
// that has another kind's role is a [problem.CodeHeld].
func Plan(w Wish, have State) ([]Step, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	var steps []Step
	for _, k := range []pki.Kind{pki.Agent, pki.Observer} {
		steps = append(steps, planRole(RoleOf(k, w.Root), permissionOf(k, w.Root), have)...)
	}
	steps = append(steps, planUser(pki.RootName, rootRole, have)...)
	for _, k := range Kinds {
		role := RoleOf(k, w.Root)
		for _, name := range w.Users[k] {
			if other := otherRole(have.Users[name], role, w.Root); other != "" {
				return nil, problem.New(problem.CodeHeld, "%s %s: user %s has role %s in etcd, which is another kind's", k, name, name, other).
					Note("nothing was changed").Advise("to take it away", "etcdctl user revoke-role %s %s", quote(name), quote(other))
			}
			steps = append(steps, planUser(name, role, have)...)
		}
	}
	if !have.Enabled {
		steps = append(steps, Step{deed: enableAuth})
	}
	return steps, nil
}

func planRole(role string, want Permission, have State) []Step {
	var steps []Step
	held, there := have.Roles[role]
	if !there {
		steps = append(steps, Step{deed: addRole, role: role})
	}
	if !slices.Contains(held, want) {
		steps = append(steps, Step{deed: grantPermission, role: role, permission: want})
	}
	for _, p := range held {
		if p.Key != want.Key || p.End != want.End {
			steps = append(steps, Step{deed: revokePermission, role: role, permission: p})
		}
	}
	return steps
}

func planUser(name, role string, have State) []Step {
	var steps []Step
	roles, there := have.Users[name]
	if !there {
		steps = append(steps, Step{deed: addUser, user: name})
	}
	if !slices.Contains(roles, role) {
		steps = append(steps, Step{deed: grantRole, user: name, role: role})
	}
	return steps
}

// otherRole is a role of the house that is not the wanted one, of the same root.
func otherRole(roles []string, want, root string) string {
	for _, k := range Kinds {
		if r := RoleOf(k, root); r != want && slices.Contains(roles, r) {
			return r
		}
	}
	return ""
}

// LockedOut are registered nodes of which no user of that name may write, once the
// wish is fulfilled: their agents cannot go on, unless their certificates have other
// names.
func LockedOut(w Wish, have State) []string {
	role := RoleOf(pki.Agent, w.Root)
	may := map[string]bool{}
	for _, name := range w.Users[pki.Agent] {
		may[name] = true
	}
	for name, roles := range have.Users {
		may[name] = may[name] || slices.Contains(roles, role) || slices.Contains(roles, rootRole)
	}
	maps.DeleteFunc(may, func(_ string, ok bool) bool { return !ok })
	return slices.DeleteFunc(slices.Clone(have.Nodes), func(n string) bool { return may[n] })
}
