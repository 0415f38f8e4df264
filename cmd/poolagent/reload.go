package main

import (
	"io"

	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/idpool/idpool/agent"
)

// reloader reads the configuration anew, as at the start: with the same command
// line and environment.
type reloader struct {
	agent         *agent.Agent
	args, environ []string
	log           *zap.Logger
}

// reload takes over what can change while the agent runs. What is wrong, or needs a
// restart, is told in the log; a configuration with a fault changes nothing.
func (r *reloader) reload() {
	changed, restart, err := r.try()
	if err != nil {
		r.log.Error("configuration not reloaded; nothing was changed", zap.Error(err))
		return
	}
	if len(restart) > 0 {
		r.log.Warn("needs a restart", zap.Strings("settings", restart))
	}
	r.log.Info("configuration reloaded", zap.Strings("changed", changed))
}

func (r *reloader) try() (changed, restart []string, err error) {
	o := newOptions(r.environ)
	flags := pflag.NewFlagSet("poolagent", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.bind(flags)
	if err := flags.Parse(r.args); err != nil {
		return nil, nil, err
	}
	cfg, err := o.config(flags)
	if err != nil {
		return nil, nil, err
	}
	if err := o.located(agent.Check(cfg)); err != nil {
		return nil, nil, err
	}
	cfg.Settings = o.settings(flags)
	return r.agent.Reload(cfg)
}
