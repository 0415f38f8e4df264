package rig

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/idpool/idpool/cluster"
)

// Member is an etcd member: a machine with one process.
type Member struct {
	r       *Rig
	name    string
	address string
	dir     string
	m       *machine
	clock   *clock

	mu  sync.Mutex // guards the fields below
	etc *process
	db  *cluster.Client
	id  uint64
}

// Name is m1, m2, …
func (m *Member) Name() string { return m.name }

// LogPath is the file with what its process wrote, all starts.
func (m *Member) LogPath() string { return filepath.Join(m.dir, "log") }

func (m *Member) socket() string { return filepath.Join(m.dir, "s") }

func (m *Member) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.etc
}

// Alive tells whether its process runs, paused or not.
func (m *Member) Alive() bool { return m.process().alive() }

// Launch starts its process, if none runs; it need not answer at once.
func (m *Member) Launch() error {
	if m.Alive() {
		return nil
	}
	m.r.say("%s: etcd started", m.name)
	log, err := os.OpenFile(m.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := m.m.daemon(log, append(m.r.environ(), m.clock.env(), "ETCD_VERIFY=all"), filepath.Join(m.r.o.Bin, "etcd"),
		"--name", m.name, "--data-dir", filepath.Join(m.dir, "data"),
		"--listen-client-urls", "http://"+m.address+":2379,unix://"+m.socket(), "--advertise-client-urls", "http://"+m.address+":2379",
		"--listen-peer-urls", m.peerURL(), "--initial-advertise-peer-urls", m.peerURL(),
		"--initial-cluster", m.r.initialCluster(), "--initial-cluster-token", firstToken,
		"--heartbeat-interval", "60", "--election-timeout", "600", "--log-level", "warn", "--unsafe-no-fsync",
		"--snapshot-count", "1000", "--watch-progress-notify-interval", "2s")
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.etc = p
	return nil
}

func (m *Member) peerURL() string { return "http://" + m.address + ":2380" }

// initialCluster names all members, as etcd wants them named.
func (r *Rig) initialCluster() string {
	var all []string
	for _, m := range r.members {
		all = append(all, m.name+"="+m.peerURL())
	}
	return strings.Join(all, ",")
}

// Kill ends its process with SIGKILL; none is no error.
func (m *Member) Kill() error {
	m.r.say("%s: etcd killed", m.name)
	return m.process().kill()
}

// Start starts its process, if none runs, and waits until it answers.
func (m *Member) Start(ctx context.Context) error {
	if err := m.Launch(); err != nil {
		return err
	}
	return m.Working(ctx)
}

// Pause stops its process with SIGSTOP.
func (m *Member) Pause() error {
	m.r.say("%s: etcd paused", m.name)
	return m.process().signal(syscall.SIGSTOP)
}

// Resume lets it go on.
func (m *Member) Resume() error {
	m.r.say("%s: etcd resumed", m.name)
	return m.process().signal(syscall.SIGCONT)
}

// Working waits until the member answers a read that a quorum confirms.
func (m *Member) Working(ctx context.Context) error {
	return eventually(ctx, "etcd member "+m.name+" answers", func(ctx context.Context) error {
		if !m.Alive() {
			return fmt.Errorf("its process has ended, see %s", m.LogPath())
		}
		db, err := m.client(ctx)
		if err == nil {
			_, err = db.Txn().Get(ctx, "rig/health")
		}
		return err
	})
}

// client is a connection to this member alone, by its socket.
func (m *Member) client(ctx context.Context) (*cluster.Client, error) {
	m.mu.Lock()
	db := m.db
	m.mu.Unlock()
	if db != nil {
		return db, nil
	}
	db, err := m.r.open(ctx, m)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.db != nil {
		_ = db.Close()
	} else {
		m.db = db
	}
	return m.db, nil
}

func (m *Member) endpoint() string { return "unix://" + m.socket() }

// status is its own id and its leader's, 0 for none.
func (m *Member) status(ctx context.Context) (id, leader uint64, err error) {
	db, err := m.client(ctx)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := db.Txn().Status(ctx, m.endpoint())
	if err != nil {
		return 0, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id = st.Header.MemberId
	return m.id, st.Leader, nil
}

// Defragment rewrites its database; the member answers nothing meanwhile.
func (m *Member) Defragment(ctx context.Context) error {
	db, err := m.client(ctx)
	if err != nil {
		return err
	}
	_, err = db.Txn().Defragment(ctx, m.endpoint())
	return err
}

// WallClock moves the wall clock of its process by whole seconds from the truth,
// at once and also after restarts. The monotonic clock goes on as it was.
func (m *Member) WallClock(offset time.Duration) error { return m.clock.set(offset) }

// post sends a request to the member's HTTP gateway.
func (m *Member) post(ctx context.Context, path, body string) error {
	var d net.Dialer
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", m.socket())
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://etcd"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd member %s answered %s to %s", m.name, resp.Status, path)
	}
	return nil
}
