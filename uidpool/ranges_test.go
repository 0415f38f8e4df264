package uidpool_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
	"pgregory.net/rapid"
)

// poolOf reads a definition in the usual form.
func poolOf(t testing.TB, definition string) []idset.Range {
	t.Helper()
	pool, err := uidpool.Parse(definition, uidpool.ParseSeparator)
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func text(pool []idset.Range) string { return uidpool.Format(pool, uidpool.FormatSeparator) }

func TestParse(t *testing.T) {
	for _, c := range []struct{ value, separator, want string }{
		{"", ",", ""},
		{",,", ",", ""},
		{"1-100,200", ",", "1-100, 200"},
		{"10-12,10-11", ",", "10-11, 10-12"},
		{" 5 , 7 ", ",", "5, 7"},
		{"1 - 3", ",", "1-3"},
		{"\t1-\n3\r", ",", "1-3"},
		{"5,5", ",", "5, 5"},
		{"200,1-100,", ",", "1-100, 200"},
		{",7,,8", ",", "7, 8"},
		{"7-7", ",", "7"},
		{"007", ",", "7"},
		{"9-3", ",", "9-3"},
		{"0,65534,65535,4294967295", ",", "0, 65534, 65535, 4294967295"},
		{"1-100\n200\n", "\n", "1-100, 200"},
		{"1-100, 200", ", ", "1-100, 200"},
		{"1-2--9--", "--", "1-2, 9"},
		{"1;;2", ";;", "1, 2"},
	} {
		pool, err := uidpool.Parse(c.value, c.separator)
		if err != nil || pool == nil || text(pool) != c.want {
			t.Errorf("%q: got %q, %v; want %q", c.value, text(pool), err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	garbage := strings.Repeat("x", 10<<20)
	for value, want := range map[string]string{
		" ":                       `element 1, " ", is blank`,
		"1, ,2":                   `element 2, " ", is blank`,
		"1,2,\n":                  `element 3, "\n", is blank`,
		"-":                       `element 1, "-", has no lower bound`,
		"-5":                      `element 1, "-5", has no lower bound`,
		"5-":                      `element 1, "5-", has no higher bound`,
		"5- ,6":                   `element 1, "5- ", has no higher bound`,
		"1-2-3":                   `element 1, "1-2-3", has more than one hyphen`,
		"1,,2--3":                 `element 3, "2--3", has more than one hyphen`,
		"a-b":                     `element 1, "a-b", has a lower bound, "a", that is not a decimal number`,
		"1-b":                     `has a higher bound, "b", that is not a decimal number`,
		"1_000":                   `element 1, "1_000", has an underscore`,
		"+5":                      `element 1, "+5", has a sign`,
		"1-+5":                    `has a higher bound, "+5", that has a sign`,
		"0x10":                    `"0x10", is not a decimal number`,
		"1.5":                     `"1.5", is not a decimal number`,
		"1 000":                   `"1 000", has a blank inside its number`,
		"\u00a05":                 `has a blank that is not ASCII`,
		"５":                       `element 1, "５", has digits of another script`,
		"1-٣":                     `has a higher bound, "٣", that has digits of another script`,
		"4294967296":              `element 1, "4294967296", is above the highest 32-bit number, 4294967295`,
		"1-4294967296":            `has a higher bound, "4294967296", that is above`,
		"7," + garbage:            `element 2, "` + garbage[:40] + `"… (10485760 bytes), is not a decimal number`,
		strings.Repeat("9", 1000): `(1000 bytes), is above`,
		"\xff":                    `"\xff", is not a decimal number`,
	} {
		pool, err := uidpool.Parse(value, ",")
		if err == nil {
			t.Errorf("%.40q: accepted as %v", value, pool)
			continue
		}
		if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %q, want %q", value, err, want)
		}
		if len(err.Error()) > 400 {
			t.Errorf("%.40q: message of %d bytes", value, len(err.Error()))
		}
	}
	if _, err := uidpool.Parse("1,2", ""); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("empty separator: %v", err)
	}
}

func TestFormatKeepsOrder(t *testing.T) {
	pool := []idset.Range{{Lower: 200, Higher: 200}, {Lower: 1, Higher: 100}, {Lower: 9, Higher: 3}}
	if got := uidpool.Format(pool, "\n"); got != "200\n1-100\n9-3" {
		t.Errorf("got %q", got)
	}
	if got := uidpool.Format(nil, ", "); got != "" {
		t.Errorf("empty pool: %q", got)
	}
}

func TestExpand(t *testing.T) {
	pool := poolOf(t, "9-3,5,4-6,1,4294967294-4294967295")
	want := []uidpool.UID{1, 4, 5, 6, 4294967294, 4294967295}
	if diff := cmp.Diff(want, slices.Collect(uidpool.Expand(pool))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := uidpool.Count(pool); got != 6 {
		t.Errorf("Count: %d", got)
	}
	all := poolOf(t, "0-4294967295")
	if got := uidpool.Count(all); got != 1<<32 {
		t.Errorf("Count of everything: %d", got)
	}
	for u := range uidpool.Expand(all) {
		if u == 3 {
			break
		}
	}
}

func TestAdd(t *testing.T) {
	for _, c := range []struct{ pool, more, want string }{
		{"", "", ""},
		{"", "5", "5"},
		{"1-10", "11-20", "1-20"},
		{"1-10", "5-20", "1-20"},
		{"1-10,30-40", "11-29", "1-40"},
		{"1-10", "1-10", "1-10"},
		{"100", "5,7", "5, 7, 100"},
		{"0", "4294967295", "0, 4294967295"},
	} {
		pool, more := poolOf(t, c.pool), poolOf(t, c.more)
		got := uidpool.Add(pool, more)
		if got == nil || text(got) != c.want {
			t.Errorf("%s and %s: got %s, want %s", c.pool, c.more, text(got), c.want)
		}
		if len(got) > 0 {
			got[0].Lower = 77
		}
		if !slices.Equal(pool, poolOf(t, c.pool)) || !slices.Equal(more, poolOf(t, c.more)) {
			t.Errorf("%s and %s: an argument changed", c.pool, c.more)
		}
	}
}

func TestRemove(t *testing.T) {
	for _, c := range []struct{ pool, less, want string }{
		{"1-10", "", "1-10"},
		{"1-10", "1-10", ""},
		{"1-10", "4-6", "1-3, 7-10"},
		{"1-10", "1,10,5-5", "2-4, 6-9"},
		{"1-10,11-20", "8-12", "1-7, 13-20"},
		{"5,5", "5", ""},
		{"0-4294967295", "4294967295,0", "1-4294967294"},
	} {
		got, err := uidpool.Remove(poolOf(t, c.pool), poolOf(t, c.less))
		if err != nil || got == nil || text(got) != c.want {
			t.Errorf("%s without %s: got %s, %v; want %s", c.pool, c.less, text(got), err, c.want)
		}
	}
	for _, c := range []struct{ pool, less, want, note string }{
		{"1-10", "5,11-12", `element 2, "11-12", is not in the pool`, "the pool is: 1-10"},
		{"1-10", "8-12", `element 1, "8-12", is not wholly in the pool, which lacks 11-12`, "ok instead of element 1: 8-10"},
		{"1-10", "9-3", `element 1, "9-3", has its lower bound above the higher`, "ok instead: 3-9"},
		{"", "1", `element 1, "1", is not in the pool`, "the pool is: empty"},
	} {
		pool := poolOf(t, c.pool)
		got, err := uidpool.Remove(pool, poolOf(t, c.less))
		var e *problem.Error
		if got != nil || !errors.As(err, &e) || e.Code != problem.CodeInvalid || !strings.Contains(e.Detail, c.want) {
			t.Errorf("%s without %s: got %v, %v; want %q", c.pool, c.less, got, err, c.want)
			continue
		}
		if !slices.Contains(e.Notes, c.note) {
			t.Errorf("%s without %s: notes %q, want %q", c.pool, c.less, e.Notes, c.note)
		}
		if !slices.Equal(pool, poolOf(t, c.pool)) {
			t.Errorf("%s without %s: the pool changed", c.pool, c.less)
		}
	}
}

func TestAddAndRemoveUndoEachOther(t *testing.T) {
	pools := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) idset.Range {
		lower := rapid.Uint32().Draw(t, "lower")
		return idset.Range{Lower: lower, Higher: rapid.Uint32Range(lower, 1<<32-1).Draw(t, "higher")}
	}), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		pool, more := pools.Draw(t, "pool"), pools.Draw(t, "more")
		both := uidpool.Add(pool, more)
		rest, err := uidpool.Remove(both, more)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rest {
			if !idset.Of(r).Remove(idset.Of(pool...)).IsEmpty() {
				t.Fatalf("%v is in neither", r)
			}
		}
		if back := uidpool.Add(rest, more); !slices.Equal(back, both) {
			t.Fatalf("%v and %v: %v, then %v", rest, more, back, both)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, value := range []string{
		"", "1-100,200", "10-12,10-11", " 5 , 7 ", "1 - 3", ",,", "5,5", "1,", "9-3", "1-2-3", "a-b", "-5", "5-", " ", "1, ,2",
		"1_000", "+5", "５", "4294967295", "4294967296", "\u00a05", "\xff",
	} {
		f.Add(value, ",")
	}
	f.Add("1-2\n3\n", "\n")
	f.Add("1", "")
	f.Fuzz(func(t *testing.T, value, separator string) {
		pool, err := uidpool.Parse(value, separator)
		if err != nil {
			if !errors.Is(err, problem.ErrInvalid) || len(err.Error()) > 1000 {
				t.Fatalf("%q: %v", value, err)
			}
			return
		}
		for _, format := range []string{",", ", ", "\n"} {
			printed := uidpool.Format(pool, format)
			back, err := uidpool.Parse(printed, format)
			if err != nil || !slices.Equal(back, pool) {
				t.Fatalf("%q: printed %q, read back %v, %v", value, printed, back, err)
			}
		}
		if back, err := uidpool.Parse(uidpool.Format(pool, uidpool.FormatSeparator), uidpool.ParseSeparator); err != nil || !slices.Equal(back, pool) {
			t.Fatalf("%q: the two usual separators do not fit: %v, %v", value, back, err)
		}
		_ = uidpool.Check(pool)
	})
}

func ExampleParse() {
	pool, err := uidpool.Parse("200, 1 - 100", ",")
	fmt.Println(uidpool.Format(pool, "; "), err)
	_, err = uidpool.Parse("200,1-2-3", ",")
	fmt.Println(err)
	// Output:
	// 1-100; 200 <nil>
	// uid pool not read: element 2, "1-2-3", has more than one hyphen
}

func ExampleFormat() {
	pool := []idset.Range{{Lower: 1, Higher: 100}, {Lower: 200, Higher: 200}}
	fmt.Println("uid pool:", uidpool.Format(pool, uidpool.FormatSeparator))
	// Output: uid pool: 1-100, 200
}

func ExampleAdd() {
	pool := []idset.Range{{Lower: 70000, Higher: 70099}}
	fmt.Println(uidpool.Add(pool, []idset.Range{{Lower: 70100, Higher: 70199}}))
	// Output: [70000-70199]
}

func ExampleRemove() {
	pool := []idset.Range{{Lower: 70000, Higher: 70099}}
	less, err := uidpool.Remove(pool, []idset.Range{{Lower: 70050, Higher: 70059}})
	fmt.Println(less, err)
	_, err = uidpool.Remove(pool, []idset.Range{{Lower: 70090, Higher: 70109}})
	fmt.Println(err)
	// Output:
	// [70000-70049 70060-70099] <nil>
	// nothing removed: element 1, "70090-70109", is not wholly in the pool, which lacks 70100-70109
}
