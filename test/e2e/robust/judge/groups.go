package judge

import (
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// checkLocks: a lock stands beside the claim of its own grant, or not at all.
func (c *court) checkLocks(t *txn) {
	ids := map[record.ID]bool{}
	for _, e := range t.claims {
		ids[e.key] = true
	}
	for _, e := range t.locks {
		ids[e.key] = true
	}
	for id := range ids {
		l, a := c.w.locks[id], c.w.claims[id]
		switch {
		case l == nil || c.revived[l]:
		case a == nil:
			c.broke(P6, t.rev, "%s has a lock of grant %s and no claim", id, l.token)
		case a.Token != l.token:
			c.broke(P1, t.rev, "%s has a lock of grant %s and a claim of grant %s", id, l.token, a.Token)
		}
	}
}

// checkGroups: a grant appears whole, with its record and its locks, and what ends
// of it leaves its record in the same revision.
func (c *court) checkGroups(t *txn) {
	fresh := map[string][]edit[record.ID, claim]{}
	for _, e := range t.claims {
		if e.before == nil && e.after.held() {
			fresh[e.after.Token] = append(fresh[e.after.Token], e)
		}
		c.checkListed(t, e)
	}
	for token, group := range fresh {
		c.checkFresh(t, token, group)
	}
	for _, e := range t.grants {
		c.checkRecord(t, e, len(fresh[tokenOf(e.after)]) > 0)
	}
}

func tokenOf(r *grantRecord) string {
	if r == nil {
		return ""
	}
	return r.Token
}

// checkFresh judges the ids that one revision granted under one token.
func (c *court) checkFresh(t *txn, token string, group []edit[record.ID, claim]) {
	first := group[0].after
	for _, e := range group {
		a := e.after
		if a.State == locked && (c.w.locks[e.key] == nil || c.w.locks[e.key].token != token) {
			c.broke(P3, t.rev, "%s was granted under token %s without its lock", e.key, token)
		}
		if a.Caller != first.Caller || a.Service != first.Service || a.Grouped != first.Grouped || (a.Service == "" && a.Key != first.Key) {
			c.broke(P3, t.rev, "the ids of grant %s differ in their caller, key, service or record", token)
		}
	}
	switch {
	case first.Service != "": // its record lists them: checkServices
	case !first.Grouped:
		if len(group) > 1 || first.Key != "" {
			c.broke(P3, t.rev, "grant %s of %d ids, key %q, has no record", token, len(group), first.Key)
		}
	default:
		i := slices.IndexFunc(t.grants, func(e edit[string, grantRecord]) bool { return e.key == recordKey(first) })
		if i < 0 || t.grants[i].after == nil || t.grants[i].after.Token != token {
			c.broke(P3, t.rev, "grant %s was made without its record %s", token, recordKey(first))
		} else if rec := t.grants[i].after; len(rec.IDs) != len(group) || rec.Ended {
			c.broke(P3, t.rev, "grant %s made %d ids and its record lists %d (%v)", token, len(group), len(rec.IDs), rec.IDs)
		}
	}
}

// checkListed: the record of a group lists an id exactly while it is held.
func (c *court) checkListed(t *txn, e edit[record.ID, claim]) {
	for _, a := range []*claim{e.before, e.after} {
		if a == nil || !a.Grouped || a.Service != "" {
			continue
		}
		rec := c.w.grants[recordKey(a)]
		listed := rec != nil && rec.Token == a.Token && !rec.Ended && rec.lists(e.key)
		held := e.after.held() && e.after.Token == a.Token
		if held && !listed {
			c.broke(P3, t.rev, "%s is held by grant %s, whose record %s does not list it", e.key, a.Token, recordKey(a))
		}
		if !held && listed {
			c.broke(P3, t.rev, "%s of grant %s ended, and the record %s still lists it", e.key, a.Token, recordKey(a))
		}
	}
}

// checkRecord judges one grant record: what it lists is there, it stays the record
// of one request, and only a grant that nobody was told of is forgotten.
func (c *court) checkRecord(t *txn, e edit[string, grantRecord], fresh bool) {
	a, b := e.after, e.before
	if a != nil && !a.Ended {
		for _, ref := range a.IDs {
			if x := c.w.claims[ref.id()]; !x.held() || x.Token != a.Token {
				c.broke(P3, t.rev, "record %s of grant %s lists %s, which it does not hold", e.key, a.Token, ref.id())
			}
		}
	}
	switch {
	case b == nil && a != nil && !fresh:
		c.broke(P3, t.rev, "record %s of grant %s was made without any of its ids", e.key, a.Token)
	case b != nil && a != nil && (a.Token != b.Token || a.Digest != b.Digest):
		c.broke(P4, t.rev, "record %s went from grant %s to grant %s without being forgotten between", e.key, b.Token, a.Token)
	case b != nil && a != nil && b.Ended && !a.Ended && !slices.ContainsFunc(t.claims, func(x edit[record.ID, claim]) bool {
		return x.before != nil && !x.before.held() && x.after.held() && x.after.Token == a.Token
	}):
		c.broke(P4, t.rev, "record %s of grant %s had ended and came back, and none of its ids did", e.key, a.Token)
	case b != nil && a == nil && (b.Ended || c.told[b.Token] != nil):
		c.broke(P4, t.rev, "record %s of grant %s, ended or told to its caller, was forgotten: its key would make another grant", e.key, b.Token)
	}
}
