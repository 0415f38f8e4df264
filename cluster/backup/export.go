package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// exportPage is how many keys one request asks for.
const exportPage = 500

// ExportOptions say what is exported.
type ExportOptions struct {
	Options
	// Only is "" for everything, or [OnlyPools].
	Only string
}

// Exported says what an export holds.
type Exported struct {
	File   string `json:"file,omitempty"`
	Header Header `json:"header"`
	Keys   int    `json:"keys"`
	SHA256 string `json:"sha256"`
}

// ExportFile is [Export] into a file, whole or not at all.
func ExportFile(ctx context.Context, c *cluster.Client, file string, opts ExportOptions) (Exported, error) {
	d, err := newDraft(file, opts.Force, c.Config().Seam)
	if err != nil {
		return Exported{}, err
	}
	defer d.end()
	out, err := Export(ctx, c, d, opts)
	var onDisk *os.PathError
	switch {
	case errors.As(err, &onDisk):
		return Exported{}, d.unwritten(err)
	case err != nil:
		return Exported{}, fmt.Errorf("%s not written: %w", file, err)
	}
	out.File = file
	return out, d.publish()
}

// Export writes the records below the root, all as they stood at one revision, as
// docs/export.md describes it. A cluster that is being recovered is exported with
// [OnlyPools] alone: what it holds is not known in full.
func Export(ctx context.Context, c *cluster.Client, w io.Writer, opts ExportOptions) (Exported, error) {
	x, err := beginExport(ctx, c, opts)
	if err != nil {
		return Exported{}, err
	}
	if err := x.count(ctx); err != nil {
		return Exported{}, err
	}
	e, err := newEncoder(w, x.head)
	if err != nil {
		return Exported{}, err
	}
	total := int64(0)
	for _, n := range x.head.Counts {
		total += int64(n)
	}
	err = x.each(ctx, func(key string, kind cluster.Kind, kv *mvccpb.KeyValue) error {
		if !x.carries(kind, kv) {
			return nil
		}
		if opts.Progress != nil {
			opts.Progress(int64(e.keys)+1, total)
		}
		return e.put(Entry{key, kv.Value})
	})
	if err != nil {
		return Exported{}, err
	}
	sum, err := e.end()
	return Exported{Header: x.head, Keys: e.keys, SHA256: sum}, err
}

// export is one under way.
type export struct {
	c    *cluster.Client
	only string
	// at is the revision that all is read at, id the cluster's.
	at   int64
	id   uint64
	head Header
}

func beginExport(ctx context.Context, c *cluster.Client, opts ExportOptions) (*export, error) {
	if opts.Only != "" && opts.Only != OnlyPools {
		return nil, problem.New(problem.CodeInvalid, "an export of %.60q alone cannot be made: use %s", opts.Only, OnlyPools)
	}
	resp, err := c.Read(ctx, clientv3.OpGet(c.Keys().Meta()))
	if err != nil {
		return nil, err
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return nil, problem.New(problem.CodeNotFound, "etcd holds no idpool data below %s", c.Keys().Root()).Advise("name another root", "--root /…/")
	}
	meta, err := cluster.DecodeMeta(kvs[0].Value)
	if err != nil {
		return nil, err
	}
	if meta.State != cluster.StateNormal && opts.Only == "" {
		return nil, problem.New(problem.CodeFrozen, "nothing exported: the cluster is %s, and what its nodes hold is not all in etcd", meta.State).
			Advise("bring it back first", "poolctl cluster adopt-restore").
			Advise("or export definitions alone", "--only pools").
			Advise("or save etcd as it is", "poolctl cluster snapshot FILE")
	}
	x := &export{c: c, only: opts.Only, at: resp.Header.Revision, id: resp.Header.ClusterId}
	x.head = Header{
		IDPool: exportName, V: exportFormat, Only: opts.Only, Root: c.Keys().Root(),
		Epoch: meta.Epoch, Number: meta.Number, Previous: meta.Previous, Counts: map[string]int{},
	}
	if x.only == "" {
		now := time.Now().UTC().Truncate(time.Second)
		x.head.Revision, x.head.Cluster, x.head.When, x.head.LeftOut = x.at, fmt.Sprintf("%x", x.id), &now, map[string]int{}
	}
	return x, nil
}

// count makes the header, which stands before what it counts: all is read twice
// instead of being kept. (A list of keys alone would not tell their leases.)
func (x *export) count(ctx context.Context) error {
	x.head.Revision = max(x.head.Revision, 1)
	return x.each(ctx, func(_ string, kind cluster.Kind, kv *mvccpb.KeyValue) error {
		switch {
		case x.carries(kind, kv):
			x.head.Revision = max(x.head.Revision, kv.ModRevision)
			x.head.Counts[kind.String()]++
		case x.only == "" && kind != cluster.KindMeta:
			x.head.LeftOut[kind.String()]++
		}
		return nil
	})
}

func (x *export) carries(kind cluster.Kind, kv *mvccpb.KeyValue) bool {
	return carried(kind, x.only) && kv.Lease == 0
}

// each visits all keys, in order.
func (x *export) each(ctx context.Context, visit func(key string, kind cluster.Kind, kv *mvccpb.KeyValue) error) error {
	k := x.c.Keys()
	from := k.Root()
	if x.only == OnlyPools {
		from = k.PoolsPrefix()
	}
	end := clientv3.GetPrefixRangeEnd(from)
	for {
		resp, err := x.page(ctx, from, end)
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			at, _ := k.Parse(string(kv.Key)) // of an error: unknown
			if err := visit(strings.TrimPrefix(string(kv.Key), k.Root()), at.Kind, kv); err != nil {
				return err
			}
		}
		if !resp.More {
			return nil
		}
		from = string(slices.Concat(resp.Kvs[len(resp.Kvs)-1].Key, []byte{0}))
	}
}

// page reads one page, repeating it within the budget.
func (x *export) page(ctx context.Context, from, end string) (*clientv3.GetResponse, error) {
	cfg := x.c.Config()
	budget, cancel := context.WithTimeout(ctx, cfg.Budget)
	defer cancel()
	opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(exportPage), clientv3.WithRev(x.at)}
	var wait cluster.Backoff
	for {
		attempt, cancel := context.WithTimeout(clientv3.WithRequireLeader(budget), 2*cfg.Attempt)
		resp, err := x.c.Watch().Get(attempt, from, opts...)
		cancel()
		switch {
		case err == nil && resp.Header.ClusterId != x.id:
			return nil, problem.New(problem.CodeUnavailable, "etcd is another cluster now, %x after %x: run it again", resp.Header.ClusterId, x.id)
		case err == nil:
			return resp, nil
		case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
			return nil, problem.New(problem.CodeUnavailable, "etcd has not kept revision %d (%v): run it again", x.at, err)
		case cluster.IsPermissionDenied(err):
			return nil, problem.Wrap(problem.CodeForbidden, err, "read from etcd")
		}
		if wait.Wait(budget) != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return nil, problem.Wrap(problem.CodeUnavailable, err, "read from etcd at %v", cfg.Endpoints)
		}
	}
}
