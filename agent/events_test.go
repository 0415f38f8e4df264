package agent_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// heard listens in the background.
func (n *node) heard(t *testing.T, f api.EventFilter) <-chan api.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	out := make(chan api.Event, 1000)
	go func() {
		for e, err := range n.Events(ctx, f) {
			if err != nil {
				return
			}
			out <- e
		}
	}()
	return out
}

// next is the next event of a type.
func next(t *testing.T, from <-chan api.Event, kind string) api.Event {
	t.Helper()
	after := time.After(limit)
	for {
		select {
		case e := <-from:
			if e.Type == kind {
				return e
			}
		case <-after:
			t.Fatalf("no event %s", kind)
		}
	}
}

// all is what a stream that ends tells.
func (n *node) all(t *testing.T, f api.EventFilter) (all []api.Event) {
	t.Helper()
	f.Once = true
	for e, err := range n.Events(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func TestEvents(t *testing.T) {
	t.Parallel()
	core, logged := observer.New(zap.InfoLevel)
	n := launchLogged(t, config(t, "n1", clustertest.Start(t).Endpoints()...), zap.New(core))
	<-n.agent.Ready()
	n.pool(t, api.Pool{Name: "p", Ranges: "3900060000-3900060009"})
	live := n.heard(t, api.EventFilter{})
	begin := next(t, live, api.EventBegin)
	g := n.request(t, api.UIDRequest{Key: "k", Holder: "me"})
	subject := fmt.Sprintf("uid/%d", g.Items[0].UID)
	locked := next(t, live, "uid.locked")
	if locked.Subject != subject || *locked.UID != g.Items[0].UID || locked.Pool != "p" || locked.Holder != "me" || locked.Revision <= begin.Revision {
		t.Errorf("told %+v", locked)
	}
	audit := next(t, live, api.EventAudit)
	if a := audit.Audit; a == nil || a.Operation != "request-uids" || a.Caller != g.Items[0].Caller || a.Outcome != "ok" || a.Role != "operator" || len(a.Token) != 16 ||
		fmt.Sprint(a.Subjects) != "[pool/p "+subject+"]" || a.RequestID == "" {
		t.Errorf("audit %+v", audit.Audit)
	}
	if _, err := n.UIDs().Release(t.Context(), g.Items[0].UID, g.Token, ""); err != nil {
		t.Fatal(err)
	}
	next(t, live, "uid.free")
	_, err := n.UIDs().Release(t.Context(), g.Items[0].UID, "", "")
	wants(t, err, problem.CodePreconditionRequired)
	if a := next(t, live, api.EventAudit); a.Audit.Token != audit.Audit.Token {
		t.Errorf("the release's audit %+v", a.Audit)
	}
	if a := next(t, live, api.EventAudit); a.Audit.Outcome != "precondition_required" {
		t.Errorf("the refused one's audit %+v", a.Audit)
	}
	lines := logged.FilterMessage("change").FilterField(zap.String("operation", "release-uid")).All()
	if len(lines) != 2 || lines[0].LoggerName != "audit" {
		t.Errorf("%d lines: %+v", len(lines), lines)
	}
	for _, e := range logged.All() {
		if strings.Contains(fmt.Sprint(e.ContextMap()), g.Token) {
			t.Errorf("the log tells the token: %+v", e)
		}
	}

	// From an id on, exactly what followed; filters take the rest away.
	resumed := n.all(t, api.EventFilter{After: locked.ID})
	if len(resumed) < 4 || resumed[0].ID != audit.ID {
		t.Errorf("resumed with %+v", resumed)
	}
	if some := n.all(t, api.EventFilter{Recent: true, Types: []string{"uid"}, Subjects: []string{subject}}); len(some) < 3 || some[1].ID != locked.ID {
		t.Errorf("of one uid: %+v", some)
	}
	if some := n.all(t, api.EventFilter{Recent: true, Subjects: []string{"uid/1"}}); len(some) != 1 {
		t.Errorf("of another: %+v", some)
	}
	// What cannot be told is said.
	for _, old := range []string{"1-1-1", "99-99999-1", "1-999999999-1"} {
		if got := n.all(t, api.EventFilter{After: old}); len(got) != 1 || got[0].Type != api.EventReset {
			t.Errorf("after %s: %+v", old, got)
		}
	}
	for e, err := range n.Events(t.Context(), api.EventFilter{After: "yesterday"}) {
		wants(t, err, problem.CodeInvalid, "no id of an event")
		if err == nil {
			t.Fatalf("told %+v", e)
		}
	}
}

// TestEventsOfASlowReader: who does not read is dropped with a reason, and costs
// the others nothing.
func TestEventsOfASlowReader(t *testing.T) {
	t.Parallel()
	n := single(t, "3900061000-3900061009")
	n.agent.RememberEvents(20)
	c, err := net.Dial("unix", n.cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	_, _ = io.WriteString(c, "GET /v1/events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	in := bufio.NewReaderSize(c, 16)
	for line := ""; !strings.HasPrefix(line, "data: "); {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	n.agent.TellEvents(5000)
	rest, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(rest), "event: dropped") || !strings.Contains(string(rest), "too slow: ") {
		t.Errorf("it ended with %.300q, %v", rest[max(0, len(rest)-300):], err)
	}
	if _, err := n.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestIdleConnections: ten thousand, and the agent answers.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	const many = 10000
	if have := openFiles(); have < many+2000 {
		t.Skipf("this process may open %d files; %d connections take more", have, many)
	}
	n := single(t, "3900062000-3900062009")
	other := spawn(t, "connect", 0, 0, nil, n.cfg.Socket, strconv.Itoa(many)) // a process has not files enough for both ends
	if got := other.number(t); got != many {
		t.Fatalf("%d connections", got)
	}
	if g := n.request(t, api.UIDRequest{}); g.Token == "" {
		t.Errorf("granted %+v", g)
	}
}

// connectMain opens connections, says how many, and keeps them.
func connectMain(socket, count string) int {
	many, _ := strconv.Atoi(count)
	conns := make([]net.Conn, 0, many)
	for len(conns) < many {
		c, err := net.Dial("unix", socket)
		switch {
		case errors.Is(err, syscall.EAGAIN): // the queue of those not accepted yet is full
			runtime.Gosched()
		case err != nil:
			fmt.Println(err)
			return 1
		default:
			conns = append(conns, c)
		}
	}
	fmt.Println(len(conns))
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, c := range conns {
		_ = c.Close()
	}
	return 0
}
