package agent

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// stuckAfter is how long a loop of the engine may go without a step: far longer
// than any of its steps takes, of which the longest is an operation's budget.
const stuckAfter = 2 * time.Minute

// Alive tells whether the agent itself moves, nil if it does. What it waits for, an
// etcd that does not answer or a person, is no fault: a restart would mend nothing.
// A call that does not come back is a fault too.
func (a *Agent) Alive() error {
	a.mu.Lock()
	c := a.core
	a.mu.Unlock()
	if c == nil {
		return nil // between two engines, or stopping
	}
	return stuck(a.cfg.Node, c.engine.Pulse())
}

// stuck judges how long ago each loop made a step.
func stuck(node string, pulse map[string]time.Duration) error {
	var why []string
	for loop, ago := range pulse {
		if ago > stuckAfter {
			why = append(why, fmt.Sprintf("its %s has made no step for %v", loop, ago.Round(time.Second)))
		}
	}
	if len(why) == 0 {
		return nil
	}
	slices.Sort(why)
	return problem.New(problem.CodeUnavailable, "the agent of node %s is stuck: %s", node, strings.Join(why, "; ")).
		Note("etcd does not matter here; can everything below /proc be read?").
		Advise("restart it", "systemctl restart poolagent")
}

// StatusLine is the agent's state in one line for the service manager.
func (a *Agent) StatusLine() string {
	if _, why := a.notReady(); len(why) > 0 {
		return "not ready: " + strings.Join(why, "; ")
	}
	return "node " + a.cfg.Node + " serves"
}

func (s *server) health(context.Context, *struct{}) (*healthOut, error) {
	if err := s.a.Alive(); err != nil {
		return nil, err
	}
	return healthy(), nil
}

func (s *server) isReady(context.Context, *struct{}) (*healthOut, error) {
	if code, why := s.a.notReady(); len(why) > 0 {
		e := problem.New(code, "node %s is not ready: %s", s.a.cfg.Node, why[0])
		e.Notes = why[1:]
		return nil, e
	}
	return healthy(), nil
}

func healthy() *healthOut {
	out := &healthOut{}
	out.Body.Status = "ok"
	return out
}

type logLevelIO struct{ Body api.LogLevel }

func (s *server) operationRoutes() {
	s.metricsRoute()
	tags := []string{"status"}
	open(s, huma.Operation{OperationID: "get-health", Method: http.MethodGet, Path: "/healthz", Summary: "The agent moves; 503 with the reason if it is stuck", Tags: tags}, s.health)
	open(s, huma.Operation{OperationID: "get-ready", Method: http.MethodGet, Path: "/readyz", Summary: "A uid request would be served; 503 with the reasons else", Tags: tags}, s.isReady)
	add(s, huma.Operation{OperationID: "put-log-level", Method: http.MethodPut, Path: "/v1/log-level", Summary: "Change the log's level until the next reload or restart", Tags: tags}, s.putLogLevel)
}

func (s *server) putLogLevel(_ context.Context, who caller, in *logLevelIO) (*logLevelIO, error) {
	if err := who.mustOperate("log level not changed"); err != nil {
		return nil, err
	}
	if err := s.a.SetLogLevel(in.Body.Level); err != nil {
		return nil, err
	}
	s.a.log.Info("log level set", zap.String("level", in.Body.Level), zap.String("by", who.name))
	return in, nil
}
