package cluster

import (
	"context"
	"sync"

	"google.golang.org/grpc"
)

// breaks tells a follower that the stream of its watch broke. Etcd's client
// resumes watches on a new stream without a word, and a resumed watch of a
// restored etcd hears nothing or misses what changed below its revision.
type breaks struct {
	mu sync.Mutex // guards ch
	ch chan struct{}
}

type breaksKey struct{}

func newBreaks() *breaks { return &breaks{ch: make(chan struct{})} }

// next returns a channel that closes at the next break.
func (b *breaks) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *breaks) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// interceptStream finds the breaks of a stream in its context; etcd's client
// passes the values of a watch's context on to its stream.
func interceptStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(ctx, desc, cc, method, opts...)
	b, ok := ctx.Value(breaksKey{}).(*breaks)
	if err != nil || !ok {
		return s, err
	}
	return &watchedStream{ClientStream: s, breaks: b, ended: func() bool { return ctx.Err() != nil }}, nil
}

type watchedStream struct {
	grpc.ClientStream
	breaks *breaks
	// ended reports that the stream's user closed it: an error then is no break.
	ended func() bool
}

func (s *watchedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil && !s.ended() {
		s.breaks.tell()
	}
	return err
}
