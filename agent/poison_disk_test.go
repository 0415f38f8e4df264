package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// TestPoisonOnDisk: an agent whose memory cannot be read ends, names the file, says
// what to do, and leaves the file as it is; with the file as it was it goes on.
func TestPoisonOnDisk(t *testing.T) {
	t.Parallel()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	start(t, c).stop()
	path := filepath.Join(c.Data, "agent.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"empty": "", "noise": "\x00\xff\x01", "half": string(good[:len(good)/2]), "twice": string(good) + string(good), "null": "null", "an array": "[]", "no secret": `{"v":1}`,
		"newer": `{"v":2,"secret":"x"}`, "negative": `{"v":1,"secret":"x","revision":-1}`, "wrong type": `{"v":1,"secret":7}`, "deep": strings.Repeat("[", 1<<17), "long": strings.Repeat("x", 2<<20),
	} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		err := launch(t, c).ended(t)
		var p *problem.Error
		if !errors.As(err, &p) || p.Code != problem.CodeInvalid || !strings.Contains(p.Detail, path) || len(p.Try) < 2 || len(p.Detail) > 1000 {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadFile(path); string(left) != data {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, c)
}
