// Package manual writes the manual pages of a program from its commands, which
// say already what they do and which flags they take. The packages are made with
// it; whoever runs the programs does not see it.
package manual

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Command is the hidden command "man DIR" of a program: it writes a page for the
// program and each of its commands into a directory that exists, named
// PROGRAM-COMMAND.SECTION. They are the same each time: their date is
// SOURCE_DATE_EPOCH's where that is set, and a flag whose default is the
// machine's shows what vary says in its place.
func Command(section, version string, vary map[string]string) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages into a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			for name, text := range vary {
				flag := root.Flags().Lookup(name)
				if flag == nil {
					return fmt.Errorf("bug: %s has no flag --%s", root.Name(), name)
				}
				flag.DefValue = text
			}
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{
				Section: section, Source: root.Name() + " " + version, Manual: "idpool",
			}, args[0])
		},
	}
}
