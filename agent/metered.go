package agent

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/agent/metrics"
)

// countedWriter remembers the status of an answer, and bounds how long its client
// may take to read it. A stream sets its own deadline before each write.
type countedWriter struct {
	http.ResponseWriter
	status   int
	patience time.Duration
	begun    bool
}

// begin sets the deadline anew.
func (w *countedWriter) begin() {
	w.begun = true
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.patience))
}

// WriteHeader implements http.ResponseWriter.
func (w *countedWriter) WriteHeader(status int) {
	w.status = status
	w.begin()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *countedWriter) Write(data []byte) (int, error) {
	if !w.begun {
		w.begin()
	}
	return w.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type metricsOut struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *server) metricsRoute() {
	add(s, huma.Operation{
		OperationID: "get-metrics", Method: http.MethodGet, Path: "/metrics", Summary: "Everything that is counted, in Prometheus' text format", Tags: []string{"status"},
		Responses: map[string]*huma.Response{"200": {Description: "metrics", Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}}}}},
	}, s.getMetrics)
}

func (s *server) getMetrics(context.Context, caller, *struct{}) (*metricsOut, error) {
	text, err := s.a.metrics.Text()
	if err != nil {
		return nil, err
	}
	return &metricsOut{metrics.ContentType, text}, nil
}

// metricState is read at each gathering.
func (a *Agent) metricState() metrics.State {
	_, why := a.notReady()
	s := metrics.State{Ready: len(why) == 0}
	a.mu.Lock()
	c := a.core
	a.mu.Unlock()
	if c != nil {
		_, s.Session = c.engine.Session().Live()
		s.Gauges = c.engine.Gauges()
	}
	s.Certificates = map[string]time.Time{}
	for _, c := range a.certificates() {
		s.Certificates[c.use] = c.ends
	}
	return s
}
