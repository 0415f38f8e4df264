//go:build !linux

package main

var programs = map[string]func(){"poolctl": main}
