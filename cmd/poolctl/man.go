package main

import (
	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cmd/internal/manual"
)

func init() {
	extraCommands = append(extraCommands, func(*Factory) *cobra.Command {
		return manual.Command("1", api.Version(), nil)
	})
}
