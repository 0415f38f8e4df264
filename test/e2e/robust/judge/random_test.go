package judge

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// play lets the reference do what a draw says, for so many steps, and gives everything
// back at the end.
func play(s *sim, draw func(n int) int, steps int) *record.Run {
	s.quiet = true
	live := map[string]record.Op{} // grants and services by token
	running := map[string]int{}
	drop := func(op record.Op) {
		if p, ok := running[op.Token]; ok {
			s.stop(p)
			delete(running, op.Token)
		}
		if op.Kind == record.CreateService {
			s.finish(&op, record.DeleteService)
		} else {
			s.release(&op)
		}
		delete(live, op.Token)
	}
	for range steps {
		tokens := slices.Sorted(maps.Keys(live))
		var op record.Op
		if len(tokens) > 0 {
			op = live[tokens[draw(len(tokens))]]
		}
		node := []string{"n1", "n2"}[draw(2)]
		switch do := draw(10); {
		case do == 7:
			s.settle()
		case do < 2 || op.Token == "":
			if op = *s.request(s.name("c"), node, []string{"", s.name("k")}[draw(2)], 1+draw(2)); op.Token != "" {
				live[op.Token] = op
			}
		case do == 2:
			if op = *s.create(s.name("c"), s.name("web")); op.Token != "" {
				live[op.Token] = op
			}
		case do == 3 && op.Kind == record.RequestUID && s.w.claims[op.IDs[0]].State == locked:
			s.confirm(&op)
		case do == 4 && op.Kind == record.RequestUID:
			if _, ok := running[op.Token]; !ok {
				running[op.Token] = s.start(&op, op.IDs[0], op.Node)
			}
		case do == 5 && op.Key != "" && op.Kind == record.RequestUID:
			s.again(s.name("c"), op)
		case do == 6 && op.Kind == record.CreateService && s.w.services[op.Key].State == "allocated":
			s.move(&op, record.ConfirmService, "up")
		case do >= 8:
			drop(op)
		}
	}
	for _, token := range slices.Sorted(maps.Keys(live)) {
		drop(live[token])
	}
	s.settle()
	return s.end()
}

// TestRandomRuns: whatever the reference does right is accepted.
func TestRandomRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "draw") }
		run := play(newSim(), draw, rapid.IntRange(0, 60).Draw(t, "steps"))
		if err := NoLimits().Judge(run).Err(); err != nil {
			t.Fatalf("a good run is rejected:\n%v", err)
		}
	})
}

// TestCorruptions: of a good run in which one thing is changed, that is noticed.
func TestCorruptions(t *testing.T) {
	for name, corrupt := range corruptions {
		t.Run(name, func(t *testing.T) {
			caught := 0
			for seed := range uint64(20) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				run := play(newSim(), rnd.IntN, 60)
				what, ok := corrupt(run, rnd.IntN)
				if !ok {
					continue // nothing of the kind in this run
				}
				if len(NoLimits().Judge(run).Violations) == 0 {
					t.Errorf("seed %d: not noticed: %s", seed, what)
				}
				caught++
			}
			if caught < 5 {
				t.Errorf("tried %d times only", caught)
			}
		})
	}
}

// BenchmarkJudge: some 20,000 calls and 50,000 changes.
func BenchmarkJudge(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 1))
	run := play(newSim(), rnd.IntN, 33_000)
	for b.Loop() {
		if err := NoLimits().Judge(run).Err(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(run.Ops)), "calls")
	b.ReportMetric(float64(len(run.Changes)), "changes")
}
