package leases

import (
	"slices"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// The functions below read records from untrusted bytes. What they return keeps
// the bounds that the engine counts on, and belongs where it stood.

// misfitting is the refusal of a record that can be read and makes no sense.
func misfitting(format string, args ...any) error {
	return problem.New(problem.CodeInvalid, format, args...)
}

// placed refuses a record that says that it is of another thing. Records of
// earlier builds say nothing.
func placed(of, here string) error {
	if of != "" && of != here {
		return misfitting("it is the record of %.100q, not of %s", of, here)
	}
	return nil
}

// tooLong refuses texts beyond what a record may carry.
func tooLong(texts ...string) error {
	for _, t := range texts {
		if len(t) > maxText {
			return misfitting("a text of %d bytes, %.20q…: at most %d are read", len(t), t, maxText)
		}
	}
	return nil
}

// validIn tells whether an id can stand in its space.
func (r Ref) validIn() error {
	if err := r.Space.Valid(); err != nil {
		return err
	}
	if r.vlan() && (r.ID < minVLAN || r.ID > maxVLAN) {
		return misfitting("%d is no VLAN: want %d to %d", r.ID, minVLAN, maxVLAN)
	}
	return nil
}

func decodeClaim(ref Ref, data []byte) (*Claim, error) {
	var c Claim
	if err := cluster.Decode(data, format, &c); err != nil {
		return nil, err
	}
	if err := c.check(ref); err != nil {
		return nil, err
	}
	return &c, nil
}

func (c *Claim) check(ref Ref) error {
	if err := placed(c.Of, ref.String()); err != nil {
		return err
	}
	if err := ref.validIn(); err != nil {
		return err
	}
	switch c.State {
	case Locked, Used, Idle, Quarantined, Reserved:
	default:
		return misfitting("claim in unknown state %.60q", string(c.State))
	}
	switch {
	case c.Token == "" || len(c.Nodes) > maxNodes:
		return misfitting("claim without token, or with %d nodes", len(c.Nodes))
	case c.Count == 0 || c.Count > maxBlock || c.Count&(c.Count-1) != 0 || ref.ID%c.Count != 0:
		return misfitting("claim of %d ids from %d on: want a power of two, and a multiple of it", c.Count, ref.ID)
	case ref.vlan() && c.Count != 1:
		return misfitting("claim of %d VLANs", c.Count)
	}
	for i := range c.Nodes {
		if err := c.Nodes[i].check(); err != nil {
			return err
		}
		if slices.ContainsFunc(c.Nodes[:i], func(p Presence) bool { return p.Node == c.Nodes[i].Node }) {
			return misfitting("claim names node %s twice", c.Nodes[i].Node)
		}
	}
	return tooLong(c.Pool, c.Caller, c.Holder, c.Key, c.Service, c.Attribute, c.Token, c.Epoch, c.ReasonCode, c.Reason, c.Write)
}

func (p *Presence) check() error {
	if err := cluster.ValidName(p.Node); err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "claim names a node")
	}
	if len(p.Requesters) > 2*maxRequesters { // a keep comes on top of a full list
		return misfitting("claim with %d requesters on %s: at most %d", len(p.Requesters), p.Node, 2*maxRequesters)
	}
	for _, r := range p.Requesters {
		if r.ID == "" || (r.Hold != HoldTTL && r.Hold != HoldPID && r.Hold != HoldConn && r.Hold != HoldNone) || r.PID < 0 || r.Session < 0 {
			return misfitting("claim with requester %.60q of unknown hold %.60q on %s", r.ID, r.Hold, p.Node)
		}
		if err := tooLong(r.ID); err != nil {
			return err
		}
	}
	return tooLong(p.Boot)
}

// decodeRecord reads a grant record that stands at a caller's name of a request.
func decodeRecord(caller, name string, data []byte) (*Record, error) {
	var r Record
	if err := cluster.Decode(data, format, &r); err != nil {
		return nil, err
	}
	switch {
	case r.Token == "" || len(r.IDs) == 0 || len(r.IDs) > MaxGroup:
		return nil, misfitting("grant record without token or with %d ids", len(r.IDs))
	case r.Caller != caller || recordName(r.Key, r.Token) != name:
		return nil, misfitting("it is the record of caller %.60q and %.60q, not of %.60q and %.60q", r.Caller, recordName(r.Key, r.Token), caller, name)
	}
	for i, ref := range r.IDs {
		if err := ref.validIn(); err != nil {
			return nil, err
		}
		if slices.Contains(r.IDs[:i], ref) {
			return nil, misfitting("grant record lists %s twice", ref)
		}
	}
	return &r, tooLong(r.Digest, r.Request, r.Token, r.Epoch, r.Write)
}

func decodeNode(name string, data []byte) (*Node, error) {
	var n Node
	if err := cluster.Decode(data, format, &n); err != nil {
		return nil, err
	}
	if err := placed(n.Of, name); err != nil {
		return nil, err
	}
	switch {
	case n.State != nodeActive && n.State != nodeLeft && n.State != nodeFenced:
		return nil, misfitting("node in unknown state %.60q", n.State)
	case n.Role != "" && n.Role != RoleNode && n.Role != RoleGateway:
		return nil, misfitting("node of unknown role %.60q", n.Role)
	case n.Machine == "" || n.Boot == "":
		return nil, misfitting("node without machine or boot")
	}
	return &n, tooLong(n.Machine, n.Boot, n.Secret, n.Reason, n.FencedBoot, n.Epoch, n.Write)
}

func decodeAlive(name string, data []byte) (*Alive, error) {
	var a Alive
	if err := cluster.Decode(data, format, &a); err != nil {
		return nil, err
	}
	if err := placed(a.Of, name); err != nil {
		return nil, err
	}
	if a.Nonce == "" || a.Counter == 0 || a.Machine == "" || a.Secret == "" {
		return nil, misfitting("presence without nonce, counter, machine or secret")
	}
	return &a, tooLong(a.Nonce, a.Machine, a.Secret, a.Version, a.Address, a.NoProof)
}

func decodeMembers(data []byte) error {
	var m Members
	return cluster.Decode(data, format, &m)
}

// decodeIndex reads the key that every change of a pool rewrites.
func decodeIndex(data []byte) error {
	var i struct {
		Write string `json:"w"`
	}
	return cluster.Decode(data, format, &i)
}

func decodeProof(name string, data []byte) (*Proof, error) {
	var p Proof
	if err := cluster.Decode(data, format, &p); err != nil {
		return nil, err
	}
	if err := placed(p.Of, name); err != nil {
		return nil, err
	}
	if p.Epoch == "" || p.Boot == "" || p.Machine == "" || p.Revision < 0 {
		return nil, misfitting("report without epoch, boot or machine, or of revision %d", p.Revision)
	}
	for space := range p.InUse {
		if err := space.Valid(); err != nil {
			return nil, err
		}
	}
	for _, text := range p.Left {
		if err := tooLong(text); err != nil {
			return nil, err
		}
	}
	return &p, tooLong(p.Epoch, p.Boot, p.Machine, p.Write)
}

func decodePool(name string, data []byte) (*Pool, error) {
	var p Pool
	if err := cluster.Decode(data, format, &p); err != nil {
		return nil, err
	}
	if err := placed(p.Of, name); err != nil {
		return nil, err
	}
	if err := p.check(name); err != nil {
		return nil, err
	}
	return &p, nil
}

// decodeToken reads what a lock holds: a random name, printable.
func decodeToken(what string, data []byte) (string, error) {
	if err := cluster.ValidText(what, string(data)); err != nil {
		return "", err
	}
	for _, c := range data {
		if c < ' ' || c > '~' {
			return "", misfitting("%s %.60q is no name that an agent writes", what, data)
		}
	}
	return string(data), nil
}

// decodeReaper reads the name of the node that has the reaper's lock.
func decodeReaper(data []byte) (string, error) {
	return string(data), cluster.ValidName(string(data))
}
