package fault

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// TestCopyOfAMachine: a machine and its data are copied, machine id and all, and the
// copy boots while the original runs: it may not say what runs on the original.
func TestCopyOfAMachine(t *testing.T) {
	r := start(t)
	n, s := r.Nodes()[0], r.Spare()
	q, err := n.Requester(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a, err := q.Ask(t.Context(), rig.Ask{Op: rig.AskRequest, Request: &api.UIDRequest{Pool: "jobs", Hold: api.Hold{Kind: api.HoldPID}}})
	if err != nil {
		t.Fatal(err)
	}
	uid := a.Grant.Items[0].UID
	if _, err := q.Ask(t.Context(), rig.Ask{Op: rig.AskStart, UID: uid}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Ask(t.Context(), rig.Ask{Op: rig.AskConfirm, UID: uid, Token: a.Grant.Token, Requester: a.Grant.Requester}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.CopyData(n), s.CopyMachine(n), s.PowerOn(), s.AgentStartAs(t.Context(), n.Name())); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := refused(ctx, s); err != nil {
		t.Error(err)
	}
	u, err := r.Nodes()[1].API().UIDs().Get(t.Context(), uid)
	if err != nil || u.State != api.StateUsed {
		t.Errorf("uid %d, which runs on n1, is %s (%v)", uid, u.State, err)
	}
	text, _ := os.ReadFile(s.LogPath())
	t.Logf("%s", text)
}
