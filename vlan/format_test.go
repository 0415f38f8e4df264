package vlan

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// format1 is what the first version wrote, a service's key and record a line. It is
// never written anew: what this format gains is added, and another format has another
// file.
const format1 = "testdata/format-1.txt"

// TestFormat1 reads the bytes of the first version's services, one in each state:
// nothing of them is lost, they are written today as they were then, and as a later
// version's they are refused.
func TestFormat1(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(format1)
	if err != nil {
		t.Fatal(err)
	}
	var states []State
	found := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		key, then, _ := strings.Cut(strings.TrimSpace(line), " ")
		name := key[strings.LastIndexByte(key, '/')+1:]
		s, err := decode(name, []byte(then))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		states = append(states, s.State)
		if now := cluster.Encode(s); !bytes.Equal(now, []byte(then)) {
			t.Errorf("%s\nthen %s\nnow  %s", key, then, now)
		}
		parts := []any{*s, s.Selection}
		for _, at := range s.Attributes {
			parts = append(parts, at)
		}
		if s.Hold != nil {
			parts = append(parts, *s.Hold)
		}
		for _, part := range parts {
			for i, v := 0, reflect.ValueOf(part); i < v.NumField(); i++ {
				name := v.Type().Name() + "." + v.Type().Field(i).Name
				found[name] = found[name] || !v.Field(i).IsZero()
			}
		}
		_, err = decode(name, bytes.Replace([]byte(then), []byte(`"v":1`), []byte(`"v":2`), 1))
		if problem.CodeOf(err) != problem.CodeInvalid || !strings.Contains(err.Error(), "record of format 2, this version reads 1: upgrade") {
			t.Errorf("%s of format 2: %v", key, err)
		}
	}
	for field, has := range found {
		if !has {
			t.Errorf("no record has %s: add one that has to %s", field, format1)
		}
	}
	if len(states) != len(States())-1 { // all but gone
		t.Errorf("services in %v, want one in each of %v", states, States())
	}
}
