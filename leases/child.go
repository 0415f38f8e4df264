package leases

import (
	"bytes"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// put is one write of a child: value nil deletes the key.
type put struct {
	key    string
	value  []byte
	leased bool // under the session's lease
	sure   bool // leased, and the write does not stand without it
}

// child is one operation's part of a batch: compares, writes and, if refused,
// reads. It is applied whole or not at all, whatever its siblings do.
type child struct {
	cmps []clientv3.Cmp
	puts []put
	gets []string
	// done receives the result once; it is buffered.
	done chan childResult
	// orphan, if set, is told the result when nobody waits for it any more.
	orphan func(childResult)
	// alone: not in a transaction with others, whose compares would be evaluated
	// on the state before this one's writes.
	alone bool
	tried bool  // an attempt had an unknown outcome
	gen   int64 // the session's, when it was handed over
	stage atomic.Int32
	size  int
}

// Stages of a child: only one that was not sent can be withdrawn.
const (
	stageQueued int32 = iota
	stageSent
	stageLeft // the caller has gone
	stageDone // the result is there, or about to be
)

// childResult is what is certain about a child.
type childResult struct {
	applied  bool
	revision int64
	// found are the gets of a refused child, by key; absent keys are missing.
	found map[string]cluster.KV
	err   error
}

// fits tells whether a transaction has room for one child more: etcd allows 128
// operations on a path through it, the outer level's children and the largest
// child's own operations together.
func fits(part []*child, c *child) bool {
	if c.alone || part[0].alone {
		return false
	}
	largest := c.cost()
	for _, o := range part {
		largest = max(largest, o.cost())
	}
	return len(part)+1+largest <= 127
}

// maxOps is how many operations of a kind one child may have.
const maxOps = 126

func (c *child) cost() int { return max(len(c.cmps), len(c.puts), len(c.gets)) }

// settles tells whether the next attempt only reads what became of an earlier one,
// which had no answer and can be applied no more. What that one may have created can be
// over by now, and would be created a second time under a token that has ended: a key
// that must be absent looks the same once it is deleted, while any other compare rests
// on bytes that no write repeats.
func (c *child) settles() bool {
	return c.tried && slices.ContainsFunc(c.puts, func(p put) bool {
		return p.value != nil && (!p.leased || p.sure) && slices.ContainsFunc(c.cmps, p.creates)
	})
}

// creates tells whether a compare says that the key must be absent.
func (p put) creates(cmp clientv3.Cmp) bool {
	absent, ok := cmp.GetCompare().GetTargetUnion().(*pb.Compare_CreateRevision)
	return ok && absent.CreateRevision == 0 && string(cmp.KeyBytes()) == p.key
}

func overlaps(keys map[string]bool, c *child) bool {
	for _, p := range c.puts {
		if keys[p.key] {
			return true
		}
	}
	return false
}

// standsIn tells whether what a refused child wanted to write is there: what it
// puts without a lease, to the byte, and nothing of what it deletes.
func (c *child) standsIn(found map[string]cluster.KV) bool {
	for _, p := range c.puts {
		if p.leased && !p.sure {
			continue
		}
		if kv, ok := found[p.key]; ok != (p.value != nil) || !bytes.Equal(kv.Value, p.value) {
			return false
		}
	}
	return true
}

// finish tells the children their result; where the caller has gone, its orphan
// function learns it. An error after an attempt whose outcome is unknown leaves
// it unknown.
func finish(batch []*child, r childResult) {
	for _, c := range batch {
		r := r
		if r.err != nil && c.tried {
			r.err = problem.Wrap(problem.CodeOutcomeUnknown, r.err, "etcd did not say whether it was done")
		}
		if c.stage.Swap(stageDone) != stageLeft {
			c.done <- r
		} else if c.orphan != nil {
			c.orphan(r)
		}
	}
}
