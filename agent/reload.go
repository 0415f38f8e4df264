package agent

import (
	"os"
	"slices"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// Reloads are the settings that [Agent.Reload] changes; others need a restart.
var Reloads = []string{"group", "operator-group", "observer-group", "log-level", "scan-every"}

// running is what can change while the agent runs. It is replaced, never edited.
type running struct {
	gate      gate
	scanEvery time.Duration
	settings  []api.Setting
}

func newRunning(cfg Config, groups []group) *running {
	return &running{gate: gate{uint32(os.Geteuid()), groups}, scanEvery: cfg.ScanEvery, settings: slices.Clone(cfg.Settings)}
}

// Reload takes over of next what can change while the agent runs, all of it or, with
// an error, nothing. Config.Settings says what is new. It returns the names of the
// settings that changed, and of those that need a restart, which stay as they are.
func (a *Agent) Reload(next Config) (changed, restart []string, err error) {
	if err := next.Validate(); err != nil {
		return nil, nil, err
	}
	groups, err := findGroups(next)
	if err != nil {
		return nil, nil, err
	}
	level, _ := zapcore.ParseLevel(next.LogLevel) // Validate has
	a.reloading.Lock()
	defer a.reloading.Unlock()
	was := a.now.Load()
	now := newRunning(next, groups)
	now.settings, changed, restart = merge(was.settings, next.Settings)
	if slices.ContainsFunc(changed, func(name string) bool { _, ok := next.groups()[name]; return ok }) {
		if err := a.admitAgain(groups); err != nil {
			return nil, nil, err
		}
	}
	a.now.Store(now)
	if a.cfg.Level != nil {
		a.cfg.Level.SetLevel(level)
	}
	a.mu.Lock()
	c := a.core
	a.mu.Unlock()
	if c != nil {
		c.engine.SetScanEvery(now.scanEvery)
	}
	return changed, restart, nil
}

// admitAgain sets who may open the socket, unless it is the service manager's.
func (a *Agent) admitAgain(groups []group) error {
	select {
	case <-a.open:
	default:
		return nil // it is not there yet
	}
	if a.cfg.Listener != nil {
		return nil
	}
	err := a.cfg.Seam.Do("file:socket:admit", func() error { return admit(a.cfg.Socket, groups) })
	if err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "set who may open the socket")
	}
	return nil
}

// merge is what is in effect after a reload: the next settings, but for those that
// need a restart, which keep their value.
func merge(was, next []api.Setting) (now []api.Setting, changed, restart []string) {
	now = slices.Clone(next)
	for i, n := range now {
		at := slices.IndexFunc(was, func(s api.Setting) bool { return s.Name == n.Name })
		switch {
		case at < 0:
		case !n.Reloads && was[at].Value != n.Value:
			restart = append(restart, n.Name)
			now[i] = was[at]
		case was[at].Value != n.Value:
			changed = append(changed, n.Name)
		}
	}
	return now, changed, restart
}

// SetLogLevel changes the log's level until the next reload.
func (a *Agent) SetLogLevel(name string) error {
	level, err := zapcore.ParseLevel(name)
	if err != nil || level < zapcore.DebugLevel || level > zapcore.ErrorLevel {
		return problem.New(problem.CodeInvalid, "log-level %q: use debug, info, warn or error", name)
	}
	if a.cfg.Level == nil {
		return problem.New(problem.CodeInvalid, "the log-level of this agent cannot be changed while it runs")
	}
	a.reloading.Lock()
	defer a.reloading.Unlock()
	now := *a.now.Load()
	now.settings = slices.Clone(now.settings)
	for i := range now.settings {
		if s := &now.settings[i]; s.Name == "log-level" && s.Value != level.String() {
			s.Value, s.Source, s.Where = level.String(), api.SourceOperator, ""
		}
	}
	a.now.Store(&now)
	a.cfg.Level.SetLevel(level)
	return nil
}
