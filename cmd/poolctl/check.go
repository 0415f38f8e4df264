package main

import (
	"context"

	"github.com/spf13/cobra"
)

// findingsCode is what check exits with when there is something to look at.
const findingsCode = 3

func newCheckCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "List what a person should look at; exit code 3 if there is anything",
		Args:  cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			found, err := c.Check(ctx)
			if err != nil {
				return err
			}
			if err := printList(f, findingSheet, found, nil); err != nil {
				return err
			}
			if len(found) > 0 {
				return exitError{code: findingsCode}
			}
			f.hint("nothing to look at")
			return nil
		}),
	}
}
