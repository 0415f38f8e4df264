package leases

import (
	"github.com/idpool/idpool/cluster"
)

// Change is one change of a record that others may want to hear of, read from what
// etcd delivered. Which field is set depends on the key's kind.
type Change struct {
	cluster.Key
	Ref     Ref
	Rev     int64
	Created bool
	Deleted bool
	Claim   *Claim
	Node    *Node
	// Raw is the record of a service, which package vlan reads.
	Raw []byte
}

// ReadChange reads what a follower was told. The error is of a key or record that
// this version cannot read.
func ReadChange(keys cluster.Keys, e cluster.Event) (Change, error) {
	key, err := keys.Parse(e.Key)
	if err != nil {
		return Change{}, err
	}
	c := Change{Key: key, Ref: Ref{key.Space, key.ID}, Rev: e.ModRev, Created: e.CreateRev == e.ModRev, Deleted: e.Deleted}
	if e.Deleted {
		return c, nil
	}
	switch key.Kind {
	case cluster.KindClaim:
		c.Claim, err = decodeClaim(c.Ref, e.Value)
	case cluster.KindNode:
		c.Node, err = decodeNode(key.Name, e.Value)
	case cluster.KindService:
		c.Raw = e.Value
	}
	return c, err
}

// both tells two followers the same, the mirror first: who hears of a change finds
// it there.
type both struct{ mirror, other cluster.Follower }

func (b both) Reset(rev int64, kvs []cluster.KV) {
	b.mirror.Reset(rev, kvs)
	b.other.Reset(rev, kvs)
}

func (b both) Apply(rev int64, events []cluster.Event) {
	b.mirror.Apply(rev, events)
	b.other.Apply(rev, events)
}

func (b both) Progress(rev int64) {
	b.mirror.Progress(rev)
	b.other.Progress(rev)
}

func (b both) Stale(err error) {
	b.mirror.Stale(err)
	b.other.Stale(err)
}
