package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/problem"
)

// MetaFormat is the format number of [Meta], and of the tree as a whole.
const MetaFormat = 1

// States of [Meta].
const (
	StateNormal     = "normal"
	StateRecovering = "recovering"
	// StateImporting is of a root that an import has not filled yet. Nobody but the
	// import reads such a record.
	StateImporting = "importing"
)

// Meta is the record that every grant compares: the cluster's incarnation and
// whether it may grant.
type Meta struct {
	V int `json:"v"`
	// Epoch is a random uuid, made at bootstrap and at every adopted restore.
	Epoch string `json:"epoch"`
	// Number counts epochs from 1.
	Number uint64 `json:"number"`
	// State is "normal", or "recovering": frozen by a node that saw etcd go back in
	// time, and then, once Adopted, while nodes re-assert what they hold.
	State string `json:"state"`
	// Lead is how far the revision was ahead of the raft index when this epoch began.
	// It never grows in one history of etcd, since each revision takes an entry; a
	// restore starts the index anew and keeps the revision.
	Lead int64 `json:"lead,omitempty"`
	// Reason, By and Since tell why, by whom and since when the state is not normal.
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	// Adopted: an operator has begun this epoch over a restored etcd.
	Adopted bool `json:"adopted,omitempty"`
	// Base is a revision whose state the restored etcd had in full; 0 before the
	// first adoption.
	Base int64 `json:"base,omitempty"`
	// Imported is the revision up to which the keys of this etcd came from an export:
	// in its history they are as new as Base. 0 where etcd's own revisions count.
	Imported int64 `json:"imported,omitempty"`
	// Import is the SHA-256 of the file of an import that is under way, in hex.
	Import string `json:"import,omitempty"`
	// Through is the revision of the epoch before, up to which a node that spoke in the
	// adoption had seen everything: what the adoption lacks of it was over by then. 0
	// where none had.
	Through int64 `json:"through,omitempty"`
	// Previous are the epochs before, the latest last, at most [MaxPrevious].
	Previous []Epoch `json:"previous,omitempty"`
	// Expect names nodes that are waited for although etcd knows none of that name.
	Expect []string `json:"expect,omitempty"`
}

// Epoch names one incarnation of a cluster.
type Epoch struct {
	Epoch  string `json:"epoch"`
	Number uint64 `json:"number"`
}

// MaxPrevious is how many earlier epochs a record keeps.
const MaxPrevious = 16

// maxExpect bounds the nodes that one adoption can name.
const maxExpect = 4096

// Follows tells whether epoch is one before this one, as far as the record knows.
func (m Meta) Follows(epoch string) bool {
	return slices.ContainsFunc(m.Previous, func(e Epoch) bool { return e.Epoch == epoch })
}

// Restored is the number of the epoch that a restored etcd had: of the one before
// this one.
func (m Meta) Restored() uint64 {
	if n := len(m.Previous); n > 0 {
		return m.Previous[n-1].Number
	}
	return 0
}

// Rev is the revision of what stands in etcd with a mod revision, in the history that
// nodes remember: of what was imported, at most Base.
func (m Meta) Rev(modRev int64) int64 {
	if modRev <= m.Imported {
		return m.Base
	}
	return modRev
}

// DecodeMeta reads a Meta and refuses one that does not make sense, as a
// [problem.CodeInvalid]; and one of an import that has not ended, as a
// [problem.CodeUnavailable].
func DecodeMeta(data []byte) (Meta, error) {
	var m Meta
	if err := Decode(data, MetaFormat, &m); err != nil {
		return Meta{}, fmt.Errorf("meta: %w", err)
	}
	if _, err := uuid.Parse(m.Epoch); err != nil {
		return Meta{}, problem.Wrap(problem.CodeInvalid, err, "meta: epoch %.60q", m.Epoch)
	}
	if m.Number == 0 {
		return Meta{}, problem.New(problem.CodeInvalid, "meta: epoch number is missing")
	}
	if m.State == StateImporting {
		return Meta{}, problem.New(problem.CodeUnavailable, "meta: an import has not ended (begun by %.60q): run the same poolctl cluster import again", m.By)
	}
	if m.State != StateNormal && m.State != StateRecovering {
		return Meta{}, problem.New(problem.CodeInvalid, "meta: state %.60q is neither %s nor %s: upgrade", m.State, StateNormal, StateRecovering)
	}
	return m, m.bounds()
}

// bounds refuses what no version writes.
func (m Meta) bounds() error {
	switch {
	case m.Lead < 0 || m.Base < 0 || m.Imported < 0 || m.Through < 0 || len(m.Previous) > MaxPrevious || len(m.Expect) > maxExpect || len(m.Reason) > maxReason || len(m.By) > maxReason:
		return problem.New(problem.CodeInvalid, "meta: a number below 0, or more than a record holds")
	case m.State == StateNormal && m.Adopted:
		return problem.New(problem.CodeInvalid, "meta: adopted and normal at once")
	}
	for _, e := range m.Previous {
		if _, err := uuid.Parse(e.Epoch); err != nil || e.Number == 0 {
			return problem.New(problem.CodeInvalid, "meta: previous epoch %.60q, %d", e.Epoch, e.Number)
		}
	}
	for _, name := range m.Expect {
		if err := ValidName(name); err != nil {
			return problem.Wrap(problem.CodeInvalid, err, "meta: expected node")
		}
	}
	return nil
}

// maxReason bounds what a record says in words, in bytes.
const maxReason = 1024

// ReadMeta reads the record and its raw bytes, which transactions compare. The
// error is a [problem.CodeNotFound] where nobody has bootstrapped this root, a
// [problem.CodeInvalid] for a format this version does not read, or that of
// [Client.Read].
func (c *Client) ReadMeta(ctx context.Context) (Meta, []byte, error) {
	resp, err := c.Read(ctx, clientv3.OpGet(c.keys.Meta()))
	if err != nil {
		return Meta{}, nil, fmt.Errorf("meta: %w", err)
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return Meta{}, nil, problem.New(problem.CodeNotFound, "etcd holds no idpool data below %s", c.keys.Root())
	}
	m, err := DecodeMeta(kvs[0].Value)
	return m, kvs[0].Value, err
}

// EnsureMeta reads the record, making the first epoch where there is none, and
// returns it with its raw bytes. All that call it at once get the same epoch.
// An unknown outcome is settled by reading again, within Config.Budget; what is
// left after it is the [*OutcomeError] of the last write.
func (c *Client) EnsureMeta(ctx context.Context) (Meta, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Budget)
	defer cancel()
	key := c.keys.Meta()
	first := Meta{V: MetaFormat, Epoch: uuid.NewString(), Number: 1, State: StateNormal}
	var wait Backoff
	var last error
	for {
		m, raw, err := c.ReadMeta(ctx)
		if err == nil || problem.CodeOf(err) != problem.CodeNotFound {
			if last != nil && problem.CodeOf(err) == problem.CodeUnavailable {
				err = last
			}
			return m, raw, err
		}
		if first.Lead, err = c.Lead(ctx); err != nil {
			return Meta{}, nil, fmt.Errorf("meta: make the first epoch: %w", err)
		}
		_, err = c.Commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(key, string(Encode(first)))}, nil)
		switch {
		case IsPermissionDenied(err):
			return Meta{}, nil, problem.Wrap(problem.CodeForbidden, err, "meta: make the first epoch below %s", c.keys.Root())
		case err == nil:
			continue
		case last == nil || Classify(last) == NotDone:
			last = fmt.Errorf("meta: make the first epoch: %w", err)
		}
		if wait.Wait(ctx) != nil {
			return Meta{}, nil, last
		}
	}
}
