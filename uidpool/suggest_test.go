package uidpool_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
	"pgregory.net/rapid"
)

func TestSuggest(t *testing.T) {
	for _, c := range []struct {
		count uint64
		avoid string
		want  string
	}{
		{1, "", "65536"},
		{4096, "", "65536-69631"},
		{4096, "60000-67000", "67001-71096"},
		{4096, "66000,69000", "69001-73096"},
		{34464, "", "65536-99999"},
		{34465, "", "1879048192-1879082656"},
		{268304384, "", "1879048192-2147352575"},
		{3, "1-70000,70003-70004,70006-4294967295", "70001-70002, 70005"},
	} {
		got, err := uidpool.Suggest(c.count, poolOf(t, c.avoid)...)
		if err != nil || text(got) != c.want {
			t.Errorf("%d without %q: got %s, %v; want %s", c.count, c.avoid, text(got), err, c.want)
		}
	}
}

func TestSuggestRefuses(t *testing.T) {
	for _, c := range []struct {
		count uint64
		avoid string
		want  string
	}{
		{0, "", "the count is 0"},
		{1, "0-4294967295", "1 are wanted and 0 are claimed by nobody"},
		{5, "1-70000,70003-4294967295", "5 are wanted and 2 are claimed by nobody"},
		{1 << 33, "", "8589934592 are wanted"},
	} {
		got, err := uidpool.Suggest(c.count, poolOf(t, c.avoid)...)
		if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d without %q: got %v, %v; want %q", c.count, c.avoid, got, err, c.want)
		}
	}
}

// TestSuggestionsAreFree holds what is suggested against everything that
// refuses or warns.
func TestSuggestionsAreFree(t *testing.T) {
	host := usualHost(t)
	rapid.Check(t, func(t *rapid.T) {
		taken := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) idset.Range {
			lower := rapid.Uint32Range(60000, 110000).Draw(t, "lower")
			return idset.Range{Lower: lower, Higher: lower + rapid.Uint32Range(0, 9999).Draw(t, "more")}
		}), 0, 5).Draw(t, "taken")
		count := rapid.Uint64Range(1, 1_000_000).Draw(t, "count")
		pool, err := uidpool.Suggest(count, append(host.Claimed(), taken...)...)
		if err != nil {
			t.Fatal(err)
		}
		if got := uidpool.Count(pool); got != count {
			t.Fatalf("%v has %d uids, want %d", pool, got, count)
		}
		if err := uidpool.Check(pool); err != nil {
			t.Fatal(err)
		}
		if got := uidpool.Warnings(pool, host); got != nil {
			t.Fatalf("%v: %q", pool, got)
		}
		if both := idset.Of(pool...).Intersect(idset.Of(taken...)); !both.IsEmpty() {
			t.Fatalf("%v has %s, which is taken", pool, both)
		}
	})
}
