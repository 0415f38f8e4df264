package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"

	"github.com/idpool/idpool/problem"
)

// Snapshot says what a snapshot file holds.
type Snapshot struct {
	File string `json:"file"`
	// Size is of the file, in bytes.
	Size int64 `json:"size"`
	// Revision is the newest one in it.
	Revision int64 `json:"revision"`
	// SHA256 is etcd's checksum of its data, in hex: the file's last 32 bytes.
	SHA256 string `json:"sha256"`
	// Storage is the version of etcd's storage, "" if the file does not say.
	Storage string `json:"storage,omitempty"`
	// Member is the endpoint it was taken from, and Cluster etcd's cluster id, in hex.
	// Check leaves them empty.
	Member  string `json:"member,omitempty"`
	Cluster string `json:"cluster,omitempty"`
}

// sector is what the data of etcd is a multiple of.
const sector = 512

// Check reads a snapshot file and verifies its checksum and the structure of the data
// in it. The error is a [problem.CodeInvalid], [problem.CodeNotFound] where there is no
// such file.
func Check(file string) (Snapshot, error) {
	f, err := os.Open(file)
	if err != nil {
		code := problem.CodeInvalid
		if errors.Is(err, fs.ErrNotExist) {
			code = problem.CodeNotFound
		}
		return Snapshot{}, problem.New(code, "snapshot %s cannot be read: %v", file, bare(err))
	}
	defer func() { _ = f.Close() }()
	s := Snapshot{File: file}
	if s.Size, s.SHA256, err = checksum(f); err == nil {
		s.Revision, s.Storage, err = look(file)
	}
	if err != nil {
		return Snapshot{}, problem.Wrap(problem.CodeInvalid, bare(err), "snapshot %s is no whole snapshot of etcd", file)
	}
	return s, nil
}

// checksum compares the data with the checksum that etcd sends after it.
func checksum(f *os.File) (size int64, sum string, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, "", err
	}
	size = info.Size()
	data := size - sha256.Size
	if !info.Mode().IsRegular() || data <= 0 || data%sector != 0 {
		return 0, "", fmt.Errorf("its %d bytes do not end in a checksum", size)
	}
	h := sha256.New()
	if _, err := io.CopyN(h, f, data); err != nil {
		return 0, "", err
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return 0, "", err
	}
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		return 0, "", fmt.Errorf("checksum %x, its data has %x: it was cut or changed", want, got)
	}
	return size, hex.EncodeToString(want), nil
}

// look finds the newest revision in the data, and reads every key on the way.
func look(file string) (revision int64, storage string, err error) {
	// A page that points outside of the file is met as a fault of the memory map.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its data is damaged: %v", r)
		}
	}()
	db, err := bbolt.Open(file, 0, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return 0, "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.View(func(tx *bbolt.Tx) error {
		keys, meta := tx.Bucket(schema.Key.Name()), tx.Bucket(schema.Meta.Name())
		if keys == nil || meta == nil {
			return errors.New("it holds none of etcd's data")
		}
		revision, err = newest(keys, meta)
		if v := schema.ReadStorageVersionFromSnapshot(tx); v != nil {
			storage = v.String()
		}
		return err
	})
	return revision, storage, err
}

// newest is the revision that etcd would go on from.
func newest(keys, meta *bbolt.Bucket) (int64, error) {
	revision := int64(1) // of an etcd that nobody wrote to
	err := keys.ForEach(func(k, _ []byte) error {
		rev := mvcc.BytesToRev(k).Main
		if rev < revision {
			return fmt.Errorf("its data is damaged: revision %d after %d", rev, revision)
		}
		revision = rev
		return nil
	})
	// Compaction may have removed the newest one itself.
	if c := meta.Get(schema.FinishedCompactKeyName); len(c) > 0 {
		revision = max(revision, mvcc.BytesToRev(c).Main)
	}
	return revision, err
}
