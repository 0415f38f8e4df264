package cluster

import (
	"strings"

	"github.com/idpool/idpool/problem"
)

// Kind says what a key stands for.
type Kind int

// The kinds, one a row of the table of keys.
const (
	KindUnknown Kind = iota
	KindMeta
	KindMembers
	KindNode
	KindAlive
	KindProof
	KindUIDPool
	KindVLANInventory
	KindPoolIndex
	KindClaim
	KindLock
	KindGrant
	KindReaper
	KindService
	KindServiceLock
	KindRecovery
	KindRecovered
)

var kindNames = [...]string{
	"unknown", "meta", "members", "node", "alive", "proof", "uid pool", "vlan inventory",
	"pool index", "claim", "lock", "grant", "reaper lock", "service", "service lock", "recovery", "recovery mark",
}

// String names the kind for messages.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return kindNames[KindUnknown]
	}
	return kindNames[k]
}

// Kinds lists every kind but [KindUnknown].
func Kinds() []Kind {
	var all []Kind
	for k := KindUnknown + 1; int(k) < len(kindNames); k++ {
		all = append(all, k)
	}
	return all
}

// Leased tells whether a key of this kind is under a lease, and goes with it.
func (k Kind) Leased() bool {
	return k == KindAlive || k == KindLock || k == KindReaper || k == KindServiceLock
}

// Key is a parsed key. Which fields are set depends on Kind.
type Key struct {
	Kind Kind
	// Name is the node, pool, inventory or service; of a grant the name of the
	// request, unescaped; of a recovery mark the key that it is beside, without root.
	Name string
	// Caller is a grant's caller, unescaped.
	Caller string
	// Space and ID are those of a claim or lock.
	Space Space
	ID    uint32
}

// Parse inverts the builders. A key of another root, of no known kind or not in
// the form the builders write is [KindUnknown] with a [problem.CodeInvalid].
// It never panics.
func (k Keys) Parse(key string) (Key, error) {
	if rest, ok := strings.CutPrefix(key, k.root); ok && k.root != "" {
		if out, ok := parseBelow(rest); ok {
			return out, nil
		}
	}
	return Key{}, problem.New(problem.CodeInvalid, "key %.200q is none of idpool's below %s", key, k.root)
}

func parseBelow(rest string) (Key, bool) {
	first, tail, _ := strings.Cut(rest, "/")
	switch first {
	case "meta":
		return Key{Kind: KindMeta}, rest == "meta"
	case "members":
		return Key{Kind: KindMembers}, rest == "members"
	case "nodes":
		return parseNamed(KindNode, tail)
	case "alive":
		return parseNamed(KindAlive, tail)
	case "proofs":
		return parseNamed(KindProof, tail)
	case "recovery":
		return parseNamed(KindRecovery, tail)
	case "recovered":
		return parseMark(tail)
	case "services":
		return parseService(KindService, tail)
	case "pools":
		return parsePool(tail)
	case "claims":
		return parseSpaced(KindClaim, tail)
	case "locks":
		if tail == "reaper" {
			return Key{Kind: KindReaper}, true
		}
		if name, ok := strings.CutPrefix(tail, "service/"); ok {
			return parseService(KindServiceLock, name)
		}
		return parseSpaced(KindLock, tail)
	case "grants":
		return parseGrant(tail)
	}
	return Key{}, false
}

// parseMark accepts marks beside what outlives a session and is handed out.
func parseMark(tail string) (Key, bool) {
	of, ok := parseBelow(tail)
	return Key{Kind: KindRecovered, Name: tail}, ok && of.Kind.Held()
}

// Held tells whether a key of this kind says what somebody was given: what a
// journal keeps and a recovery asserts.
func (k Kind) Held() bool { return k == KindClaim || k == KindGrant || k == KindService }

func parseNamed(kind Kind, name string) (Key, bool) {
	if ValidName(name) != nil {
		return Key{}, false
	}
	return Key{Kind: kind, Name: name}, true
}

func parseService(kind Kind, escaped string) (Key, bool) {
	name, ok := parseText(escaped)
	if !ok {
		return Key{}, false
	}
	return Key{Kind: kind, Name: name}, true
}

func parsePool(tail string) (Key, bool) {
	if tail == "index" {
		return Key{Kind: KindPoolIndex}, true
	}
	if name, ok := strings.CutPrefix(tail, "uid/"); ok {
		return parseNamed(KindUIDPool, name)
	}
	if name, ok := strings.CutPrefix(tail, "vlan/"); ok {
		return parseNamed(KindVLANInventory, name)
	}
	return Key{}, false
}

func parseSpaced(kind Kind, tail string) (Key, bool) {
	cut := strings.LastIndexByte(tail, '/')
	if cut < 0 {
		return Key{}, false
	}
	space := Space(tail[:cut])
	id, ok := parseID(tail[cut+1:])
	if !ok || space.Valid() != nil {
		return Key{}, false
	}
	return Key{Kind: kind, Space: space, ID: id}, true
}

func parseGrant(tail string) (Key, bool) {
	rawCaller, rawName, ok := strings.Cut(tail, "/")
	if !ok {
		return Key{}, false
	}
	caller, ok1 := parseText(rawCaller)
	name, ok2 := parseText(rawName)
	if !ok1 || !ok2 {
		return Key{}, false
	}
	return Key{Kind: KindGrant, Caller: caller, Name: name}, true
}

func parseText(escaped string) (string, bool) {
	text, ok := unescape(escaped)
	return text, ok && len(text) <= maxText
}
