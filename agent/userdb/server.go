package userdb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// maxMessage bounds a client's message, in bytes.
	maxMessage = 64 << 10
	// maxConns bounds the connections; the longest silent one makes room.
	maxConns = 1024
	// idleTimeout is how long a whole message may take to come, from the last reply on.
	idleTimeout = 30 * time.Second
	// sendTimeout is how long a client may take to read one reply.
	sendTimeout = 10 * time.Second
	// lookTimeout bounds a lookup, which waits for a newer snapshot at most.
	lookTimeout = 2 * time.Second
	// acceptPause is the rest after a connection that could not be accepted.
	acceptPause = 50 * time.Millisecond
)

// Server answers io.systemd.UserDatabase.
type Server struct {
	index            *Index
	service, version string
	limit            int
	idle             time.Duration

	mu    sync.Mutex // guards the field below
	conns map[net.Conn]time.Time
}

// NewServer returns a server of the names in an index. The service is the file name
// of its socket: clients address it by that.
func NewServer(index *Index, service, version string) *Server {
	return &Server{index: index, service: service, version: version, limit: maxConns, idle: idleTimeout, conns: map[net.Conn]time.Time{}}
}

// Serve answers on the listener until ctx ends, closes it and every connection, and
// returns nil; or the listener's error if that breaks before.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // no descriptors, say; that passes
			timer := time.NewTimer(acceptPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		s.enter(conn)
		wg.Go(func() {
			defer s.leave(conn)
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			s.talk(ctx, conn)
		})
	}
}

func (s *Server) enter(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.limit {
		var oldest net.Conn
		for c, at := range s.conns {
			if oldest == nil || at.Before(s.conns[oldest]) {
				oldest = c
			}
		}
		_ = oldest.Close()
		delete(s.conns, oldest)
	}
	s.conns[conn] = time.Now()
}

func (s *Server) heard(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, in := s.conns[conn]; in {
		s.conns[conn] = time.Now()
	}
}

func (s *Server) leave(conn net.Conn) {
	_ = conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// talk answers a connection's calls one after the other, until it ends or sends what
// is no call.
func (s *Server) talk(ctx context.Context, conn net.Conn) {
	r := bufio.NewReaderSize(conn, 1024)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(s.idle))
		data, err := readMessage(r)
		if err != nil {
			return
		}
		c, err := decodeCall(data)
		if err != nil {
			return
		}
		s.heard(conn)
		if s.reply(ctx, conn, c) != nil {
			return
		}
	}
}

// reply carries a call out and sends what it gives, unless nobody wants to know.
func (s *Server) reply(ctx context.Context, conn net.Conn, c call) error {
	send := func(message map[string]any) error {
		if c.oneway {
			return nil
		}
		raw, err := json.Marshal(message)
		if err != nil {
			return err
		}
		_ = conn.SetWriteDeadline(time.Now().Add(sendTimeout))
		_, err = conn.Write(append(raw, 0))
		return err
	}
	look, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := s.answer(look, c, func(params any, continues bool) error {
		m := map[string]any{"parameters": params}
		if continues {
			m["continues"] = true
		}
		return send(m)
	})
	var f *fault
	if !errors.As(err, &f) {
		return err
	}
	params := f.params
	if params == nil {
		params = map[string]any{}
	}
	return send(map[string]any{"error": f.id, "parameters": params})
}

// errLong is returned for a message without an end.
var errLong = fmt.Errorf("message is longer than %d bytes", maxMessage)

// readMessage reads up to the NUL that ends every message.
func readMessage(r *bufio.Reader) ([]byte, error) {
	var all []byte
	for {
		part, err := r.ReadSlice(0)
		if len(all)+len(part) > maxMessage {
			return nil, errLong
		}
		all = append(all, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(all, []byte{0}), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
