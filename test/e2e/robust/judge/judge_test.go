package judge

import (
	"strings"
	"testing"
)

// row is one check: do makes a history that keeps the promise and, where bad is
// true, differs from it in the one thing that breaks it.
type row struct {
	name, promise string
	do            func(s *sim, bad bool)
}

func TestChecks(t *testing.T) {
	for _, rows := range [][]row{claimRows, proofRows, groupRows, answerRows, nodeRows, processRows, leftRows, restoreRows} {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				good := newSim()
				r.do(good, false)
				if err := NoLimits().Judge(good.end()).Err(); err != nil {
					t.Errorf("a good history is rejected:\n%v", err)
				}
				bad := newSim()
				r.do(bad, true)
				mustReject(t, NoLimits().Judge(bad.end()), r.promise)
			})
		}
	}
}

// mustReject wants a violation of this promise among those found.
func mustReject(t *testing.T, v *Verdict, promise string) {
	t.Helper()
	var all []string
	for _, b := range v.Violations {
		all = append(all, b.String())
		if b.Promise == promise {
			return
		}
	}
	t.Errorf("a history that breaks %s is accepted; found: %s", promise, strings.Join(all, "\n"))
}
