package leases

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/idpool/idpool/cluster"
)

// canon writes a scene's meaning: random names by the order in which they appear,
// revisions by their order, times not at all. Two scenes with the same hash are
// taken for one. Of an operation under way it takes what it waits for, not all that
// it has read.
type canon struct {
	buf   []byte
	names []string
	revs  []int64
	at    []int
}

const (
	markName = 1
	markRev  = 2
)

var canonSeed = maphash.MakeSeed()

// values are the meanings of raw values, by key's kind and bytes.
var values = map[string][]byte{}

func (c *canon) byte(b ...byte) { c.buf = append(c.buf, b...) }

func (c *canon) bool(bs ...bool) {
	for _, b := range bs {
		if b {
			c.buf = append(c.buf, 1)
		} else {
			c.buf = append(c.buf, 0)
		}
	}
}

func (c *canon) text(s string) { c.buf = append(append(c.buf, byte(len(s))), s...) }

func (c *canon) name(s string) {
	i := slices.Index(c.names, s)
	if i < 0 {
		i = len(c.names)
		c.names = append(c.names, s)
	}
	c.buf = append(c.buf, byte(i))
}

func (c *canon) rev(r int64) {
	c.revs, c.at = append(c.revs, r), append(c.at, len(c.buf))
	c.buf = append(c.buf, 0)
}

// form replays a value's meaning.
func (c *canon) form(f []byte) {
	for i := 0; i < len(f); i++ {
		switch f[i] {
		case markName:
			n := int(f[i+1])
			c.name(string(f[i+2 : i+2+n]))
			i += 1 + n
		case markRev:
			c.rev(int64(binary.LittleEndian.Uint64(f[i+1:])))
			i += 8
		default:
			c.buf = append(c.buf, f[i])
		}
	}
}

type former struct{ buf []byte }

func (f *former) text(s string) { f.buf = append(append(f.buf, '"'), s...) }
func (f *former) name(s string) { f.buf = append(append(f.buf, markName, byte(len(s))), s...) }
func (f *former) rev(r int64) {
	f.buf = binary.LittleEndian.AppendUint64(append(f.buf, markRev), uint64(r))
}
func (f *former) flag(bs ...bool) {
	for _, b := range bs {
		if b {
			f.buf = append(f.buf, 'T')
		} else {
			f.buf = append(f.buf, 'F')
		}
	}
}

// meaning is what a value says, in a form that names and revisions can be told
// apart in.
func meaning(key string, raw []byte) []byte {
	k := string(raw)
	if f, ok := values[k]; ok {
		return f
	}
	f := &former{}
	parsed, _ := exploreKeys.Parse(key)
	switch parsed.Kind {
	case cluster.KindClaim:
		f.claim(raw)
	case cluster.KindGrant:
		if r, err := reading[Record](raw); err == nil {
			f.name(r.Token)
			f.name(r.Write)
			f.flag(r.Ended)
			for _, ref := range r.IDs {
				f.text(ref.String())
			}
		}
	case cluster.KindNode:
		if n, err := reading[Node](raw); err == nil {
			f.text(n.State + n.Boot + n.Machine + n.FencedBoot)
			f.name(n.Secret)
			f.name(n.Write)
		}
	case cluster.KindAlive:
		if a, err := reading[Alive](raw); err == nil {
			f.name(a.Nonce)
			f.text(a.NoProof)
			f.buf = append(f.buf, byte('a'+a.Counter))
			f.name(a.Secret)
		}
	case cluster.KindProof:
		if p, err := reading[Proof](raw); err == nil {
			f.text(p.Boot + p.Machine)
			f.rev(p.Revision)
			set := p.InUse[cluster.SpaceUID]
			f.text(set.String())
		}
	case cluster.KindUIDPool:
		if p, err := reading[Pool](raw); err == nil {
			f.text(p.Exclude.String())
			f.name(p.Write)
		}
	case cluster.KindLock:
		f.name(k)
	case cluster.KindReaper:
		f.text(k)
	case cluster.KindMeta, cluster.KindMembers, cluster.KindPoolIndex:
	default:
		f.text("?" + k)
	}
	if len(values) > 300_000 {
		clear(values)
	}
	values[k] = f.buf
	return f.buf
}

func (f *former) claim(raw []byte) {
	c, err := reading[Claim](raw)
	if err != nil {
		return
	}
	f.text(string(c.State))
	f.name(c.Token)
	f.name(c.Write)
	f.flag(c.Released, c.Reclaimed, c.Grouped)
	f.text(c.ReasonCode)
	for _, p := range c.Nodes {
		f.text(p.Node + p.Boot)
		f.flag(p.Idle, p.Confirmed)
		for _, r := range p.Requesters {
			if len(r.ID) == 2 {
				f.text(r.ID)
			} else {
				f.name(r.ID)
			}
			f.flag(r.Keep)
		}
	}
}

func (c *canon) kv(kv *simKV) {
	if kv.canon == nil {
		kv.canon = meaning(kv.key, kv.value)
	}
	c.text(kv.key[len(exploreKeys.Root()):])
	c.form(kv.canon)
	if !strings.HasPrefix(kv.key, exploreKeys.LocksPrefix()) && !strings.HasPrefix(kv.key, exploreKeys.GrantsPrefix()) {
		c.rev(kv.mod)
	}
	if kv.lease != 0 {
		c.lease(kv.lease)
	}
}

func (c *canon) lease(l int64) {
	c.name("lease" + string(binary.LittleEndian.AppendUint64(nil, uint64(l))))
}

func (c *canon) store(s *simStore) {
	c.rev(s.rev)
	for _, kv := range s.kvs {
		c.kv(kv)
	}
	c.byte(byte(len(s.leases)))
}

func (c *canon) txn(r *pb.TxnRequest) {
	for _, m := range r.Compare {
		c.text(string(m.Key[len(exploreKeys.Root()):]))
		c.byte(byte(m.Target), byte(m.Result))
		switch m.Target {
		case pb.Compare_VALUE:
			c.form(meaning(string(m.Key), m.GetValue()))
		case pb.Compare_MOD:
			c.rev(m.GetModRevision())
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		c.byte(';')
		for _, op := range ops {
			switch {
			case op.GetRequestPut() != nil:
				p := op.GetRequestPut()
				c.text(string(p.Key[len(exploreKeys.Root()):]))
				c.form(meaning(string(p.Key), p.Value))
				if p.Lease != 0 {
					c.lease(p.Lease)
				}
			case op.GetRequestDeleteRange() != nil:
				c.text("-" + string(op.GetRequestDeleteRange().Key))
			case op.GetRequestTxn() != nil:
				c.txn(op.GetRequestTxn())
			}
		}
	}
}

// hash is the scene's.
func (x *explorer) hash(s *scene) uint64 {
	c := &x.canon
	c.buf, c.names, c.revs, c.at = c.buf[:0], c.names[:0], c.revs[:0], c.at[:0]
	c.store(s.store)
	if s.saved != nil {
		c.store(s.saved)
	}
	for n := range s.hosts {
		c.host(s, &s.hosts[n])
	}
	for i := range s.party {
		p := &s.party[i]
		c.byte(byte(p.stage), byte(p.asks), byte(len(p.refs)))
		c.bool(p.dead, p.fork, p.started, p.settled)
		c.name(p.token)
	}
	c.tasks(s.tasks)
	for _, r := range s.late {
		c.txn(r.commit)
	}
	l := s.left
	for _, b := range []int8{l.crash, l.expire, l.late, l.lose, l.twice, l.reboot, l.fence, l.lie, l.remove, l.alien, l.restore, l.pool, l.operator, l.leave, l.lag, l.reclaim, l.stranger} {
		c.byte(byte(b))
	}
	sorted := slices.Clone(c.revs)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	for i, r := range c.revs {
		at, _ := slices.BinarySearch(sorted, r)
		c.buf[c.at[i]] = byte(at)
	}
	return maphash.Bytes(canonSeed, c.buf)
}

func (c *canon) host(s *scene, h *host) {
	c.byte(byte(h.boot), byte(len(h.procs)))
	c.bool(h.cut, h.alien, h.mind != nil, h.mirror == s.store)
	for _, ps := range [][]proc{h.procs, h.shadow} {
		for _, p := range ps {
			c.byte(byte(p.id))
			c.name(p.token)
		}
		c.byte('|')
	}
	if h.mirror != s.store && h.mind != nil {
		c.store(h.mirror)
	}
	c.name(h.home.Nonce)
	c.name(h.home.PriorNonce)
	c.name(h.home.Secret)
	c.text(h.home.Boot)
	c.byte(byte(h.home.Counter), byte(h.home.PriorCounter), byte(h.home.Index))
	c.bool(h.home.Left)
	m := h.mind
	if m == nil {
		return
	}
	c.bool(m.guard == nil, m.fatal == nil, m.left, m.doubt, m.leaving, m.paused, m.looked == nil)
	if m.guard != nil {
		c.form(meaning(exploreKeys.Alive("n0"), m.guard.alive))
		c.lease(int64(m.guard.lease))
	}
	c.byte(byte(m.active), byte(len(m.keys)), byte(len(m.orphans)), byte(len(m.flying)))
	if l := m.looked; l != nil {
		c.seen(l.seen)
		c.byte(byte(len(l.inquire)), byte(len(l.watch)))
		c.bool(l.report)
	}
}

func (c *canon) seen(o *observation) {
	c.rev(o.rev)
	c.text(o.used.String())
	for id := range uint32(2) {
		c.bool(o.live[uidRef(1000+id)])
	}
}

func uidRef(id uint32) Ref { return Ref{cluster.SpaceUID, id} }

func (c *canon) tasks(all []*task) {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b *task) int {
		if d := int(a.node) - int(b.node); d != 0 {
			return d
		}
		if d := int(a.kind) - int(b.kind); d != 0 {
			return d
		}
		return int(a.party) - int(b.party)
	})
	for _, t := range sorted {
		c.byte(byte(t.node), byte(t.kind), byte(t.party), byte(t.ref.ID), byte(len(t.script)))
		c.bool(t.keep, t.gone)
		for _, e := range t.script {
			c.byte(e.saw)
			c.bool(e.err != nil)
		}
		if t.seen != nil {
			c.seen(t.seen)
		}
		switch w := t.wait; {
		case w == nil:
		case w.commit != nil:
			c.txn(w.commit)
		case w.look:
			c.byte('l')
		}
	}
}

// reading decodes a record wherever it stands.
func reading[T any](raw []byte) (*T, error) {
	v := new(T)
	return v, cluster.Decode(raw, format, v)
}
