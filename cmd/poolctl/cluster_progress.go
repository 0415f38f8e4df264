package main

import (
	"fmt"
	"time"
)

// barEvery is how often a line of progress is written anew.
const barEvery = 100 * time.Millisecond

// bar shows how far a command is, on one line of a terminal; where nobody may be
// looking it is nil. end takes the line away.
func (c *clusterFactory) bar(text func(done, total int64) string) (told func(done, total int64), end func()) {
	if !terminal(c.Err) || c.quiet {
		return nil, func() {}
	}
	var last time.Time
	told = func(done, total int64) {
		if now := time.Now(); now.Sub(last) >= barEvery {
			last = now
			fmt.Fprintf(c.Err, "\r\x1b[Kpoolctl: %s", text(done, total))
		}
	}
	return told, func() {
		if !last.IsZero() {
			fmt.Fprint(c.Err, "\r\x1b[K")
		}
	}
}

func (c *clusterFactory) bytesBar(what string) (told func(done, total int64), end func()) {
	return c.bar(func(done, total int64) string {
		return fmt.Sprintf("%s: %s of about %s, %d %%", what, bytesText(done), bytesText(total), percent(done, total))
	})
}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 100
	}
	return 100 * done / total
}
