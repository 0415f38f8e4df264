package leases

import (
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// What each kind of key becomes in a mirror, when it is written and when it goes.

// put takes one key in. What cannot be read is kept out and listed; an
// unreadable claim still takes its id.
func (m *Mirror) put(kv cluster.KV) {
	key, err := m.keys.Parse(kv.Key)
	if err == nil {
		err = errors.Join(m.putKey(key, kv), leaseFits(key.Kind, kv.Lease))
	}
	if err == nil {
		delete(m.unreadable, kv.Key)
		return
	}
	if n := len(m.unreadable); m.unreadable[kv.Key] == nil && n < loudUnreadable {
		m.log.Warn("record cannot be read", zap.String("key", cutText(kv.Key)), zap.String("error", cutText(err.Error())))
	}
	m.unreadable[kv.Key] = err
}

// loudUnreadable is how many records that cannot be read are logged one by one.
const loudUnreadable = 100

func stored[T any](val *T, kv cluster.KV) Stored[T] {
	return Stored[T]{Val: val, Raw: kv.Value, ModRev: kv.ModRev, CreateRev: kv.CreateRev}
}

// into decodes a value and stores it under name; on an error the old entry goes.
func into[T any](m map[string]Stored[T], name string, kv cluster.KV, decode func(string, []byte) (*T, error)) error {
	val, err := decode(name, kv.Value)
	if err != nil {
		delete(m, name)
		return err
	}
	m[name] = stored(val, kv)
	return nil
}

func (m *Mirror) putKey(key cluster.Key, kv cluster.KV) error {
	switch key.Kind {
	case cluster.KindMeta:
		meta, err := cluster.DecodeMeta(kv.Value)
		if m.meta = stored(&meta, kv); err != nil {
			m.meta.Val = nil // no report is of no epoch
		}
		return err
	case cluster.KindMembers:
		m.members = stored(&Members{}, kv)
		return decodeMembers(kv.Value)
	case cluster.KindPoolIndex:
		m.index = kv.ModRev
		return decodeIndex(kv.Value)
	case cluster.KindNode:
		delete(m.strange, key.Name)
		err := into(m.nodes, key.Name, kv, decodeNode)
		if err != nil {
			m.strange[key.Name] = struct{}{}
		}
		return err
	case cluster.KindAlive:
		m.lastSeen[key.Name] = time.Now()
		err := into(m.alive, key.Name, kv, decodeAlive)
		if err != nil { // somebody is there, whatever it says
			m.alive[key.Name] = stored(&Alive{NoProof: "its presence cannot be read"}, kv)
		}
		return err
	case cluster.KindProof:
		m.lastSeen[key.Name] = time.Now()
		err := into(m.proofs, key.Name, kv, decodeProof)
		if err != nil { // its own node writes over it
			m.proofs[key.Name] = Stored[Proof]{Raw: kv.Value, ModRev: kv.ModRev}
		}
		return err
	case cluster.KindUIDPool:
		return m.putPool(key.Name, kv)
	case cluster.KindVLANInventory:
		return m.putPool(VLANPool(key.Name), kv)
	case cluster.KindClaim:
		return m.putClaim(Ref{key.Space, key.ID}, kv)
	case cluster.KindLock:
		m.locks[Ref{key.Space, key.ID}] = lock{kv.Lease, kv.ModRev}
		_, err := decodeToken("the lock's token", kv.Value)
		return err
	case cluster.KindGrant:
		return m.putRecord(key, kv)
	case cluster.KindRecovery:
		return into(m.recoveries, key.Name, kv, decodeRecovery)
	case cluster.KindRecovered:
		m.marked = max(m.marked, kv.ModRev)
		m.marks[key.Name] = struct{}{}
		_, err := decodeMark(kv.Value)
		return err
	case cluster.KindReaper:
		var err error
		if m.reaper, err = decodeReaper(kv.Value); err != nil {
			m.reaper = nobody
		}
		return err
	case cluster.KindService:
		m.documents[key.Name] = Document{Name: key.Name, Raw: append([]byte{}, kv.Value...), ModRev: kv.ModRev, Since: m.sinceOf(key.Name, kv.ModRev)}
		return nil
	case cluster.KindServiceLock:
		token, err := decodeToken("the lock's holder", kv.Value)
		if err != nil {
			token = nobody
		}
		m.documentLocks[key.Name] = token
		return err
	}
	return problem.New(problem.CodeInvalid, "key %s is none of this version's", kv.Key)
}

func (m *Mirror) putPool(name string, kv cluster.KV) error {
	pool, err := decodePool(name, kv.Value)
	if err != nil {
		delete(m.pools, name)
		m.lostPools[name] = err
		return err
	}
	delete(m.lostPools, name)
	m.pools[name] = newPoolEntry(name, stored(pool, kv))
	return nil
}

// sinceOf is when this mirror first saw a document at this revision.
func (m *Mirror) sinceOf(name string, rev int64) time.Time {
	if d, ok := m.documents[name]; ok && d.ModRev == rev {
		return d.Since
	}
	return time.Now()
}

func (m *Mirror) putClaim(ref Ref, kv cluster.KV) error {
	set := m.taken[ref.Space]
	if set == nil {
		set = &idset.Set{}
		m.taken[ref.Space] = set
	}
	set.Insert(ref.ID)
	old, had := m.claims[ref]
	delete(m.mine, ref)
	c, err := decodeClaim(ref, kv.Value)
	if err != nil {
		delete(m.claims, ref)
		delete(m.quarantined, ref)
		delete(m.idle, ref)
		return err
	}
	m.claims[ref] = stored(c, kv)
	if c.On(m.self) != nil {
		m.mine[ref] = struct{}{}
	}
	for state, seen := range map[State]map[Ref]time.Time{Quarantined: m.quarantined, Idle: m.idle} {
		switch {
		case c.State != state:
			delete(seen, ref)
		case !had || old.ModRev != kv.ModRev:
			seen[ref] = time.Now()
		}
	}
	return nil
}

func (m *Mirror) putRecord(at cluster.Key, kv cluster.KV) error {
	m.deleteRecord(kv.Key)
	decode := func(_ string, data []byte) (*Record, error) { return decodeRecord(at.Caller, at.Name, data) }
	if err := into(m.records, kv.Key, kv, decode); err != nil {
		return err
	}
	if m.records[kv.Key].Val.Ended {
		m.over[kv.Key] = time.Now()
	}
	if len(m.missing(kv.Key)) > 0 {
		m.torn[kv.Key] = struct{}{}
	}
	if key := m.records[kv.Key].Val.Key; key != "" {
		m.byKey[key] = append(m.byKey[key], kv.Key)
	}
	return nil
}

func (m *Mirror) deleteRecord(k string) {
	old := m.records[k].Val
	delete(m.records, k)
	delete(m.over, k)
	delete(m.torn, k)
	if old == nil || old.Key == "" {
		return
	}
	rest := slices.DeleteFunc(m.byKey[old.Key], func(x string) bool { return x == k })
	if len(rest) == 0 {
		delete(m.byKey, old.Key)
	} else {
		m.byKey[old.Key] = rest
	}
}

func (m *Mirror) delete(k string) {
	delete(m.unreadable, k)
	key, err := m.keys.Parse(k)
	if err != nil {
		return
	}
	ref := Ref{key.Space, key.ID}
	switch key.Kind {
	case cluster.KindMeta:
		m.meta = Stored[cluster.Meta]{}
	case cluster.KindMembers:
		m.members = Stored[Members]{}
	case cluster.KindPoolIndex:
		m.index = 0
	case cluster.KindNode:
		delete(m.nodes, key.Name)
		delete(m.strange, key.Name)
		delete(m.lastSeen, key.Name)
	case cluster.KindAlive:
		delete(m.alive, key.Name)
		m.lastSeen[key.Name] = time.Now()
	case cluster.KindProof:
		delete(m.proofs, key.Name)
	case cluster.KindUIDPool:
		delete(m.pools, key.Name)
		delete(m.lostPools, key.Name)
	case cluster.KindVLANInventory:
		delete(m.pools, VLANPool(key.Name))
		delete(m.lostPools, VLANPool(key.Name))
	case cluster.KindService:
		delete(m.documents, key.Name)
	case cluster.KindServiceLock:
		delete(m.documentLocks, key.Name)
	case cluster.KindClaim:
		if set := m.taken[ref.Space]; set != nil {
			set.Delete(ref.ID)
		}
		if c := m.claims[ref].Val; c != nil && c.Grouped && c.State.held() {
			m.torn[m.keys.Grant(c.Caller, recordName(c.Key, c.Token))] = struct{}{}
		}
		delete(m.claims, ref)
		delete(m.quarantined, ref)
		delete(m.idle, ref)
		delete(m.mine, ref)
	case cluster.KindLock:
		delete(m.locks, ref)
	case cluster.KindGrant:
		m.deleteRecord(k)
	case cluster.KindRecovery:
		delete(m.recoveries, key.Name)
	case cluster.KindRecovered:
		delete(m.marks, key.Name)
	case cluster.KindReaper:
		m.reaper = ""
	}
}
