package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// exitError ends poolctl with a code of its own and, with err, a message.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// runError marks an error of a command's work; cobra's own are about usage.
type runError struct{ err error }

func (e runError) Error() string { return e.err.Error() }
func (e runError) Unwrap() error { return e.err }

// runs adapts a command's work to cobra.
func runs(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := work(cmd.Context(), args); err != nil {
			return runError{err}
		}
		return nil
	}
}

// usage is a refusal of what was typed.
func usage(format string, args ...any) *problem.Error {
	return problem.New(problem.CodeInvalid, format, args...)
}

// report writes the message of err, if it has one, and returns the exit code.
func (f *Factory) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	code := 0
	var exit exitError
	if errors.As(err, &exit) {
		if exit.err == nil {
			return exit.code
		}
		code, err = exit.code, runError{exit.err}
	}
	p := refusal(cmd, err)
	if code == 0 {
		code = p.Code.ExitCode()
	}
	f.printProblem(p)
	return code
}

// refusal is err as a problem: cobra's errors become usage errors.
func refusal(cmd *cobra.Command, err error) *problem.Error {
	var work runError
	var p *problem.Error
	if !errors.As(err, &work) {
		// Refused before the command's work began: in its arguments or flags.
		if errors.As(err, &p) {
			return p.Advise("see", "%s --help", cmd.CommandPath())
		}
		return usage("%s", strings.TrimSpace(err.Error())).Advise("see", "%s --help", cmd.CommandPath())
	}
	err = work.err
	// An error that only passes a refusal on adds its step to the first line.
	if !errors.As(err, &p) {
		return &problem.Error{Code: problem.CodeOf(err), Detail: err.Error(), Cause: err}
	}
	if text := err.Error(); text != p.Detail {
		joined := *p
		joined.Detail = strings.ReplaceAll(text, "\n", "; ")
		return &joined
	}
	return p
}

// printProblem writes a refusal to stderr in the format of the output.
func (f *Factory) printProblem(p *problem.Error) {
	if f.format == formatJSON || f.format == formatJSONL {
		enc := json.NewEncoder(f.Err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(api.NewProblemBody(p))
		return
	}
	f.say("%s", p.Text())
}

// say writes a message for people to stderr.
func (f *Factory) say(format string, args ...any) {
	fmt.Fprintf(f.Err, "poolctl: %s\n", printable(fmt.Sprintf(format, args...)))
}

// hint is say for what a script does not need.
func (f *Factory) hint(format string, args ...any) {
	if !f.quiet && (f.format == formatTable || f.format == formatWide) {
		f.say(format, args...)
	}
}

// printable replaces control characters, which in a name that somebody else
// chose could rewrite a terminal. Newlines and tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < 0x20 || r >= 0x7f && r <= 0x9f) {
			return '\uFFFD'
		}
		return r
	}, s)
}
