package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/problem"
)

// oldestServer is the first release without the known faults of nested
// transactions and watches that idpool meets.
var oldestServer = [3]int{3, 6, 14}

// checkServers asks every endpoint for its status until one has answered.
func (c *Client) checkServers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, min(3*c.cfg.Attempt, c.cfg.Budget))
	defer cancel()
	var wait Backoff
	for {
		answers, err := c.statuses(ctx)
		for _, a := range answers {
			if err := checkVersion(a.endpoint, a.status.Version); err != nil {
				return err
			}
			if c.clusterID == 0 {
				c.clusterID = a.status.Header.ClusterId
			}
			if a.status.Header.ClusterId != c.clusterID {
				return problem.New(problem.CodeInvalid, "endpoints %v belong to different etcd clusters, %x and %x: name the members of one",
					c.cfg.Endpoints, c.clusterID, a.status.Header.ClusterId)
			}
		}
		if len(answers) > 0 {
			return nil
		}
		if IsPermissionDenied(err) {
			return problem.Wrap(problem.CodeForbidden, err, "etcd at %v", c.cfg.Endpoints)
		}
		if wait.Wait(ctx) != nil {
			return problem.Wrap(problem.CodeUnavailable, err, "no etcd answers at %s", strings.Join(c.cfg.Endpoints, ","))
		}
	}
}

type statusAnswer struct {
	endpoint string
	status   *clientv3.StatusResponse
}

func (c *Client) statuses(ctx context.Context) ([]statusAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
	defer cancel()
	all := make([]*clientv3.StatusResponse, len(c.cfg.Endpoints))
	errs := make([]error, len(c.cfg.Endpoints))
	var wg sync.WaitGroup
	for i, e := range c.cfg.Endpoints {
		wg.Go(func() { all[i], errs[i] = c.renew.Status(ctx, e) })
	}
	wg.Wait()
	var answers []statusAnswer
	for i, s := range all {
		if errs[i] == nil {
			answers = append(answers, statusAnswer{c.cfg.Endpoints[i], s})
		}
	}
	return answers, errors.Join(errs...)
}

// checkVersion refuses a server that is older than oldestServer or that does
// not say what it is.
func checkVersion(endpoint, version string) error {
	var got [3]int
	core, _, _ := strings.Cut(version, "-")
	parts := strings.Split(core, ".")
	bad := len(parts) != 3
	for i := 0; i < 3 && !bad; i++ {
		n, err := strconv.Atoi(parts[i])
		got[i], bad = n, err != nil || n < 0
	}
	if bad {
		return problem.New(problem.CodeInvalid, "etcd at %s says its version is %q: use a server from %s on", endpoint, version, dotted(oldestServer))
	}
	for i := range got {
		if got[i] != oldestServer[i] {
			if got[i] > oldestServer[i] {
				return nil
			}
			return problem.New(problem.CodeInvalid, "etcd at %s is %s: upgrade it to %s or later", endpoint, version, dotted(oldestServer))
		}
	}
	return nil
}

func dotted(v [3]int) string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// permanent reports an error of a read that a repetition meets again.
func permanent(err error) bool {
	return matches(err, []error{
		rpctypes.ErrTooManyOps, rpctypes.ErrRequestTooLarge, rpctypes.ErrEmptyKey,
		rpctypes.ErrCompacted, rpctypes.ErrFutureRev, rpctypes.ErrDuplicateKey,
	})
}

// load reads the files; nil where no endpoint is secure.
func (t TLSConfig) load(endpoints []string) (*tls.Config, error) {
	if !strings.HasPrefix(endpoints[0], "https:") {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, problem.Wrap(problem.CodeInvalid, err, "TLS authorities")
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, problem.New(problem.CodeInvalid, "TLS authorities %s: the file holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, problem.Wrap(problem.CodeInvalid, err, "TLS certificate")
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
