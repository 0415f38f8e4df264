package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// source is the checkout that things are made from.
type source struct {
	root    string // absolute
	version string // as packages say it: begins with a digit, has no "-"
	commit  string // 12 digits, with "+dirty" if files differ from it
	date    time.Time
}

// findSource asks git for what is not given.
func findSource(ctx context.Context, root, version string) (source, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return source{}, err
	}
	s := source{root: abs}
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Dir, cmd.Stderr = abs, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w (what is packed must be a commit of a git checkout)", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	if s.commit, err = git("rev-parse", "--short=12", "HEAD"); err != nil {
		return source{}, err
	}
	changed, err := git("status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return source{}, err
	}
	if changed != "" {
		s.commit += "+dirty"
	}
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		if epoch, err = git("log", "-1", "--format=%ct"); err != nil {
			return source{}, err
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 {
		return source{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, want seconds since 1970", epoch)
	}
	s.date = time.Unix(seconds, 0).UTC()
	if version == "" {
		// No tag is no error: there may be none yet.
		cmd := exec.CommandContext(ctx, "git", "describe", "--tags", "--match", "v[0-9]*")
		cmd.Dir = abs
		described, _ := cmd.Output()
		version = strings.TrimSpace(string(described))
	}
	s.version, err = packageVersion(version, s.commit, s.date)
	return s, err
}

var (
	described = regexp.MustCompile(`^(.+)-([0-9]+)-(g[0-9a-f]+)$`)
	valid     = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~]*$`)
)

// packageVersion is a version that dpkg and rpm take and order as people do: v1.2.0
// is 1.2.0, its candidate v1.2.0-rc1 is 1.2.0~rc1 and before it, the fifth commit
// since is 1.2.0+5.gabcdef and after it. Without any tag it is before all of them.
func packageVersion(version, commit string, date time.Time) (string, error) {
	if version == "" {
		v := "0.0.0~git" + date.Format("20060102150405") + "." + strings.TrimSuffix(commit, "+dirty")
		if strings.HasSuffix(commit, "+dirty") {
			v += "+dirty"
		}
		return v, nil
	}
	v := strings.TrimPrefix(version, "v")
	since := ""
	if m := described.FindStringSubmatch(v); m != nil {
		v, since = m[1], "+"+m[2]+"."+m[3]
	}
	v = strings.Replace(v, "-", "~", 1)
	v = strings.ReplaceAll(v, "-", ".") + since
	if strings.HasSuffix(commit, "+dirty") {
		v += "+dirty"
	}
	if !valid.MatchString(v) {
		return "", fmt.Errorf("version %q: want v1.2.3, v1.2.3-rc1 or the like", version)
	}
	return v, nil
}
