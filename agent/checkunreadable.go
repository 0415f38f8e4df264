package agent

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// meanwhile is what a record that cannot be read does until it is mended, and
// whether it may simply be deleted.
var meanwhile = map[cluster.Kind]struct {
	does      string
	deletable bool
	careful   string // what to know before it is deleted, if it is not
}{
	cluster.KindUnknown:       {"no agent of this version reads or writes it", true, ""},
	cluster.KindMeta:          {"nothing is granted by any node", false, "never: every grant rests on it"},
	cluster.KindMembers:       {"the next change of a node writes over it", true, ""},
	cluster.KindNode:          {"the node is waited for, grants nothing, and cannot be fenced", false, "only when the machine is off: its agent can come back after a reboot alone"},
	cluster.KindAlive:         {"the node counts as up and has no session of its own", false, "when its agent runs: that opens a new session"},
	cluster.KindProof:         {"it counts as no report: quarantined ids wait for the node's next one", true, ""},
	cluster.KindUIDPool:       {"nothing is granted from it, no uid pool can be changed, and what it granted stays held", false, "only when none of its uids is held"},
	cluster.KindVLANInventory: {"nothing is granted from it, and what it granted stays held", false, "only when none of its VLANs is held"},
	cluster.KindPoolIndex:     {"the next change of a pool writes over it", true, ""},
	cluster.KindClaim:         {"the id stays taken, and its holder can neither confirm nor release it", false, "only when nothing runs under the id: it is free at once then"},
	cluster.KindLock:          {"the claim beside it decides", true, ""},
	cluster.KindGrant:         {"its ids stay held, and cannot be found by their allocation key", false, "only when its ids are released: they are each for themselves then"},
	cluster.KindReaper:        {"nobody does what no node is named for, such as freeing the ids of fenced nodes", true, ""},
	cluster.KindService:       {"nobody works on the service, and its VLANs stay held", false, "only when its VLANs are to be released one by one"},
	cluster.KindServiceLock:   {"nobody works on the service", true, ""},
	cluster.KindRecovery:      {"a recovery waits for the node to speak again", true, ""},
	cluster.KindRecovered:     {"while a recovery is under way no node asserts the key beside it", true, ""},
}

// unreadableFinding says which key it is, what is wrong with it, what that does,
// and what a person can do.
func unreadableFinding(u leases.Unreadable) api.Finding {
	m := meanwhile[u.Kind]
	what := "the " + u.Kind.String() + " record cannot be read"
	if u.Kind == cluster.KindUnknown {
		what = "it is no key of idpool"
	}
	f := api.Finding{Kind: vlan.FindUnreadable, Subject: showKey(u.Key), Detail: fmt.Sprintf("%s: %s; %s", what, cutDetail(u.Why.Error()), m.does), Try: []problem.Advice{}}
	try := func(when, command string) { f.Try = append(f.Try, problem.Advice{When: when, Command: command}) }
	word := shellWord(u.Key)
	try("look", "etcdctl get "+word)
	try("a later version wrote it", "update this agent; versions: poolctl node list")
	switch {
	case m.deletable:
		try("nobody needs it", "etcdctl del "+word)
	default:
		try("put back what stood there", "etcdctl put "+word+" < BACKUP")
		try("delete it "+m.careful, "etcdctl del "+word)
	}
	return f
}

// maxShown bounds a key, or what is wrong with it, as check shows it.
const maxShown = 300

func cutDetail(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}

// showKey is a key as a person can read it: whole and bare, or quoted where it
// holds what a terminal would not show, or cut.
func showKey(key string) string {
	shown := key
	if len(key) > maxShown {
		shown = key[:maxShown]
	}
	if !plain(shown) {
		shown = strconv.QuoteToASCII(shown)
	}
	if len(key) > maxShown {
		shown += fmt.Sprintf("… (%d bytes)", len(key))
	}
	return shown
}

// plain tells whether a key can stand in a line as it is.
func plain(key string) bool {
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' || c == '"' || c == '\'' || c == '\\' {
			return false
		}
	}
	return true
}

// shellWord is a key as an argument of a POSIX shell, cut if it is very long.
func shellWord(key string) string {
	switch {
	case len(key) > maxShown:
		return "--prefix " + shellWord(key[:min(maxShown, len(key))])
	case plain(key):
		return "'" + key + "'"
	}
	var b strings.Builder
	b.WriteString(`"$(printf '`)
	for _, c := range []byte(key) {
		if c > ' ' && c < 0x7f && !strings.ContainsRune(`%"'\\`, rune(c)) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03o`, c)
		}
	}
	b.WriteString(`')"`)
	return b.String()
}
