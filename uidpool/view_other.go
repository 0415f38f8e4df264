//go:build !linux

package uidpool

// View refuses: see [Reader] on Linux.
func (r *Reader) View() error { return supported() }
