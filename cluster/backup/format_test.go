package backup_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/backup"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

const (
	epoch = "3f0e8f5e-8a57-4d0b-9d0e-6a4d2b1c0f11"
	head  = `{"idpool":"export","v":1,"root":"/idpool/","epoch":"` + epoch + `","number":2,"previous":[{"epoch":"` + epoch + `","number":1}],"revision":9,"counts":{"claim":2,"uid pool":1}}`
	one   = `{"key":"claims/uid/0000000001","value":{"v":1}}`
	two   = `{"key":"claims/uid/0000000002","base64":"AP8="}`
	pool  = `{"key":"pools/uid/jobs","value":{"v":1}}`
)

// file is lines with the trailer that they need.
func file(lines ...string) string {
	text := strings.Join(lines, "\n") + "\n"
	return text + fmt.Sprintf(`{"end":true,"keys":%d,"sha256":"%x"}`, len(lines)-1, sha256.Sum256([]byte(text))) + "\n"
}

func TestVerify(t *testing.T) {
	x, err := backup.Verify(strings.NewReader(file(head, one, two, pool)))
	if err != nil || x.Keys != 3 || x.Header.Number != 2 {
		t.Fatalf("a good file: %+v (%v)", x, err)
	}
	whole := file(head, one, two, pool)
	with := func(old, new string) string { return strings.Replace(head, old, new, 1) }
	for _, tt := range []struct{ name, file, says string }{
		{"nothing", "", "line 1: the file ends here"},
		{"another file", "hello\n", "line 1: this is no export"},
		{"a newer format", file(with(`"v":1`, `"v":2`)), "line 1: an export of format 2, this version reads 1"},
		{"an unknown field", file(with(`"v":1`, `"v":1,"x":1`)), `line 1: json: unknown field "x"`},
		{"an unknown subset", file(with(`"v":1`, `"v":1,"only":"claims"`)), "line 1: an export of \"claims\""},
		{"no epoch", file(with(`"`+epoch+`","number":2`, `"e","number":2`)), "line 1: meta: epoch"},
		{"no number", file(with(`"number":2`, `"number":0`)), "line 1: meta: epoch number"},
		{"a revision below 1", file(with(`"revision":9`, `"revision":0`)), "line 1: revision 0"},
		{"a bad root", file(with(`/idpool/`, `idpool`)), "line 1: root"},
		{"cut in a line", whole[:len(head)+20], "line 2: the file ends here"},
		{"cut behind a line", strings.Join([]string{head, one, two, ""}, "\n"), "line 4: the file ends here"},
		{"cut in the last line", whole[:len(whole)-1], "line 5: the file ends here"},
		{"a line less", strings.Replace(whole, two+"\n", "", 1), "line 4: the last line counts 3 keys, there are 2"},
		{"a changed line", strings.Replace(whole, "AP8=", "AP4=", 1), "line 5: the last line says sha256"},
		{"a changed value", strings.Replace(whole, `{"v":1}}`, `{"v":2}}`, 1), "line 5: the last line says sha256"},
		{"something behind", whole + "\n", "line 5: something stands after the last line"},
		{"counts that differ", file(head, one, two), "line 4: the first line counts"},
		{"no order", file(head, two, one, pool), "line 3: key \"claims/uid/0000000001\" comes after"},
		{"twice", file(head, one, one, pool), "line 3: key"},
		{"no key of ours", file(head, `{"key":"x/y","value":{}}`), "line 2: key \"x/y\" is none of idpool's"},
		{"a way out of the root", file(head, `{"key":"../other","value":{}}`), "line 2: key"},
		{"meta", file(head, `{"key":"meta","value":{}}`), "a meta, does not belong"},
		{"a lock", file(head, `{"key":"locks/uid/0000000001","value":{}}`), "a lock, does not belong"},
		{"a claim among pools", file(with(`"v":1`, `"v":1,"only":"pools"`), one), "a claim, does not belong"},
		{"no object", file(head, `{"key":"claims/uid/0000000001","value":"x"}`), "line 2: the value is no object"},
		{"two values", file(head, `{"key":"claims/uid/0000000001","value":{},"base64":""}`), "line 2: want"},
		{"no value", file(head, `{"key":"claims/uid/0000000001"}`), "line 2: want"},
		{"no line", file(head, ``), "line 2: it is empty"},
		{"a list", file(head, `[]`), "line 2: json"},
		{"bad base64", file(head, `{"key":"claims/uid/0000000001","base64":"A"}`), "line 2: illegal base64"},
		{"a long line", head + "\n" + strings.Repeat(" ", 4<<20) + "\n", "line 2: a line of more than"},
		{"an end with a key", head + "\n" + `{"end":true,"key":"x"}` + "\n", "line 2: a last line that has a key"},
	} {
		_, err := backup.Verify(strings.NewReader(tt.file))
		if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
}

// TestImportOfABadFileWritesNothing: a fault in the last line is found before the first
// write.
func TestImportOfABadFileWritesNothing(t *testing.T) {
	c := clustertest.Start(t)
	client := c.Open(t)
	before := mustRead(t, client)
	whole := file(head, one, two, pool)
	_, err := backup.Import(testContext(t), client, strings.NewReader(whole[:len(whole)-1]), backup.ImportOptions{})
	if !errors.Is(err, problem.ErrInvalid) || !strings.HasPrefix(err.Error(), "nothing imported: line 5: ") {
		t.Errorf("import: %v", err)
	}
	if after := mustRead(t, client); after != before {
		t.Errorf("it wrote: revision %d after %d", after, before)
	}
	// A file that changes between the two readings.
	r := &twoFaced{first: []byte(whole), second: []byte(file(head, one, `{"key":"claims/uid/0000000002","base64":"AP4="}`, pool))}
	r.Reader = bytes.NewReader(r.first)
	_, err = backup.Import(testContext(t), client, r, backup.ImportOptions{})
	if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("a file that changed: %v", err)
	}
	if _, _, err := client.ReadMeta(testContext(t)); !errors.Is(err, problem.ErrUnavailable) {
		t.Errorf("it counts: %v", err)
	}
}

type twoFaced struct {
	*bytes.Reader
	first, second []byte
}

func (r *twoFaced) Seek(int64, int) (int64, error) {
	r.Reader = bytes.NewReader(r.second)
	return 0, nil
}

// FuzzDecoder: whatever a file holds, it is refused or understood in one way.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte(file(head, one, two, pool)))
	f.Add([]byte(file(head, one)))
	f.Add([]byte(file(strings.Replace(head, `"v":1`, `"v":1,"only":"pools"`, 1), pool)))
	f.Add([]byte(head + "\n" + one))
	f.Add([]byte(`{"end":true}` + "\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		// The sum is made right, so that the fuzzer gets behind it.
		text := bytes.TrimRight(lines, "\n")
		if i := bytes.LastIndexByte(text, '\n'); i > 0 && bytes.HasPrefix(text[i+1:], []byte(`{"end"`)) {
			text = text[:i]
		}
		data := []byte(file(strings.Split(string(text), "\n")...))
		d, err := backup.NewDecoder(bytes.NewReader(data))
		if err != nil {
			if !errors.Is(err, problem.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		keys, err := cluster.NewKeys(d.Header.Root)
		if err != nil {
			t.Fatal(err)
		}
		var again []string
		for last := ""; ; {
			e, err := d.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				if !errors.Is(err, problem.ErrInvalid) {
					t.Fatal(err)
				}
				return
			}
			if _, err := keys.Parse(keys.Root() + e.Key); err != nil || e.Key <= last {
				t.Fatalf("key %q after %q: %v", e.Key, last, err)
			}
			last = e.Key
			line := string(backup.EncodeEntry(e))
			again = append(again, line)
		}
		x, err := backup.Verify(strings.NewReader(file(append([]string{string(cluster.Encode(d.Header))}, again...)...)))
		if err != nil {
			t.Fatalf("written again it is refused: %v", err)
		}
		if diff := cmp.Diff(d.Header, x.Header, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}
