package userdb

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"go.uber.org/zap"
)

// Names is a snapshot of grants on a host with these files.
func Names(prefix string, grants []Grant, files ...string) (*Snapshot, error) {
	l, err := readLocal(files)
	return newSnapshot(prefix, grants, l), err
}

// Files makes an index look at other files than this host's.
func (x *Index) Files(files ...string) *Index {
	x.files = files
	return x
}

// Bounds sets how many connections a server has, and how long one may be silent.
func (s *Server) Bounds(conns int, idle time.Duration) { s.limit, s.idle = conns, idle }

// Answer carries one message out without a connection.
func (s *Server) Answer(data []byte) (replies []string, called bool, err error) {
	c, err := decodeCall(data)
	if err != nil {
		return nil, false, err
	}
	err = s.answer(context.Background(), c, func(params any, _ bool) error {
		raw, err := json.Marshal(params)
		replies = append(replies, string(raw))
		return err
	})
	if f := (*fault)(nil); errors.As(err, &f) {
		_, err = json.Marshal(f.params)
		return append(replies, f.id), true, err
	}
	return replies, true, err
}

// Sync writes the records once.
func (d *DropIn) Sync() error {
	d.at = time.Time{}
	return d.sync(context.Background())
}

// QuietDropIn is a DropIn of an index that logs nothing.
func QuietDropIn(x *Index, dir, node string) *DropIn {
	return NewDropIn(x, dir, node, nil, zap.NewNop())
}

// MaxMessage bounds a message.
const MaxMessage = maxMessage
