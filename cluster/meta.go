package cluster

import (
	"context"
	"fmt"

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
)

// Meta is the record that every grant compares: the cluster's incarnation and
// whether it may grant.
type Meta struct {
	V int `json:"v"`
	// Epoch is a random uuid, made at bootstrap and at every adopted restore.
	Epoch string `json:"epoch"`
	// Number counts epochs from 1.
	Number uint64 `json:"number"`
	// State is "normal", or "recovering" while nodes re-assert what they hold.
	State string `json:"state"`
}

// DecodeMeta reads a Meta and refuses one that does not make sense, as a
// [problem.CodeInvalid].
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
	if m.State != StateNormal && m.State != StateRecovering {
		return Meta{}, problem.New(problem.CodeInvalid, "meta: state %.60q is neither %s nor %s: upgrade", m.State, StateNormal, StateRecovering)
	}
	return m, nil
}

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
	value := string(Encode(Meta{V: MetaFormat, Epoch: uuid.NewString(), Number: 1, State: StateNormal}))
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
		_, err = c.Commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(key, value)}, nil)
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
