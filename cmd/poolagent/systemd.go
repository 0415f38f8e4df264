package main

import (
	"context"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/problem"
)

// socketName is FileDescriptorName= of the agent's socket in its socket unit.
const socketName = "agent"

// activated is the socket that the service manager opened for us, nil if it opened
// none. Exactly one is taken: a Unix socket of that name, at the path configured.
func activated(path string) (net.Listener, error) {
	all, err := activation.ListenersWithNames()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	bad := func(format string, args ...any) (net.Listener, error) {
		for _, ls := range all {
			for _, l := range ls {
				_ = l.Close()
			}
		}
		return nil, problem.New(problem.CodeInvalid, format, args...).
			Advise("in the socket unit", "ListenStream=%s and FileDescriptorName=%s, nothing else", path, socketName)
	}
	ls := all[socketName]
	switch {
	case len(all) != 1 || len(ls) != 1:
		return bad("the service manager passes sockets that are not the agent's")
	case ls[0].Addr().Network() != "unix":
		return bad("the service manager passes a %s socket, and the agent answers on a Unix socket", ls[0].Addr().Network())
	case ls[0].Addr().String() != path:
		return bad("the service manager listens on %s and the configuration says %s: make them the same", ls[0].Addr(), path)
	}
	return ls[0], nil
}

// lookEvery is how often the service manager's status line is brought up to date.
const lookEvery = time.Second

// manager is the service manager's view of the agent: it tells when the agent
// answers, reloads and stops, shows its state, and feeds the watchdog while the
// agent is alive. Without a service manager it only reloads.
type manager struct {
	agent    *agent.Agent
	reload   *reloader
	log      *zap.Logger
	hangup   chan os.Signal
	watchdog time.Duration // between two signs of life; 0: nobody watches

	status string // told last
	stuck  bool
}

func newManager(a *agent.Agent, r *reloader, log *zap.Logger) *manager {
	m := &manager{agent: a, reload: r, log: log, hangup: make(chan os.Signal, 1)}
	signal.Notify(m.hangup, syscall.SIGHUP)
	if limit, err := daemon.SdWatchdogEnabled(false); err == nil {
		m.watchdog = limit / 3
	}
	return m
}

// run works until the agent has ended; ctx ends when it is told to stop.
func (m *manager) run(ctx context.Context, ended <-chan struct{}) {
	defer signal.Stop(m.hangup)
	stop, answering := ctx.Done(), m.agent.Answering()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	feed := make(<-chan time.Time)
	if m.watchdog > 0 {
		t := time.NewTicker(m.watchdog)
		defer t.Stop()
		feed = t.C
	}
	for {
		select {
		case <-answering:
			answering = nil
			m.tell(daemon.SdNotifyReady)
			m.show()
		case <-stop:
			stop = nil
			m.tell(daemon.SdNotifyStopping + "\nSTATUS=stopping")
			look.Stop()
		case <-m.hangup:
			m.tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
			m.reload.reload()
			m.tell(daemon.SdNotifyReady)
		case <-look.C:
			m.show()
		case <-feed:
			m.feed()
		case <-ended:
			return
		}
	}
}

// show tells the state of the agent, if it is another one.
func (m *manager) show() {
	if now := m.agent.StatusLine(); now != m.status {
		m.status = now
		m.tell("STATUS=" + now)
	}
}

// feed gives the watchdog a sign of life, unless the agent is stuck.
func (m *manager) feed() {
	err := m.agent.Alive()
	if err == nil {
		m.tell(daemon.SdNotifyWatchdog)
	} else if !m.stuck {
		m.log.Error("the service manager gets no sign of life any more", zap.Error(err))
	}
	m.stuck = err != nil
}

func (m *manager) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.Debug("service manager not told", zap.Error(err))
	}
}
