package rbac

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// probeUser exists while authentication is being switched on: it alone has a
// password, with which that is taken back where certificates name nobody.
const probeUser = "idpool-auth-probe"

// Read reads what etcd has: users, roles and registered nodes. With authentication on
// only etcd's administrator may; others get a [problem.CodeForbidden].
func Read(ctx context.Context, c *cluster.Client) (State, error) {
	have := State{Roles: map[string][]Permission{}, Users: map[string][]string{}}
	ctx, cancel := context.WithTimeout(ctx, c.Config().Budget)
	defer cancel()
	auth := c.Txn().Auth
	status, err := auth.AuthStatus(ctx)
	if err != nil {
		return have, told(err, "ask etcd whether authentication is on")
	}
	have.Enabled = status.Enabled
	roles, err := auth.RoleList(ctx)
	if err != nil {
		return have, told(err, "list etcd's roles")
	}
	for _, name := range roles.Roles {
		role, err := auth.RoleGet(ctx, name)
		if err != nil {
			return have, told(err, "read etcd's role "+name)
		}
		have.Roles[name] = []Permission{}
		for _, p := range role.Perm {
			have.Roles[name] = append(have.Roles[name], Permission{Type: clientv3.PermissionType(p.PermType), Key: string(p.Key), End: string(p.RangeEnd)})
		}
	}
	users, err := auth.UserList(ctx)
	if err != nil {
		return have, told(err, "list etcd's users")
	}
	for _, name := range users.Users {
		user, err := auth.UserGet(ctx, name)
		if err != nil {
			return have, told(err, "read etcd's user "+name)
		}
		have.Users[name] = user.Roles
	}
	nodes, err := c.Read(ctx, clientv3.OpGet(c.Keys().Nodes(), clientv3.WithPrefix(), clientv3.WithKeysOnly()))
	if err != nil {
		return have, err
	}
	for _, kv := range nodes.Responses[0].GetResponseRange().Kvs {
		if key, err := c.Keys().Parse(string(kv.Key)); err == nil {
			have.Nodes = append(have.Nodes, key.Name)
		}
	}
	return have, nil
}

func told(err error, what string) error {
	if cluster.IsPermissionDenied(err) {
		return problem.Wrap(problem.CodeForbidden, err, "%s", what)
	}
	return problem.Wrap(problem.CodeUnavailable, err, "%s", what)
}

// Apply carries out the steps of a plan, telling done each. Authentication, if it is
// to be switched on, is at once proven at every endpoint with the client's own
// certificate, and switched off again where that names nobody: a
// [problem.CodePrecondition] then, and users and roles stay.
func Apply(ctx context.Context, c *cluster.Client, steps []Step, done func(Step)) error {
	for _, s := range steps {
		if err := apply(ctx, c, s); err != nil {
			return err
		}
		done(s)
	}
	return nil
}

func apply(ctx context.Context, c *cluster.Client, s Step) error {
	if s.deed == enableAuth {
		return enable(ctx, c)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Config().Budget)
	defer cancel()
	auth, p := c.Txn().Auth, s.permission
	var err error
	switch s.deed {
	case addRole:
		_, err = auth.RoleAdd(ctx, s.role)
	case grantPermission:
		_, err = auth.RoleGrantPermission(ctx, s.role, p.Key, p.End, p.Type)
	case revokePermission:
		_, err = auth.RoleRevokePermission(ctx, s.role, p.Key, p.End)
	case addUser:
		_, err = auth.UserAddWithOptions(ctx, s.user, "", &clientv3.UserAddOptions{NoPassword: true})
	case grantRole:
		_, err = auth.UserGrantRole(ctx, s.user, s.role)
	}
	if err == nil || errors.Is(err, rpctypes.ErrUserAlreadyExist) || errors.Is(err, rpctypes.ErrRoleAlreadyExist) || errors.Is(err, rpctypes.ErrPermissionNotGranted) {
		return nil // done, by somebody else or by an attempt without an answer
	}
	return told(err, s.Command())
}

// enable switches authentication on, with a way back.
func enable(ctx context.Context, c *cluster.Client) error {
	if err := everybodyNamed(ctx, c); err != nil {
		return err
	}
	password := uuid.NewString()
	budget, cancel := context.WithTimeout(ctx, c.Config().Budget)
	defer cancel()
	auth := c.Txn().Auth
	// One may be left of a run that was cut short, with another password.
	if err := removeProbe(budget, c); err != nil {
		return err
	}
	if _, err := auth.UserAdd(budget, probeUser, password); err != nil {
		return told(err, "add etcd's user "+probeUser)
	}
	if _, err := auth.UserGrantRole(budget, probeUser, rootRole); err != nil {
		return told(err, "give etcd's user "+probeUser+" its role")
	}
	if _, err := auth.AuthEnable(budget); err != nil {
		return told(err, "etcdctl auth enable")
	}
	if err := proven(ctx, c); err != nil {
		return takenBack(ctx, c, password, err)
	}
	return removeProbe(budget, c)
}

func removeProbe(ctx context.Context, c *cluster.Client) error {
	if _, err := c.Txn().UserDelete(ctx, probeUser); err != nil && !errors.Is(err, rpctypes.ErrUserNotFound) {
		return told(err, "delete etcd's user "+probeUser)
	}
	return nil
}

// everybodyNamed refuses a member that clients reach without a certificate: they
// would all be locked out there, an embedded server's own agent among them.
func everybodyNamed(ctx context.Context, c *cluster.Client) error {
	attempt, cancel := context.WithTimeout(ctx, c.Config().Budget)
	defer cancel()
	list, err := c.Txn().MemberList(attempt)
	if err != nil {
		return told(err, "list etcd's members")
	}
	for _, m := range list.Members {
		for _, u := range m.ClientURLs {
			if !strings.HasPrefix(u, "https://") {
				return problem.New(problem.CodePrecondition, "authentication stays off: member %s serves clients at %s, where they show no certificate and would be locked out", m.Name, u).
					Note("users and roles were made, and mean nothing while it is off").
					Note("an etcd embedded in an agent cannot have it: its agent comes over a socket")
			}
		}
	}
	return nil
}

// proven tells whether our certificate names us at every endpoint. A member may be a
// moment behind, so it is asked until the budget is over.
func proven(ctx context.Context, c *cluster.Client) error {
	ctx, cancel := context.WithTimeout(ctx, c.Config().Budget/2)
	defer cancel()
	var wait cluster.Backoff
	for {
		err := provenOnce(ctx, c)
		if err == nil || wait.Wait(ctx) != nil {
			return err
		}
	}
}

func provenOnce(ctx context.Context, c *cluster.Client) error {
	attempt, cancel := context.WithTimeout(ctx, c.Config().Attempt)
	defer cancel()
	for _, e := range c.Config().Endpoints {
		if _, err := c.Txn().Status(attempt, e); err != nil {
			return problem.Wrap(problem.CodeForbidden, err, "etcd at %s", e)
		}
	}
	_, err := c.Txn().UserList(attempt) // the administrator's alone
	return err
}

// takenBack switches authentication off again, as the user with a password.
func takenBack(ctx context.Context, c *cluster.Client, password string, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Config().Budget)
	defer cancel()
	auth := c.Txn().Auth
	var wait cluster.Backoff
	for {
		err := func() error {
			in, err := auth.Authenticate(ctx, probeUser, password)
			if err != nil {
				return err
			}
			_, err = auth.AuthDisable(metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, in.Token))
			return err
		}()
		if err == nil || errors.Is(err, rpctypes.ErrAuthNotEnabled) {
			break
		}
		if wait.Wait(ctx) != nil {
			return problem.Wrap(problem.CodeOutcomeUnknown, err, "authentication was switched on, our certificate names nobody there (%v), and switching it off again", why)
		}
	}
	_ = removeProbe(ctx, c)
	return problem.New(problem.CodePrecondition, "authentication was switched on, and off again: our certificate names nobody there: %v", why).
		Note("does every member run with --client-cert-auth and --trusted-ca-file?")
}
