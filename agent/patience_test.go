package agent_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// moment is a patience that is over at once; a client that does its part needs
// less than long.
const (
	moment = 50 * time.Millisecond
	long   = 2 * limit
)

// impatient is an agent with that patience, and a connection to it.
func impatient(t *testing.T, log *zap.Logger, head, body, answer, event time.Duration) (*node, net.Conn) {
	t.Helper()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	n := launchLogged(t, c, log, func(a *agent.Agent) { a.Patience(head, body, answer, event) })
	<-n.agent.Ready()
	n.pool(t, api.Pool{Name: "p", Ranges: "3900066000-3900066009"})
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(limit))
	return n, conn
}

// TestSlowHead: a head that does not come is not waited for.
func TestSlowHead(t *testing.T) {
	t.Parallel()
	_, conn := impatient(t, nil, moment, long, long, long)
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: a\r\n"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); err != nil {
		t.Errorf("the connection stays: %q, %v", rest, err)
	}
}

// TestSlowBody: a body that does not come is refused, its connection ends, and
// nothing of it is done.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"counted": "Content-Length: 100\r\n\r\n{",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
		"too big": "Content-Length: 2000000\r\n\r\n" + strings.Repeat(" ", 1<<20+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, conn := impatient(t, nil, long, moment, long, long)
			// What is too big need not be taken whole.
			_, _ = io.WriteString(conn, "POST /v1/uid-pools/p/uids HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"+request)
			in := bufio.NewReader(conn)
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			if res.StatusCode != 422 || !strings.Contains(string(text), "body") || err != nil {
				t.Errorf("%d %s, %v", res.StatusCode, text, err)
			}
			if _, err := in.ReadByte(); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays")
			}
			uids := 0
			for _, err := range n.UIDs().List(t.Context(), api.UIDFilter{}) {
				if uids++; err != nil {
					t.Fatal(err)
				}
			}
			if uids > 0 {
				t.Errorf("%d uids granted", uids)
			}
		})
	}
}

// TestUnreadAnswer: a client that asks and never reads is let go once it holds up
// the agent; who reads in time is not.
func TestUnreadAnswer(t *testing.T) {
	t.Parallel()
	n, conn := impatient(t, nil, long, long, moment, long)
	ask := []byte(strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: a\r\n\r\n", 100))
	var err error
	for err == nil { // the agent reads on while its answers go out, and no further
		_, err = conn.Write(ask)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays: %v", err)
	}
	if _, err := n.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLongWait: the patience with readers does not count while a request waits.
func TestLongWait(t *testing.T) {
	t.Parallel()
	n, _ := impatient(t, nil, long, long, moment, long)
	n.request(t, api.UIDRequest{Count: 10})
	_, err := n.Grant(t.Context(), api.UIDRequest{Pool: "p", Wait: 5 * moment})
	wants(t, err, problem.CodeExhausted)
}

// TestUnreadEvents: a listener that does not read is let go, however much the agent
// remembers for it.
func TestUnreadEvents(t *testing.T) {
	t.Parallel()
	core, logged := observer.New(zap.InfoLevel)
	n, conn := impatient(t, zap.New(core), long, long, long, moment)
	if _, err := io.WriteString(conn, "GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil { // it listens
		t.Fatal(err)
	}
	n.agent.TellEvents(5000)
	eventually(t, "the listener is let go", func() (bool, any) {
		some := logged.FilterMessage("listener dropped").All()
		return len(some) == 1 && strings.Contains(fmt.Sprint(some[0].ContextMap()["why"]), "nothing was read"), some
	})
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays")
	}
}
