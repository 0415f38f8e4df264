package leases

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// Home is what an agent remembers on its own disk: the secret that makes it
// itself, and the furthest point it has seen of etcd and of its own session.
// Losing it makes the node a stranger, refused until an operator fences it.
type Home struct {
	path string
	seam seam.Seam
	mu   sync.Mutex // guards memory and the file
	mem  memory
}

// memory is the content of the file.
type memory struct {
	V      int    `json:"v"`
	Secret string `json:"secret"`
	// Nonce and Counter are written before the presence that carries them, so
	// what etcd shows of us is never ahead of them (rule 12).
	Nonce   string `json:"nonce,omitempty"`
	Counter uint64 `json:"counter,omitempty"`
	// PriorNonce and PriorCounter are the session before: it still stands in etcd
	// if the agent ended after it wrote Nonce and before etcd had it.
	PriorNonce   string `json:"prior_nonce,omitempty"`
	PriorCounter uint64 `json:"prior_counter,omitempty"`
	// Boot is the one that the node was last registered in, and Left tells that it
	// has left since: a node that is removed otherwise does not come back in that
	// boot (rule 13).
	Boot string `json:"boot,omitempty"`
	Left bool   `json:"left,omitempty"`
	// Cluster, Epoch, Index and Revision are the furthest seen (rule 31). Epoch is the
	// last one in which this node could write, Past those before it, separated by
	// commas, the latest last.
	Cluster  uint64 `json:"cluster,omitempty"`
	Epoch    string `json:"epoch,omitempty"`
	Past     string `json:"past,omitempty"`
	Index    uint64 `json:"index,omitempty"`
	Revision int64  `json:"revision,omitempty"`
	// Spoke is the epoch of a recovery in which this node has said what it holds.
	Spoke string `json:"spoke,omitempty"`
}

// past tells whether an epoch is one that this node has left behind.
func (m memory) past(epoch string) bool {
	return epoch != "" && slices.Contains(strings.Split(m.Past, ","), epoch)
}

// arrive is the memory of a node that can write in an epoch.
func (m *memory) arrive(epoch string, clusterID, index uint64, revision int64) {
	if m.Epoch != "" && m.Epoch != epoch {
		past := append(strings.Split(m.Past, ","), m.Epoch)
		past = slices.DeleteFunc(past, func(e string) bool { return e == "" || e == epoch })
		m.Past = strings.Join(past[max(0, len(past)-cluster.MaxPrevious):], ",")
	}
	m.Epoch, m.Cluster, m.Index, m.Revision, m.Spoke = epoch, clusterID, index, revision, ""
}

// OpenHome reads or makes the memory of an agent in its data directory. Its writes
// pass the seam.
func OpenHome(dir string, s seam.Seam) (*Home, error) {
	h := &Home{path: filepath.Join(dir, "agent.json"), seam: s}
	data, err := os.ReadFile(h.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		h.mem = memory{V: format, Secret: rand.Text()}
		return h, h.save()
	case err != nil:
		return nil, h.unreadable(err.Error())
	}
	if err := h.decode(data); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *Home) decode(data []byte) error {
	if err := cluster.Decode(data, format, &h.mem); err != nil {
		return h.unreadable(cutText(err.Error()))
	}
	if h.mem.Secret == "" || h.mem.Revision < 0 || tooLong(h.mem.Secret, h.mem.Nonce, h.mem.PriorNonce, h.mem.Boot, h.mem.Epoch, h.mem.Past, h.mem.Spoke) != nil {
		return h.unreadable("it has no secret, or what no agent writes")
	}
	return nil
}

// unreadable is the refusal of a memory that is not ours to make anew: without its
// secret the node is a stranger.
func (h *Home) unreadable(why string) error {
	return problem.New(problem.CodeInvalid, "agent's memory %s cannot be read: %s", h.path, why).
		Advise("a later version wrote it", "update this agent").
		Advise("it is damaged", "restore it from a backup of the data directory").
		Advise("it is lost: give the node up, and start it anew after a reboot", "poolctl node fence NODE --reason … && poolctl node unfence NODE && rm %s", h.path)
}

// SecretHash is what etcd stores of the secret.
func (h *Home) SecretHash() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum := sha256.Sum256([]byte(h.mem.Secret))
	return hex.EncodeToString(sum[:])
}

// Epoch is that of the cluster this agent last was a part of, "" if of none.
func (h *Home) Epoch() string { return h.get().Epoch }

// change edits the memory and writes it through to the disk. What could not be
// written is forgotten: the next change must write it anew.
func (h *Home) change(f func(*memory)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.mem
	f(&h.mem)
	if h.mem == before {
		return nil
	}
	err := h.save()
	if err != nil {
		h.mem = before
	}
	return err
}

// knows tells whether a presence in etcd is one that this memory has made.
func (m memory) knows(a *Alive) bool {
	return (a.Nonce == m.Nonce && a.Counter <= m.Counter) || (a.Nonce == m.PriorNonce && a.Counter <= m.PriorCounter)
}

// entering notes a new session; found is the presence that it is to replace.
func (m *memory) entering(next Alive, found *Alive) {
	if found == nil || found.Nonce != m.PriorNonce {
		m.PriorNonce, m.PriorCounter = m.Nonce, m.Counter
	}
	m.Nonce, m.Counter = next.Nonce, next.Counter
}

func (h *Home) get() memory {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mem
}

// save replaces the file, and syncs it.
func (h *Home) save() error {
	data, err := json.Marshal(h.mem)
	if err != nil {
		panic("bug: " + err.Error())
	}
	if err := h.seam.Replace("home", h.path, data); err != nil {
		return fmt.Errorf("agent's memory: %w", err)
	}
	return nil
}
