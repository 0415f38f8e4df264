package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// stays tells a holdMain that its child is to stay what it is.
const stays = "stays"

// holdMain is a program that asks for a uid with a hold of a kind that names no
// process, says which it got, and starts a child under it for each line it reads.
func holdMain(socket, kind string) int {
	c := api.New(api.Options{Agent: socket})
	u, err := c.RequestUID(context.Background(), api.UIDRequest{Pool: "p", Hold: api.Hold{Kind: kind}})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(u)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		child := exec.Command("/bin/sleep", "1000")
		if in.Text() != stays {
			child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.UID(), Gid: u.UID()}}
		}
		if err := child.Start(); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(child.Process.Pid)
	}
	return 0
}

func (h *helper) number(t testing.TB) int {
	t.Helper()
	line := h.line(t)
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("helper said %s", line)
	}
	return n
}

// TestHolderDies: a program that has a uid by its connection, or by itself, is
// killed: what it started keeps the uid, nothing started gives it back.
func TestHolderDies(t *testing.T) {
	needRoot(t)
	n := single(t, "3900030000-3900030007")
	for _, kind := range []string{api.HoldConnection, api.HoldPID} {
		t.Run(kind, func(t *testing.T) {
			idle := spawn(t, "hold", 0, 0, nil, n.cfg.Socket, kind)
			uid := uint32(idle.number(t))
			if u := n.show(t, uid); u.State != api.StateLocked || u.Hold == nil || u.Hold.Kind != kind || u.Hold.PID != idle.cmd.Process.Pid {
				t.Errorf("held by %+v in state %s; want %s of pid %d", u.Hold, u.State, kind, idle.cmd.Process.Pid)
			}
			idle.kill()
			n.until(t, uid, api.StateFree)

			busy := spawn(t, "hold", 0, 0, nil, n.cfg.Socket, kind)
			uid = uint32(busy.number(t))
			fmt.Fprintln(busy.in)
			child := busy.number(t)
			t.Cleanup(func() { endProcess(child) })
			busy.kill()
			if u := n.until(t, uid, api.StateUsed); !u.Running {
				t.Errorf("used and not running: %+v", u)
			}
			endProcess(child)
			n.until(t, uid, api.StateIdle)
		})
	}
}

// TestChildThatMayBecome: what a dead requester left in its session keeps the uid
// locked, and the uid says so.
func TestChildThatMayBecome(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n := single(t, "3900036100-3900036100")
	holder := spawn(t, "hold", 0, 0, nil, n.cfg.Socket, api.HoldConnection)
	uid := uint32(holder.number(t))
	fmt.Fprintln(holder.in, stays)
	child := holder.number(t)
	t.Cleanup(func() { endProcess(child) })
	holder.kill()
	why := fmt.Sprintf("its requester (pid %d) is gone, but process %d, begun in the same session since, may become this uid yet", holder.cmd.Process.Pid, child)
	eventually(t, "the uid says what it waits for", func() (bool, any) {
		u := n.show(t, uid)
		return u.State == api.StateLocked && u.Reason == why && u.ReasonCode == "session", u
	})
	endProcess(child)
	if u := n.until(t, uid, api.StateFree); u.Reason != "" {
		t.Errorf("free, because %s", u.Reason)
	}
}

// TestLossArrives: over the connection, not by looking.
func TestLossArrives(t *testing.T) {
	n := single(t, "3900031000-3900031007")
	c := api.New(api.Options{Agent: n.cfg.Socket, WatchInterval: time.Hour})
	t.Cleanup(c.Close)
	us, err := c.RequestUIDs(t.Context(), api.UIDRequest{Pool: "p", Count: 2, Hold: api.Hold{Kind: api.HoldConnection}})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range us {
		if err := u.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.UIDs().Release(t.Context(), us[0].UID(), "*", ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-us[0].Lost():
	case <-time.After(limit):
		t.Fatal("no word of the loss")
	}
	select {
	case <-us[1].Lost():
		t.Error("the other is lost, too")
	default:
	}
	if err := us[1].Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.until(t, us[1].UID(), api.StateFree)
}

// closeMain is a program that asks for two uids over connections of one client, keeps
// the first, and closes the client when it is told to.
func closeMain(socket string) int {
	c := api.New(api.Options{Agent: socket})
	hold := api.Hold{Kind: api.HoldConnection}
	ctx, cancel := context.WithCancel(context.Background())
	kept, err := c.RequestUID(ctx, api.UIDRequest{Pool: "p", Hold: hold})
	cancel() // bounds the request, not the hold
	if err != nil {
		fmt.Println(err)
		return 1
	}
	held, err := c.RequestUID(context.Background(), api.UIDRequest{Pool: "p", Key: "k", Hold: hold})
	if err == nil {
		err = kept.Keep(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Printf("%s\n%s\n", kept, held)
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	c.Close()
	in.Scan()
	return 0
}

// TestConnectionEnds: what is held by a closed client goes back, what it confirmed
// stays. The client is in a session of its own: this one's has what go test starts
// beside it, and each of that might be a child that the client left.
func TestConnectionEnds(t *testing.T) {
	n := single(t, "3900032000-3900032007")
	client := spawn(t, "close", 0, 0, nil, n.cfg.Socket)
	kept, held := uint32(client.number(t)), uint32(client.number(t))
	if u := n.show(t, held); u.State != api.StateLocked || u.Hold.Kind != api.HoldConnection {
		t.Errorf("held: %+v", u)
	}
	fmt.Fprintln(client.in)
	n.until(t, held, api.StateFree)
	if u := n.show(t, kept); u.State != api.StateUsed {
		t.Errorf("kept: %s", u.State)
	}
}

// TestHoldsRefused: holds that cannot be.
func TestHoldsRefused(t *testing.T) {
	n := single(t, "3900033000-3900033007")
	ask := func(body string) string {
		code, _, text := n.raw(t, "POST", "/v1/uid-pools/p/uids", body)
		return fmt.Sprint(code, " ", string(text))
	}
	for body, want := range map[string]string{
		`{"hold":{"kind":"connection","pid":1}}`:                  "neither pid nor ttl",
		`{"hold":{"kind":"connection","ttl":"5m"}}`:               "neither pid nor ttl",
		`{"hold":{"kind":"pid","ttl":"5m"}}`:                      "takes the pid of a process",
		`{"hold":{"kind":"wish"}}`:                                "kind",
		`{"uid":3900039999,"hold":{"kind":"connection"}}`:         "is not in",
		`{"count":9,"from":"1-2","hold":{"kind":"connection"}}`:   "code",
		`{"hold":{"kind":"connection"},"requester":"not/a name"}`: "requester",
	} {
		if got := ask(body); !strings.HasPrefix(got, "4") || !strings.Contains(got, want) {
			t.Errorf("%s: %s; want %q", body, got, want)
		}
	}
	g := n.request(t, api.UIDRequest{})
	_, err := n.UIDs().Join(t.Context(), g.Items[0].UID, api.Ref{Token: g.Token}, api.JoinBody{Hold: &api.Hold{Kind: api.HoldConnection}})
	wants(t, err, problem.CodeInvalid, "a connection holds what was asked for over it")
	_, err = n.Grant(t.Context(), api.UIDRequest{Pool: "p", Hold: api.Hold{Kind: api.HoldConnection}})
	wants(t, err, problem.CodeInvalid, "use RequestUID")
	if _, err = n.RequestUID(t.Context(), api.UIDRequest{Pool: "none", Hold: api.Hold{Kind: api.HoldConnection}}); problem.CodeOf(err) != problem.CodeNotFound {
		t.Errorf("no such pool: %v", err)
	}
}

// TestRawStream: what a program without our client sees.
func TestRawStream(t *testing.T) {
	n := single(t, "3900034000-3900034000")
	type answer struct {
		code int
		head string
		text []byte
	}
	done := make(chan answer, 1)
	go func() {
		code, head, text := n.raw(t, "POST", "/v1/uid-pools/p/uids", `{"hold":{"kind":"connection"}}`)
		done <- answer{code, head.Get("Content-Type"), text}
	}()
	n.until(t, 3900034000, api.StateLocked)
	if _, err := n.UIDs().Release(t.Context(), 3900034000, "*", ""); err != nil {
		t.Fatal(err)
	}
	a := <-done
	lines := strings.Split(strings.TrimSpace(string(a.text)), "\n")
	if a.code != 201 || a.head != api.StreamType || len(lines) != 2 ||
		!strings.HasPrefix(lines[0], `{"event":"granted","grant":{"token":"`) || !strings.HasPrefix(lines[1], `{"event":"lost","uid":3900034000`) {
		t.Errorf("%d %s\n%s", a.code, a.head, a.text)
	}
}
