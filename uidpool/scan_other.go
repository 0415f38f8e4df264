//go:build !linux

package uidpool

import "context"

// Scan refuses: see [Reader] on Linux.
func (r *Reader) Scan(context.Context) (*Snapshot, error) { return nil, supported() }
