package leases

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

// simStore is an etcd as it stands after some revision: never changed, so that
// worlds and lagging mirrors share it.
type simStore struct {
	rev    int64
	index  uint64 // raft's
	kvs    []*simKV
	leases []int64
	// views are what a mirror of each node shows of it, made when first asked for.
	views  [2]*view
	parent *simStore
}

// simKV is one key; what is decoded from it is kept.
type simKV struct {
	key         string
	value       []byte
	create, mod int64
	lease       int64
	canon       []byte // its meaning, see canon.value
}

func (s *simStore) find(key string) (int, bool) {
	return slices.BinarySearchFunc(s.kvs, key, func(kv *simKV, k string) int { return cmp.Compare(kv.key, k) })
}

func (s *simStore) get(key string) *simKV {
	if i, ok := s.find(key); ok {
		return s.kvs[i]
	}
	return nil
}

// span is the keys of a range as requests name it.
func (s *simStore) span(key, end string) []*simKV {
	if end == "" {
		if kv := s.get(key); kv != nil {
			return []*simKV{kv}
		}
		return nil
	}
	i, _ := s.find(key)
	var all []*simKV
	for ; i < len(s.kvs) && s.kvs[i].key < end; i++ {
		all = append(all, s.kvs[i])
	}
	return all
}

// next is a copy to be changed, one revision on.
func (s *simStore) next() *simStore {
	return &simStore{rev: s.rev + 1, index: s.index + 1, kvs: slices.Clone(s.kvs), leases: s.leases, parent: s}
}

func (s *simStore) put(key string, value []byte, lease int64) {
	kv := &simKV{key: key, value: value, create: s.rev, mod: s.rev, lease: lease}
	i, ok := s.find(key)
	if ok {
		kv.create = s.kvs[i].create
		s.kvs[i] = kv
		return
	}
	s.kvs = slices.Insert(s.kvs, i, kv)
}

func (s *simStore) delete(key string) bool {
	i, ok := s.find(key)
	if ok {
		s.kvs = slices.Delete(s.kvs, i, i+1)
	}
	return ok
}

// expire ends a lease with its keys.
func (s *simStore) expire(lease int64) *simStore {
	n := s.next()
	n.leases = slices.DeleteFunc(slices.Clone(s.leases), func(l int64) bool { return l == lease })
	n.kvs = slices.DeleteFunc(n.kvs, func(kv *simKV) bool { return kv.lease == lease })
	return n
}

// grantLease makes a lease; it is no revision.
func (s *simStore) grantLease(id int64) *simStore {
	n := s.next()
	n.rev = s.rev
	n.leases = append(slices.Clone(s.leases), id)
	return n
}

func (s *simStore) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: 1, Revision: s.rev, RaftTerm: 1}
}

func simHolds(s *simStore, cmps []*pb.Compare) bool {
	for _, c := range cmps {
		kvs := s.span(string(c.Key), string(c.RangeEnd))
		if len(kvs) == 0 {
			if len(c.RangeEnd) > 0 {
				continue
			}
			if c.Target == pb.Compare_VALUE { // an absent key has no value
				return false
			}
			kvs = []*simKV{{}}
		}
		for _, kv := range kvs {
			if !simCompare(kv, c) {
				return false
			}
		}
	}
	return true
}

func simCompare(kv *simKV, c *pb.Compare) bool {
	var d int
	switch c.Target {
	case pb.Compare_VALUE:
		d = bytes.Compare(kv.value, c.GetValue())
	case pb.Compare_CREATE:
		d = cmp.Compare(kv.create, c.GetCreateRevision())
	case pb.Compare_MOD:
		d = cmp.Compare(kv.mod, c.GetModRevision())
	case pb.Compare_LEASE:
		d = cmp.Compare(kv.lease, c.GetLease())
	default:
		panic("compare of a version")
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return d == 0
	case pb.Compare_NOT_EQUAL:
		return d != 0
	case pb.Compare_LESS:
		return d < 0
	}
	return d > 0
}

// commit applies a transaction: all compares on every level first, then the
// writes of the branches taken. The store is s itself where nothing was written.
func (s *simStore) commit(r *pb.TxnRequest) (*simStore, *pb.TxnResponse, error) {
	if !simLeases(s, r) {
		return s, nil, rpctypes.ErrGRPCLeaseNotFound
	}
	n := s.next()
	wrote := false
	resp := simBranch(s, n, r, &wrote)
	if !wrote {
		n = s
	}
	resp.Header = n.header()
	return n, resp, nil
}

func simTaken(s *simStore, r *pb.TxnRequest) []*pb.RequestOp {
	if simHolds(s, r.Compare) {
		return r.Success
	}
	return r.Failure
}

func simLeases(s *simStore, r *pb.TxnRequest) bool {
	for _, op := range simTaken(s, r) {
		if p := op.GetRequestPut(); p != nil && p.Lease != 0 && !slices.Contains(s.leases, p.Lease) {
			return false
		}
		if t := op.GetRequestTxn(); t != nil && !simLeases(s, t) {
			return false
		}
	}
	return true
}

func simBranch(old, n *simStore, r *pb.TxnRequest, wrote *bool) *pb.TxnResponse {
	resp := &pb.TxnResponse{Succeeded: simHolds(old, r.Compare), Header: &pb.ResponseHeader{}}
	for _, op := range simTaken(old, r) {
		var one *pb.ResponseOp
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			n.put(string(o.RequestPut.Key), o.RequestPut.Value, o.RequestPut.Lease)
			*wrote = true
			one = &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}}
		case *pb.RequestOp_RequestDeleteRange:
			if n.delete(string(o.RequestDeleteRange.Key)) {
				*wrote = true
			}
			one = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{}}}
		case *pb.RequestOp_RequestRange:
			got := &pb.RangeResponse{}
			for _, kv := range n.span(string(o.RequestRange.Key), string(o.RequestRange.RangeEnd)) {
				got.Kvs = append(got.Kvs, &mvccpb.KeyValue{Key: []byte(kv.key), Value: kv.value, CreateRevision: kv.create, ModRevision: kv.mod, Lease: kv.lease})
			}
			got.Count = int64(len(got.Kvs))
			one = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: got}}
		case *pb.RequestOp_RequestTxn:
			one = &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: simBranch(old, n, o.RequestTxn, wrote)}}
		}
		resp.Responses = append(resp.Responses, one)
	}
	return resp
}

// simKVClient is the wire to a simulated etcd; transactions are all that is used.
type simKVClient struct {
	pb.KVClient
	txn func(*pb.TxnRequest) (*pb.TxnResponse, error)
}

func (c simKVClient) Txn(_ context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return c.txn(r)
}

// viewOf is what node n's mirror shows at this store: the real mirror's work,
// carried on from the store before where that is known.
func (s *simStore) viewOf(n int) *view {
	if v := s.views[n]; v != nil {
		return v
	}
	if n == 1 { // the same, but for which claims are its own
		v := *s.viewOf(0)
		v.mine = map[Ref]struct{}{}
		for ref, c := range v.claims {
			if c.Val.On(hostName(n)) != nil {
				v.mine[ref] = struct{}{}
			}
		}
		s.views[n] = &v
		return &v
	}
	m := NewMirror(exploreKeys, hostName(n), quiet)
	if p := s.parent; p != nil && p.views[n] != nil {
		m.view = copyView(p.views[n])
		m.Apply(s.rev, s.since(p))
	} else {
		var all []cluster.KV
		for _, kv := range s.kvs {
			all = append(all, kv.told())
		}
		m.Reset(s.rev, all)
	}
	s.parent = nil
	v := m.view
	s.views[n] = &v
	return &v
}

func (kv *simKV) told() cluster.KV {
	return cluster.KV{Key: kv.key, Value: kv.value, CreateRev: kv.create, ModRev: kv.mod, Lease: kv.lease}
}

// since lists what is different from an earlier store.
func (s *simStore) since(p *simStore) []cluster.Event {
	var events []cluster.Event
	i, j := 0, 0
	for i < len(p.kvs) || j < len(s.kvs) {
		switch {
		case j == len(s.kvs) || (i < len(p.kvs) && p.kvs[i].key < s.kvs[j].key):
			events = append(events, cluster.Event{KV: cluster.KV{Key: p.kvs[i].key}, Deleted: true})
			i++
		case i == len(p.kvs) || s.kvs[j].key < p.kvs[i].key:
			events = append(events, cluster.Event{KV: s.kvs[j].told()})
			j++
		default:
			if p.kvs[i] != s.kvs[j] {
				events = append(events, cluster.Event{KV: s.kvs[j].told()})
			}
			i, j = i+1, j+1
		}
	}
	return events
}

func copyView(o *view) view {
	v := *o
	v.nodes, v.alive, v.proofs, v.pools = maps.Clone(o.nodes), maps.Clone(o.alive), maps.Clone(o.proofs), maps.Clone(o.pools)
	v.claims, v.locks, v.records, v.byKey = maps.Clone(o.claims), maps.Clone(o.locks), maps.Clone(o.records), map[string][]string{}
	for k, names := range o.byKey {
		v.byKey[k] = slices.Clone(names)
	}
	v.taken = map[cluster.Space]*idset.Set{}
	for space, set := range o.taken {
		own := set.Clone()
		v.taken[space] = &own
	}
	v.quarantined, v.idle, v.over = maps.Clone(o.quarantined), maps.Clone(o.idle), maps.Clone(o.over)
	v.mine, v.unreadable, v.lastSeen = maps.Clone(o.mine), maps.Clone(o.unreadable), maps.Clone(o.lastSeen)
	v.documents, v.documentLocks = maps.Clone(o.documents), maps.Clone(o.documentLocks)
	return v
}

func hostName(n int) string { return "n" + string(rune('0'+n)) }

// claims are those of a store, by ref.
func (s *simStore) claims() map[Ref]Stored[Claim] { return s.viewOf(0).claims }
