package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

const (
	// batchKeys and batchBytes bound one transaction; etcd takes 128 operations and
	// 1.5 MiB.
	batchKeys  = 100
	batchBytes = 512 << 10
	// inFlight is how many transactions are under way at once.
	inFlight = 4
)

// ImportOptions change how a file is imported.
type ImportOptions struct {
	// By is who does it, for those who meet an import that has not ended.
	By string
	// Progress, if set, is told how many keys stand there, of how many; from any
	// goroutine, one call at a time.
	Progress func(done, total int64)
}

// Imported says what an import has made.
type Imported struct {
	Exported
	// Root is where it stands now, Meta the record that makes it count.
	Root string       `json:"root"`
	Meta cluster.Meta `json:"meta"`
	// Resumed: an import of the same file had begun before.
	Resumed bool `json:"resumed,omitempty"`
}

// Verify reads an export to its end. The error names the line.
func Verify(r io.Reader) (Exported, error) {
	d, err := NewDecoder(r)
	if err != nil {
		return Exported{}, err
	}
	for n := 0; ; n++ {
		switch _, err := d.Next(); {
		case errors.Is(err, io.EOF):
			return Exported{Header: d.Header, Keys: n, SHA256: d.sum}, nil
		case err != nil:
			return Exported{}, err
		}
	}
}

// Import fills an empty root with an export, which it reads twice: nothing is written
// before all of it was found right. Until the last write no agent takes the root for a
// cluster, so an import that stopped counts for nothing; the same file goes on where
// it was.
//
// The cluster has the exported epoch then and is frozen as one restored from a
// snapshot is: it grants nothing before it is adopted. A file of [OnlyPools] makes a
// new cluster, which is normal at once.
//
// Errors: [problem.CodeInvalid] for the file, [problem.CodeHeld] for a root that is
// not empty, [problem.CodeUnavailable] where etcd gave out; run it again.
func Import(ctx context.Context, c *cluster.Client, src io.ReadSeeker, opts ImportOptions) (Imported, error) {
	file, err := Verify(src)
	if err != nil {
		return Imported{}, fmt.Errorf("nothing imported: %w", err)
	}
	m := &importing{c: c, file: file, opts: opts, metaKey: c.Keys().Meta()}
	if err := m.begin(ctx); err != nil {
		return Imported{}, err
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return Imported{}, problem.Wrap(problem.CodeInvalid, err, "read the file again")
	}
	if err := m.fill(ctx, src); err != nil {
		return Imported{}, m.stopped(err)
	}
	meta, err := m.finish(ctx)
	if err != nil {
		return Imported{}, m.stopped(err)
	}
	return Imported{Exported: file, Root: c.Keys().Root(), Meta: meta, Resumed: m.resumed}, nil
}

// importing is one import under way.
type importing struct {
	c       *cluster.Client
	file    Exported
	opts    ImportOptions
	metaKey string
	// mark are the bytes of meta while it is under way: every write compares them.
	mark    []byte
	resumed bool
	done    atomic.Int64
}

// begin takes an empty root, or finds the mark of an earlier run.
func (m *importing) begin(ctx context.Context) error {
	root := m.c.Keys().Root()
	mark := cluster.Encode(cluster.Meta{
		V: cluster.MetaFormat, Epoch: m.file.Header.Epoch, Number: m.file.Header.Number,
		State: cluster.StateImporting, Import: m.file.SHA256, By: m.opts.By, Since: time.Now().UTC(),
	})
	empty := clientv3.Compare(clientv3.CreateRevision(root), "=", 0).WithPrefix()
	return m.repeat(ctx, func(ctx context.Context) (bool, error) {
		resp, err := m.c.Commit(ctx, []clientv3.Cmp{empty}, []clientv3.Op{clientv3.OpPut(m.metaKey, string(mark))}, []clientv3.Op{clientv3.OpGet(m.metaKey)})
		if err != nil {
			return false, err
		}
		if resp.Succeeded {
			m.mark = mark
			return true, nil
		}
		there := firstValue(resp, 0)
		var old cluster.Meta
		if there == nil || cluster.Decode(there, cluster.MetaFormat, &old) != nil || old.State != cluster.StateImporting {
			return false, m.occupied(ctx, old)
		}
		if old.Import != m.file.SHA256 {
			return false, problem.New(problem.CodeHeld, "nothing imported: an import of another file into %s has begun and not ended (%s, by %s)", root, old.Since.Format(time.RFC3339), old.By).
				Note("its file has the sha256 %s in its last line, this one %s", old.Import, m.file.SHA256).
				Advise("end that one", "poolctl cluster import FILE").
				Advise("or take it away", "etcdctl del --prefix %s", root)
		}
		m.mark, m.resumed = there, !bytes.Equal(there, mark)
		return true, nil
	})
}

// occupied is the refusal of a root that is not empty; it names what is there.
func (m *importing) occupied(ctx context.Context, meta cluster.Meta) error {
	k := m.c.Keys()
	prefixes := []struct{ prefix, what string }{
		{k.Nodes(), "nodes"}, {k.UIDPoolsPrefix(), "uid pools"}, {k.VLANInventoriesPrefix(), "inventories"},
		{k.ClaimsPrefix(), "claims"}, {k.ServicesPrefix(), "services"}, {k.Root(), "keys in all"},
	}
	ops := make([]clientv3.Op, len(prefixes))
	for i, p := range prefixes {
		ops[i] = clientv3.OpGet(p.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	}
	resp, err := m.c.Read(ctx, ops...)
	if err != nil {
		return err
	}
	var parts []string
	for i, p := range prefixes {
		if n := resp.Responses[i].GetResponseRange().Count; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p.what))
		}
	}
	if meta.Epoch != "" {
		parts = append(parts, "epoch "+meta.Epoch)
	}
	return problem.New(problem.CodeHeld, "nothing imported: %s of this etcd is not empty: %s", k.Root(), strings.Join(parts, ", ")).
		Note("an import makes a cluster, it adds to none").
		Advise("import below another root", "poolctl cluster import FILE --root /…/")
}

// fill writes all keys of the file, a batch a transaction.
func (m *importing) fill(ctx context.Context, src io.Reader) error {
	d, err := NewDecoder(src)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	told := make(chan struct{}, 1)
	told <- struct{}{}
	err = m.batches(ctx, d, func(batch []Entry) {
		g.Go(func() error {
			n := int64(len(batch))
			if err := m.put(ctx, batch); err != nil {
				return err
			}
			done := m.done.Add(n)
			if m.opts.Progress != nil {
				<-told
				m.opts.Progress(done, int64(m.file.Keys))
				told <- struct{}{}
			}
			return nil
		})
	})
	if failed := g.Wait(); failed != nil {
		return failed
	}
	return err
}

// batches cuts the file; it ends early where ctx does.
func (m *importing) batches(ctx context.Context, d *Decoder, send func([]Entry)) error {
	var batch []Entry
	size := 0
	for ctx.Err() == nil {
		e, err := d.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(batch) > 0 && (err != nil || len(batch) == batchKeys || size+len(e.Value) > batchBytes) {
			send(batch)
			batch, size = nil, 0
		}
		if err != nil {
			break
		}
		batch, size = append(batch, e), size+len(e.Key)+len(e.Value)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d.sum != m.file.SHA256 {
		return problem.New(problem.CodeInvalid, "the file was changed while it was read")
	}
	return nil
}

// put writes keys that are not there, and takes for its own those that an attempt
// without an answer, or an earlier run, has written.
func (m *importing) put(ctx context.Context, batch []Entry) error {
	root := m.c.Keys().Root()
	return m.repeat(ctx, func(ctx context.Context) (bool, error) {
		cmps := []clientv3.Cmp{m.marked()}
		gets := []clientv3.Op{clientv3.OpGet(m.metaKey)}
		var puts []clientv3.Op
		for _, e := range batch {
			cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(root+e.Key), "=", 0))
			puts = append(puts, clientv3.OpPut(root+e.Key, string(e.Value)))
			gets = append(gets, clientv3.OpGet(root+e.Key))
		}
		resp, err := m.c.Commit(ctx, cmps, puts, gets)
		if err != nil || resp.Succeeded {
			return err == nil, err
		}
		if !bytes.Equal(firstValue(resp, 0), m.mark) {
			return false, m.overtaken()
		}
		var left []Entry
		for i, e := range batch {
			kvs := resp.Responses[1+i].GetResponseRange().Kvs
			switch {
			case len(kvs) == 0:
				left = append(left, e)
			case !bytes.Equal(kvs[0].Value, e.Value):
				return false, problem.New(problem.CodeHeld, "somebody else wrote %s%s meanwhile", root, e.Key).Advise("take all of it away and begin anew", "etcdctl del --prefix %s", root)
			}
		}
		batch = left
		return len(left) == 0, nil
	})
}

// finish makes it count.
func (m *importing) finish(ctx context.Context) (cluster.Meta, error) {
	resp, err := m.c.Read(ctx, clientv3.OpGet(m.metaKey))
	if err != nil {
		return cluster.Meta{}, err
	}
	lead, err := m.c.Lead(ctx)
	if err != nil {
		return cluster.Meta{}, err
	}
	meta := m.last(resp.Header.Revision, lead)
	value := cluster.Encode(meta)
	err = m.repeat(ctx, func(ctx context.Context) (bool, error) {
		resp, err := m.c.Commit(ctx, []clientv3.Cmp{m.marked()}, []clientv3.Op{clientv3.OpPut(m.metaKey, string(value))}, []clientv3.Op{clientv3.OpGet(m.metaKey)})
		if err != nil {
			return false, err
		}
		if !resp.Succeeded && !bytes.Equal(firstValue(resp, 0), value) {
			return false, m.overtaken()
		}
		return true, nil
	})
	return meta, err
}

// last is the record that ends the import, of an etcd that is at a revision.
func (m *importing) last(revision, lead int64) cluster.Meta {
	h := m.file.Header
	meta := h.meta()
	meta.Lead = lead
	if h.Only != "" {
		meta.Epoch, meta.Number, meta.Previous = uuid.NewString(), 1, nil
		return meta
	}
	meta.State, meta.By, meta.Since = cluster.StateRecovering, m.opts.By, time.Now().UTC().Truncate(time.Second)
	meta.Reason = fmt.Sprintf("imported from an export of %s at revision %d", h.Root, h.Revision)
	meta.Base, meta.Imported = h.Revision, revision
	return meta
}

func (m *importing) marked() clientv3.Cmp {
	return clientv3.Compare(clientv3.Value(m.metaKey), "=", string(m.mark))
}

func (m *importing) overtaken() error {
	return problem.New(problem.CodeHeld, "another has ended this import, or has taken it away: look at %s", m.metaKey).Advise("look", "etcdctl get %s", m.metaKey)
}

// repeat tries within the budget until do is done, or meets what no repetition mends.
func (m *importing) repeat(ctx context.Context, do func(context.Context) (done bool, err error)) error {
	cfg := m.c.Config()
	budget, cancel := context.WithTimeout(ctx, cfg.Budget)
	defer cancel()
	var wait cluster.Backoff
	for {
		done, err := do(budget)
		var attempt *cluster.OutcomeError
		switch {
		case done:
			return nil
		case cluster.IsPermissionDenied(err):
			return problem.Wrap(problem.CodeForbidden, err, "write to etcd")
		case cluster.IsMalformed(err):
			return problem.Wrap(problem.CodeInternal, err, "write to etcd")
		case err != nil && !errors.As(err, &attempt):
			return err
		}
		if wait.Wait(budget) != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return problem.Wrap(problem.CodeUnavailable, err, "write to etcd at %v", cfg.Endpoints)
		}
	}
}

// stopped says what a failure after the beginning leaves.
func (m *importing) stopped(err error) error {
	var p *problem.Error
	if !errors.As(err, &p) {
		p = &problem.Error{Code: problem.CodeUnavailable, Detail: err.Error(), Cause: err}
	}
	told := *p
	told.Detail = fmt.Sprintf("import stopped at %d of %d keys: %s", m.done.Load(), m.file.Keys, err)
	told.Notes = append([]string{"what was written counts for nothing, and no agent uses it"}, p.Notes...)
	if p.Code == problem.CodeUnavailable {
		told.Try = append([]problem.Advice{{When: "go on", Command: "the same command again"}}, p.Try...)
	}
	return &told
}

func firstValue(resp *clientv3.TxnResponse, i int) []byte {
	if kvs := resp.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0].Value
	}
	return nil
}
