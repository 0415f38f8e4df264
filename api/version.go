package api

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release and commit are set by the linker for releases.
var release, commit string

// Version is what this program was built from: the release, else the module's
// version or commit, else "devel".
func Version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	if c := Commit(); c != "" {
		return "devel-" + c
	}
	return "devel"
}

// Commit is the commit this program was built from, 12 hexadecimal digits, with
// "+dirty" where files had changed since; empty if nobody wrote it down.
func Commit() string {
	if commit != "" {
		return commit
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + dirty
}

// Build is a line for people about this program: version, commit, Go's version
// and the platform it was built for.
func Build() string {
	c := Commit()
	if c == "" {
		c = "unknown"
	}
	return fmt.Sprintf("%s (commit %s, %s, %s/%s)", Version(), c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
