package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/test/e2e/robust"
)

func newReport() *cobra.Command {
	var dir, doc string
	cmd := &cobra.Command{
		Use: "report", Short: "write the campaign's table into the document", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := robust.Results(dir)
			if err != nil {
				return err
			}
			if len(all) == 0 {
				return errors.New("there is no result below " + dir)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d results of %s go into %s\n", len(all), dir, doc)
			return robust.Splice(doc, "campaign", robust.Table(all))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "build/robust", "where the results are")
	cmd.Flags().StringVar(&doc, "doc", "docs/reliability.md", "the document")
	return cmd
}
