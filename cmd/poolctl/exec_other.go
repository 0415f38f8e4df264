//go:build !linux

package main

import (
	"context"

	"github.com/idpool/idpool/problem"
)

const shimCommand = "__as"

func shimMain([]string) int { return exitRefused }

func canExec() error {
	return problem.New(problem.CodeNoProof, "uid exec needs Linux: elsewhere nobody can tell when a uid is no longer in use")
}

type child struct{}

func start(command) (*child, int, error) { return nil, exitRefused, canExec() }

func inheritedFDs([]int) ([]int, error) { return nil, canExec() }

func (*child) forward(context.Context) error   { return nil }
func (*child) relay(context.Context) error     { return nil }
func (*child) finish()                         {}
func (*child) kill()                           {}
func (*child) wait(bool) (code int, left bool) { return exitRefused, false }
