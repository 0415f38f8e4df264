package cluster

import (
	"context"
	"path"

	"google.golang.org/grpc"

	"github.com/idpool/idpool/seam"
)

// atSeam lets every request of a connection pass the seam.
func atSeam(s seam.Seam) []grpc.DialOption {
	if s == nil {
		return nil
	}
	unary := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return s.Do("etcd:"+path.Base(method), func() error { return invoke(ctx, method, req, reply, cc, opts...) })
	}
	stream := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		var opened grpc.ClientStream
		err := s.Do("etcd:"+path.Base(method), func() (err error) {
			opened, err = open(ctx, desc, cc, method, opts...)
			return err
		})
		if err != nil {
			return nil, err
		}
		return opened, nil
	}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(unary), grpc.WithChainStreamInterceptor(stream)}
}
