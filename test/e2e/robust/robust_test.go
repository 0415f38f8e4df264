package robust

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/fault"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// seed is IDPOOL_SEED, or a fresh one.
func seed(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("IDPOOL_SEED")
	if text == "" {
		return 1 + rand.Int64N(1_000_000_000)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("IDPOOL_SEED: %v", err)
	}
	return n
}

// TestPromisesUnderFaults is one short run with faults that are healed quickly: all
// promises are kept. The campaign has many long runs with all faults.
func TestPromisesUnderFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a cluster for half a minute; left out with -short")
	}
	if err := rig.Available(); err != nil {
		t.Skipf("no cluster in namespaces here: %v", err)
	}
	o := Options{Seed: seed(t), For: 25 * time.Second, Bin: t.TempDir(), Lasts: 4 * time.Second, Between: 4 * time.Second, Log: t.Output()}
	t.Logf("seed %d: IDPOOL_SEED=%d repeats it", o.Seed, o.Seed)
	for _, f := range fault.Quick() {
		o.Only = append(o.Only, f.Name)
	}
	if err := rig.Build(t.Context(), o.Bin); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run, verdict, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	result := NewResult(run, verdict, o.For)
	t.Logf("%+v, %d changes in etcd", Sum(result), verdict.Counts.Changes)
	if err := verdict.Err(); err == nil {
		return
	}
	dir := filepath.Join(os.TempDir(), "idpool-robust-"+strconv.FormatInt(o.Seed, 10))
	if err := Save(dir, run, result); err != nil {
		t.Error(err)
	}
	t.Errorf("a promise was broken; the record is in %s:\n%v", dir, verdict.Err())
}
