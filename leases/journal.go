package leases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// Journal is what a node knows to stand in etcd of what was handed out through it:
// claims, grant records and services, each with the revision of its last write,
// deletions too. After a restore of etcd it is what the node asserts.
//
// It is a file of lines, one a write, each with a checksum. A line that a crash
// left half written at the end is dropped; any other damage is refused. A write to
// it is a plain one, so that it outlives the agent; where a VLAN or a service is
// among them it is synced, since that outlives a reboot too. Safe for concurrent use.
type Journal struct {
	path string
	seam seam.Seam

	mu      sync.Mutex // guards the fields below
	file    *os.File
	entries map[string]jentry
	lines   int
	broken  error // of the last write: the file must be made anew
	// newest is the highest revision by epoch.
	newest map[string]int64
}

// jentry is one line: what stands at a key, or that nothing does.
type jentry struct {
	// Key is the etcd key below the root.
	Key string `json:"k"`
	// Value is nil where the key was deleted.
	Value  []byte `json:"v,omitempty"`
	Rev    int64  `json:"r"`
	Epoch  string `json:"e"`
	Number uint64 `json:"n"`
	// Gone is when it was noted that the key is gone, in Unix seconds: only what
	// bounds how long that is remembered.
	Gone int64 `json:"g,omitempty"`
}

const (
	journalName = "journal"
	journalHead = "idpool journal 1"
	// maxTombstones and tombstoneAge bound how many deletions are remembered.
	maxTombstones = 100_000
	tombstoneAge  = 7 * 24 * time.Hour
	// slackLines is how many lines beyond twice the entries a file may have.
	slackLines = 4096
)

// OpenJournal reads or makes the journal in an agent's data directory.
func OpenJournal(dir string, s seam.Seam) (*Journal, error) {
	j := &Journal{path: filepath.Join(dir, journalName), seam: s}
	data, err := os.ReadFile(j.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		data = nil
	case err != nil:
		return nil, j.unreadable(err.Error())
	}
	if j.entries, err = decodeJournal(data); err != nil {
		return nil, j.unreadable(err.Error())
	}
	j.newest = map[string]int64{}
	for _, e := range j.entries {
		j.newest[e.Epoch] = max(j.newest[e.Epoch], e.Rev)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j, j.rewriteLocked() // a torn line goes, and what was never synced is
}

func (j *Journal) unreadable(why string) error {
	return problem.New(problem.CodeInvalid, "agent's journal %s cannot be read: %s", j.path, cutText(why)).
		Advise("a later version wrote it", "update this agent").
		Advise("etcd was not restored since it was written: the agent makes it anew", "rm %s", j.path).
		Advise("it was: what it says is lost, and is not asserted", "poolctl cluster adopt-restore --dry-run")
}

// decodeJournal reads a whole file. A last line that is not whole is left out.
func decodeJournal(data []byte) (map[string]jentry, error) {
	entries := map[string]jentry{}
	if len(data) == 0 {
		return entries, nil
	}
	head, rest, whole := bytes.Cut(data, []byte("\n"))
	if string(head) != journalHead {
		if !whole && strings.HasPrefix(journalHead, string(head)) {
			return entries, nil
		}
		return nil, fmt.Errorf("it begins with %.40q, this version reads %q", head, journalHead)
	}
	torn := 0
	for n := 2; len(rest) > 0; n++ {
		var line []byte
		line, rest, whole = bytes.Cut(rest, []byte("\n"))
		e, err := decodeLine(line)
		if err != nil || !whole {
			if torn == 0 {
				torn = n
			}
			continue
		}
		if torn != 0 {
			return nil, fmt.Errorf("line %d is damaged, and lines follow it", torn)
		}
		entries[e.Key] = e
	}
	return entries, nil
}

func decodeLine(line []byte) (jentry, error) {
	var e jentry
	sum, text, ok := bytes.Cut(line, []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !ok || err != nil || uint32(want) != checksum(text) {
		return e, errors.New("its checksum does not fit")
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, err
	}
	if e.Rev < 1 || e.Number == 0 || e.Epoch == "" || len(e.Value) > cluster.MaxRecord || !heldKey(e.Key) || (e.Value == nil) != (e.Gone > 0) {
		return e, fmt.Errorf("entry of %.100q at revision %d makes no sense", e.Key, e.Rev)
	}
	return e, nil
}

// below is a root that keys are put under only to be parsed.
var below = func() cluster.Keys { k, _ := cluster.NewKeys(cluster.DefaultRoot); return k }()

// heldKey tells whether a key below the root is one that a journal keeps.
func heldKey(key string) bool {
	k, err := below.Parse(below.Root() + key)
	return err == nil && k.Kind.Held()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(text []byte) uint32 { return crc32.Checksum(text, castagnoli) }

func (e jentry) line(to []byte) []byte {
	text, err := json.Marshal(e)
	if err != nil {
		panic("bug: " + err.Error())
	}
	to = fmt.Appendf(to, "%08x ", checksum(text))
	return append(append(to, text...), '\n')
}

// lasting tells whether what the key stands for outlives a reboot.
func lasting(key string) bool {
	return strings.HasPrefix(key, "claims/vlan/") || strings.HasPrefix(key, "services/")
}

// note appends what was written; older news of a key in the same epoch is left out.
// nil notes nothing.
func (j *Journal) note(all []jentry) error {
	if j == nil || len(all) == 0 {
		return nil
	}
	sync, file, err := j.append(all)
	if err == nil && sync {
		if err = j.seam.Do("file:journal:sync", file.Sync); err != nil {
			j.mu.Lock()
			j.broken = err
			j.mu.Unlock()
		}
	}
	return err
}

func (j *Journal) append(all []jentry) (sync bool, file *os.File, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []byte
	for _, e := range all {
		old, ok := j.entries[e.Key]
		if ok && old.Epoch == e.Epoch && (old.Rev > e.Rev || (old.Rev == e.Rev && bytes.Equal(old.Value, e.Value))) {
			continue
		}
		if e.Value == nil {
			e.Gone = time.Now().Unix()
		}
		j.entries[e.Key] = e
		j.newest[e.Epoch] = max(j.newest[e.Epoch], e.Rev)
		out = e.line(out)
		j.lines++
		sync = sync || lasting(e.Key)
	}
	if len(out) == 0 && j.broken == nil {
		return false, nil, nil
	}
	if j.broken != nil || j.lines > 2*len(j.entries)+slackLines {
		return false, nil, j.rewriteLocked()
	}
	err = j.seam.Do("file:journal:write", func() error { _, err := j.file.Write(out); return err })
	j.broken = err
	return sync, j.file, err
}

// rewriteLocked makes the file anew, of the entries alone.
func (j *Journal) rewriteLocked() error {
	j.forgetLocked()
	out := []byte(journalHead + "\n")
	keys := make([]string, 0, len(j.entries))
	for k := range j.entries {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		out = j.entries[k].line(out)
	}
	if err := j.seam.Replace("journal", j.path, out); err != nil {
		j.broken = err
		return fmt.Errorf("agent's journal: %w", err)
	}
	var file *os.File
	err := j.seam.Do("file:journal:open", func() (err error) {
		file, err = os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600)
		return err
	})
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		j.broken = err
		return fmt.Errorf("agent's journal: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.lines, j.broken = file, len(j.entries), nil
	return nil
}

// forgetLocked drops deletions that are old or too many.
func (j *Journal) forgetLocked() {
	var gone []jentry
	oldest := time.Now().Add(-tombstoneAge).Unix()
	for k, e := range j.entries {
		switch {
		case e.Value != nil:
		case e.Gone < oldest:
			delete(j.entries, k)
		default:
			gone = append(gone, e)
		}
	}
	if len(gone) <= maxTombstones {
		return
	}
	slices.SortFunc(gone, func(a, b jentry) int { return int(b.Rev - a.Rev) })
	for _, e := range gone[maxTombstones:] {
		delete(j.entries, e.Key)
	}
}

// renew replaces everything, as when a new epoch has begun.
func (j *Journal) renew(all []jentry) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries, j.newest = map[string]jentry{}, map[string]int64{}
	for _, e := range all {
		j.entries[e.Key] = e
		j.newest[e.Epoch] = max(j.newest[e.Epoch], e.Rev)
	}
	return j.rewriteLocked()
}

// all are the entries by key.
func (j *Journal) all() map[string]jentry {
	all := map[string]jentry{}
	if j == nil {
		return all
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for k, e := range j.entries {
		all[k] = e
	}
	return all
}

// knows tells whether there is an entry for a key.
func (j *Journal) knows(key string) bool {
	if j == nil {
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, ok := j.entries[key]
	return ok
}

// furthest is the highest revision noted in an epoch.
func (j *Journal) furthest(epoch string) int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.newest[epoch]
}

// fault is why the last write did not reach the disk, nil if it did.
func (j *Journal) fault() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// Close ends it; nothing may be noted afterwards.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
