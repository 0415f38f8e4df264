package main

import (
	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

// choices makes the shell offer the values of a flag that has a few.
func choices(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic("bug: " + err.Error())
	}
}

// stateChoices are the states of a uid that a list can be of.
func stateChoices(cmd *cobra.Command) {
	choices(cmd, "state", api.StateLocked, api.StateUsed, api.StateIdle, api.StateQuarantined, api.StateReserved, api.StateFree)
}
