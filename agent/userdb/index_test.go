package userdb_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/idpool/idpool/agent/userdb"
)

// TestIndexFollows: what was granted before the question is found, however many
// changes there are; what the host names itself is found no more.
func TestIndexFollows(t *testing.T) {
	t.Parallel()
	src, files := &source{}, hostFiles(t, "", "")
	x := userdb.NewIndex(src, "idp-").Files(files...)
	ctx := t.Context()
	if _, _, err := x.ByUID(ctx, 70000); err != userdb.ErrNotKnown {
		t.Errorf("nothing known: %v", err)
	}
	for uid := uint32(70000); uid < 70005; uid++ {
		src.set(one(uid, ""))
		if r, ok, err := x.ByUID(ctx, uid); !ok || err != nil || r.UID != uid {
			t.Errorf("uid %d just granted: %+v %v %v", uid, r, ok, err)
		}
	}
	if _, ok, err := x.ByName(ctx, "idp-70000"); ok || err != nil {
		t.Errorf("idp-70000 is gone: %v %v", ok, err)
	}
	src.set(one(70005, ""))
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, ok, err := x.ByUID(over, 70005); !ok && err == nil {
		t.Error("a question that was not waited for has an answer")
	}
	if r, ok, err := x.ByName(ctx, "idp-70005"); !ok || err != nil {
		t.Errorf("idp-70005: %+v %v", r, err)
	}
	if err := os.WriteFile(files[0], []byte("somebody:x:70005:1::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, ok, err := x.ByUID(ctx, 70005); ok || err != nil {
		t.Errorf("a uid of the host's own: %+v %v", r, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := x.ByUID(ctx, 70005); !ok || err != nil {
		t.Errorf("without the file: %v %v", ok, err)
	}
	if err := os.Mkdir(files[0], 0o700); err != nil { // reads as an error
		t.Fatal(err)
	}
	if _, ok, err := x.ByUID(ctx, 70005); ok || err == nil {
		t.Errorf("with a file that cannot be read: %v %v", ok, err)
	}
}

// TestIndexWaits: between two snapshots there is a pause, whatever is asked.
func TestIndexWaits(t *testing.T) {
	t.Parallel()
	src := &counting{source: grants(one(70000, ""))}
	x := userdb.NewIndex(src, "idp-").Files(hostFiles(t, "", "")...)
	began := time.Now()
	for range 2000 {
		src.set(one(70000, ""))
		if _, ok, err := x.ByUID(t.Context(), 70000); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if most := int(time.Since(began)/(50*time.Millisecond)) + 2; src.n > most {
		t.Errorf("%d snapshots; at most %d may be made in that time", src.n, most)
	}
}

type counting struct {
	*source
	n int
}

func (c *counting) Grants() []userdb.Grant {
	c.n++
	return c.source.Grants()
}
